# SPDX-License-Identifier: Apache-2.0
"""The shortest schedule, by branch and bound over which task comes next on a resource.

Of the tasks that wait for nobody, the one that would end first is found. Whatever starts on its
resource before that end is a candidate to come next; nothing else is, because that task could be
put before it without delaying anything. So some sequence of candidates is an optimal schedule.

Source: B. Giffler, G. L. Thompson, "Algorithms for solving production-scheduling problems",
Operations Research 8 (1960), the conflict set of active schedules. Remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from enos_compiler.schedule.machine import Machine
from enos_compiler.schedule.shop import Shop


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    start: Mapping[str, int] | None
    """Start of each task, in the order of placing; None where nothing is below the makespan."""
    is_proven: bool
    """Whether no schedule is shorter than this one, or than the makespan that was given."""


@dataclass(frozen=True, slots=True)
class _Node:
    """Some tasks placed, the rest to come."""

    machine: Machine
    start: Mapping[str, int]
    ready: tuple[str, ...]
    """Tasks that wait for nobody any more."""


def shortest(shop: Shop, makespan: int, nodes: int) -> Found:
    """Return the shortest schedule below a makespan, and whether that is proven.

    Args:
        shop: the problem.
        makespan: of a schedule that is known, in cycles.
        nodes: most partial schedules to look at; the search goes depth first, urgent tasks first.
    """
    best: Mapping[str, int] | None = None
    bound = shop.lower_bound()
    first = tuple(name for name, before in shop.before.items() if not before)
    stack = [_Node(Machine(), {}, first)]
    while stack:
        if makespan <= bound:
            return Found(best, is_proven=True)
        if not nodes:
            return Found(best, is_proven=False)
        nodes -= 1
        node = stack.pop()
        if not node.ready:
            ends = (begin + shop.cycles[name] for name, begin in node.start.items())
            found = max(ends, default=0)
            if found < makespan:
                best, makespan = node.start, found
            continue
        earliest = {name: _earliest(shop, node, name) for name in node.ready}
        if _least(shop, node, earliest) >= makespan:
            continue
        stack.extend(reversed(list(_children(shop, node, earliest))))
    return Found(best, is_proven=True)


def _earliest(shop: Shop, node: _Node, name: str) -> int:
    ready = max((node.start[one] + shop.cycles[one] for one in shop.before[name]), default=0)
    return node.machine.earliest(shop.core[name], shop.blocks[name], ready)


def _children(shop: Shop, node: _Node, earliest: Mapping[str, int]) -> Iterator[_Node]:
    """Yield a node for each task that may come next, that with the longest path behind it first."""
    first = min(node.ready, key=lambda name: earliest[name] + shop.cycles[name])
    end, core = earliest[first] + shop.cycles[first], shop.core[first]
    rivals = [
        name
        for name in node.ready
        if name == first or (shop.core[name] == core and earliest[name] < end)
    ]
    for name in sorted(rivals, key=lambda name: -shop.tails[name]):
        machine = node.machine.copy()
        machine.place(core, shop.blocks[name], earliest[name])
        start = {**node.start, name: earliest[name]}
        freed = (
            one for one in shop.behind[name] if all(other in start for other in shop.before[one])
        )
        ready = (*(one for one in node.ready if one != name), *freed)
        yield _Node(machine, start, ready)


def _least(shop: Shop, node: _Node, earliest: Mapping[str, int]) -> int:
    """Return cycles below which no schedule is that goes on from a node."""
    ends = {name: begin + shop.cycles[name] for name, begin in node.start.items()}
    least = 0
    begins: dict[str, int] = {}
    work: dict[str, int] = {}
    rests: dict[str, int] = {}
    for name, cycles in shop.cycles.items():
        if name in node.start:
            continue
        head = earliest.get(name)
        if head is None:
            head = max(ends[one] for one in shop.before[name])
        ends[name], tail, block = head + cycles, shop.tails[name], shop.blocks[name]
        least = max(least, head + tail)
        for engine, busy in block.work.items():
            begin, rest = head + block.first_uses[engine], tail - block.last_uses[engine]
            begins[engine] = min(begin, begins.get(engine, begin))
            rests[engine] = min(rest, rests.get(engine, rest))
            work[engine] = work.get(engine, 0) + busy
    return max((least, *(begins[engine] + work[engine] + rests[engine] for engine in work)))
