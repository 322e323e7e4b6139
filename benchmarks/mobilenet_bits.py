# SPDX-License-Identifier: Apache-2.0
"""Energy of MobileNetV1 and V2 at 224x224 by weight width, each layer at its optimal mapping.

    python benchmarks/mobilenet_bits.py [--quick] [--json FILE] [--figures DIR]

Weights have 2 to 8 bits, activations 8, batch 1. Depthwise layers are mapped as they are, with
groups as a dimension, and as dense layers of as many channels, the reading of public studies.
`eyeriss` and `simba` are the shipped targets: 16-bit words, exact partial sums. The machines
of the Timeloop reference set (folder ENOS_SHARED, default `../shared`) count sums at the width of
outputs, as the public tools do, with words of 16 and of 8 bits. Printed tables are Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mobilenet_settings import SHIPPED, Setting, reference_settings, shipped
from mobilenet_tables import tables

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.nest import MappingError, Nest
from enos_compiler.mapping.objective import Objective
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.size import count_mappings

ROOT = Path(__file__).parents[1]
WEIGHT_BITS = (8, 7, 6, 5, 4, 3, 2)
ACTIVATION_BITS = 8
Reading = Literal["grouped", "dense"]
READINGS: tuple[Reading, ...] = ("grouped", "dense")


# What is mapped


def networks(names: Iterable[str]) -> dict[str, list[LayerShape]]:
    """Return the layers' shapes in order, as the compiler's front end finds them."""
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from networks.mobile import MobileNetV1, MobileNetV2

    from enos_compiler.frontend.canonical import lower
    from enos_compiler.frontend.trace import trace

    constructors = {"MobileNetV1": MobileNetV1, "MobileNetV2": MobileNetV2}
    found = {}
    for name in names:
        network = lower(trace(constructors[name](classes=1000), (torch.zeros(1, 3, 224, 224),)))
        found[name] = [replace(la.shape, padding=(0, 0, 0, 0)) for la in network.layers.values()]
    return found


def dense(shape: LayerShape) -> LayerShape:
    """Return a grouped layer as if every output read every input."""
    return replace(shape, g=1, m=shape.g * shape.m, c=shape.g * shape.c)


def kind(shape: LayerShape) -> str:
    """Return what a network researcher calls the layer."""
    if shape.g > 1:
        return "depthwise"
    if shape.r > 1:
        return "stem"
    return "pointwise" if shape.p > 1 else "linear"


# What it costs


@dataclass(frozen=True, slots=True)
class Priced:
    """A layer at its optimal mapping."""

    energy_pj: Mapping[str, float]
    """By the multiply-accumulates, each level with its wires, innermost first."""
    cycles: int
    optimal: bool
    nest: Nest
    loops: Sequence[str]
    """The nest in words, outermost level first."""

    @property
    def uj(self) -> float:
        """Energy in uJ."""
        return sum(self.energy_pj.values()) * 1e-6


@dataclass(slots=True)
class Pricer:
    """Maps each question once: equal shapes and equal packing are one question."""

    known: dict[tuple[str, LayerShape, Widths, Objective], Priced] = field(default_factory=dict)

    def price(self, setting: Setting, shape: LayerShape, bits: int, objective: Objective) -> Priced:
        """Return the layer's optimal mapping at a weight width, priced by its counted events."""
        widths = setting.widths(shape, Bits(ACTIVATION_BITS, bits, ACTIVATION_BITS))
        key = (setting.name, shape, widths, objective)
        if key not in self.known:
            self.known[key] = _price(setting, shape, widths, objective)
        return self.known[key]

    def rows(self) -> list[dict[str, Any]]:
        """Return every mapping found as JSON-able data; widths are those that operands occupy."""
        return [
            {
                "setting": name,
                "layer": str(shape),
                "widths": asdict(widths),
                "objective": objective,
                "energy_pj": priced.energy_pj,
                "cycles": priced.cycles,
                "optimal": priced.optimal,
                "loops": priced.loops,
            }
            for (name, shape, widths, objective), priced in self.known.items()
        ]


def _price(setting: Setting, shape: LayerShape, widths: Widths, objective: Objective) -> Priced:
    machine = setting.machine
    result = map_layer(shape, machine, objective=objective, space=setting.space, widths=widths)
    events = setting.count(shape, result.nest, widths)
    levels = [level.name for level in machine.levels]
    parts = dict.fromkeys(["MAC", *levels[:-1], "DRAM"], 0.0)
    for action, energy in events.components_pj(machine).items():
        owner = action.partition(".")[0]
        parts["MAC" if owner == "mac" else "DRAM" if owner == levels[-1] else owner] += energy
    words = _loops(machine, result.nest)
    return Priced(parts, events.cycles, result.certificate.optimal, result.nest, words)


def _loops(machine: Machine, nest: Nest) -> list[str]:
    """Each level's temporal loops, then what it spreads over its axes."""
    lines = []
    for level, spec in zip(nest.levels, machine.levels, strict=True):
        axes = (("", level.temporal), (" | x ", level.spatial_x), (" | y ", level.spatial_y))
        words = [head + " ".join(f"{d}{n}" for d, n in part) for head, part in axes if part]
        lines.append(f"{spec.name}: {''.join(words) or '-'}")
    return lines[::-1]


@dataclass(frozen=True, slots=True)
class Total:
    """A network in one setting."""

    network: str
    setting: str
    reading: Reading
    objective: Objective
    weight_bits: int
    macs: int
    energy_mj: Mapping[str, float]
    kinds_mj: Mapping[str, float]
    cycles: int
    layers: int
    optimal: int

    @property
    def mj(self) -> float:
        """Energy of an inference in mJ, the nests' alone."""
        return sum(self.energy_mj.values())


def total(
    pricer: Pricer,
    network: tuple[str, list[LayerShape]],
    setting: Setting,
    reading: Reading,
    objective: Objective,
    bits: int,
) -> Total:
    """Add up a network's layers."""
    name, shapes = network
    energy: defaultdict[str, float] = defaultdict(float)
    kinds: defaultdict[str, float] = defaultdict(float)
    cycles = optimal = macs = 0
    for shape in shapes:
        read = dense(shape) if reading == "dense" else shape
        priced = pricer.price(setting, read, bits, objective)
        for part, picojoule in priced.energy_pj.items():
            energy[part] += picojoule * 1e-9
            kinds[kind(shape)] += picojoule * 1e-9
        cycles += priced.cycles
        optimal += priced.optimal
        macs += read.macs
    count = len(shapes)
    return Total(
        name, setting.name, reading, objective, bits, macs, dict(energy), dict(kinds), cycles,
        count, optimal,
    )  # fmt: skip


def by_layer(
    pricer: Pricer, network: tuple[str, list[LayerShape]], setting: Setting, wide: int, narrow: int
) -> Iterator[dict[str, Any]]:
    """Yield each distinct layer at two weight widths, in both readings."""
    name, shapes = network
    for shape in dict.fromkeys(shapes):
        read = dense(shape)
        first, last = (pricer.price(setting, shape, bits, "edp") for bits in (wide, narrow))
        yield {
            "network": name,
            "setting": setting.name,
            "layer": str(shape),
            "kind": kind(shape),
            "times": shapes.count(shape),
            "uj": {wide: first.uj, narrow: last.uj},
            "cycles": {wide: first.cycles, narrow: last.cycles},
            "dense_uj": None
            if read == shape
            else {bits: pricer.price(setting, read, bits, "edp").uj for bits in (wide, narrow)},
        }


def remap(
    pricer: Pricer,
    network: tuple[str, list[LayerShape]],
    setting: Setting,
    objective: Objective,
    bits: tuple[int, int],
) -> dict[str, Any]:
    """Set narrow weights in the mappings of wide ones beside mappings of their own."""
    name, shapes = network
    mj = dict.fromkeys(("wide", "kept", "own"), 0.0)
    cycles = dict.fromkeys(mj, 0)
    moved = 0
    for shape, times in Counter(shapes).items():
        wide, own = (pricer.price(setting, shape, b, objective) for b in bits)
        widths = setting.widths(shape, Bits(ACTIVATION_BITS, bits[1], ACTIVATION_BITS))
        kept = setting.count(shape, wide.nest, widths)
        found = (wide.uj, kept.energy_pj(setting.machine) * 1e-6, own.uj)
        for case, uj, n in zip(mj, found, (wide.cycles, kept.cycles, own.cycles), strict=True):
            mj[case] += times * uj * 1e-3
            cycles[case] += times * n
        moved += times * (wide.nest != own.nest)
    return {
        "network": name,
        "setting": setting.name,
        "objective": objective,
        "weight_bits": list(bits),
        "mj": mj,
        "cycles": cycles,
        "remapped": moved,
        "layers": len(shapes),
    }


# How many mappings there are

COUNTED: Mapping[str, LayerShape] = {
    "conv 3x3 128>128, 28x28": LayerShape(m=128, c=128, p=28, q=28, r=3, s=3),
    "depthwise 128, 56x56": LayerShape(g=128, p=56, q=56, r=3, s=3),
    "pointwise 256>512, 14x14": LayerShape(m=512, c=256, p=14, q=14),
    "pointwise 64>128, 56x56": LayerShape(m=128, c=64, p=56, q=56),
}
TRIPLES = (
    *((n, n, n) for n in (16, 8, 7, 6)),
    *((8, n, 8) for n in (5, 4, 3, 2)),
    *((n, n, n) for n in (5, 4, 3, 2)),
)
"""Bits of inputs, weights and outputs."""


def valid_mappings(quick: bool) -> Iterator[dict[str, Any]]:
    """Count the nests that fit `eyeriss`, with sums as wide as outputs and with exact sums."""
    settings = {"sums_as_outputs": shipped("eyeriss", exact=False), "exact": shipped("eyeriss")}
    triples = ((8, 8, 8), (4, 4, 4), (2, 2, 2)) if quick else TRIPLES
    known: dict[tuple[str, Widths], int | None] = {}
    for layer, shape in COUNTED.items():
        if quick and layer != "pointwise 256>512, 14x14":
            continue
        for triple in triples:
            row: dict[str, Any] = {"layer": layer, "bits": list(triple)}
            for sums, setting in settings.items():
                widths = setting.widths(shape, Bits(*triple))
                if (layer, widths) not in known:
                    known[layer, widths] = _nests(shape, setting, widths)
                row[sums] = known[layer, widths]
            yield row


def _nests(shape: LayerShape, setting: Setting, widths: Widths) -> int | None:
    """Return the number of valid nests; None where a sum is wider than a word."""
    try:
        return count_mappings(shape, setting.machine, space=setting.space, widths=widths)
    except MappingError:
        return None


# The command


def measure(shapes: Mapping[str, list[LayerShape]], pricer: Pricer, quick: bool) -> list[Total]:
    """Return every total; with `quick`, on the shipped targets at four widths."""
    targets = [shipped(name) for name in SHIPPED]
    bits = (8, 6, 4, 2) if quick else WEIGHT_BITS
    works: list[tuple[Objective, list[Setting]]] = [("edp", targets)]
    if not quick:
        loose = [shipped(name, exact=False) for name in SHIPPED]
        works = [("edp", [*targets, *loose, *reference_settings()]), ("energy", targets)]
    totals = []
    for objective, where in works:
        for network in shapes.items():
            for setting in where:
                print(f"{network[0]} on {setting.name}, {objective}", file=sys.stderr)
                totals += [
                    total(pricer, network, setting, reading, objective, b)
                    for reading in READINGS
                    for b in bits
                ]
    return totals


def main() -> int:
    """Map, print the tables, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="MobileNetV1, shipped targets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure and nest")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw two SVG figures")
    options = parser.parse_args()
    shapes = networks(["MobileNetV1"] if options.quick else ["MobileNetV1", "MobileNetV2"])
    pricer = Pricer()
    totals = measure(shapes, pricer, options.quick)
    data: dict[str, Any] = {
        "networks": {name: list(map(str, layers)) for name, layers in shapes.items()},
        "totals": [{**asdict(t), "mj": t.mj} for t in totals],
        "layers": [
            row
            for network in shapes.items()
            for name in SHIPPED
            for row in by_layer(pricer, network, shipped(name), max(WEIGHT_BITS), min(WEIGHT_BITS))
        ],
        "remapping": [
            remap(pricer, network, shipped(name), objective, (WEIGHT_BITS[0], WEIGHT_BITS[-1]))
            for objective in dict.fromkeys(t.objective for t in totals)
            for network in shapes.items()
            for name in SHIPPED
        ],
        "mappings": pricer.rows(),
        "valid_mappings": list(valid_mappings(options.quick)),
    }
    print("\n".join(tables(data)))
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.figures:
        from mobilenet_figures import draw

        draw(data["totals"], options.figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
