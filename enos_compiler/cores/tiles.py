# SPDX-License-Identifier: Apache-2.0
"""Tiles of output positions and the input elements that they touch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from enos_compiler.ir.shape import LayerShape

Interval = tuple[int, int]
"""First and end."""


@dataclass(frozen=True, slots=True)
class PositionTile:
    """Output positions worked on together: batch, rows, columns."""

    n: int
    p: int
    q: int


def stored_extent(shape: LayerShape) -> tuple[int, int]:
    """Return the stored input rows and columns that the nest can touch, padding left out.

    A strided nest need not reach the end of its padding, and how far it does is not in the shape:
    the extent is then the largest that gives the same output.
    """
    rows, columns = shape.input_extent
    top, left, bottom, right = shape.padding
    unreached = (shape.stride[0] - 1, shape.stride[1] - 1)
    return (
        max(1, rows - top - max(0, bottom - unreached[0])),
        max(1, columns - left - max(0, right - unreached[1])),
    )


def touched(
    outputs: Interval, taps: Interval, stride: int, dilation: int, before: int, stored: int
) -> Interval:
    """Return the stored rows or columns under a range of outputs and of kernel taps."""
    if outputs[0] >= outputs[1] or taps[0] >= taps[1]:
        return (0, 0)
    first = outputs[0] * stride + taps[0] * dilation - before
    end = (outputs[1] - 1) * stride + (taps[1] - 1) * dilation - before + 1
    first = min(max(first, 0), stored)
    return (first, max(first, min(end, stored)))


@lru_cache(maxsize=65536)
def inputs_by_tiles(shape: LayerShape, tile: PositionTile) -> int:
    """Return the stored elements of one channel read when every tile reads its own box once.

    Boxes of neighbouring tiles overlap by the kernel's reach; padding is not stored and not read.
    """
    height, width = stored_extent(shape)
    rows = _touched(
        shape.p, tile.p, shape.r, shape.stride[0], shape.dilation[0], shape.padding[0], height
    )
    columns = _touched(
        shape.q, tile.q, shape.s, shape.stride[1], shape.dilation[1], shape.padding[1], width
    )
    return shape.n * rows * columns


def _touched(
    outputs: int, tile: int, kernel: int, stride: int, dilation: int, before: int, stored: int
) -> int:
    """Return the stored rows or columns under every tile of outputs, one tile after another."""
    spans = (
        touched((start, min(start + tile, outputs)), (0, kernel), stride, dilation, before, stored)
        for start in range(0, outputs, tile)
    )
    return sum(end - first for first, end in spans)
