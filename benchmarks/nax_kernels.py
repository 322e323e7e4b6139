# SPDX-License-Identifier: Apache-2.0
"""Kernel extents and crossbar sizes searched together, against one size everywhere (NAX).

    python benchmarks/nax_kernels.py --data FOLDER --out runs [--width 4] [--images 4000]
        [--float-epochs 20] [--epochs 4] [--finetune 4] [--target isaac] [--spread 0.05]

ResNet-20 of 8-bit weights and activations on `isaac` with arrays of 16 x 16 beside its own sizes,
32 to 256, and with cells that are further off than its own, so that sizes tell. One float training
is where every network starts. One size everywhere keeps the 3 x 3 kernels, in the copies of least
EDAP, and is fine-tuned for as many epochs as the others are searched and fine-tuned. Kernels 3, 5
and 7 and sizes are searched once, with the noise of the arrays in training, within the EDAP of the
best single size; the scores then give the networks within shares of it. EDAP is energy x sum of
busy times x area of the arrays held. Test accuracy is that of samples of the chip with what is
wrong with its devices. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import enos_cifar
import nax
import resnet20_cifar10
import torch
import yaml

from enos_compiler.assign.budget import Budget
from enos_compiler.compiler import Hooks, run_passes
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import Target, load_target
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network
from enos_compiler.ir.serialize import load_network, save_network
from enos_compiler.options import Options
from enos_compiler.pass_text import parse_passes
from enos_compiler.search.energy import unscored
from enos_compiler.search.evaluate import evaluate, module_predictor
from enos_compiler.search.noise import chosen_noise
from enos_compiler.search.run import SearchSettings, search, train_float
from enos_compiler.search.tune import TuneSettings, assigned_module, tune

KERNELS = (3, 5, 7)
SHARES = (1.0, 0.8, 0.6)
"""Of the best single size's EDAP, within which networks are drawn from the searched scores."""
SMALL = 16
"""Lines of the arrays that are added."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """What decides a row beside its name."""

    width: int
    images: int
    float_epochs: int
    epochs: int
    finetune: int
    batch: int
    test_images: int
    devices: int
    spread: float


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rows share."""

    knobs: Knobs
    target: Target
    user: UserModel
    out: Path

    def rows(self) -> Iterator[tuple[str, nax.Study, Network, int]]:
        """Yield name, study, assigned network and epochs of tuning of every row."""
        whole = self.knobs.epochs + self.knobs.finetune
        plain = self.study(unscored(self.offered(())))
        singles = {
            size: plain.assigned(plain.only(size), Budget.parse("edap:floor"))
            for size in plain.sizes()
        }
        best = min(singles, key=lambda size: plain.edap(singles[size]))
        yield f"{best} x {best}, kernels 3", plain, singles[best], whole
        allowed = plain.edap(singles[best])
        found = self.study(self.searched(allowed))
        for share in SHARES:
            name = f"kernels and sizes searched, within {share:g} of the best"
            yield name, found, found.within(share * allowed), self.knobs.finetune
        least = plain.assigned(plain.scored, Budget.parse("edap:floor"))
        yield "sizes by layer, kernels 3, least EDAP", plain, least, whole
        for size, network in singles.items():
            if size != best:
                yield f"{size} x {size}, kernels 3", plain, network, whole

    def study(self, network: Network) -> nax.Study:
        """Return the study of a network with choices and scores."""
        scored = replace(network, facts=network.facts | {"choices", "scored"})
        options = Options(devices=self.knobs.devices, evaluate_images=self.knobs.test_images)
        return nax.Study(self.target, self.user, scored, options)

    def offered(self, kernels: tuple[int, ...]) -> Network:
        """Return the float network with its choices; trained at its first use."""
        request = Request(("mac",), (8,), (8,), kernels=kernels)
        return attach_choices(self.float_network(), self.target, request)[0]

    def float_network(self) -> Network:
        """Return the network trained in float."""
        place = self.out / "float"
        if not (place / "network.json").is_file():
            steps = parse_passes("canonicalize,calibrate")
            traced = trace(self.user, batch=1)
            network, _, _ = run_passes(traced, steps, self.target, Hooks(), user=self.user)
            settings = replace(
                self.settings(Budget.parse("unlimited"), place),
                pretrain=self.knobs.float_epochs,
                learning_rate=5e-3,
            )
            network, _ = train_float(network, self.user.data(), settings)  # type: ignore[arg-type]
            save_network(network, place)
        return load_network(place)

    def searched(self, edap: float) -> Network:
        """Return the network scored by a search within an EDAP."""
        budget = Budget("absolute", edap, f"{edap:.6g}", "edap")
        settings = self.settings(budget, self.out / "searched")
        network = self.offered(KERNELS)
        return search(network, self.user.data(), self.target, settings)[0]  # type: ignore[arg-type]

    def settings(self, budget: Budget, place: Path) -> SearchSettings:
        """Return the settings of a search."""
        return SearchSettings(
            epochs=self.knobs.epochs,
            pretrain=0,
            budget=budget,
            learning_rate=2e-3,
            architecture_rate=0.03,
            warm_up=0.15,
            prior=100.0,
            tilted=True,
            seed=0,
            folder=place,
            say=_tell,
        )

    def measured(
        self, name: str, study: nax.Study, network: Network, epochs: int
    ) -> dict[str, Any]:
        """Return the figures of a row after its tuning."""
        place = self.out / name.replace(" ", "-").replace(",", "")
        noise = chosen_noise(network, self.target.cores)
        settings = TuneSettings(epochs, 2e-3, 0, place, _tell, noise)
        data = self.user.data()
        tuned, _ = tune(network, data, settings)  # type: ignore[arg-type]
        found = evaluate(module_predictor(assigned_module(tuned).eval()), data, "validation")  # type: ignore[arg-type]
        inner = [one.shape.r for one in network.layers.values() if one.op == "conv"]
        return {
            "name": name,
            "validation": found.fraction if found else None,
            "kernels": {str(extent): inner.count(extent) for extent in sorted(set(inner))},
            **study.measured(tuned),
            "knobs": {field: getattr(self.knobs, field) for field in Knobs.__slots__},
        }


def chip_of(name: str, spread: float, folder: Path) -> Target:
    """Return a target whose crossbars have 16 x 16 arrays too, and another spread of their cells.

    As many cells as of each other size; a read costs as much per cell as the smallest size's.
    """
    chip = yaml.safe_load((files("enos_compiler.targets") / f"{name}.yaml").read_text())
    for core in chip["cores"]:
        sizes = core.get("sizes", [])
        if sizes:
            least = min(sizes, key=lambda size: size["rows"]["value"])
            cells = (least["rows"]["value"] / SMALL) ** 2
            source = f"as the {least['rows']['value']} lines above, by the cell"
            small = {
                "rows": {"value": SMALL, "source": source},
                "columns": {"value": SMALL, "source": source},
                "count": {"value": int(least["count"]["value"] * cells), "source": source},
                "read_pj": {"value": least["read_pj"]["value"] / cells, "source": source},
            }
            core["sizes"] = [small, *sizes]
            source = "an argument of the study"
            core["nonidealities"]["programming"]["sigma"] = {"value": spread, "source": source}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{SMALL}.yaml"
    path.write_text(yaml.safe_dump(chip | {"name": path.stem}, sort_keys=False))
    return load_target(str(path))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows in Markdown, EDAP as a multiple of the best single size's."""
    best = min(row["edap"] for row in rows if row["name"].endswith("kernels 3"))
    lines = [
        "| network | EDAP | energy | busy time | area of arrays | validation | test, on devices "
        "| kernels | layers by size |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: -row["edap"]):
        counts = [
            ", ".join(f"{count} of {what}" for what, count in row[kind].items())
            for kind in ("kernels", "sizes")
        ]
        lines.append(
            f"| {row['name']} | {row['edap'] / best:.2f} | {row['energy_pj'] / 1e6:.2f} uJ "
            f"| {row['busy_ns'] / 1e3:.0f} us | {row['area_um2'] / 1e6:.2f} mm2 "
            f"| {row['validation']:.1%} | {row['accuracy']:.1%} | {' | '.join(counts)} |"
        )
    return "\n".join(lines) + "\n"


def _tell(line: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> None:
    """Do the rows that are left, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("nax_kernels"))
    parser.add_argument("--target", default="isaac")
    for name, default in (
        ("width", 4),
        ("images", 4000),
        ("float-epochs", 20),
        ("epochs", 4),
        ("finetune", 4),
        ("batch", 50),
        ("test-images", 1000),
        ("devices", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    parser.add_argument(
        "--spread", type=float, default=0.05, metavar="X", help="of the cells, relative"
    )
    arguments = parser.parse_args()
    knobs = Knobs(**{field: getattr(arguments, field) for field in Knobs.__slots__})
    splits = resnet20_cifar10.data(arguments.data)
    if splits is None:
        raise SystemExit(f"{arguments.data}: no CIFAR-10 there; --data names its folder")
    torch.manual_seed(0)
    user = UserModel.from_module(
        resnet20_cifar10.model(width=knobs.width),
        resnet20_cifar10.example_inputs(arguments.data),
        data=enos_cifar.some_of(splits, knobs.images, knobs.batch),
        name="resnet20",
    )
    bench = Bench(
        knobs, chip_of(arguments.target, knobs.spread, arguments.out), user, arguments.out
    )
    results = arguments.out / "results.jsonl"
    lines = results.read_text().splitlines() if results.is_file() else []
    done = [json.loads(line) for line in lines]
    for name, study, network, epochs in bench.rows():
        _tell(f"{name}: EDAP {study.edap(network):.4g} pJ ns um2")
        if any(row["name"] == name for row in done):
            continue
        done.append(bench.measured(name, study, network, epochs))
        with results.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    print(table(done))


if __name__ == "__main__":
    main()
