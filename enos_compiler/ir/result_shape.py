# SPDX-License-Identifier: Apache-2.0
"""Shapes of what canonical functions return, told from the shapes of their operands.

Calling the functions on tensors without data tells the same, but the first such call makes torch
import its own compiler, which takes longer than everything else that lowers a network.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

Shape = tuple[int, ...]


def _same(x: Shape, *_parameters: Shape | None, **_attributes: Any) -> Shape:
    return x


def _conv(
    x: Shape,
    weight: Shape,
    _bias: Shape | None = None,
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Shape:
    axes = len(x) - 2
    if x[1] != weight[1] * groups:
        raise ValueError(f"{x[1]} channels are not {groups} groups of {weight[1]}")
    extents = (
        (size + padding[i] + padding[axes + i] - dilation[i] * (taps - 1) - 1) // stride[i] + 1
        for i, (size, taps) in enumerate(zip(x[2:], weight[2:], strict=True))
    )
    return (x[0], weight[0], *extents)


def _linear(x: Shape, weight: Shape, _bias: Shape | None = None) -> Shape:
    if x[-1] != weight[1]:
        raise ValueError(f"{x[-1]} features are not {weight[1]}")
    return (*x[:-1], weight[0])


def _matmul(a: Shape, b: Shape) -> Shape:
    if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
        raise ValueError(f"{a} and {b} have no product")
    return (*_broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _broadcast(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    together = []
    for left, right in pairs:
        if left != right and 1 not in (left, right):
            raise ValueError(f"{a} and {b} do not broadcast")
        together.append(right if left == 1 else left)
    return tuple(together)


def _concat(*xs: Shape, dim: int) -> Shape:
    rests = {(x[:dim], x[dim + 1 :]) for x in xs}
    if len(rests) > 1:
        raise ValueError(f"{xs} differ in more than axis {dim}")
    return (*xs[0][:dim], sum(x[dim] for x in xs), *xs[0][dim + 1 :])


def _pool(
    x: Shape,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil_mode: bool,
    dilation: tuple[int, ...] | None = None,
    count_include_pad: bool = True,  # noqa: ARG001 - changes means, not shapes
) -> Shape:
    axes = len(kernel)
    extents = []
    for i, size in enumerate(x[-axes:]):
        reach = (dilation[i] if dilation else 1) * (kernel[i] - 1) + 1
        room = size + 2 * padding[i] - reach
        count = (-(-room // stride[i]) if ceil_mode else room // stride[i]) + 1
        # the last window has to start inside the input or the padding before it
        extents.append(count - (ceil_mode and (count - 1) * stride[i] >= size + padding[i]))
    return (*x[:-axes], *extents)


def _mean(x: Shape, *, dims: tuple[int, ...], keepdim: bool) -> Shape:
    kept = (1 if i in dims else extent for i, extent in enumerate(x) if keepdim or i not in dims)
    return tuple(kept)


def _resize_nearest(x: Shape, *, scale: tuple[int, ...]) -> Shape:
    lead = len(x) - len(scale)
    return (*x[:lead], *(extent * s for extent, s in zip(x[lead:], scale, strict=True)))


def _reshape(x: Shape, *, shape: Shape) -> Shape:
    rest = prod(extent for extent in shape if extent != -1)
    whole = tuple(prod(x) // max(rest, 1) if extent == -1 else extent for extent in shape)
    if prod(whole) != prod(x):
        raise ValueError(f"{x} does not reshape to {shape}")
    return whole


def _permute(x: Shape, *, dims: tuple[int, ...]) -> Shape:
    return tuple(x[dim] for dim in dims)


def _slice(x: Shape, *, dim: int, start: int, stop: int, step: int) -> Shape:
    return (*x[:dim], len(range(*slice(start, stop, step).indices(x[dim]))), *x[dim + 1 :])


def _pad(x: Shape, *, pads: tuple[int, ...], value: float) -> Shape:  # noqa: ARG001 - no extent
    return tuple(pads[i] + extent + pads[len(x) + i] for i, extent in enumerate(x))


def _expand(x: Shape, *, shape: Shape) -> Shape:
    whole = (1,) * (len(shape) - len(x)) + x
    grown = tuple(e if wanted == -1 else wanted for e, wanted in zip(whole, shape, strict=True))
    if any(before not in (1, after) for before, after in zip(whole, grown, strict=True)):
        raise ValueError(f"{x} does not expand to {shape}")
    return grown


def _interleave(*phases: Shape, stride: tuple[int, ...]) -> Shape:
    if len(phases) != prod(stride) or any(a != b for a, b in pairwise(phases)):
        raise ValueError(f"{phases} are not {prod(stride)} phases of one shape")
    return _resize_nearest(phases[0], scale=stride)


def _embedding(indices: Shape, weight: Shape) -> Shape:
    return (*indices, weight[1])


RULES: dict[str, Callable[..., Shape]] = {
    "conv": _conv,
    "linear": _linear,
    "matmul": _matmul,
    "batch_norm": _same,
    "layer_norm": _same,
    "group_norm": _same,
    "elementwise": _same,
    "add": _broadcast,
    "sub": _broadcast,
    "mul": _broadcast,
    "concat": _concat,
    "max_pool": _pool,
    "avg_pool": _pool,
    "mean": _mean,
    "resize_nearest": _resize_nearest,
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "pad": _pad,
    "expand": _expand,
    "interleave": _interleave,
    "embedding": _embedding,
    "softmax": _same,
}
"""The rule of each canonical function by its name in `ops.FUNCTIONS`, samplers apart.

A rule takes the operands' shapes, None for an absent parameter, and the function's attributes. It
raises ValueError for shapes that the function does not take.
"""
