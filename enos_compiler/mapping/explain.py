# SPDX-License-Identifier: Apache-2.0
"""A nest as text: its loops, what each level holds and moves, and where the energy goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap

from enos_compiler.ir.shape import DIMS, TENSORS
from enos_compiler.ir.units import energy_text
from enos_compiler.mapping.count import REFERENCE, CountingRule
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.layer import count_layer
from enos_compiler.mapping.machine import Machine, StorageLevel
from enos_compiler.mapping.mapper import COVERED, OUTSIDE, MapResult
from enos_compiler.mapping.nest import Loops, tile_boxes
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.problem import Problem

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
    rule: CountingRule = REFERENCE,
    runner_up: MapResult | None = None,
    nests: int | None = None,
) -> str:
    """Draw a mapping within 80 columns.

    Args:
        result: the mapping and its certificate.
        machine: where it runs.
        widths: operand widths that it was found for.
        rule: how its events are counted.
        runner_up: the best mapping with other spatial factors, to compare with.
        nests: how many nests the mapspace holds, where they were counted.
    """
    events = count_layer(result.shape, machine, result.nest, widths, rule=rule)
    lines = [f"{result.shape} on {machine.name}: {result.shape.macs:,} MACs"]
    if widths is not None:
        lines.append(_operands(widths))
    lines += ["", *_nest_lines(result, machine, events)]
    lines += ["", *_table(machine, events), "", *_energy(machine, events), ""]
    lines += _speed(machine, events)
    lines += wrap(rule.describe(), WIDTH, subsequent_indent="  ")
    lines += ["", *_proof(result, events.energy_pj(machine), runner_up, nests)]
    return "\n".join(line.rstrip()[:WIDTH] for line in lines)


def _operands(widths: Widths) -> str:
    sums = widths.outputs if widths.partial_sums is None else widths.partial_sums
    return (
        f"bits in words: weights {widths.weights}, inputs {widths.inputs}, "
        f"outputs {widths.outputs}, sums {sums}"
    )


def _nest_lines(result: MapResult, machine: Machine, events: NestEvents) -> Iterator[str]:
    """Loops, outermost level first; with each level the extents and words of its tiles."""
    depth = 0
    boxes = tile_boxes(Problem.from_shape(result.shape), result.nest)
    for s in range(len(machine.levels) - 1, -1, -1):
        spec, level = machine.levels[s], result.nest.levels[s]
        extents = " ".join(f"{dim}{boxes[s][dim]}" for dim in DIMS if boxes[s][dim] > 1)
        copies = f" ({events.levels[s].instances:,} of {spec.instances:,} in use)"
        yield f"{spec.name}{copies if spec.instances > 1 else ''}: tile {extents or 'of one'}"
        held = [
            f"{tensor} {events.levels[s].tensors[tensor].utilized_capacity:,}"
            for tensor in TENSORS
            if tensor in level.keep
        ]
        total = _room(spec, events, s, several=len(held) > 1)
        yield f"  holds {' + '.join(held) or 'nothing'}{total}"
        for dim, factor in level.temporal:
            depth += 1
            yield _indent(depth, f"for {dim} in {factor}")
        for axis, loops in (("rows", level.spatial_y), ("columns", level.spatial_x)):
            if loops:
                depth += 1
                yield _indent(depth, f"over {axis}: {_factors(loops)}")
    yield f"{machine.compute.name}: {events.used_macs:,} of {machine.compute.instances:,} in use"


def _indent(depth: int, text: str) -> str:
    """Indented by depth, as far as the width allows."""
    return (" " * min(2 + 2 * depth, WIDTH - len(text)) + text)[:WIDTH]


def _factors(loops: Loops) -> str:
    return " x ".join(f"{dim} {factor}" for dim, factor in loops)


def _room(spec: StorageLevel, events: NestEvents, s: int, *, several: bool) -> str:
    used = events.levels[s].total("utilized_capacity")
    if spec.capacity is None:
        return " words"
    total = f" = {used:,}" if several else ""
    return f"{total} of {spec.capacity:,} words ({used / spec.capacity:.0%})"


def _table(machine: Machine, events: NestEvents) -> Iterator[str]:
    """Words read and written by level and tensor, over all instances."""
    yield f"{'words, all instances':34}{'reads':>15}{'fills':>15}{'updates':>15}"
    for spec, level in zip(machine.levels, events.levels, strict=True):
        for tensor, counts in level.tensors.items():
            if counts.keep:
                moved = (counts.reads, counts.fills, counts.updates)
                cells = "".join(f"{n * level.instances:>15,}" for n in moved)
                yield f"  {spec.name[:20]:20}  {tensor:9} {cells}"


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
    yield f"energy {energy_text(total)}, {total / events.macs:.3g} pJ a MAC"
    for name, energy in groups.items():
        share = energy / total if total else 0.0
        bar = "#" * round(share * _BAR)
        text = energy_text(energy, like=total)
        yield f"  {name[:26]:26} {bar:{_BAR}} {100 * share:5.1f} % {text:>13}"


def _speed(machine: Machine, events: NestEvents) -> Iterator[str]:
    """Cycles, and what sets them."""
    slow = max(events.levels, key=lambda level: level.cycles)
    used = 100 * events.utilization(machine)
    work = (
        f"{used:.1f} % of what all {machine.compute.instances:,} {machine.compute.name}s could do"
    )
    if slow.cycles > events.compute_cycles:
        yield f"{events.cycles:,} cycles, bound by the bandwidth of {slow.name}"
        yield f"  (computing alone takes {events.compute_cycles:,}); {work}"
    else:
        yield f"{events.cycles:,} cycles, bound by computing; {work}"


def _proof(
    result: MapResult, counted_pj: float, runner_up: MapResult | None, nests: int | None
) -> Iterator[str]:
    """Certificate and runner-up."""
    c = result.certificate
    unit = _UNITS[result.objective]
    yield f"minimised: {result.objective} = {c.value:.6g} {unit} by the mapper's price"
    yield f"bound:     no nest of the mapspace is below {c.lower_bound:.6g}"
    if runner_up is not None:
        other = runner_up.certificate.value
        more = f"+{100 * (other / c.value - 1):.3g} %"
        yield f"runner-up: {other:.6g} ({more}), {_spread(runner_up)}"
    elif c.choices == 1:
        yield "runner-up: none with other spatial factors: no other fits"
    percent = 100 * (result.energy_pj / counted_pj - 1) if counted_pj else 0.0
    # Two orders of adding the same prices differ in the last bits of a double.
    distance = "equal to" if abs(percent) < 1e-9 else f"{percent:+.2g} % from"
    yield f"price:     {energy_text(result.energy_pj)}, {distance} what is counted above"
    verdict = "optimal" if c.optimal else "not proven optimal"
    count = f", {nests:,} nests" if nests is not None else ""
    yield (
        f"{verdict}: {c.opened:,} of {c.choices:,} spatial choices opened, {c.tiles:,} tiles{count}"
    )
    yield "mapspace:"
    for line in c.space.splitlines():
        yield from wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ")
    yield from wrap(f"The proof covers {COVERED}. Outside it, but counted above: {OUTSIDE}.", WIDTH)


def _spread(result: MapResult) -> str:
    """The spatial factors of a mapping, level by level from the inside."""
    loops = [level.spatial for level in result.nest.levels if level.spatial]
    return "over " + "; ".join(_factors(entry) for entry in loops) if loops else "nothing spread"
