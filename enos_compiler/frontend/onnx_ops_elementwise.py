# SPDX-License-Identifier: Apache-2.0
"""ONNX arithmetic, activations and normalisations in torch calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from enos_compiler.frontend.onnx_table import (
    OPERATIONS,
    Attributes,
    OnnxInputError,
    axes_of,
    number_of,
    onnx,
)

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""Defaults of Selu. Source: the ONNX operator specification (seen)."""


def _register_plain() -> None:
    """Register functions of one tensor without attributes."""
    functions: dict[str, Callable[[Any], Any]] = {
        "Relu": F.relu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "Exp": torch.exp,
        "Log": torch.log,
        "Sqrt": torch.sqrt,
        "Reciprocal": torch.reciprocal,
        "Neg": torch.neg,
        "Abs": torch.abs,
        "Sign": torch.sign,
        "Erf": torch.erf,
        "Sin": torch.sin,
        "Cos": torch.cos,
        "HardSwish": F.hardswish,
        "Softplus": F.softplus,
        "Softsign": F.softsign,
        "Mish": F.mish,
        "Identity": lambda x: x,
    }
    for name, function in functions.items():
        OPERATIONS[name] = partial(_plain, function)


def _plain(function: Callable[[Any], Any], attributes: Attributes, x: Tensor) -> Any:
    del attributes
    return function(x)


_register_plain()


@onnx("Add")
def add(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Sum."""
    del attributes
    return torch.add(a, b)


@onnx("Sub")
def sub(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Difference."""
    del attributes
    return torch.sub(a, b)


@onnx("Mul")
def mul(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Product."""
    del attributes
    return torch.mul(a, b)


@onnx("Div")
def div(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Quotient; of integers it is cut toward zero."""
    del attributes
    if a.is_floating_point():
        return torch.div(a, b)
    return torch.div(a, b, rounding_mode="trunc")


@onnx("Sum")
def sum_(attributes: Attributes, *operands: Tensor) -> Tensor:
    """Sum of any number of tensors."""
    del attributes
    return reduce(torch.add, operands)


@onnx("Max")
def maximum(attributes: Attributes, *operands: Tensor) -> Tensor:
    """Larger elements; beside a number it is a bound from below."""
    bounded = _bounded(attributes, operands)
    if bounded is not None:
        return torch.clamp(bounded[0], min=bounded[1])
    return reduce(torch.maximum, operands)


@onnx("Min")
def minimum(attributes: Attributes, *operands: Tensor) -> Tensor:
    """Smaller elements; beside a number it is a bound from above."""
    bounded = _bounded(attributes, operands)
    if bounded is not None:
        return torch.clamp(bounded[0], max=bounded[1])
    return reduce(torch.minimum, operands)


def _bounded(attributes: Attributes, operands: tuple[Tensor, ...]) -> tuple[Tensor, float] | None:
    """Return the tensor and the number where there are just these two."""
    single = [attributes.is_constant(i) and x.numel() == 1 for i, x in enumerate(operands)]
    if len(operands) != 2 or single.count(True) != 1:
        return None
    x, limit = operands if single[1] else operands[::-1]
    return x, float(limit.item())


@onnx("Pow")
def power(attributes: Attributes, x: Tensor, exponent: Tensor) -> Tensor:
    """Power."""
    if attributes.is_constant(1) and exponent.numel() == 1:
        return torch.pow(x, exponent.item())
    return torch.pow(x, exponent)


@onnx("Clip")
def clip(
    attributes: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    """Bounds from below and above."""
    del attributes
    bounds = number_of(low), number_of(high)
    return x if bounds == (None, None) else torch.clamp(x, *bounds)


@onnx("LeakyRelu")
def leaky_relu(attributes: Attributes, x: Tensor) -> Tensor:
    """ReLU with a slope below zero."""
    return F.leaky_relu(x, attributes.number("alpha", 0.01))


@onnx("PRelu")
def prelu(attributes: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    """ReLU with learnt slopes, one or one per channel."""
    del attributes
    if slope.numel() not in (1, x.shape[1]):
        raise OnnxInputError(
            f"slopes of shape {tuple(slope.shape)} for a tensor of shape {tuple(x.shape)}",
            "give one slope, or one per channel",
        )
    return F.prelu(x, slope.reshape(-1))


@onnx("Elu")
def elu(attributes: Attributes, x: Tensor) -> Tensor:
    """Exponential linear unit."""
    return F.elu(x, attributes.number("alpha", 1.0))


@onnx("Selu")
def selu(attributes: Attributes, x: Tensor) -> Tensor:
    """Scaled exponential linear unit."""
    alpha = attributes.number("alpha", _SELU_ALPHA)
    return torch.mul(F.elu(x, alpha), attributes.number("gamma", _SELU_GAMMA))


@onnx("HardSigmoid")
def hard_sigmoid(attributes: Attributes, x: Tensor) -> Tensor:
    """Alpha x + beta between 0 and 1; torch's own slope of 1/6 is one function."""
    alpha, beta = attributes.number("alpha", 0.2), attributes.number("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(torch.add(torch.mul(x, alpha), beta), 0.0, 1.0)


@onnx("Gelu")
def gelu(attributes: Attributes, x: Tensor) -> Tensor:
    """Gaussian error linear unit."""
    return F.gelu(x, approximate=attributes.text("approximate", "none"))


@onnx("Dropout")
def dropout(
    attributes: Attributes, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> Tensor:
    """Idle, as in inference."""
    attributes.refuse_more_than(1)
    if training is not None and bool(training.item()) and number_of(ratio) != 0:
        raise OnnxInputError("dropout in training mode", "export in evaluation mode")
    return x


@onnx("Softmax")
def softmax(attributes: Attributes, x: Tensor) -> Tensor:
    """Softmax along an axis."""
    return torch.softmax(x, attributes.integer("axis", -1))


@onnx("LogSoftmax")
def log_softmax(attributes: Attributes, x: Tensor) -> Tensor:
    """Logarithm of the softmax."""
    return torch.log_softmax(x, attributes.integer("axis", -1))


@onnx("BatchNormalization")
def batch_norm(
    attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    """Batch normalisation by running statistics."""
    attributes.refuse("training_mode", 0)
    return F.batch_norm(x, mean, var, scale, bias, eps=attributes.number("epsilon", 1e-5))


@onnx("LayerNormalization")
def layer_norm(
    attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Layer normalisation over the axes from `axis` on."""
    attributes.refuse_more_than(1)
    shape = list(x.shape)[attributes.integer("axis", -1) % x.dim() :]
    weight = scale.expand(shape)
    offset = None if bias is None else bias.expand(shape)
    return F.layer_norm(x, shape, weight, offset, attributes.number("epsilon", 1e-5))


@onnx("GroupNormalization")
def group_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Group normalisation with a scale per channel, as from opset 21 on."""
    groups = attributes.integer("num_groups", 1)
    return F.group_norm(x, groups, scale, bias, attributes.number("epsilon", 1e-5))


@onnx("InstanceNormalization")
def instance_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalisation of each channel of each entry."""
    eps = attributes.number("epsilon", 1e-5)
    return F.instance_norm(x, weight=scale, bias=bias, eps=eps)


@onnx("ReduceMean")
def reduce_mean(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Average over axes."""
    return _reduced(torch.mean, attributes, x, axes)


@onnx("ReduceSum")
def reduce_sum(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Sum over axes."""
    return _reduced(torch.sum, attributes, x, axes)


@onnx("ReduceMax")
def reduce_max(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Maximum over axes."""
    return _reduced(torch.amax, attributes, x, axes)


@onnx("ReduceProd")
def reduce_product(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Product over one axis, of extents."""
    chosen = axes_of(attributes, axes, x.dim()) or tuple(range(x.dim()))
    if len(chosen) != 1:
        raise OnnxInputError("a product over several axes", "multiply along one axis at a time")
    return torch.prod(x, chosen[0], keepdim=bool(attributes.integer("keepdims", 1)))


def _reduced(function: Any, attributes: Attributes, x: Tensor, axes: Tensor | None) -> Tensor:
    chosen = axes_of(attributes, axes, x.dim())
    if not chosen and attributes.integer("noop_with_empty_axes", 0):
        return x
    dims = chosen or tuple(range(x.dim()))
    reduced: Tensor = function(x, dims, keepdim=bool(attributes.integer("keepdims", 1)))
    return reduced
