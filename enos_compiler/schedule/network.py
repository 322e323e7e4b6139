# SPDX-License-Identifier: Apache-2.0
"""From an assigned network to its program: tasks, their times, and the instructions they become."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from enos_compiler.cores.accounting import itemise
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import Instruction, Program
from enos_compiler.schedule.blocks import Part
from enos_compiler.schedule.list_schedule import Timing, time_tasks
from enos_compiler.schedule.shop import Shop
from enos_compiler.schedule.tasks import Task, TaskGraph, inference_tasks, memories_of, set_up_tasks

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


def schedule_network(network: Network, target: Target) -> tuple[Program, Timing]:
    """Return the program of an assigned network and how it was timed."""
    items = itemise(network, target)
    graph = inference_tasks(network, target, items)
    shop = Shop.of(graph)
    timing = time_tasks(shop)
    clock = Fraction(str(target.clock_ns))
    instructions = instructions_of(graph, shop, timing.start, clock)
    set_up = _set_up(set_up_tasks(network, items), clock)
    used = (one.resource for one in (*instructions, *set_up))
    program = Program(
        resources=tuple(dict.fromkeys(used)),
        buffers=tuple(graph.buffers.values()),
        instructions=instructions,
        memories=memories_of(target),
        clock_ns=target.clock_ns,
        setup=set_up,
        lower_bound_ns=float(timing.bound * clock),
    )
    return program, timing


def _set_up(graph: TaskGraph, clock: Fraction) -> tuple[Instruction, ...]:
    shop = Shop.of(graph)
    return instructions_of(graph, shop, time_tasks(shop).start, clock)


def instructions_of(
    graph: TaskGraph, shop: Shop, start: Mapping[str, int], clock: Fraction
) -> tuple[Instruction, ...]:
    """Return the instructions by start; at one time, those of the task that was placed first.

    Args:
        graph: the tasks.
        shop: the same tasks as instructions.
        start: of each task in cycles, in the order of placing.
        clock: ns of a cycle, exactly.
    """
    found: list[Instruction] = []
    for name, begin in start.items():
        before = sorted(shop.blocks[n].last.id for n in shop.before[name])
        for i, part in enumerate(shop.blocks[name].parts):
            waits = (*part.after, *(before if i == 0 else ()))
            found.append(_instruction(graph.tasks[name], part, begin, clock, waits))
    return tuple(sorted(found, key=lambda one: one.start_cycle))


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
