# SPDX-License-Identifier: Apache-2.0
"""A nest as text: its loops, what each level holds and moves, and where the energy goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enos_compiler.ir.shape import TENSORS
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.layer import count_layer
from enos_compiler.mapping.machine import Machine, StorageLevel
from enos_compiler.mapping.mapper import MapResult
from enos_compiler.mapping.nest import Loops
from enos_compiler.mapping.prices import Widths

WIDTH = 80
_BAR = 24
_UNITS: Mapping[str, str] = {
    "energy": "pJ",
    "latency": "cycles",
    "edp": "pJ x cycles",
    "accesses": "words",
}


def explain(
    result: MapResult,
    machine: Machine,
    *,
    widths: Widths | None = None,
    runner_up: MapResult | None = None,
) -> str:
    """Draw a mapping within 80 columns.

    Args:
        result: the mapping and its certificate.
        machine: where it runs.
        widths: operand widths that it was found for.
        runner_up: the best mapping with other spatial factors, to compare with.
    """
    events = count_layer(result.shape, machine, result.nest, widths)
    lines = [f"{result.shape} on {machine.name}", ""]
    lines += _nest_lines(result, machine, events)
    lines += ["", *_table(machine, events), "", *_energy(machine, events), ""]
    lines += _speed(machine, events)
    lines += _proof(result, runner_up)
    return "\n".join(line.rstrip() for line in lines)


def _nest_lines(result: MapResult, machine: Machine, events: NestEvents) -> Iterator[str]:
    """Loops, outermost level first."""
    depth = 0
    for s in range(len(machine.levels) - 1, -1, -1):
        spec, level = machine.levels[s], result.nest.levels[s]
        held = [
            f"{tensor} {events.levels[s].tensors[tensor].utilized_capacity:,}"
            for tensor in TENSORS
            if tensor in level.keep
        ]
        yield f"{spec.name}: {'  '.join(held) or 'nothing'}{_room(spec, events, s)}"[:WIDTH]
        for dim, factor in level.temporal:
            depth += 1
            yield _indent(depth, f"for {dim} in {factor}")
        for axis, loops in (("Y", level.spatial_y), ("X", level.spatial_x)):
            if loops:
                depth += 1
                yield _indent(depth, f"spread over {axis}: {_factors(loops)}")
    yield f"{machine.compute.name}: {events.used_macs:,} of {machine.compute.instances:,} in use"


def _indent(depth: int, text: str) -> str:
    """Indented by depth, as far as the width allows."""
    return (" " * min(2 * depth, WIDTH - len(text)) + text)[:WIDTH]


def _factors(loops: Loops) -> str:
    return "  ".join(f"{dim} {factor}" for dim, factor in loops)


def _room(spec: StorageLevel, events: NestEvents, s: int) -> str:
    if spec.capacity is None:
        return ""
    used = events.levels[s].total("utilized_capacity")
    return f"  ({used:,} of {spec.capacity:,} words)"


def _table(machine: Machine, events: NestEvents) -> Iterator[str]:
    """Words read and written by level and tensor, over all instances."""
    yield f"{'words, all instances':34}{'reads':>15}{'fills':>15}{'updates':>15}"
    for spec, level in zip(machine.levels, events.levels, strict=True):
        for tensor, counts in level.tensors.items():
            if counts.keep:
                moved = (counts.reads, counts.fills, counts.updates)
                cells = "".join(f"{n * level.instances:>15,}" for n in moved)
                yield f"  {spec.name[:20]:20}  {tensor:9} {cells}"[:WIDTH]


def _energy(machine: Machine, events: NestEvents) -> Iterator[str]:
    """One bar per level and for its wires."""
    total = events.energy_pj(machine)
    groups: dict[str, float] = {}
    for action, energy in events.components_pj(machine).items():
        level, _, kind = action.partition(".")
        wires = kind in ("half_hop", "router")
        name = f"{level} wires" if wires else level
        if energy:
            groups[name] = groups.get(name, 0.0) + energy
    yield f"energy {total:,.6g} pJ"
    for name, energy in groups.items():
        share = energy / total if total else 0.0
        bar = "#" * round(share * _BAR)
        yield f"  {name[:26]:26} {bar:{_BAR}} {100 * share:5.1f} %  {energy:12.5g} pJ"[:WIDTH]


def _speed(machine: Machine, events: NestEvents) -> Iterator[str]:
    """Cycles, and what sets them."""
    slow = max(events.levels, key=lambda level: level.cycles)
    waits = slow.cycles > events.compute_cycles
    cause = f"bound by {slow.name}" if waits else "bound by the MACs"
    used = 100 * events.utilization(machine)
    yield f"{events.cycles:,} cycles, {cause}; {used:.1f} % of all MACs' work"


def _proof(result: MapResult, runner_up: MapResult | None) -> Iterator[str]:
    """Certificate and runner-up."""
    c = result.certificate
    unit = _UNITS[result.objective]
    verdict = "optimal" if c.optimal else "not proven optimal"
    yield f"{result.objective} {c.value:.6g} {unit}, no nest of the space below {c.lower_bound:.6g}"
    yield f"{verdict}: {c.opened:,} of {c.choices:,} spatial choices opened, {c.tiles:,} tiles"
    if runner_up is not None:
        other = runner_up.certificate.value
        spread = [loops for level in runner_up.nest.levels if (loops := level.spatial)]
        words = "; ".join(_factors(loops) for loops in spread) or "nothing spread"
        more = f"+{100 * (other / c.value - 1):.3g} %"
        yield f"runner-up {other:.6g} ({more}): {words}"[:WIDTH]
