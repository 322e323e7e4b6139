# SPDX-License-Identifier: Apache-2.0
"""Inferences one behind the other: how soon the next may begin while earlier ones still run.

Every frame is the same program, begun a fixed interval after the one before. Two frames must never
want the same thing at a time: a resource; a core between a layer's first load and its last store,
so that its two places serve one frame; the bytes of a value from its first write to its last read.
Each is a span of cycles on something that one frame at a time may have. Interval I is possible if
no span, moved by a multiple of I, meets another one on the same thing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from enos_compiler.ir.program import Instruction, Program
from enos_compiler.schedule.lifetimes import Lifetime


@dataclass(frozen=True, slots=True)
class Span:
    """Cycles of an inference during which something is taken."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Interval:
    """The shortest time between the starts of two frames, and what forbids a shorter one."""

    cycles: int
    limit: str
    """A core, a resource, or the value whose bytes are not free any sooner; "" for one cycle."""


def frame_interval(program: Program, lives: Iterable[Lifetime]) -> Interval:
    """Return the shortest interval at which frames of a program can follow each other.

    Args:
        program: of one frame.
        lives: of its buffers.
    """
    pairs = [*_resource_pairs(program.instructions), *_memory_pairs(lives)]
    interval = Interval(1, "")
    while True:
        found = max(
            (Interval(_behind(one, other, interval.cycles), what) for one, other, what in pairs),
            key=lambda each: each.cycles,
            default=interval,
        )
        if found.cycles <= interval.cycles:
            return interval
        interval = found


def _behind(one: Span, other: Span, interval: int) -> int:
    """Return the least interval, from this one on, that the earliest meeting of spans allows.

    `other` of a frame k intervals later meets `one` where k times the interval lies strictly
    between one.begin - other.end and one.end - other.begin.
    """
    least, most = one.begin - other.end, one.end - other.begin
    later = max(1, least // interval + 1)
    return -(-most // later) if later * interval < most else interval


def _resource_pairs(listed: Sequence[Instruction]) -> Iterator[tuple[Span, Span, str]]:
    """Yield spans that share a resource; a layer in steps takes its core as a whole."""
    spans: dict[str, list[Span]] = defaultdict(list)
    layers: dict[tuple[str, str | None], list[Instruction]] = defaultdict(list)
    for one in listed:
        if one.step is None:
            spans[one.resource].append(Span(one.start_cycle, one.start_cycle + one.cycles))
        else:
            core = one.resource if one.op == "compute" else one.resource.rpartition(".")[0]
            layers[core, one.layer].append(one)
    for (core, _), parts in layers.items():
        end = max(one.start_cycle + one.cycles for one in parts)
        spans[core].append(Span(min(one.start_cycle for one in parts), end))
    for resource, taken in spans.items():
        some = [span for span in taken if span.end > span.begin]
        yield from ((one, other, resource) for one, other in product(some, some))


def _memory_pairs(lives: Iterable[Lifetime]) -> Iterator[tuple[Span, Span, str]]:
    """Yield lifetimes that share bytes; weights and constants are the same in every frame."""
    by_memory: dict[str, list[Lifetime]] = defaultdict(list)
    for life in lives:
        if not life.is_constant and life.buffer.size_bytes:
            by_memory[life.buffer.memory].append(life)
    for some in by_memory.values():
        for one, other in product(some, some):
            first, second = one.buffer, other.buffer
            apart = (
                first.address + first.size_bytes <= second.address
                or second.address + second.size_bytes <= first.address
            )
            if not apart:
                yield Span(one.begin, one.end), Span(other.begin, other.end), first.name
