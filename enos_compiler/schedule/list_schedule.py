# SPDX-License-Identifier: Apache-2.0
"""List scheduling: whenever a resource is free it starts its most urgent ready task.

While work remains some task is always running, so the makespan never exceeds the sum of all
durations, the time for which the assignment priced leakage.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from enos_compiler.schedule.exact import shortest
from enos_compiler.schedule.machine import Machine
from enos_compiler.schedule.shop import Shop

Rule = Literal["critical path", "execution order", "branch and bound"]

_TRIALS = 64
"""Most schedules that the improvement of one tries."""
_WORK = 500_000
"""Most tasks that the exact search looks at, over all partial schedules: half a second's work."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The cycle at which each task starts, in the order of placing, and what led to it."""

    start: Mapping[str, int]
    makespan: int
    rule: Rule
    bound: int = 0
    """Cycles below which no schedule of these tasks is: by work and paths, or by exact search."""


def time_tasks(shop: Shop) -> Timing:
    """Return the shortest schedule found: list schedules by two rules, improved, then exact search.

    By critical path, and by execution order; each is tightened (see `tighten`). The first wins a
    tie, and within one rule the task that comes first in execution order does. The better one's
    order of urgency is changed pair by pair while that shortens it and the bound is not met. Then
    branch and bound looks for a shorter one: over all schedules of few tasks, as far as `_WORK`
    reaches of many.
    """
    rules: dict[Rule, list[str]] = {
        "critical path": sorted(shop.cycles, key=lambda name: -shop.tails[name]),
        "execution order": list(shop.cycles),
    }
    bound = shop.lower_bound()
    timings = {rule: _time(shop, urgency, rule) for rule, urgency in rules.items()}
    best = min(timings.values(), key=lambda timing: timing.makespan)
    best = _improved(shop, rules[best.rule], best, bound)
    found = shortest(shop, best.makespan, _WORK // max(1, len(shop.cycles)))
    if found.start is not None:
        best = Timing(found.start, _makespan(shop, found.start), "branch and bound")
    return replace(best, bound=best.makespan if found.is_proven else bound)


def _makespan(shop: Shop, start: Mapping[str, int]) -> int:
    return max((begin + shop.cycles[name] for name, begin in start.items()), default=0)


def _time(shop: Shop, urgency: Sequence[str], rule: Rule) -> Timing:
    """Return the tightened list schedule of an order of urgency."""
    start = tighten(shop, list_schedule(shop, urgency))
    return Timing(start, _makespan(shop, start), rule)


def _improved(shop: Shop, urgency: Sequence[str], best: Timing, bound: int) -> Timing:
    """Return the schedule after moving tasks forward in urgency while that shortens it.

    Only tasks that wait for their resource are moved: before the one that holds it. `_TRIALS`
    bounds the work.
    """
    current, trials = list(urgency), 0
    shortened = True
    while shortened and best.makespan > bound:
        shortened = False
        for name, holder in _held_up(shop, best):
            if trials >= _TRIALS:
                return best
            trials += 1
            trial = [n for n in current if n != name]
            trial.insert(trial.index(holder), name)
            found = _time(shop, trial, best.rule)
            if found.makespan < best.makespan:
                best, current, shortened = found, trial, True
                break
    return best


def _held_up(shop: Shop, timing: Timing) -> Iterator[tuple[str, str]]:
    """Yield tasks that start later than what they wait for allows, and who holds their resource."""
    end = {name: begin + shop.cycles[name] for name, begin in timing.start.items()}
    for name, core in shop.core.items():
        ready = max((end[other] for other in shop.before[name]), default=0)
        if timing.start[name] <= ready:
            continue
        for other, held in shop.core.items():
            if held == core and ready < end[other] <= timing.start[name] and other != name:
                yield name, other


def list_schedule(shop: Shop, urgency: Sequence[str]) -> dict[str, int]:
    """Return the start of each task, in cycles; whole tasks, none beside another on its resource.

    Args:
        shop: the problem.
        urgency: all tasks, the most urgent one first.
    """
    priority = {name: i for i, name in enumerate(urgency)}
    waiting = {name: len(before) for name, before in shop.before.items()}
    ready: dict[str, list[tuple[int, str]]] = defaultdict(list)
    running: list[tuple[int, int, str]] = []
    free = dict.fromkeys(shop.core.values(), True)
    start: dict[str, int] = {}
    now = 0

    def release(name: str) -> None:
        heapq.heappush(ready[shop.core[name]], (priority[name], name))

    for name, count in waiting.items():
        if not count:
            release(name)
    while len(start) < len(waiting) or running:
        for resource in free:
            if free[resource] and ready[resource]:
                _, name = heapq.heappop(ready[resource])
                start[name] = now
                free[resource] = False
                heapq.heappush(running, (now + shop.cycles[name], len(start), name))
        now = running[0][0]
        while running and running[0][0] == now:
            _, _, done = heapq.heappop(running)
            free[shop.core[done]] = True
            for name in shop.behind[done]:
                waiting[name] -= 1
                if not waiting[name]:
                    release(name)
    return start


def tighten(shop: Shop, start: Mapping[str, int]) -> dict[str, int]:
    """Return starts at which every task begins as early as it can behind those before it.

    Tasks keep their order. A layer may begin to load while the one before it on the core still
    stores: its instructions keep clear of those on the same resources, and of the places of the
    last steps. So no task starts later than before.
    """
    order = {name: i for i, name in enumerate(shop.cycles)}
    machine, found = Machine(), dict[str, int]()
    for name in sorted(start, key=lambda n: (start[n], order[n])):
        core, block = shop.core[name], shop.blocks[name]
        ready = max((found[one] + shop.cycles[one] for one in shop.before[name]), default=0)
        found[name] = machine.earliest(core, block, ready)
        machine.place(core, block, found[name])
    return found
