# SPDX-License-Identifier: Apache-2.0
"""List scheduling: whenever a resource is free it starts its most urgent ready task.

While work remains some task is always running, so the makespan never exceeds the sum of all
durations, the time for which the assignment priced leakage.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Literal

from enos_compiler.cores.accounting import Items, itemise
from enos_compiler.cores.steps import PLACES
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import Instruction, Program
from enos_compiler.schedule.blocks import Block, Part, block_of
from enos_compiler.schedule.tasks import Task, TaskGraph, inference_tasks, memories_of, set_up_tasks

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

Rule = Literal["critical path", "execution order"]

_TRIALS = 64
"""Most schedules that the improvement of one tries."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When each task starts, in ns, in the order of placing, and the rule that led to it."""

    start: Mapping[str, Fraction]
    makespan: Fraction
    rule: Rule


def schedule_network(network: Network, target: Target) -> tuple[Program, Timing]:
    """Return the program of an assigned network and how it was timed."""
    items = itemise(network, target)
    graph = inference_tasks(network, target, items)
    timing = time_tasks(graph)
    instructions = instructions_of(graph, timing)
    set_up = _set_up(network, items)
    used = (one.resource for one in (*instructions, *set_up))
    program = Program(
        resources=tuple(dict.fromkeys(used)),
        buffers=tuple(graph.buffers.values()),
        instructions=instructions,
        memories=memories_of(target),
        clock_ns=target.clock_ns,
        setup=set_up,
        lower_bound_ns=float(lower_bound(graph)),
    )
    return program, timing


def lower_bound(graph: TaskGraph) -> Fraction:
    """Return the larger of the critical path and the busiest resource's work, in ns."""
    work: dict[str, Fraction] = defaultdict(Fraction)
    for task in graph.tasks.values():
        clock = Fraction(str(task.cost.clock_ns))
        for part in block_of(task).parts:
            work[part.resource] += part.cycles * clock
    return max((*graph.critical_path().values(), *work.values()), default=Fraction(0))


def time_tasks(graph: TaskGraph) -> Timing:
    """Return the shortest schedule found: list schedules by two rules, then improved.

    By critical path, and by execution order; each is tightened (see `tighten`). The first wins a
    tie, and within one rule the task that comes first in execution order does. The better one's
    order of urgency is then changed pair by pair while that shortens it and the bound is not met.
    """
    order = {name: i for i, name in enumerate(graph.tasks)}
    length = graph.critical_path()
    rules: dict[Rule, list[str]] = {
        "critical path": sorted(graph.tasks, key=lambda n: (-length[n], order[n])),
        "execution order": list(graph.tasks),
    }
    timings = {rule: _time(graph, urgency, rule) for rule, urgency in rules.items()}
    best = min(timings.values(), key=lambda timing: timing.makespan)
    return _improved(graph, rules[best.rule], best)


def _time(graph: TaskGraph, urgency: Sequence[str], rule: Rule) -> Timing:
    """Return the tightened list schedule of an order of urgency."""
    priority = {name: (Fraction(i), 0) for i, name in enumerate(urgency)}
    start = tighten(graph, list_schedule(graph, priority))
    ends = (start[n] + graph.tasks[n].duration for n in start)
    return Timing(start, max(ends, default=Fraction(0)), rule)


def _improved(graph: TaskGraph, urgency: Sequence[str], best: Timing) -> Timing:
    """Return the schedule after moving tasks forward in urgency while that shortens it.

    Only tasks that wait for their resource are moved: before the one that holds it. `_TRIALS`
    bounds the work.
    """
    bound, current, trials = lower_bound(graph), list(urgency), 0
    shortened = True
    while shortened and best.makespan > bound:
        shortened = False
        for name, holder in _held_up(graph, best):
            if trials >= _TRIALS:
                return best
            trials += 1
            trial = [n for n in current if n != name]
            trial.insert(trial.index(holder), name)
            found = _time(graph, trial, best.rule)
            if found.makespan < best.makespan:
                best, current, shortened = found, trial, True
                break
    return best


def _held_up(graph: TaskGraph, timing: Timing) -> Iterator[tuple[str, str]]:
    """Yield tasks that start later than what they wait for allows, and who holds their resource."""
    end = {n: timing.start[n] + task.duration for n, task in graph.tasks.items()}
    for name, task in graph.tasks.items():
        ready = max((end[other] for other in graph.graph.predecessors(name)), default=Fraction(0))
        if timing.start[name] <= ready:
            continue
        for other, held in graph.tasks.items():
            holds = held.resource == task.resource and ready < end[other] <= timing.start[name]
            if holds and other != name:
                yield name, other


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


def tighten(graph: TaskGraph, start: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Return starts at which every task begins as early as it can behind those before it.

    Tasks keep their order. A layer may begin to load while the one before it on the core still
    stores: its instructions keep clear of those on the same resources, and of the places of the
    last steps. So no task starts later than before.
    """
    order = {name: i for i, name in enumerate(graph.tasks)}
    end: dict[str, Fraction] = {}
    found: dict[str, Fraction] = {}
    free: dict[str, Fraction] = defaultdict(Fraction)
    places: dict[str, _Places] = defaultdict(_Places)
    for name in sorted(start, key=lambda n: (start[n], order[n])):
        task, clock = graph.tasks[name], Fraction(str(graph.tasks[name].cost.clock_ns))
        block, held = block_of(task), places[task.resource]
        limits = [end[other] for other in graph.graph.predecessors(name)]
        limits += [free[r] - begin * clock for r, begin in block.first_uses.items()]
        limits += held.limits(block, clock)
        begin = max((Fraction(0), *limits))
        found[name], end[name] = begin, begin + task.duration
        for resource, last in block.last_uses.items():
            free[resource] = max(free[resource], begin + last * clock)
        held.take(block, begin, clock)
    return found


@dataclass(slots=True)
class _Places:
    """When the places of a core's last steps are free: of operands and of results."""

    operands: list[Fraction] = field(default_factory=list)
    results: list[Fraction] = field(default_factory=list)

    def limits(self, block: Block, clock: Fraction) -> Iterator[Fraction]:
        """Yield starts before which a block would need a place that is taken."""
        for i, (load, compute, _) in enumerate(block.steps[:PLACES]):
            if i < len(self.operands):
                yield self.operands[i] - load.begin * clock
                yield self.results[i] - compute.begin * clock

    def take(self, block: Block, begin: Fraction, clock: Fraction) -> None:
        """Note the steps of a block that begins then."""
        for _, compute, store in block.steps:
            self.operands = [*self.operands, begin + compute.end * clock][-PLACES:]
            self.results = [*self.results, begin + store.end * clock][-PLACES:]


def _set_up(network: Network, items: Items) -> tuple[Instruction, ...]:
    graph = set_up_tasks(network, items)
    return instructions_of(graph, time_tasks(graph))


def instructions_of(graph: TaskGraph, timing: Timing) -> tuple[Instruction, ...]:
    """Return the instructions by start; at one time, those of the task that was placed first."""
    found: list[tuple[int, Instruction]] = []
    for name, begin in timing.start.items():
        task = graph.tasks[name]
        clock = Fraction(str(task.cost.clock_ns))
        start = ceil(begin / clock)
        before = sorted(block_of(graph.tasks[n]).last.id for n in graph.graph.predecessors(name))
        for i, part in enumerate(block_of(task).parts):
            waits = (*part.after, *(before if i == 0 else ()))
            found.append((start + part.begin, _instruction(task, part, start, clock, waits)))
    found.sort(key=lambda pair: pair[0])
    return tuple(instruction for _, instruction in found)


def _instruction(
    task: Task, part: Part, start: int, clock: Fraction, after: tuple[str, ...]
) -> Instruction:
    return Instruction(
        id=part.id,
        resource=part.resource,
        op=part.op,
        start_ns=float((start + part.begin) * clock),
        end_ns=float((start + part.end) * clock),
        start_cycle=start + part.begin,
        cycles=part.cycles,
        step=part.step,
        ranges=part.ranges,
        reads=part.reads,
        writes=part.writes,
        after=after,
        events=part.events,
        **task.owner,
    )
