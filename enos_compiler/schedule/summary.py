# SPDX-License-Identifier: Apache-2.0
"""What the report says about a schedule, with the baseline scheduled beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enos_compiler.cores.accounting import itemise, totals
from enos_compiler.cores.baseline import baseline
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import Program
from enos_compiler.schedule.list_schedule import schedule_network

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
        "rule": timing.rule,
        "instructions": len(program.instructions),
        "busy_ns": _busy(program),
        "set_up_ns": max((i.end_ns for i in program.setup), default=0.0),
        "memory_bytes": _memory(program),
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


def _memory(program: Program) -> dict[str, int]:
    """Return the highest byte that buffers reach, by memory."""
    reach: dict[str, int] = {}
    for buffer in program.buffers:
        end = buffer.address + buffer.size_bytes
        reach[buffer.memory] = max(reach.get(buffer.memory, 0), end)
    return reach
