# SPDX-License-Identifier: Apache-2.0
"""A task as the instructions that it becomes: one, or the loads, computes and stores of a layer.

A layer's instructions keep the places in time that they have when the layer runs alone; the block
moves as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from enos_compiler.cores.steps import PLACES, Step, StepCycles, pipeline
from enos_compiler.ir.cost import Action
from enos_compiler.ir.program import OpCode
from enos_compiler.ir.shape import Dim
from enos_compiler.schedule.tasks import Task


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One instruction of a task, its times in cycles from the task's start."""

    id: str
    resource: str
    op: OpCode
    begin: int
    cycles: int
    events: Mapping[Action, int]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """Instructions of the same task that it waits for."""
    step: int | None = None
    ranges: Mapping[Dim, tuple[int, int]] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """First cycle after it."""
        return self.begin + self.cycles

    @property
    def engines(self) -> tuple[str, ...]:
        """What it occupies: a port for both directions is both."""
        core, _, kind = self.resource.rpartition(".")
        return (f"{core}.load", f"{core}.store") if kind == "port" else (self.resource,)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """All instructions of a task."""

    parts: tuple[Part, ...]
    first_uses: Mapping[str, int]
    """Cycle at which each engine is first used."""
    last_uses: Mapping[str, int]
    """Cycle at which each engine is free again."""
    work: Mapping[str, int]
    """Cycles that each engine is busy."""
    steps: tuple[tuple[Part, Part, Part], ...] = ()
    """Load, compute and store of every step."""

    @classmethod
    def of(cls, parts: tuple[Part, ...], steps: tuple[tuple[Part, Part, Part], ...] = ()) -> Block:
        """Return the block of these parts."""
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        work: dict[str, int] = {}
        for part in parts:
            for engine in part.engines:
                first[engine] = min(part.begin, first.get(engine, part.begin))
                last[engine] = max(part.end, last.get(engine, 0))
                work[engine] = work.get(engine, 0) + part.cycles
        return cls(parts, first, last, work, steps)

    @property
    def last(self) -> Part:
        """The instruction whose end is the task's."""
        return self.steps[-1][2] if self.steps else self.parts[-1]


def block_of(task: Task) -> Block:
    """Return the instructions of a task."""
    if not task.steps:
        cost = task.cost
        events = dict(sorted(cost.events.items()))
        part = Part(
            task.id, task.resource, task.op, 0, cost.cycles, events, task.reads, task.writes
        )
        return Block.of((part,))
    starts, _ = pipeline([step.cycles for step in task.steps], one_port=task.one_port)
    steps = []
    for i, (step, start) in enumerate(zip(task.steps, starts, strict=True)):
        steps.append(_step_parts(task, i, step, start))
    return Block.of(tuple(sorted(_placed(steps), key=lambda part: part.begin)), tuple(steps))


def _placed(steps: Sequence[tuple[Part, Part, Part]]) -> Iterator[Part]:
    """Yield instructions as `pipeline` places them: a load before the step that it overlaps."""
    for i, (load, compute, store) in enumerate(steps):
        if i == 0:
            yield load
        if i + 1 < len(steps):
            yield steps[i + 1][0]
        yield compute
        yield store


def ports(task: Task) -> tuple[str, str]:
    """Return the resources that load and store the steps of a task."""
    if task.one_port:
        return (f"{task.resource}.port", f"{task.resource}.port")
    return (f"{task.resource}.load", f"{task.resource}.store")


def _step_parts(task: Task, i: int, step: Step, start: StepCycles) -> tuple[Part, Part, Part]:
    def name(what: str, which: int) -> str:
        return f"{task.id}/{which}/{what}"

    load_port, store_port = ports(task)
    earlier = i - PLACES
    whole = {
        dim: covered
        for dim, covered in step.ranges.items()
        if any(other.ranges[dim] != covered for other in task.steps)
    }
    load = Part(
        id=name("load", i),
        resource=load_port,
        op="load",
        begin=start.load,
        cycles=step.cycles.load,
        events=step.load,
        reads=task.reads,
        after=(name("compute", earlier),) if earlier >= 0 else (),
        step=i,
        ranges=whole,
    )
    compute = Part(
        id=name("compute", i),
        resource=task.resource,
        op="compute",
        begin=start.compute,
        cycles=step.cycles.compute,
        events=step.compute,
        after=(load.id, *((name("store", earlier),) if earlier >= 0 else ())),
        step=i,
        ranges=whole,
    )
    store = Part(
        id=name("store", i),
        resource=store_port,
        op="store",
        begin=start.store,
        cycles=step.cycles.store,
        events=step.store,
        writes=task.writes,
        after=(compute.id,),
        step=i,
        ranges=whole,
    )
    return load, compute, store
