# SPDX-License-Identifier: Apache-2.0
"""What the report says about a schedule, with the baseline scheduled beside it."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.accounting import itemise, totals
from enos_compiler.cores.baseline import baseline
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import Program
from enos_compiler.schedule.frames import frame_interval
from enos_compiler.schedule.lifetimes import (
    Lifetime,
    fragmentation,
    lifetimes,
    peak_bytes,
    reached_bytes,
)
from enos_compiler.schedule.network import schedule_network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


def schedule_with_baseline(
    network: Network, target: Target, frames: int = 1
) -> tuple[Program, dict[str, Any]]:
    """Return the program of an assigned network and its section of the report.

    Args:
        network: assigned.
        target: the chip.
        frames: inputs that stream through, one behind the other; the section tells their rate.
    """
    program, timing = schedule_network(network, target)
    yardstick = baseline(network, target)
    beside, _ = schedule_network(yardstick.network, target)
    spent = totals(itemise(yardstick.network, target), target, beside.makespan_ns)
    lives = lifetimes(network, program)
    reached, peak = reached_bytes(program), peak_bytes(lives, program.memories)
    summary = {
        "makespan_ns": program.makespan_ns,
        "lower_bound_ns": program.lower_bound_ns,
        "gap": _gap(program),
        "rule": timing.rule,
        "instructions": len(program.instructions),
        "busy_ns": _busy(program),
        "set_up_ns": max((i.end_ns for i in program.setup), default=0.0),
        "memory_bytes": reached,
        "peak_bytes": peak,
        "fragmentation": fragmentation(peak, reached),
        "shared_ns": _shared(program),
        "baseline": {
            "name": yardstick.name,
            "energy_pj": spent.energy_pj,
            "latency_ns": beside.makespan_ns,
        },
    }
    if frames > 1:
        summary["frames"] = _frames(network, target, program, lives, frames)
    return program, summary


def _frames(
    network: Network, target: Target, program: Program, lives: Iterable[Lifetime], frames: int
) -> dict[str, Any]:
    """Return the rate of frames that stream through, and what each costs.

    Leakage is that of the whole stream, from the first frame's start to the last one's end.
    """
    found = frame_interval(program, lives)
    interval_ns = float(found.cycles * Fraction(str(program.clock_ns)))
    total_ns = program.makespan_ns + (frames - 1) * interval_ns
    return {
        "frames": frames,
        "interval_ns": interval_ns,
        "per_second": 1e9 / interval_ns,
        "limit": found.limit,
        "total_ns": total_ns,
        "energy_pj": totals(itemise(network, target), target, total_ns / frames).energy_pj,
    }


def _shared(program: Program) -> dict[str, float]:
    """Return for each memory the time in which several instructions move words of it, ns.

    Each takes the time that it would alone; what contention would add is not modelled.
    """
    moments: dict[str, list[tuple[int, int]]] = {name: [] for name in program.memories}
    for name, memory in program.memories.items():
        for one in program.instructions:
            if one.cycles and (memory.read in one.events or memory.write in one.events):
                end = one.start_cycle + one.cycles
                moments[name] += [(one.start_cycle, 1), (end, -1)]
    return {
        name: float(_overlap(changes) * Fraction(str(program.clock_ns)))
        for name, changes in moments.items()
    }


def _overlap(changes: list[tuple[int, int]]) -> int:
    """Return the cycles at which more than one of some spans is open."""
    shared = now = before = 0
    for time, change in sorted(changes):
        shared += time - before if now > 1 else 0
        now, before = now + change, time
    return shared


def _busy(program: Program) -> dict[str, float]:
    """Return the busy time of each resource over one inference, ns."""
    return {
        resource: sum(i.end_ns - i.start_ns for i in program.instructions if i.resource == resource)
        for resource in program.resources
    }


def _gap(program: Program) -> float:
    """Return how far the makespan lies above the lower bound, as a fraction of it."""
    bound = program.lower_bound_ns
    return program.makespan_ns / bound - 1 if bound else 0.0
