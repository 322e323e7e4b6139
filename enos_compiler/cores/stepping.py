# SPDX-License-Identifier: Apache-2.0
"""Which part of a layer each of its steps works on, and which operands are new to it.

A step is an iteration, or a few, of the outermost loops of a layer's nest. Operands are boxes:
channels, rows and columns of what is stored, padding left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from enos_compiler.cores.tiles import Interval, stored_extent, touched
from enos_compiler.ir.shape import RELEVANT, Dim, LayerShape, Tensor

Ranges = Mapping[Dim, Interval]
"""What a step covers of each dimension."""
Box = tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class SteppedLoop:
    """One loop that is stepped."""

    dim: Dim
    factor: int
    stride: int = 1
    """Extent of the dimension that one iteration covers."""


@dataclass(frozen=True, slots=True)
class Stepping:
    """The loops that are stepped, outer first, and the iterations of the last one in a step."""

    loops: tuple[SteppedLoop, ...]
    group: int = 1

    @classmethod
    def of(cls, loops: Iterable[SteppedLoop], limit: int) -> Stepping:
        """Take as many of the loops, outer first, as give at most `limit` steps."""
        taken: list[SteppedLoop] = []
        count = 1
        for loop in loops:
            room = limit // count
            if room < 2:
                break
            taken.append(loop)
            if loop.factor > room:
                return cls(tuple(taken), -(-loop.factor // room))
            count *= loop.factor
        return cls(tuple(taken))

    def sizes(self) -> list[int]:
        """Return the iterations in each step."""
        last = self.loops[-1].factor if self.loops else 1
        outer = prod(loop.factor for loop in self.loops[:-1])
        cuts = [*range(0, last, self.group), last]
        return [b - a for a, b in pairwise(cuts)] * outer

    def ranges(self, shape: LayerShape) -> list[Ranges]:
        """Return what each step covers, cut to the bounds of `shape`: beyond them nothing."""
        found: list[Ranges] = []
        begin, bounds = 0, shape.bounds
        for size in self.sizes():
            found.append(_covered(self.loops, begin, size, bounds))
            begin += size
        return found


def _covered(
    loops: Sequence[SteppedLoop], begin: int, count: int, bounds: Mapping[Dim, int]
) -> Ranges:
    low: dict[Dim, int] = {}
    extent: dict[Dim, int] = {}
    rest = begin
    for i, loop in enumerate(reversed(loops)):
        rest, index = divmod(rest, loop.factor)
        low[loop.dim] = low.get(loop.dim, 0) + index * loop.stride
        extent.setdefault(loop.dim, loop.stride * (count if i == 0 else 1))
    found: dict[Dim, Interval] = {dim: (0, bound) for dim, bound in bounds.items()}
    for dim in extent:
        bound = bounds[dim]
        found[dim] = (min(low[dim], bound), min(low[dim] + extent[dim], bound))
    return found


def operand_box(shape: LayerShape, tensor: Tensor, ranges: Ranges) -> Box:
    """Return the part of a tensor that a step touches.

    Inputs: groups, batch, channels, rows, columns of what is stored; the others: their dimensions
    in the order of `RELEVANT`.
    """
    if tensor != "Inputs":
        return tuple(ranges[dim] for dim in RELEVANT[tensor])
    height, width = stored_extent(shape)
    vertical = (shape.stride[0], shape.dilation[0], shape.padding[0], height)
    across = (shape.stride[1], shape.dilation[1], shape.padding[1], width)
    rows = touched(ranges["P"], ranges["R"], *vertical)
    columns = touched(ranges["Q"], ranges["S"], *across)
    return (ranges["G"], ranges["N"], ranges["C"], rows, columns)


def volume(box: Box) -> int:
    """Return the elements of a box."""
    return prod(end - first for first, end in box)


def fresh(boxes: Sequence[Box]) -> list[int]:
    """Return the elements of each box that the box before it does not have."""
    found = []
    before: Box | None = None
    for box in boxes:
        common = 0
        if before is not None:
            common = prod(
                max(0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in zip(box, before, strict=True)
            )
        found.append(volume(box) - common)
        before = box
    return found


def growth(boxes: Sequence[Box]) -> list[int]:
    """Return the elements of each box that no box before it has.

    The boxes are those of a loop nest: along each axis intervals ascend inside every loop, so that
    what a box shares with the interval below it along an axis has been seen.
    """
    ends = [_new_parts(box[axis] for box in boxes) for axis in range(len(boxes[0]))]
    seen: set[Box] = set()
    found = []
    for box in boxes:
        new = box not in seen
        seen.add(box)
        found.append(prod(e[i] for e, i in zip(ends, box, strict=True)) if new else 0)
    return found


def _new_parts(intervals: Iterable[Interval]) -> dict[Interval, int]:
    """Return by interval how much of it lies above all intervals that start before it."""
    reached, found = 0, {}
    for first, end in sorted(set(intervals)):
        found[first, end] = max(0, end - max(first, reached))
        reached = max(reached, end)
    return found


def last_visits(boxes: Sequence[Box]) -> list[int]:
    """Return the volume of each box that no later step has again, 0 for the others."""
    return growth(boxes[::-1])[::-1]


def returns(boxes: Sequence[Box]) -> list[int]:
    """Return the volume of each box that an earlier step had, 0 for the others."""
    seen: set[Box] = set()

    def visits() -> Iterator[int]:
        for box in boxes:
            yield volume(box) if box in seen else 0
            seen.add(box)

    return list(visits())
