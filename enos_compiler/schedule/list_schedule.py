# SPDX-License-Identifier: Apache-2.0
"""List scheduling: whenever a resource is free it starts its most urgent ready task.

While work remains some task is always running, so the makespan never exceeds the sum of all
durations, the time for which the assignment priced leakage.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Literal

from enos_compiler.cores.accounting import Items, itemise
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import Instruction, Program
from enos_compiler.schedule.tasks import Task, TaskGraph, inference_tasks, memories_of, set_up_tasks

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

Rule = Literal["critical path", "execution order"]


@dataclass(frozen=True, slots=True)
class Timing:
    """When each task starts, in ns, and the rule that gave the shortest makespan."""

    start: Mapping[str, Fraction]
    makespan: Fraction
    rule: Rule


def schedule_network(network: Network, target: Target) -> tuple[Program, Timing]:
    """Return the program of an assigned network and how it was timed."""
    items = itemise(network, target)
    graph = inference_tasks(network, target, items)
    timing = time_tasks(graph)
    set_up = _set_up(network, items)
    program = Program(
        resources=tuple(dict.fromkeys((*graph.resources(), *(i.resource for i in set_up)))),
        buffers=tuple(graph.buffers.values()),
        instructions=_instructions(graph, timing),
        memories=memories_of(target),
        clock_ns=target.clock_ns,
        setup=set_up,
        lower_bound_ns=float(lower_bound(graph)),
    )
    return program, timing


def lower_bound(graph: TaskGraph) -> Fraction:
    """Return the larger of the critical path and the busiest resource's work, in ns."""
    paths = graph.critical_path().values()
    return max((*paths, *graph.work().values()), default=Fraction(0))


def time_tasks(graph: TaskGraph) -> Timing:
    """Return the shorter of two list schedules: by critical path, and by execution order.

    The first wins a tie, and within one rule the task that comes first in execution order does.
    """
    order = {name: i for i, name in enumerate(graph.tasks)}
    urgent = {name: -length for name, length in graph.critical_path().items()}
    rules: dict[Rule, Mapping[str, Fraction]] = {
        "critical path": urgent,
        "execution order": {name: Fraction(i) for name, i in order.items()},
    }
    timings = []
    for rule, priority in rules.items():
        start = list_schedule(graph, {n: (priority[n], order[n]) for n in graph.tasks})
        ends = (start[n] + graph.tasks[n].duration for n in start)
        timings.append(Timing(start, max(ends, default=Fraction(0)), rule))
    return min(timings, key=lambda timing: timing.makespan)


def list_schedule(
    graph: TaskGraph, priority: Mapping[str, tuple[Fraction, int]]
) -> dict[str, Fraction]:
    """Return the start of each task; the least priority goes first.

    Args:
        graph: tasks and dependencies.
        priority: a total order; ties are not allowed.
    """
    waiting = {name: graph.graph.in_degree(name) for name in graph.tasks}
    ready: dict[str, list[tuple[tuple[Fraction, int], str]]] = defaultdict(list)
    running: list[tuple[Fraction, int, str]] = []
    free = dict.fromkeys(graph.resources(), True)
    start: dict[str, Fraction] = {}
    now = Fraction(0)

    def release(name: str) -> None:
        heapq.heappush(ready[graph.tasks[name].resource], (priority[name], name))

    for name in graph.tasks:
        if not waiting[name]:
            release(name)
    while len(start) < len(graph.tasks) or running:
        for resource in free:
            if free[resource] and ready[resource]:
                _, name = heapq.heappop(ready[resource])
                start[name] = now
                free[resource] = False
                heapq.heappush(running, (now + graph.tasks[name].duration, len(start), name))
        now = running[0][0]
        while running and running[0][0] == now:
            _, _, done = heapq.heappop(running)
            free[graph.tasks[done].resource] = True
            for name in graph.graph.successors(done):
                waiting[name] -= 1
                if not waiting[name]:
                    release(name)
    return start


def _set_up(network: Network, items: Items) -> tuple[Instruction, ...]:
    graph = set_up_tasks(network, items)
    return _instructions(graph, time_tasks(graph))


def _instructions(graph: TaskGraph, timing: Timing) -> tuple[Instruction, ...]:
    """Return the instructions by start, then by execution order."""
    order = {name: i for i, name in enumerate(graph.tasks)}
    names = sorted(graph.tasks, key=lambda n: (timing.start[n], order[n]))
    return tuple(
        _instruction(graph.tasks[n], timing.start[n], sorted(graph.graph.predecessors(n)))
        for n in names
    )


def _instruction(task: Task, start: Fraction, after: list[str]) -> Instruction:
    return Instruction(
        id=task.id,
        resource=task.resource,
        op=task.op,
        start_ns=float(start),
        end_ns=float(start + task.duration),
        start_cycle=ceil(start / Fraction(str(task.cost.clock_ns))),
        cycles=task.cost.cycles,
        reads=task.reads,
        writes=task.writes,
        after=tuple(after),
        events=dict(sorted(task.cost.events.items())),
        **task.owner,
    )
