# SPDX-License-Identifier: Apache-2.0
"""What the report says about a schedule, with the baseline scheduled beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enos_compiler.cores.accounting import itemise, totals
from enos_compiler.cores.baseline import baseline
from enos_compiler.cores.homes import root_of
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import Program
from enos_compiler.schedule.network import schedule_network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


def schedule_with_baseline(network: Network, target: Target) -> tuple[Program, dict[str, Any]]:
    """Return the program of an assigned network and its section of the report."""
    program, timing = schedule_network(network, target)
    yardstick = baseline(network, target)
    beside, _ = schedule_network(yardstick.network, target)
    spent = totals(itemise(yardstick.network, target), target, beside.makespan_ns)
    summary = {
        "makespan_ns": program.makespan_ns,
        "lower_bound_ns": program.lower_bound_ns,
        "gap": _gap(program),
        "rule": timing.rule,
        "instructions": len(program.instructions),
        "busy_ns": _busy(program),
        "set_up_ns": max((i.end_ns for i in program.setup), default=0.0),
        "memory_bytes": _memory(program),
        "peak_bytes": _peak(network, program),
        "baseline": {
            "name": yardstick.name,
            "energy_pj": spent.energy_pj,
            "latency_ns": beside.makespan_ns,
        },
    }
    return program, summary


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


def _peak(network: Network, program: Program) -> dict[str, int]:
    """Return the most bytes of each memory that hold something needed, at any one time.

    A buffer is needed from the start of its first access to the end of its last; inputs, constants
    and weights from the start, outputs until the end. What `memory_bytes` has beyond it is lost to
    fragmentation: gaps that no value fits.
    """
    roots = {name: root_of(network, name) for name in network.values}
    kept = {roots[name] for name in network.outputs}
    made = {name for one in program.instructions for name in one.writes}
    life: dict[str, tuple[int, int]] = {}
    for one in program.instructions:
        for name in (*one.reads, *one.writes):
            root = roots.get(name, name)
            first, last = life.get(root, (one.start_cycle, 0))
            life[root] = (first, max(last, one.start_cycle + one.cycles))
    moments: dict[str, list[tuple[float, int]]] = {name: [] for name in program.memories}
    for buffer in program.buffers:
        if buffer.name not in life:
            continue
        first, last = life[buffer.name]
        begin = float(first) if buffer.name in made else 0.0
        end = float("inf") if buffer.name in kept else float(last)
        moments[buffer.memory] += [(begin, buffer.size_bytes), (end, -buffer.size_bytes)]
    return {name: _highest(changes) for name, changes in moments.items()}


def _highest(changes: list[tuple[float, int]]) -> int:
    """Return the highest sum of changes by time; what ends at a time makes room at it."""
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _memory(program: Program) -> dict[str, int]:
    """Return the highest byte that buffers reach, by memory."""
    reach: dict[str, int] = {}
    for buffer in program.buffers:
        end = buffer.address + buffer.size_bytes
        reach[buffer.memory] = max(reach.get(buffer.memory, 0), end)
    return reach
