# SPDX-License-Identifier: Apache-2.0
"""The scheduling problem: tasks on resources, what each waits for, how long each takes, in cycles.

A job shop with dependencies (each resource does one task at a time), of which a core's tasks may
overlap where their engines and places allow it (see `machine`).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from enos_compiler.schedule.blocks import Block, block_of
from enos_compiler.schedule.tasks import TaskGraph


@dataclass(frozen=True, slots=True)
class Shop:
    """Tasks in execution order, which is a topological one, and what placing them needs to know."""

    cycles: Mapping[str, int]
    """How long each task takes."""
    core: Mapping[str, str]
    """The resource of each task."""
    blocks: Mapping[str, Block]
    before: Mapping[str, tuple[str, ...]]
    """The tasks that each one waits for."""
    behind: Mapping[str, tuple[str, ...]]
    """The tasks that wait for each one."""
    heads: Mapping[str, int]
    """Cycles before which a task cannot start, resources aside."""
    tails: Mapping[str, int]
    """Cycles from a task's start to the end of the longest path behind it."""

    @classmethod
    def of(cls, graph: TaskGraph) -> Shop:
        """Return the problem of a task graph."""
        cycles = {name: task.cycles for name, task in graph.tasks.items()}
        before = {name: tuple(graph.graph.predecessors(name)) for name in cycles}
        behind = {name: tuple(graph.graph.successors(name)) for name in cycles}
        heads: dict[str, int] = {}
        for name in cycles:
            heads[name] = max((heads[one] + cycles[one] for one in before[name]), default=0)
        tails: dict[str, int] = {}
        for name in reversed(cycles):
            tails[name] = cycles[name] + max((tails[one] for one in behind[name]), default=0)
        return cls(
            cycles,
            {name: task.resource for name, task in graph.tasks.items()},
            {name: block_of(task) for name, task in graph.tasks.items()},
            before,
            behind,
            heads,
            {name: tails[name] for name in cycles},
        )

    @property
    def critical_path(self) -> int:
        """Cycles of the longest path of dependencies."""
        return max(self.tails.values(), default=0)

    def lower_bound(self) -> int:
        """Return cycles below which no schedule is.

        The longest path of dependencies; and for each engine the shortest time in which it does
        its parts, none before its task can start, and the longest path behind each still to come.
        """
        work: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for name, block in self.blocks.items():
            for part in block.parts:
                job = (self.heads[name] + part.begin, part.cycles, self.tails[name] - part.end)
                for engine in part.engines:
                    work[engine].append(job)
        return max((self.critical_path, *map(one_machine, work.values())))


def one_machine(jobs: Iterable[tuple[int, int, int]]) -> int:
    """Return the shortest makespan of jobs on one machine that may be interrupted.

    Args:
        jobs: release, length and tail (what follows elsewhere) of each, in cycles.

    Source: Jackson's preemptive schedule, always the released job of the longest tail, is optimal;
    as the one-machine bound of the job shop in J. Carlier, "The one-machine sequencing problem",
    European Journal of Operational Research 11 (1982). Remembered.
    """
    waiting = sorted(jobs, reverse=True)
    released: list[tuple[int, int]] = []
    now = most = 0
    while waiting or released:
        if not released:
            now = max(now, waiting[-1][0])
        while waiting and waiting[-1][0] <= now:
            _, length, tail = waiting.pop()
            heapq.heappush(released, (-tail, length))
        tail, length = heapq.heappop(released)
        until = min(now + length, waiting[-1][0]) if waiting else now + length
        if until < now + length:
            heapq.heappush(released, (tail, now + length - until))
        else:
            most = max(most, until - tail)
        now = until
    return most
