# SPDX-License-Identifier: Apache-2.0
"""Layers in torch: exact sums of digital cores, sums as crossbars give them, requantisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from enos_compiler.evaluate.codes import saturate_
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.operators.terms import Term
from enos_compiler.semantics.operands import operator_of, quantized
from enos_compiler.semantics.quantizer import EXACT_FLOAT32


class Sums(Protocol):
    """The sums of one term of a layer."""

    offset: IntArray | None
    """(M,) that is taken away behind the sums; None for nothing."""

    def __call__(self, codes: Tensor) -> Tensor:
        """Return sums (N, G * M, P, Q), float, for input codes (N, G * C, H, W)."""


def layer_terms(layer: Layer) -> tuple[Term, ...] | None:
    """Return the layer's sums of products; None where its arithmetic is no such sum."""
    terms = getattr(operator_of(layer), "terms", None)
    if terms is None or layer.shape.activation_product:
        return None
    found: tuple[Term, ...] = terms(quantized(layer))
    return found


def kernel(weight: IntArray, shape: LayerShape) -> IntArray:
    """Return a layer's weights as (G * M, C, R, S)."""
    return weight.reshape(shape.g * shape.m, shape.c, shape.r, shape.s)


class ExactSums:
    """Integer sums of a digital core, through float convolutions that hold them exactly."""

    def __init__(self, term: Term, shape: LayerShape, fmt: ValueFormat) -> None:
        self.offset: IntArray | None = None
        self._shape, self._zero, self._sign = shape, fmt.zero_point, term.reads == "sign"
        largest = 1 if self._sign else fmt.max_abs
        weight = kernel(term.weight, shape)
        reach = np.abs(weight).sum(axis=(1, 2, 3)).max(initial=0) * largest
        self._kind = torch.float32 if reach < EXACT_FLOAT32 else torch.float64
        self._weight = torch.from_numpy(weight).to(self._kind)

    def __call__(self, codes: Tensor) -> Tensor:
        """Return the exact sums."""
        steps = codes.to(self._kind)
        if self._zero:
            steps -= self._zero
        if self._sign:
            steps = steps.sign()
        top, left, bottom, right = self._shape.padding
        padding = (top, left)
        if padding != (bottom, right):
            steps = torch.nn.functional.pad(steps, (left, right, top, bottom))
            padding = (0, 0)
        return torch.nn.functional.conv2d(
            steps,
            self._weight,
            None,
            self._shape.stride,
            padding,
            self._shape.dilation,
            self._shape.g,
        )


@dataclass(slots=True)
class LayerStep:
    """From a layer's input codes to its output: sums, multipliers, bias, rounding.

    output = round(sum over terms of scale * sums + shift) + zero point, clamped; real numbers
    where the output has no codes. Scales and shift are whole numbers times one power of two per
    channel, so nothing is rounded before `round`.
    """

    sums: Sequence[Sums]
    scales: Sequence[Tensor]
    """Per term, (G * M, 1, 1)."""
    shift: Tensor
    output: ValueFormat | None
    flat: int
    """Axes that the layer's input lacks of four: 1 of a 1-D convolution; -1 of a linear layer."""

    def __call__(self, codes: Tensor) -> Tensor:
        """Return the output's codes, or its real numbers."""
        images = _images(codes, self.flat)
        steps: Tensor | None = None
        for sums, scale in zip(self.sums, self.scales, strict=True):
            part = sums(images).to(scale.dtype)
            if steps is None:
                steps = torch.addcmul(self.shift, part, scale)
            else:
                steps.addcmul_(part, scale)
        if steps is None:
            raise ValueError("a layer has no terms")
        result = steps.to(torch.float32) if self.output is None else saturate_(steps, self.output)
        if self.flat < 0:
            return result.reshape(*codes.shape[:-1], -1)
        return result[..., 0] if self.flat > 0 else result


def layer_step(
    layer: Layer, terms: Sequence[Term], sums: Sequence[Sums], output: ValueFormat | None
) -> LayerStep:
    """Return the step of a layer whose terms are summed by `sums`, in their order."""
    integers = quantized(layer)
    shape, fmt = layer.shape, integers.input_formats[0]
    exponent = integers.unit_exponent - (output.exponent if output else 0)
    bias = integers.bias.copy()
    largest = np.abs(bias).astype(np.int64)
    for term, how in zip(terms, sums, strict=True):
        if how.offset is not None:
            bias = bias - term.multiplier * how.offset
        top = 1 if term.reads == "sign" else fmt.zero_point + fmt.max_abs
        norms = np.abs(kernel(term.weight, shape)).sum(axis=(1, 2, 3))
        largest = largest + np.abs(term.multiplier) * norms * top
    kind = torch.float32 if int(largest.max(initial=0)) < EXACT_FLOAT32 else torch.float64
    unit = np.ldexp(1.0, exponent.astype(np.int32))

    def per_channel(values: IntArray) -> Tensor:
        return torch.from_numpy(values * unit).to(kind)[:, None, None]

    return LayerStep(
        tuple(sums),
        tuple(per_channel(term.multiplier) for term in terms),
        per_channel(bias),
        output,
        -1 if layer.op != "conv" else 4 - terms[0].weight.ndim,
    )


def to_images(codes: Tensor, layer: Layer) -> Tensor:
    """Return a layer's input as (N, G * C, H, W): lines as images of one column, rows of one."""
    return _images(codes, 4 - codes.dim() if layer.op == "conv" else -1)


def _images(codes: Tensor, flat: int) -> Tensor:
    if flat < 0:
        return codes.flatten(0, -2)[:, :, None, None]
    return codes[..., None] if flat else codes
