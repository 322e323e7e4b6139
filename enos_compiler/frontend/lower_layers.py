# SPDX-License-Identifier: Apache-2.0
"""Lowers convolutions, linear layers and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import fx

from enos_compiler.frontend.lowering import Builder, Shape, lowers
from enos_compiler.ir import ops

Extents = int | Sequence[int]


def per_axis(extents: Extents, axes: int) -> tuple[int, ...]:
    """Return one entry per axis of an integer or a sequence of one or `axes` entries."""
    if isinstance(extents, int):
        return (extents,) * axes
    return tuple(extents) * axes if len(extents) == 1 else tuple(extents)


@lowers("conv1d", "conv2d")
def conv(
    b: Builder,
    input: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None = None,
    stride: Extents = 1,
    padding: Extents | str = 0,
    dilation: Extents = 1,
    groups: int = 1,
) -> fx.Node:
    """Convolution; padding `same` puts the odd zero at the end, as torch does."""
    require_constant(b, weight, "convolution")
    axes = len(weight.meta["shape"]) - 2
    dilations = per_axis(dilation, axes)
    if padding == "valid":
        padding = 0
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilations, weight.meta["shape"][2:], strict=True)]
        begins = tuple(total // 2 for total in totals)
        ends = tuple(total - total // 2 for total in totals)
    else:
        begins = ends = per_axis(padding, axes)  # type: ignore[arg-type]  # no string is left
    x, was_unbatched = batched(b, input, axes)
    x, begins, ends = _absorb_pad(x, begins, ends)
    y = b.emit(
        "conv",
        x,
        weight,
        bias,
        stride=per_axis(stride, axes),
        padding=begins + ends,
        dilation=dilations,
        groups=groups,
    )
    return b.reshape(y, lambda s: s[1:]) if was_unbatched else y


def _absorb_pad(x: fx.Node, begins: Shape, ends: Shape) -> tuple[fx.Node, Shape, Shape]:
    """Take zeros padded before a convolution into its own padding."""
    if x.target is not ops.pad:
        return x, begins, ends
    pads: Shape = x.kwargs["pads"]  # type: ignore[assignment]  # emitted as a tuple
    rank = len(pads) // 2
    if any(pads[:2] + pads[rank : rank + 2]):
        return x, begins, ends
    source: fx.Node = x.args[0]  # type: ignore[assignment]
    before = tuple(a + c for a, c in zip(begins, pads[2:rank], strict=True))
    after = tuple(a + c for a, c in zip(ends, pads[rank + 2 :], strict=True))
    return source, before, after


@lowers("conv3d", "conv_transpose3d", "conv_tbc")
def conv3d(b: Builder, *_: Any, **__: Any) -> fx.Node:
    """Refuse convolutions of three spatial axes."""
    raise b.error(
        "3-D convolution is not supported: a layer has two spatial axes",
        "fold one axis into the batch or the channels and use conv2d",
    )


@lowers("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell")
def recurrent(b: Builder, *_: Any, **__: Any) -> fx.Node:
    """Refuse recurrent layers."""
    call = b.current.meta["call"] if b.current is not None else "rnn"
    raise b.error(
        f"recurrent layer `{call}` is not supported: its state loops through time",
        "write the steps out with nn.Linear over a fixed length, or use convolution or attention",
    )


@lowers("linear")
def linear(
    b: Builder,
    input: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None = None,
) -> fx.Node:
    """Linear layer over the last axis."""
    if b.is_constant(weight):
        return b.emit("linear", input, weight, bias)
    product = matmul(b, input, transposed(b, weight, -1, -2))
    return product if bias is None else b.emit("add", product, bias)


@lowers("addmm")
def addmm(
    b: Builder,
    input: fx.Node,
    mat1: fx.Node,
    mat2: fx.Node,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> fx.Node:
    """Product plus bias."""
    if (alpha, beta) != (1, 1):
        raise b.error("addmm with alpha or beta", "multiply the operands instead")
    if b.is_constant(mat2) and b.is_constant(input) and len(input.meta["shape"]) == 1:
        return b.emit("linear", mat1, b.derive(mat2, "t", lambda w: w.t()), input)
    return b.emit("add", matmul(b, mat1, mat2), input)


@lowers("matmul", "bmm", "mm", "__matmul__")
def matmul(
    b: Builder,
    input: fx.Node,
    other: fx.Node,
    *,
    mat2: fx.Node | None = None,
) -> fx.Node:
    """Matrix product; a constant operand of rank 2 makes it a linear layer."""
    other = mat2 or other
    if min(len(input.meta["shape"]), len(other.meta["shape"])) < 2:
        raise b.error("a product with a vector", "unsqueeze the vector to a matrix")
    if b.is_constant(other) and _is_matrix(other):
        weight = b.derive(other, "t", lambda w: w.reshape(w.shape[-2:]).t())
        return b.emit("linear", input, weight, None)
    if b.is_constant(input) and _is_matrix(input):
        weight = b.derive(input, "matrix", lambda w: w.reshape(w.shape[-2:]))
        y = b.emit("linear", transposed(b, other, -1, -2), weight, None)
        return transposed(b, y, -1, -2)
    return b.emit("matmul", *_same_lead(b, input, other))


@lowers("__rmatmul__")
def rmatmul(b: Builder, other: fx.Node, input: fx.Node) -> fx.Node:
    """Reversed matrix product."""
    return matmul(b, input, other)


@lowers("baddbmm")
def baddbmm(
    b: Builder,
    input: fx.Node,
    batch1: fx.Node,
    batch2: fx.Node,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> fx.Node:
    """Scaled product plus a tensor."""
    product = matmul(b, batch1, batch2)
    if alpha != 1:
        product = b.emit("elementwise", product, function="affine", parameters=(float(alpha), 0.0))
    if beta == 0:
        return product
    if beta != 1:
        input = b.emit("elementwise", input, function="affine", parameters=(float(beta), 0.0))
    return b.emit("add", product, input)


def transposed(b: Builder, x: fx.Node, first: int, second: int) -> fx.Node:
    """Return x with two axes exchanged."""
    dims = list(range(len(x.meta["shape"])))
    i, j = b.axis(x, first), b.axis(x, second)
    dims[i], dims[j] = dims[j], dims[i]
    return b.emit("permute", x, dims=tuple(dims))


def _is_matrix(x: fx.Node) -> bool:
    """Whether all axes but the last two have extent 1."""
    return bool(prod(x.meta["shape"][:-2]) == 1)


def _same_lead(b: Builder, left: fx.Node, right: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Give both operands of a product the same leading extents."""
    rank = max(len(left.meta["shape"]), len(right.meta["shape"]))
    operands = []
    for x in (left, right):
        missing = rank - len(x.meta["shape"])
        operands.append(b.reshape(x, lambda s, n=missing: (1,) * n + s))  # type: ignore[misc]
    lead = [
        tuple(max(m, n) for m, n in zip(*(x.meta[key][:-2] for x in operands), strict=True))
        for key in ("shape", "grown")
    ]
    for index, x in enumerate(operands):
        if (x.meta["shape"][:-2], x.meta["grown"][:-2]) == tuple(lead):
            continue
        if lead[0] != lead[1] and x.meta["shape"] == x.meta["grown"]:
            raise b.error(
                "a product of a constant and the batch of activations",
                "compile at the example inputs' batch, or make the constant a rank-2 weight",
            )
        shape = tuple(
            -1 if m == n else n for m, n in zip(x.meta["shape"][:-2], lead[0], strict=True)
        )
        operands[index] = b.emit("expand", x, shape=(*shape, -1, -1))
    return operands[0], operands[1]


def batched(b: Builder, x: fx.Node, axes: int) -> tuple[fx.Node, bool]:
    """Give an unbatched input of a convolution or pool a leading axis."""
    if len(x.meta["shape"]) == axes + 1:
        return b.reshape(x, lambda s: (1, *s)), True
    return x, False


def require_constant(b: Builder, weight: fx.Node, what: str) -> None:
    """Refuse a layer whose weights are computed from the input."""
    if not b.is_constant(weight):
        raise b.error(
            f"the weights of a {what} depend on the input",
            "use parameters or constants, or write it as a matrix product",
        )
