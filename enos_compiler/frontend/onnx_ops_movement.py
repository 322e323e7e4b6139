# SPDX-License-Identifier: Apache-2.0
"""ONNX operations that move elements, in torch calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from enos_compiler.frontend.onnx_ops_shapes import broadcast, refuse_vast
from enos_compiler.frontend.onnx_table import (
    Attributes,
    OnnxInputError,
    axes_of,
    integers_of,
    number_of,
    onnx,
)


@onnx("Reshape")
def reshape(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """Another shape; 0 keeps an extent, -1 follows from the rest."""
    wanted = integers_of(shape, "shape") or ()
    if not attributes.integer("allowzero", 0):
        wanted = tuple(x.shape[i] if n == 0 else n for i, n in enumerate(wanted))
    return x.reshape(wanted)


@onnx("Flatten")
def flatten(attributes: Attributes, x: Tensor) -> Tensor:
    """Two axes: those before `axis` merged, and the rest."""
    axis = attributes.integer("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@onnx("Squeeze")
def squeeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Axes of extent 1 left out."""
    dropped = axes_of(attributes, axes, x.dim())
    if dropped is None:
        dropped = tuple(i for i, n in enumerate(x.shape) if n == 1)
    wrong = [i for i in dropped if x.shape[i] != 1]
    if wrong:
        raise OnnxInputError(
            f"axis {wrong[0]} of extent {x.shape[wrong[0]]} is squeezed", "squeeze axes of extent 1"
        )
    return x.reshape([n for i, n in enumerate(x.shape) if i not in dropped])


@onnx("Unsqueeze")
def unsqueeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """New axes of extent 1."""
    listed = attributes.integers("axes") if axes is None else integers_of(axes, "axes")
    rank = x.dim() + len(listed or ())
    added = {axis % rank for axis in listed or ()}
    extents = iter(x.shape)
    return x.reshape([1 if i in added else next(extents) for i in range(rank)])


@onnx("Transpose")
def transpose(attributes: Attributes, x: Tensor) -> Tensor:
    """Axes reordered; reversed by default."""
    return x.permute(attributes.integers("perm") or tuple(range(x.dim()))[::-1])


@onnx("Concat")
def concat(attributes: Attributes, *operands: Tensor) -> Tensor:
    """Join along an axis."""
    return torch.cat(operands, attributes.integer("axis", 0))


@onnx("Split")
def split(attributes: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Runs of an axis: of given sizes, or equal ones."""
    axis = attributes.integer("axis", 0)
    listed = integers_of(sizes, "split")
    if listed is not None:
        return tuple(torch.split(x, list(listed), axis))
    count = attributes.integer("num_outputs", attributes.results)
    return tuple(torch.split(x, -(-x.shape[axis] // count), axis))


@onnx("Slice")
def slice_(
    attributes: Attributes,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Runs of axes; a constant may run backwards."""
    first, last = integers_of(starts, "starts") or (), integers_of(ends, "ends") or ()
    along = axes_of(attributes, axes, x.dim()) or tuple(range(len(first)))
    strides = integers_of(steps, "steps") or (1,) * len(first)
    index = [slice(None)] * x.dim()
    for axis, start, stop, step in zip(along, first, last, strides, strict=True):
        if step < 0 and attributes.is_constant(0):
            rows = list(range(x.shape[axis]))[
                slice(start, _backward_stop(stop, x.shape[axis]), step)
            ]
            x = x.index_select(axis, torch.tensor(rows, dtype=torch.int64))
        elif step < 1:
            raise OnnxInputError(
                f"axis {axis} is taken by steps of {step}", "take it forwards, by at least 1"
            )
        else:
            index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _backward_stop(stop: int, extent: int) -> int | None:
    """Return the end of a backward run; one before the first element is none."""
    return None if stop < -extent else stop


@onnx("Gather")
def gather(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    """Entries of an axis: rows of a table by token, or parts of an activation."""
    axis = attributes.integer("axis", 0) % x.dim()
    if not attributes.is_constant(1):
        if not attributes.is_constant(0) or axis != 0 or x.dim() != 2:
            raise OnnxInputError(
                "entries are selected by contents that depend on the input",
                "select rows of a constant table alone, as an embedding does",
            )
        return F.embedding(indices, x)
    extent = x.shape[axis]
    positions = [p % extent for p in _within(indices, extent)]
    if attributes.is_constant(0):
        rows = torch.tensor(positions, dtype=torch.int64)
        taken = x.index_select(axis, rows)
    elif indices.dim() == 0:
        return x.select(axis, positions[0])
    else:
        runs = [x.narrow(axis, start, count) for start, count in _runs(positions)]
        taken = runs[0] if len(runs) == 1 else torch.cat(runs, axis)
    if indices.dim() == 1:
        return taken
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _within(indices: Tensor, extent: int) -> list[int]:
    """Return the positions that a constant holds; all must lie in the axis."""
    found = [int(p) for p in indices.reshape(-1).tolist()]
    wrong = next((p for p in found if not -extent <= p < extent), None)
    if wrong is not None:
        raise OnnxInputError(
            f"position {wrong} lies outside an axis of {extent}", "select entries that exist"
        )
    return found


def _runs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, count) of ascending runs."""
    start = 0
    for i in range(1, len(positions) + 1):
        if i == len(positions) or positions[i] != positions[i - 1] + 1:
            yield positions[start], i - start
            start = i


@onnx("Expand")
def expand(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """Axes of extent 1 repeated."""
    del attributes
    target = broadcast(tuple(x.shape), integers_of(shape, "shape") or ())
    refuse_vast(prod(target), "the expanded tensor")
    return x if target == tuple(x.shape) else x.expand(target)


@onnx("Tile")
def tile(attributes: Attributes, x: Tensor, repeats: Tensor) -> Tensor:
    """Axes repeated as a whole."""
    del attributes
    times = integers_of(repeats, "repeats") or ()
    refuse_vast(prod(x.shape) * prod(times), "the repeated tensor")
    return x if set(times) == {1} else x.repeat(times)


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
"""torch's names of ONNX's modes."""


@onnx("Pad")
def pad(
    attributes: Attributes,
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Elements around axes."""
    amounts = integers_of(pads, "pads") or ()
    along = axes_of(attributes, axes, x.dim()) or tuple(range(x.dim()))
    half = len(amounts) // 2
    both = dict(zip(along, zip(amounts[:half], amounts[half:], strict=True), strict=True))
    refuse_vast(
        prod(n + sum(both.get(axis, (0, 0))) for axis, n in enumerate(x.shape)), "the padded tensor"
    )
    first = min((axis for axis, amount in both.items() if any(amount)), default=None)
    if first is None:
        return x
    reversed_axes = range(x.dim() - 1, first - 1, -1)
    flat = [n for axis in reversed_axes for n in both.get(axis, (0, 0))]
    mode = _PAD_MODES[attributes.text("mode", "constant")]
    if mode == "constant":
        return F.pad(x, flat, mode, number_of(value) or 0.0)
    return F.pad(x, flat, mode)


@onnx("DepthToSpace")
def depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    """Channels to pixels, block by block or column by column."""
    size = attributes.integer("blocksize", 1)
    if attributes.text("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    n, c, h, w = x.shape
    y = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // size**2, h * size, w * size)


@onnx("SpaceToDepth")
def space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    """Pixels of a block to channels."""
    size = attributes.integer("blocksize", 1)
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * size**2, h // size, w // size)
