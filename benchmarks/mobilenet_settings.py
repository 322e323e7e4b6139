# SPDX-License-Identifier: Apache-2.0
"""The machines of `mobilenet_bits.py`: shipped targets and those of the Timeloop reference set."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from enos_compiler.cores.loopnest import LoopNestCore
from enos_compiler.cores.loopnest_spec import packed_bits
from enos_compiler.cores.nest_homes import IN_DRAM, NestTask
from enos_compiler.cores.target import load_target
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.layer import count_layer
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.space import MapSpace

ROOT = Path(__file__).parents[1]
SHIPPED = ("eyeriss", "simba")
REFERENCE: Mapping[str, tuple[str, int]] = {
    "eyeriss_like": ("eyeriss", 16),
    "eyeriss_like_w8": ("eyeriss", 8),
    "simba_like_w16": ("simba", 16),
    "simba_like": ("simba", 8),
}
"""Machine of the reference set: the target whose constraints it takes, and its word in bits."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A machine, the nests that it may run, and how wide operands are in it."""

    name: str
    machine: Machine
    space: MapSpace
    widths: Callable[[LayerShape, Bits], Widths]
    count: Callable[[LayerShape, Nest, Widths], NestEvents]


def core_of(target: str) -> LoopNestCore:
    """Return the loop-nest core of a shipped target."""
    return cast("LoopNestCore", load_target(target).cores["array"])


def shipped(name: str, *, exact: bool = True) -> Setting:
    """Return a shipped target under its own constraints, with sums exact or as wide as outputs."""
    core = core_of(name)

    def widths(shape: LayerShape, bits: Bits) -> Widths:
        found = core.widths(shape, Choice(core.name, "mac", bits))
        return found if exact else replace(found, partial_sums=None)

    def count(shape: LayerShape, nest: Nest, widths: Widths) -> NestEvents:
        return core.count(NestTask(shape, widths), nest)

    tap_pj = core.element.tap_pj(Choice(core.name, "mac", Bits(8, 8, 8)), 1)
    machine = core.hierarchy(IN_DRAM).priced(tap_pj)
    label = name if exact else f"{name}, sums as outputs"
    return Setting(label, machine, core.space, widths, count)


def reference(name: str, file: Path) -> Setting:
    """Return a machine of the reference set; sums are as wide as outputs."""
    target, unit = REFERENCE[name]
    machine = Machine.from_reference(json.loads(file.read_text(encoding="utf-8")))

    def widths(shape: LayerShape, bits: Bits) -> Widths:  # noqa: ARG001  # equal for every shape
        return Widths(
            weights=packed_bits(bits.weight, unit),
            inputs=packed_bits(bits.input, unit),
            outputs=packed_bits(bits.output, unit),
        )

    count = partial(_count, machine)
    return Setting(name, machine, core_of(target).space, widths, count)


def _count(machine: Machine, shape: LayerShape, nest: Nest, widths: Widths) -> NestEvents:
    return count_layer(shape, machine, nest, widths)


def reference_settings() -> list[Setting]:
    """Return the machines of the reference set, none where the set is missing."""
    folder = Path(os.environ.get("ENOS_SHARED", ROOT.parent / "shared"))
    folder = folder / "reference" / "timeloop" / "machines"
    if not folder.is_dir():
        print(f"no {folder}: the reference machines are left out", file=sys.stderr)
        return []
    return [reference(name, folder / f"{name}.json") for name in REFERENCE]
