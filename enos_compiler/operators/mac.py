# SPDX-License-Identifier: Apache-2.0
"""mac: multiply and accumulate, y = sum x * w."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.operators.base import FloatArray
from enos_compiler.operators.growth import growth_bits
from enos_compiler.operators.multipliers import fit_multipliers
from enos_compiler.operators.onnx_body import product_function, terms_function
from enos_compiler.operators.terms import Term, accumulate_terms, largest_sums
from enos_compiler.operators.weight_codes import (
    LEAST_EXPONENT,
    per_channel,
    round_to_codes,
    straight_through,
    uniform_codes,
)
from enos_compiler.semantics.products import matmul
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

if TYPE_CHECKING:
    from torch import Tensor

    from enos_compiler.semantics.base import OnnxFunction

_INPUT_MAX = 255
"""Largest 8-bit input code: the scale is chosen for it where the input is not known."""
_BIAS_BITS = 22
"""A channel's unit is never so fine that the bias alone exceeds this many bits."""
_LONE_BIAS_BITS = 16
"""Bits of the bias in a channel without weights, whose unit nothing else sets."""


class Mac:
    """The exact product at uniform weights of 2..8 bits; needs no retraining.

    Weights of a channel are codes * m * 2**e with m odd (see `uniform_codes`), so total =
    m * (sum of code products + bias code). Batch norm is folded into the weights before they are
    rounded, save where layers that share weights differ in it: then the codes are those of the
    plain weights, and the gain joins the multiplier.
    """

    name: ClassVar[str] = "mac"
    needs_training: ClassVar[bool] = False
    weight_bits: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)
    elementwise: ClassVar[bool] = True

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return None: mac takes every layer, activation products included."""
        return None

    def weight_forms(
        self, weight: Tensor, bits: int, *, input_max: int = _INPUT_MAX
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return (A, None): the rounded weights, with a gradient of one.

        Args:
            weight: float parameter, batch norm folded in.
            bits: 2..8.
            input_max: largest |code - zero point| of the input; a smaller one allows finer scales.
        """
        codes, mantissa, exponent = uniform_codes(weight, bits, input_max=input_max)
        scale = (mantissa * 2.0**exponent).to(weight.dtype)
        return straight_through(weight, codes.to(weight.dtype) * per_channel(scale, weight)), None

    def quantize(
        self,
        layer: Layer,
        weight: FloatArray,
        gain: FloatArray,
        shift: FloatArray,
        bits: Bits,
        formats: tuple[ValueFormat, ...],
        *,
        fold: bool = True,
    ) -> QuantizedLayer:
        """Return the integers that compute gain[m] * f(x, w)[m] + shift[m].

        Args:
            layer: for its shape; an activation product has neither weights nor gain.
            weight: float parameter, (M, ...).
            gain: (M,) batch-norm gamma / sigma; 1 without.
            shift: (M,) batch-norm beta - gamma * mean / sigma plus bias.
            bits: widths of the choice.
            formats: what the layer reads.
            fold: multiply the gain into the weights before they are rounded.
        """
        if layer.shape.activation_product:
            return _quantize_product(layer, formats)
        if fold:
            return _quantize_folded(_scaled(weight, gain), shift, bits, formats)
        return _quantize_shared(weight, gain, shift, bits, formats)

    def terms(self, quantized: QuantizedLayer) -> tuple[Term, ...]:
        """Return the one sum with its mantissas."""
        tensors = quantized.tensors
        return (Term("code", tensors["weight"], tensors["multiplier"]),)

    def accumulate(
        self, codes: tuple[IntArray, ...], layer: Layer, quantized: QuantizedLayer
    ) -> IntArray:
        """Return `total` (see QuantizedLayer) for input codes (zero point still in), int64."""
        if not layer.shape.activation_product:
            return accumulate_terms(codes[0], layer, quantized, self.terms(quantized))
        left, right = (
            operand.astype(np.int64) - fmt.zero_point
            for operand, fmt in zip(codes, quantized.input_formats, strict=True)
        )
        return matmul(left, right)

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return one multiplication and one addition.

        Accumulator: input bits + weight bits + ceil(log2 taps).
        """
        width = bits.input + bits.weight + growth_bits(taps)
        return {f"multiply_{bits.input}x{bits.weight}": 1, f"add_{width}": 1}

    def onnx_body(self, layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
        """Return the ONNX local function that computes `total`."""
        if layer.shape.activation_product:
            return product_function("Mac", quantized)
        return terms_function("Mac", layer, quantized, self.terms(quantized))


def _scaled(weight: FloatArray, gain: FloatArray) -> FloatArray:
    scaled: FloatArray = weight * gain.reshape(-1, *(1,) * (weight.ndim - 1))
    return scaled


def _quantize_product(layer: Layer, formats: tuple[ValueFormat, ...]) -> QuantizedLayer:
    """Return the integers of an activation product: no weights, one unit."""
    left, right = formats
    columns = layer.shape.m
    return QuantizedLayer(
        tensors={},
        bias=np.zeros(columns, dtype=np.int64),
        unit_exponent=np.full(columns, left.exponent + right.exponent, dtype=np.int64),
        input_formats=formats,
        bound=layer.shape.c * left.max_abs * right.max_abs,
    )


def _quantize_folded(
    weight: FloatArray, shift: FloatArray, bits: Bits, formats: tuple[ValueFormat, ...]
) -> QuantizedLayer:
    """Return integers whose codes are those of the folded weights.

    Where the bias leaves too little of 2**24, a channel's scale becomes the next power of two; a
    channel whose bias dwarfs its weights gets the coarser unit that its bias needs, one without
    weights the unit of its bias.
    """
    import torch

    tensor, fmt = torch.from_numpy(weight), formats[0]
    codes, mantissa, exponent = uniform_codes(tensor, bits.weight, input_max=fmt.max_abs)
    bias_power = torch.from_numpy(np.frexp(np.abs(shift))[1].astype(np.float64) - fmt.exponent)
    empty = (tensor.flatten(1) == 0).all(1) & torch.from_numpy(shift != 0)
    lone = (bias_power - _LONE_BIAS_BITS).clamp_min(LEAST_EXPONENT)
    exponent = torch.where(empty, lone, exponent)
    totals = _channel_totals(_norms(codes), mantissa.numpy(), exponent.numpy(), shift, fmt)
    crowded = torch.from_numpy(totals >= EXACT_FLOAT32)
    if crowded.any():
        coarse = torch.ceil(torch.log2(mantissa)) + exponent
        floor = torch.where(torch.from_numpy(shift) == 0, -torch.inf, bias_power - _BIAS_BITS)
        mantissa = torch.where(crowded, 1.0, mantissa)
        exponent = torch.where(crowded, torch.maximum(coarse, floor), exponent)
        codes = round_to_codes(tensor, bits.weight, mantissa, exponent)
    integers: IntArray = codes.numpy().astype(np.int64)
    odd: IntArray = mantissa.numpy().astype(np.int64)
    unit: IntArray = exponent.numpy().astype(np.int64) + fmt.exponent
    bias: IntArray = odd * _bias_codes(shift, odd, unit)
    bound = odd * _norms(codes).astype(np.int64) * fmt.max_abs + np.abs(bias)
    return QuantizedLayer(
        tensors={"weight": integers, "multiplier": odd},
        bias=bias,
        unit_exponent=unit,
        input_formats=formats,
        bound=int(bound.max()),
    )


def _norms(codes: Tensor) -> FloatArray:
    """Return (M,) sums of magnitudes of codes, exact."""
    import torch

    norms: FloatArray = torch.linalg.vector_norm(codes.flatten(1), ord=1, dim=1).numpy()
    return norms


def _channel_totals(
    norms: FloatArray,
    mantissa: FloatArray,
    exponent: FloatArray,
    shift: FloatArray,
    fmt: ValueFormat,
) -> FloatArray:
    """Return (M,) largest totals, in float64: exact where they are below 2**53.

    Args:
        norms: (M,) sums of magnitudes of codes.
        mantissa: (M,) of the scales.
        exponent: (M,) of the scales.
        shift: (M,) what is added, real.
        fmt: of the input.
    """
    scale = mantissa * np.exp2(exponent + fmt.exponent)
    totals: FloatArray = mantissa * (norms * fmt.max_abs + np.abs(np.rint(shift / scale)))
    return totals


def _bias_codes(shift: FloatArray, mantissa: IntArray, unit: IntArray) -> IntArray:
    """Return the bias in units of mantissa * 2**unit, half to even."""
    scaled = np.ldexp(shift, -unit.astype(np.int32)) / mantissa
    return np.rint(scaled).astype(np.int64)


def _quantize_shared(
    weight: FloatArray,
    gain: FloatArray,
    shift: FloatArray,
    bits: Bits,
    formats: tuple[ValueFormat, ...],
) -> QuantizedLayer:
    """Return integers whose codes are those of the plain weights, the gain in the multiplier."""
    import torch

    codes, mantissa, exponent = uniform_codes(torch.from_numpy(np.array(weight)), bits.weight)
    integers: IntArray = codes.numpy().astype(np.int64)
    scale = np.ldexp(mantissa.numpy(), exponent.numpy().astype(np.int32))
    fitted = fit_multipliers(
        (gain * scale * formats[0].scale)[None],
        largest_sums("code", integers, formats[0])[None],
        shift,
    )
    return QuantizedLayer(
        tensors={"weight": integers, "multiplier": fitted.values[0]},
        bias=fitted.bias,
        unit_exponent=fitted.exponent,
        input_formats=formats,
        bound=fitted.bound,
    )
