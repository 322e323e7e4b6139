# SPDX-License-Identifier: Apache-2.0
"""Crossbar sizes chosen per layer under an EDAP bound, against one size everywhere.

    python benchmarks/nax.py --weights resnet20_cifar10.safetensors --data FOLDER --out nax.jsonl
        [--target isaac] [--images 500] [--devices 2]

The trained ResNet-20 with 8-bit weights and activations, every layer on crossbars. One size
everywhere: the copies of each layer that give the least EDAP. Sizes by layer: the least expected
noise at the outputs, converters and devices included (`sensitivity`), within the EDAP of each of
these networks, and the least EDAP of all. EDAP is energy x sum of busy times x area of the
arrays held, an upper bound of the scheduled one. Accuracy is that of samples of the chip with what
is wrong with its devices, on the first test images. Nothing is trained. Finished rows are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import resnet20_cifar10

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.assign.figures import figures_of
from enos_compiler.assign.sensitivity import score_layers
from enos_compiler.compiler import Hooks, run_passes
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import Target, load_target
from enos_compiler.device_accuracy import evaluate_on_devices
from enos_compiler.frontend.data import Data
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Fact, Network
from enos_compiler.options import Options
from enos_compiler.pass_text import parse_passes

SCORED_IMAGES = 32
SOLVE_S = 60.0


@dataclass(frozen=True, slots=True)
class Study:
    """What all rows share."""

    target: Target
    user: UserModel
    scored: Network
    options: Options

    def rows(self) -> Iterator[tuple[str, Network]]:
        """Yield networks by name: one size everywhere, then sizes by layer."""
        yield "by layer, least EDAP", self.assigned(self.scored, Budget.parse("edap:floor"))
        values = {}
        for size in self.sizes():
            single = self.assigned(self.only(size), Budget.parse("edap:floor"))
            values[size] = self.edap(single)
            yield f"{size} x {size} everywhere", single
        before = None
        for size, value in values.items():
            found = self.within(value)
            if self.edap(found) != before:
                yield f"by layer, within EDAP of {size}", found
            before = self.edap(found)

    def sizes(self) -> list[int]:
        """Return the sizes that every layer offers, the greatest first."""
        offered = [{_rows(c) for c in layer.choices} for layer in self.scored.layers.values()]
        return sorted(set.intersection(*offered), reverse=True)

    def only(self, size: int) -> Network:
        """Return the network with one crossbar size."""
        layers = {
            name: replace(
                layer, scores=tuple(0.0 if _rows(c) == size else math.inf for c in layer.choices)
            )
            for name, layer in self.scored.layers.items()
        }
        return self.scored.with_layers(layers)

    def within(self, edap: float) -> Network:
        """Return the network of least expected noise within an EDAP."""
        return self.assigned(self.scored, Budget("absolute", edap, f"{edap:.6g}", "edap"))

    def assigned(self, network: Network, budget: Budget) -> Network:
        """Return the assigned network."""
        return solve_assignment(network, self.target, budget, SOLVE_S).network

    def edap(self, network: Network) -> float:
        """Return energy x latency x area in pJ ns um2."""
        return figures_of(network, self.target).of("edap")

    def measured(self, network: Network) -> dict[str, Any]:
        """Return figures, sizes and accuracy of an assigned network."""
        figures = figures_of(network, self.target)
        steps = parse_passes("quantize")
        plain = {n: replace(layer, scores=None) for n, layer in network.layers.items()}
        assigned: frozenset[Fact] = frozenset({"shaped", "calibrated", "choices", "assigned"})
        done = replace(network.with_layers(plain), facts=assigned)
        quantized, _, _ = run_passes(done, steps, self.target, Hooks(), user=self.user)
        found = evaluate_on_devices(quantized, self.target, self.user, self.options, progress=False)
        sizes = [_rows(layer.choice) for layer in network.layers.values() if layer.choice]
        return {
            "edap": figures.of("edap"),
            "energy_pj": figures.energy,
            "busy_ns": figures.latency,
            "area_um2": figures.area,
            "sizes": {str(size): sizes.count(size) for size in sorted(set(sizes))},
            "accuracy": found["accuracy"],
            "ideal": found["ideal"],
            "devices": found["devices"],
            "images": found["images"],
        }


def prepare(target: Target, weights: str, data: str, options: Options) -> Study:
    """Return the study of the trained network on a target."""
    splits = resnet20_cifar10.data(data)
    if splits is None:
        raise SystemExit(f"{data}: no CIFAR-10 there; --data names its folder")
    user = UserModel.from_module(
        resnet20_cifar10.model(weights),
        resnet20_cifar10.example_inputs(data),
        data=Data(**splits),
        name="resnet20",
    )
    steps = parse_passes("canonicalize,calibrate")
    network, _, _ = run_passes(trace(user, batch=1), steps, target, Hooks(), user=user)
    offered, _ = attach_choices(network, target, Request(("mac",), (8,), (8,)))
    found = score_layers(offered, images=SCORED_IMAGES, seed=0, cores=target.cores)
    scored = offered.with_layers(found.layers)
    scored = replace(scored, facts=scored.facts | {"choices", "scored"})
    return Study(target, user, scored, options)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows in Markdown, EDAP as a multiple of the best single size's."""
    best = min(row["edap"] for row in rows if "everywhere" in row["name"])
    lines = [
        "| crossbars | EDAP | energy | busy time | area of arrays | accuracy | layers by size |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: -row["edap"]):
        sizes = ", ".join(f"{count} of {size}" for size, count in row["sizes"].items())
        lines.append(
            f"| {row['name']} | {row['edap'] / best:.2f} | {row['energy_pj'] / 1e6:.1f} uJ "
            f"| {row['busy_ns'] / 1e3:.0f} us | {row['area_um2'] / 1e6:.2f} mm2 "
            f"| {row['accuracy']:.1%} | {sizes} |"
        )
    return "\n".join(lines) + "\n"


def _rows(choice: Choice) -> int:
    return dict(choice.options)["rows"]


def main() -> None:
    """Measure the rows that are left, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", required=True, help="the trained network, safetensors")
    parser.add_argument("--data", required=True, help="folder of CIFAR-10")
    parser.add_argument("--target", default="isaac")
    parser.add_argument("--out", type=Path, default=Path("nax.jsonl"))
    parser.add_argument("--images", type=int, default=500, metavar="N")
    parser.add_argument("--devices", type=int, default=2, metavar="N")
    parser.add_argument("--list", action="store_true", help="price the rows, measure nothing")
    arguments = parser.parse_args()
    options = Options(devices=arguments.devices, evaluate_images=arguments.images)
    study = prepare(load_target(arguments.target), arguments.weights, arguments.data, options)
    done: list[dict[str, Any]] = []
    if arguments.out.is_file():
        done = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    for name, network in study.rows():
        print(f"{name}: EDAP {study.edap(network):.4g} pJ ns um2", flush=True)
        if arguments.list or any(row["name"] == name for row in done):
            continue
        done.append({"name": name, **study.measured(network)})
        with arguments.out.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    if done:
        print(table(done))


if __name__ == "__main__":
    main()
