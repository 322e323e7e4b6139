# SPDX-License-Identifier: Apache-2.0
"""Reuse in time: how a tile moves while the loops above it run, and what is new after each move.

The nest is not run. Let loops 1..n be the temporal loops above a tile, inner to outer, with
factors N_j and steps step(j). When loop j advances, all loops inside it wrap, and the tile moves by

    T_j = step(j) - sum_{i<j} wrap_i * step(i)

which happens w_j = (N_j - 1) * prod_{i>j} N_i times. The rules differ in wrap_i and in what counts
as new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

from enos_compiler.mapping.problem import TensorSpec

Sliding = Literal["two-iteration", "innermost", "exact"]
"""How far the overlap of successive tiles is kept.

two-iteration: Timeloop's abbreviation. A wrap is taken as going back by one iteration, so after a
    loop of more than two iterations a tile may be found in place that is not. Overlap is kept where
    the translation equals that of the innermost loop that moves the tile.
innermost: loops that do not move the tile are free inside every loop that does; the innermost loop
    that moves it keeps the overlap; every other movement reloads the tile. The mapper's rule.
exact: a buffer that holds one tile and receives whatever the tile before did not contain.
"""

Vector = tuple[int, ...]
Box = tuple[tuple[int, int], ...]
"""Half-open interval along each rank."""


class Loop(NamedTuple):
    """One loop of the flattened nest."""

    level: int
    dim: str
    factor: int
    stride: int
    """Product of the factors of the loops over `dim` inside this one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of movement of a tile."""

    weight: int
    """How often it happens over the run."""
    translation: Vector
    boxes: tuple[Box, ...]
    """What is new, in coordinates of the tile after the movement."""
    factor: int
    """Iterations of the loop that advances."""

    @property
    def size(self) -> int:
        """Elements that are new."""
        return sum(prod(high - low for low, high in box) for box in self.boxes)


def tile_steps(
    tensor: TensorSpec, extents: Vector, loops: Sequence[Loop], sliding: Sliding
) -> list[Step]:
    """Movements of a tile of `tensor` under the temporal `loops` above it, inner to outer."""
    moves = [tensor.step(loop.dim, loop.stride) for loop in loops]
    first = next((j for j, move in enumerate(moves) if any(move)), None)
    whole: Box = tuple((0, extent) for extent in extents)
    back = [0] * len(extents)
    outer = prod(loop.factor for loop in loops)
    steps = []
    for j, (loop, move) in enumerate(zip(loops, moves, strict=True)):
        shift = tuple(a - b for a, b in zip(move, back, strict=True))
        outer //= loop.factor
        boxes: tuple[Box, ...]
        if _stays(sliding, j, first, shift):
            boxes = ()
        elif _slides(sliding, j, first, shift, moves):
            boxes = tuple(new_boxes(whole, shift))
        else:
            boxes = (whole,)
        steps.append(Step((loop.factor - 1) * outer, shift, boxes, loop.factor))
        wrap = 1 if sliding == "two-iteration" else loop.factor - 1
        back = [b + wrap * m for b, m in zip(back, move, strict=True)]
    return steps


def _stays(sliding: Sliding, j: int, first: int | None, shift: Vector) -> bool:
    if sliding == "innermost":
        return first is None or j < first
    return not any(shift)


def _slides(
    sliding: Sliding, j: int, first: int | None, shift: Vector, moves: Sequence[Vector]
) -> bool:
    if sliding == "exact":
        return True
    if sliding == "innermost":
        return j == first
    return first is not None and shift == moves[first]


def new_boxes(tile: Box, shift: Vector) -> list[Box]:
    """`tile` minus the tile before it, which lay at `tile - shift`, cut rank by rank.

    Along each rank the slice below the old tile comes first, then the slice above, then the tile
    shrinks to the part in common.
    """
    old = [(low - move, high - move) for (low, high), move in zip(tile, shift, strict=True)]
    if any(max(a, c) >= min(b, d) for (a, b), (c, d) in zip(tile, old, strict=True)):
        return [tile]
    boxes, rest = [], list(tile)
    for rank, (low, high) in enumerate(old):
        a, b = rest[rank]
        if a < low:
            boxes.append((*rest[:rank], (a, low), *rest[rank + 1 :]))
        if high < b:
            boxes.append((*rest[:rank], (high, b), *rest[rank + 1 :]))
        rest[rank] = (max(a, low), min(b, high))
    return boxes


def delivered(steps: Sequence[Step], size: int) -> int:
    """Elements that one instance receives over the run, first tile included."""
    return size + sum(step.weight * step.size for step in steps)
