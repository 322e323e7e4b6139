# SPDX-License-Identifier: Apache-2.0
"""Lowers arithmetic and functions of one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from enos_compiler.frontend.lowering import LIMIT, LOWERINGS, Builder, lowers
from enos_compiler.ir import ops

Operand = fx.Node | float
MASKED = -1.0e4
"""Added to a score in place of minus infinity: exp underflows to 0 in float32 all the same."""


def function_of(b: Builder, x: fx.Node, function: str, *parameters: float) -> fx.Node:
    """Append a function of one value."""
    return b.emit("elementwise", x, function=function, parameters=parameters)


def affine(b: Builder, x: fx.Node, a: float, c: float) -> fx.Node:
    """Append a*x + c, one for several in a row and none for the identity."""
    if x.target is ops.elementwise and x.kwargs["function"] == "affine":
        parameters: tuple[float, float] = x.kwargs["parameters"]  # type: ignore[assignment]
        inner_a, inner_c = parameters
        return affine(b, _source(x), a * inner_a, a * inner_c + c)
    return x if (a, c) == (1.0, 0.0) else function_of(b, x, "affine", float(a), float(c))


def _source(x: fx.Node) -> fx.Node:
    """Return the input of a function of one value."""
    source: fx.Node = x.args[0]  # type: ignore[assignment]  # a node by construction
    return source


def _register_plain() -> None:
    """Register functions without parameters, under torch's names."""
    calls = {
        "relu": ("relu",),
        "sigmoid": ("sigmoid", "expit"),
        "tanh": ("tanh",),
        "silu": ("silu",),
        "hardswish": ("hardswish",),
        "hardsigmoid": ("hardsigmoid",),
        "mish": ("mish",),
        "exp": ("exp",),
        "log": ("log",),
        "sqrt": ("sqrt",),
        "rsqrt": ("rsqrt",),
        "reciprocal": ("reciprocal",),
        "abs": ("abs", "absolute", "__abs__"),
        "neg": ("neg", "negative", "__neg__"),
        "sign": ("sign", "sgn"),
        "square": ("square",),
        "erf": ("erf",),
        "sin": ("sin",),
        "cos": ("cos",),
    }
    for function, names in calls.items():
        for name in names:
            LOWERINGS[name] = _plain(function)


def _plain(function: str) -> Callable[..., fx.Node]:
    def lower(b: Builder, input: fx.Node, inplace: bool = False) -> fx.Node:
        del inplace  # the recorder has followed the change already
        return function_of(b, input, function)

    return lower


_register_plain()


@lowers("gelu")
def gelu(b: Builder, input: fx.Node, approximate: str = "none") -> fx.Node:
    """Gaussian error linear unit, exact or by tanh."""
    return function_of(b, input, "gelu_tanh" if approximate == "tanh" else "gelu")


@lowers("leaky_relu")
def leaky_relu(
    b: Builder, input: fx.Node, negative_slope: float = 0.01, inplace: bool = False
) -> fx.Node:
    """ReLU with a slope below zero."""
    del inplace
    return function_of(b, input, "leaky_relu", float(negative_slope))


@lowers("prelu")
def prelu(b: Builder, input: fx.Node, weight: fx.Node) -> fx.Node:
    """ReLU with learnt slopes: one slope is a leaky ReLU, one per channel relu(x) - w*relu(-x)."""
    slope = b.scalar(weight)
    if slope is not None:
        return function_of(b, input, "leaky_relu", slope)
    rank = len(input.meta["shape"])
    slopes = b.derive(weight, "negated", lambda w: -w.reshape(1, -1, *(1,) * (rank - 2)))
    below = function_of(b, function_of(b, input, "neg"), "relu")
    return b.emit("add", function_of(b, input, "relu"), b.emit("mul", below, slopes))


@lowers("elu")
def elu(b: Builder, input: fx.Node, alpha: float = 1.0, inplace: bool = False) -> fx.Node:
    """Exponential linear unit."""
    del inplace
    return function_of(b, input, "elu", float(alpha))


@lowers("selu")
def selu(b: Builder, input: fx.Node, inplace: bool = False) -> fx.Node:
    """Scaled exponential linear unit.

    Source: the constants of Klambauer et al., "Self-Normalizing Neural Networks" (remembered), to
    the digits that torch uses.
    """
    del inplace
    return affine(b, function_of(b, input, "elu", 1.6732632423543772), 1.0507009873554805, 0.0)


@lowers("softplus")
def softplus(b: Builder, input: fx.Node, beta: float = 1.0, threshold: float = 20.0) -> fx.Node:
    """log(1 + exp(beta x)) / beta."""
    del threshold  # torch's own guard against overflow
    y = function_of(b, affine(b, input, beta, 0.0), "softplus")
    return affine(b, y, 1 / beta, 0.0)


@lowers("softsign")
def softsign(b: Builder, input: fx.Node) -> fx.Node:
    """X / (1 + |x|)."""
    below = affine(b, function_of(b, input, "abs"), 1.0, 1.0)
    return b.emit("mul", input, function_of(b, below, "reciprocal"))


@lowers("log_sigmoid", "logsigmoid")
def log_sigmoid(b: Builder, input: fx.Node) -> fx.Node:
    """-softplus(-x)."""
    return function_of(b, function_of(b, function_of(b, input, "neg"), "softplus"), "neg")


@lowers("relu6")
def relu6(b: Builder, input: fx.Node, inplace: bool = False) -> fx.Node:
    """ReLU up to 6."""
    del inplace
    return function_of(b, input, "clip", 0.0, 6.0)


@lowers("hardtanh")
def hardtanh(
    b: Builder,
    input: fx.Node,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> fx.Node:
    """Clip to a range."""
    del inplace
    return function_of(b, input, "clip", float(min_val), float(max_val))


@lowers("clamp", "clip")
def clamp(b: Builder, input: fx.Node, min: Any = None, max: Any = None) -> fx.Node:
    """Clip to a range with one or two bounds; from 0 up it is a ReLU."""
    low, high = (None if bound is None else b.scalar(bound) for bound in (min, max))
    if (min is not None and low is None) or (max is not None and high is None):
        raise b.error("clamp with bounds per element", "use torch.minimum and torch.maximum")
    if low == 0.0 and high is None:
        return function_of(b, input, "relu")
    bounds = (-LIMIT if low is None else low, LIMIT if high is None else high)
    return function_of(b, input, "clip", *bounds)


@lowers("clamp_min")
def clamp_min(b: Builder, input: fx.Node, min: Any) -> fx.Node:
    """Clip from below."""
    return clamp(b, input, min=min)


@lowers("clamp_max")
def clamp_max(b: Builder, input: fx.Node, max: Any) -> fx.Node:
    """Clip from above."""
    return clamp(b, input, max=max)


@lowers("pow", "__pow__")
def power(b: Builder, input: fx.Node, exponent: Any) -> fx.Node:
    """Power with a constant exponent."""
    k = b.scalar(exponent)
    if k is None or isinstance(input, int | float):
        raise b.error("a power whose exponent is a tensor", "use a constant exponent")
    named = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if k == 1.0:
        return input
    return function_of(b, input, named[k]) if k in named else function_of(b, input, "pow", k)


@lowers("add", "__add__", "__radd__")
def add(b: Builder, input: Operand, other: Operand, *, alpha: float = 1) -> fx.Node:
    """Sum; a number makes it a function of one value."""
    return _sum(b, input, other, float(alpha))


@lowers("sub", "subtract", "__sub__")
def sub(b: Builder, input: Operand, other: Operand, *, alpha: float = 1) -> fx.Node:
    """Difference."""
    return _sum(b, input, other, -float(alpha))


@lowers("rsub", "__rsub__")
def rsub(b: Builder, input: Operand, other: Operand, *, alpha: float = 1) -> fx.Node:
    """Reversed difference, other - alpha * input."""
    return _sum(b, other, input, -float(alpha))


def _sum(b: Builder, x: Operand, y: Operand, factor: float) -> fx.Node:
    """Append x + factor * y, either of which may be a number."""
    left, right = b.scalar(x), b.scalar(y)
    if right is not None and isinstance(x, fx.Node):
        return _extended(b, affine(b, x, 1.0, factor * right), y)
    if left is not None and isinstance(y, fx.Node):
        return _extended(b, affine(b, y, factor, left), x)
    x, y = _finite(b, x), _finite(b, y)
    merged = _merged_constants(b, x, y, factor)
    if merged is not None:
        return merged
    if factor == -1.0:
        return b.emit("sub", x, y)
    if factor != 1.0 and isinstance(y, fx.Node):
        y = affine(b, y, factor, 0.0)
    return b.emit("add", x, y)


def _merged_constants(b: Builder, x: Operand, y: Operand, factor: float) -> fx.Node | None:
    """Return (x + c) + y as x + (c + y) where joined constants and a constant follow each other."""
    for node, other in ((x, y), (y, x)):
        if (
            factor == 1.0
            and isinstance(node, fx.Node)
            and isinstance(other, fx.Node)
            and node.meta.get("adds_constant")
            and b.is_constant(other)
            and other.meta["shape"] == node.args[1].meta["shape"]  # type: ignore[union-attr]
        ):
            inner, constant = node.args
            total = b.tensor(constant) + b.tensor(other)  # type: ignore[arg-type]  # nodes
            if isinstance(b.tensor(other), nn.Parameter):
                total = nn.Parameter(total)
            return b.emit("add", inner, b.constant("token", total))
    return None


def _extended(b: Builder, y: fx.Node, other: Operand) -> fx.Node:
    """Give a result the rank that a one-element operand of higher rank broadcasts it to."""
    if not isinstance(other, fx.Node):
        return y
    missing = len(other.meta["shape"]) - len(y.meta["shape"])
    return b.reshape(y, lambda s: (1,) * missing + s) if missing > 0 else y


def _finite(b: Builder, x: Operand) -> Operand:
    """Replace minus infinity in a constant, an attention mask, by a number that acts the same."""
    if isinstance(x, fx.Node) and b.is_constant(x) and x.meta["dtype"] == "float32":
        tensor = b.tensor(x)
        if bool((tensor < MASKED).any()):
            return b.derive(x, "finite", lambda m: m.clamp(min=MASKED))
    return x


@lowers("mul", "multiply", "__mul__", "__rmul__")
def mul(b: Builder, input: Operand, other: Operand) -> fx.Node:
    """Product; a number makes it a function of one value."""
    left, right = b.scalar(input), b.scalar(other)
    if right is not None and isinstance(input, fx.Node):
        return _extended(b, affine(b, input, right, 0.0), other)
    if left is not None and isinstance(other, fx.Node):
        return _extended(b, affine(b, other, left, 0.0), input)
    if input is other:
        return function_of(b, other, "square")  # type: ignore[arg-type]  # not both are numbers
    return b.emit("mul", _as_float(b, input), _as_float(b, other))


def _as_float(b: Builder, x: Operand) -> Operand:
    """Return a constant of truth values as zeros and ones."""
    if isinstance(x, fx.Node) and b.is_constant(x) and x.meta["dtype"] != "float32":
        return b.derive(x, "float", lambda m: m.float())
    return x


@lowers("div", "divide", "true_divide", "__truediv__")
def div(b: Builder, input: Operand, other: Operand, *, rounding_mode: Any = None) -> fx.Node:
    """Quotient, as a product with the reciprocal."""
    if rounding_mode is not None:
        raise b.error(f"division rounded by `{rounding_mode}`", "divide without rounding_mode")
    divisor = b.scalar(other)
    if divisor is not None:
        return mul(b, input, 1.0 / divisor)
    assert isinstance(other, fx.Node)
    if b.is_constant(other):
        return mul(b, input, b.derive(other, "reciprocal", lambda d: d.reciprocal()))
    return mul(b, input, function_of(b, other, "reciprocal"))


@lowers("__rdiv__", "__rtruediv__")
def rdiv(b: Builder, input: fx.Node, other: Operand) -> fx.Node:
    """Reversed quotient, other / input."""
    return mul(b, function_of(b, input, "reciprocal"), other)


@lowers("addcmul")
def addcmul(
    b: Builder, input: fx.Node, tensor1: Operand, tensor2: Operand, *, value: float = 1
) -> fx.Node:
    """Sum with a scaled product."""
    return _sum(b, input, mul(b, tensor1, tensor2), float(value))


@lowers("lerp")
def lerp(b: Builder, input: fx.Node, end: Operand, weight: Operand) -> fx.Node:
    """Interpolate between two tensors."""
    return _sum(b, input, mul(b, _sum(b, end, input, -1.0), weight), 1.0)


@lowers("maximum", "max", "fmax")
def maximum(b: Builder, input: fx.Node, other: Any = None) -> fx.Node:
    """Larger of two tensors, a + relu(b - a)."""
    if not isinstance(other, fx.Node):
        raise b.error(
            "max over an axis returns positions too", "use torch.amax, or max_pool over the axis"
        )
    return b.emit("add", input, function_of(b, _sum(b, other, input, -1.0), "relu"))


@lowers("minimum", "min", "fmin")
def minimum(b: Builder, input: fx.Node, other: Any = None) -> fx.Node:
    """Smaller of two tensors, a - relu(a - b)."""
    if not isinstance(other, fx.Node):
        raise b.error("min over an axis returns positions too", "use -torch.amax(-x, dim) instead")
    return b.emit("sub", input, function_of(b, _sum(b, input, other, -1.0), "relu"))


@lowers("masked_fill")
def masked_fill(b: Builder, input: fx.Node, mask: Any, value: Any) -> fx.Node:
    """Replace elements under a constant mask; large negative values are added, as to scores."""
    number = b.scalar(value)
    if not b.is_constant(mask) or number is None:
        raise b.error(
            "a mask or a value that depends on the input",
            "compute the mask from shapes or buffers alone",
        )
    if number <= MASKED:
        return b.emit("add", input, b.derive(mask, "masked", lambda m: m.float() * MASKED))
    kept = b.emit("mul", input, b.derive(mask, "kept", lambda m: 1.0 - m.float()))
    if number == 0.0:
        return kept
    return b.emit("add", kept, b.derive(mask, f"fill_{number!r}", lambda m: m.float() * number))


@lowers("where")
def where(b: Builder, condition: Any, input: Any, other: Any) -> fx.Node:
    """Select by a constant condition."""
    if not b.is_constant(condition):
        raise b.error("a condition that depends on the input", "select by arithmetic instead")
    if b.scalar(other) is not None and isinstance(input, fx.Node) and not b.is_constant(input):
        return masked_fill(b, input, b.derive(condition, "not", torch.logical_not), other)
    if b.scalar(input) is not None:
        return masked_fill(b, other, condition, input)
    chosen = b.emit("mul", input, b.derive(condition, "float", Tensor.float))
    rest = b.emit("mul", other, b.derive(condition, "kept", lambda m: 1.0 - m.float()))
    return b.emit("add", chosen, rest)


@lowers("glu")
def glu(b: Builder, input: fx.Node, dim: int = -1) -> fx.Node:
    """First half times the sigmoid of the second half."""
    axis = b.axis(input, dim)
    half = input.meta["shape"][axis] // 2
    value = b.emit("slice", input, dim=axis, start=0, stop=half, step=1)
    gate = b.emit("slice", input, dim=axis, start=half, stop=2 * half, step=1)
    return b.emit("mul", value, function_of(b, gate, "sigmoid"))
