# SPDX-License-Identifier: Apache-2.0
"""Lowers what moves elements: reshaping, reordering, cutting, joining, padding, selecting."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import fx, nn

from enos_compiler.frontend.lowering import Builder, Shape, lowers
from enos_compiler.ir import ops


def to_result_shape(b: Builder, x: fx.Node) -> fx.Node:
    """Append the reshape that gives the shape which the recorded call has found."""
    meta = b.current.meta if b.current is not None else x.meta
    here, there = meta["shape"], meta.get("grown", meta["shape"])
    return b.reshape(x, lambda s: here if s == x.meta["shape"] else there)


@lowers("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "ravel")
def reshape(b: Builder, input: fx.Node, *_: Any, **__: Any) -> fx.Node:
    """Change the shape; the recorded result says to what."""
    return to_result_shape(b, input)


@lowers("reshape_as")
def reshape_as(b: Builder, input: fx.Node, other: fx.Node) -> fx.Node:
    """Take another tensor's shape."""
    del other
    return to_result_shape(b, input)


@lowers("contiguous", "clone", "detach", "data", "cpu", "requires_grad", "alias", "__pos__")
def identity(b: Builder, input: fx.Node, *_: Any, **__: Any) -> fx.Node:
    """Leave out what changes no element."""
    del b
    return input


@lowers("to", "float", "type", "type_as", "double", "half", "bfloat16", "long", "int", "bool")
def cast(b: Builder, input: fx.Node, *_: Any, **__: Any) -> fx.Node:
    """Leave out conversions to the type that the values have; refuse others."""
    wanted = b.current.meta["dtype"] if b.current is not None else input.meta["dtype"]
    if wanted != input.meta["dtype"]:
        raise b.error(
            f"conversion from {input.meta['dtype']} to {wanted}",
            "keep values in float32, and convert inputs before the model",
        )
    return input


@lowers("dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout")
def dropout(
    b: Builder,
    input: fx.Node,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    train: bool = False,
) -> fx.Node:
    """Leave out dropout, which is idle in evaluation mode."""
    del inplace
    if (training or train) and p:
        raise b.error("dropout with training=True", "pass training=self.training")
    return input


@lowers("dropout3d", "feature_dropout")
def dropout_others(b: Builder, input: fx.Node, *args: Any, **kwargs: Any) -> fx.Node:
    """Leave out dropout of whole channels."""
    return dropout(b, input, *args, **kwargs)


def permuted(b: Builder, x: fx.Node, dims: Sequence[int]) -> fx.Node:
    """Append a reordering of axes, one for several in a row and none for the identity."""
    dims = tuple(b.axis(x, d) for d in dims)
    if x.target is ops.permute:
        inner: Shape = x.kwargs["dims"]  # type: ignore[assignment]  # written below
        source: fx.Node = x.args[0]  # type: ignore[assignment]
        return permuted(b, source, [inner[d] for d in dims])
    return x if dims == tuple(range(len(dims))) else b.emit("permute", x, dims=dims)


@lowers("permute")
def permute(b: Builder, input: fx.Node, *dims: Any) -> fx.Node:
    """Reorder axes."""
    return permuted(b, input, dims[0] if isinstance(dims[0], tuple | list) else dims)


@lowers("transpose", "swapaxes", "swapdims")
def transpose(b: Builder, input: fx.Node, dim0: int, dim1: int) -> fx.Node:
    """Exchange two axes."""
    dims = list(range(len(input.meta["shape"])))
    i, j = b.axis(input, dim0), b.axis(input, dim1)
    dims[i], dims[j] = dims[j], dims[i]
    return permuted(b, input, dims)


@lowers("t", "T", "mT", "H", "mH")
def matrix_transpose(b: Builder, input: fx.Node, *_: Any) -> fx.Node:
    """Exchange the last two axes, or reverse all of `.T`."""
    rank = len(input.meta["shape"])
    if rank < 2:
        return input
    call = b.current.meta["call"] if b.current is not None else "mT"
    if call == "T":
        return permuted(b, input, range(rank - 1, -1, -1))
    return transpose(b, input, -1, -2)


@lowers("movedim", "moveaxis")
def movedim(b: Builder, input: fx.Node, source: Any, destination: Any) -> fx.Node:
    """Move axes elsewhere."""
    order = torch.empty((1,) * len(input.meta["shape"]), device="meta")
    axes = list(range(order.dim()))
    marked = torch.empty([i + 2 for i in axes], device="meta").movedim(source, destination)
    return permuted(b, input, [extent - 2 for extent in marked.shape])


@lowers("expand", "expand_as", "broadcast_to")
def expand(b: Builder, input: fx.Node, *_: Any, **__: Any) -> fx.Node:
    """Repeat axes of extent 1 as the recorded result says."""
    meta = b.current.meta if b.current is not None else input.meta
    here, there = meta["shape"], meta.get("grown", meta["shape"])
    missing = len(here) - len(input.meta["shape"])
    x = b.reshape(input, lambda s: (1,) * missing + s)
    return expanded(b, x, here, there)


def expanded(b: Builder, x: fx.Node, here: Shape, there: Shape) -> fx.Node:
    """Append the expansion to extents known at two batches; -1 keeps an axis."""
    kept = [
        (m, n) == (p, q)
        for m, n, p, q in zip(x.meta["shape"], x.meta["grown"], here, there, strict=True)
    ]
    if all(kept):
        return x
    if any(m != n and not keep for m, n, keep in zip(here, there, kept, strict=True)):
        raise b.error(
            "a tensor without the batch is repeated for every entry of it",
            "let broadcasting do it, without expand",
        )
    shape = tuple(-1 if keep else m for m, keep in zip(here, kept, strict=True))
    return b.emit("expand", x, shape=shape)


@lowers("repeat", "tile")
def repeat(b: Builder, input: fx.Node, *sizes: Any) -> fx.Node:
    """Repeat along axes: by expansion where the extent is 1, else by joining copies."""
    times = tuple(sizes[0]) if isinstance(sizes[0], tuple | list) else tuple(sizes)
    missing = len(times) - len(input.meta["shape"])
    times = (1,) * -missing + times
    x = b.reshape(input, lambda s: (1,) * missing + s) if missing > 0 else input
    for axis, count in enumerate(times):
        if count == 1:
            continue
        if x.meta["shape"][axis] == 1 == x.meta["grown"][axis]:
            shape = tuple(count if a == axis else -1 for a in range(len(times)))
            x = b.emit("expand", x, shape=shape)
        else:
            x = b.emit("concat", *([x] * count), dim=axis)
    return x


@lowers("repeat_interleave")
def repeat_interleave(
    b: Builder, input: fx.Node, repeats: Any, dim: int | None = None, **_: Any
) -> fx.Node:
    """Repeat each element along an axis."""
    if not isinstance(repeats, int) or dim is None:
        raise b.error("repeat_interleave by a tensor or over all axes", "repeat along one axis")
    axis = b.axis(input, dim)
    rank = len(input.meta["shape"])
    x = b.reshape(input, lambda s: (*s[: axis + 1], 1, *s[axis + 1 :]))
    shape = tuple(repeats if a == axis + 1 else -1 for a in range(rank + 1))
    return to_result_shape(b, b.emit("expand", x, shape=shape))


@lowers("cat", "concat", "concatenate")
def cat(
    b: Builder, tensors: Sequence[fx.Node], dim: int = 0, *, axis: int | None = None
) -> fx.Node:
    """Join along an axis."""
    xs = [x for x in tensors if prod(x.meta["shape"])]
    along = b.axis(xs[0], dim if axis is None else axis)
    if len(xs) == 1:
        return xs[0]
    if any(x.meta.get("is_row_of_batch") for x in xs):
        return _joined_with_rows(b, xs, along)
    return b.emit("concat", *xs, dim=along)


def _joined_with_rows(b: Builder, xs: Sequence[fx.Node], axis: int) -> fx.Node:
    """Join constants that every entry of the batch sees (a class token) with activations.

    concat(c, x) = pad(x) + [c, 0]: exact, and it needs no copy of the constant per entry.
    """
    own = [i for i, x in enumerate(xs) if not b.is_constant(x)]
    if not own or own != list(range(own[0], own[-1] + 1)):
        raise b.error(
            "constants between activations are joined for every entry of the batch",
            "join the activations first",
        )
    inner = [xs[i] for i in own]
    x = inner[0] if len(inner) == 1 else b.emit("concat", *inner, dim=axis)
    extents = [y.meta["shape"][axis] for y in xs]
    before, after = sum(extents[: own[0]]), sum(extents[own[-1] + 1 :])
    row = [1 if m != n else m for m, n in zip(x.meta["shape"], x.meta["grown"], strict=True)]
    parts = [
        b.tensor(y).detach().expand([*row[:axis], extent, *row[axis + 1 :]])
        if b.is_constant(y)
        else torch.zeros([*row[:axis], extent, *row[axis + 1 :]])
        for y, extent in zip(xs, extents, strict=True)
    ]
    joined = torch.cat(parts, axis)
    if any(isinstance(b.tensor(y), nn.Parameter) for y in xs if b.is_constant(y)):
        joined = nn.Parameter(joined)
    begins = tuple(before if a == axis else 0 for a in range(len(row)))
    ends = tuple(after if a == axis else 0 for a in range(len(row)))
    padded = b.emit("pad", x, pads=begins + ends, value=0.0)
    node = b.emit("add", padded, b.constant("token", joined))
    node.meta["adds_constant"] = True
    return node


@lowers("stack")
def stack(b: Builder, tensors: Sequence[fx.Node], dim: int = 0) -> fx.Node:
    """Join along a new axis."""
    axis = b.axis(tensors[0], dim, extra=1)
    return cat(b, [b.reshape(x, lambda s: (*s[:axis], 1, *s[axis:])) for x in tensors], axis)


@lowers("hstack")
def hstack(b: Builder, tensors: Sequence[fx.Node]) -> fx.Node:
    """Join along axis 1."""
    return cat(b, tensors, min(1, len(tensors[0].meta["shape"]) - 1))


def cut(b: Builder, x: fx.Node, axis: int, start: int, stop: int, step: int = 1) -> fx.Node:
    """Append a slice; nothing for the whole axis."""
    if (start, step) == (0, 1) and stop >= x.meta["shape"][axis]:
        return x
    if x.meta["shape"][axis] != x.meta["grown"][axis]:
        raise b.error("a part of the batch is taken", "treat every entry of the batch alike")
    return b.emit("slice", x, dim=axis, start=start, stop=stop, step=step)


def _cut_all(b: Builder, x: fx.Node, axis: int, sizes: Sequence[int]) -> tuple[fx.Node, ...]:
    """Cut an axis into runs of the given sizes."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(cut(b, x, axis, s, s + n) for s, n in zip(starts, sizes, strict=True))


@lowers("chunk")
def chunk(b: Builder, input: fx.Node, chunks: int, dim: int = 0) -> tuple[fx.Node, ...]:
    """Cut into equal runs, the last one perhaps shorter."""
    extent = input.meta["shape"][b.axis(input, dim)]
    return split(b, input, -(-extent // chunks), dim)


@lowers("split", "split_with_sizes")
def split(
    b: Builder, tensor: fx.Node, split_size_or_sections: Any, dim: int = 0
) -> tuple[fx.Node, ...]:
    """Cut into runs of a size or of sizes."""
    axis = b.axis(tensor, dim)
    extent, size = tensor.meta["shape"][axis], split_size_or_sections
    if isinstance(size, int):
        size = [min(size, extent - start) for start in range(0, extent, size)]
    return _cut_all(b, tensor, axis, size)


@lowers("tensor_split")
def tensor_split(
    b: Builder, input: fx.Node, indices_or_sections: Any, dim: int = 0
) -> tuple[fx.Node, ...]:
    """Cut into a number of runs, longer ones first, or at positions."""
    axis = b.axis(input, dim)
    extent = input.meta["shape"][axis]
    parts = torch.empty(extent, device="meta").tensor_split(indices_or_sections)
    return _cut_all(b, input, axis, [int(p.shape[0]) for p in parts])


@lowers("unbind")
def unbind(b: Builder, input: fx.Node, dim: int = 0) -> tuple[fx.Node, ...]:
    """Cut into single entries and drop the axis."""
    axis = b.axis(input, dim)
    parts = _cut_all(b, input, axis, [1] * input.meta["shape"][axis])
    return tuple(b.reshape(p, lambda s: (*s[:axis], *s[axis + 1 :])) for p in parts)


@lowers("narrow")
def narrow(b: Builder, input: fx.Node, dim: int, start: int, length: int) -> fx.Node:
    """Take a run of an axis."""
    axis = b.axis(input, dim)
    first = start % input.meta["shape"][axis]
    return cut(b, input, axis, first, first + length)


@lowers("select")
def select(b: Builder, input: fx.Node, dim: int, index: int) -> fx.Node:
    """Take one entry and drop the axis."""
    axis = b.axis(input, dim)
    first = index % input.meta["shape"][axis]
    return to_result_shape(b, cut(b, input, axis, first, first + 1))


@lowers("__getitem__")
def getitem(b: Builder, input: fx.Node, index: Any) -> fx.Node:
    """Take what integers, slices, None and ... say."""
    items = list(index) if isinstance(index, tuple | list) else [index]
    if not all(i is None or i is Ellipsis or isinstance(i, int | slice) for i in items) or any(
        isinstance(i, bool) for i in items
    ):
        raise b.error(
            "indexing by a tensor or a list",
            "use slices, or cut and join the parts with torch.cat",
        )
    taken = sum(1 for i in items if i is not None and i is not Ellipsis)
    rest = [slice(None)] * (len(input.meta["shape"]) - taken)
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items[at : at + 1] = rest
    x, axis = input, 0
    for item in items:
        if item is None:
            continue
        extent = x.meta["shape"][axis]
        if isinstance(item, int):
            x = cut(b, x, axis, item % extent, item % extent + 1)
        elif item != slice(None):
            x = cut(b, x, axis, *item.indices(extent))
        axis += 1
    return to_result_shape(b, x)


@lowers("roll")
def roll(b: Builder, input: fx.Node, shifts: Any, dims: Any = None) -> fx.Node:
    """Rotate along axes: two cuts and a joint each."""
    if dims is None:
        raise b.error("roll over all axes at once", "name the axes")
    pairs = [(shifts, dims)] if isinstance(dims, int) else list(zip(shifts, dims, strict=True))
    x = input
    for shift, dim in pairs:
        axis = b.axis(x, dim)
        extent = x.meta["shape"][axis]
        cutting = -shift % extent
        if cutting:
            tail, head = cut(b, x, axis, cutting, extent), cut(b, x, axis, 0, cutting)
            x = b.emit("concat", tail, head, dim=axis)
    return x


@lowers("channel_shuffle")
def channel_shuffle(b: Builder, input: fx.Node, groups: int) -> fx.Node:
    """Exchange the axes (group, channel)."""
    rank = len(input.meta["shape"])
    x = b.reshape(input, lambda s: (s[0], groups, s[1] // groups, *s[2:]))
    return to_result_shape(b, permuted(b, x, (0, 2, 1, *range(3, rank + 1))))


@lowers("pixel_shuffle")
def pixel_shuffle(b: Builder, input: fx.Node, upscale_factor: int) -> fx.Node:
    """Move channels (C, r, r) to pixels (H, r, W, r)."""
    r = upscale_factor
    x = b.reshape(input, lambda s: (s[0], s[1] // r**2, r, r, s[2], s[3]))
    return to_result_shape(b, permuted(b, x, (0, 1, 4, 2, 5, 3)))


@lowers("pixel_unshuffle")
def pixel_unshuffle(b: Builder, input: fx.Node, downscale_factor: int) -> fx.Node:
    """Move pixels (H, r, W, r) to channels (C, r, r)."""
    r = downscale_factor
    x = b.reshape(input, lambda s: (s[0], s[1], s[2] // r, r, s[3] // r, r))
    return to_result_shape(b, permuted(b, x, (0, 1, 3, 5, 2, 4)))
