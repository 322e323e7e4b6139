# SPDX-License-Identifier: Apache-2.0
"""Operators without multiplications that keep two sums in two units: mf and ef."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.operators.base import FloatArray
from enos_compiler.operators.growth import growth_bits
from enos_compiler.operators.multipliers import fit_multipliers
from enos_compiler.operators.onnx_body import terms_function
from enos_compiler.operators.single_sum import needs_weights
from enos_compiler.operators.terms import Term, accumulate_terms, largest_sums
from enos_compiler.operators.weight_codes import (
    per_channel,
    root_mean_square,
    signs,
    straight_through,
    tanh_signs,
    uniform_codes,
)

if TYPE_CHECKING:
    from torch import Tensor

    from enos_compiler.semantics.base import OnnxFunction

RECTIFIED_RMS = 0.5**0.5
"""Root mean square of relu(N(0, 1)), what a unit batch norm and a ReLU hand to the layer."""


class TwoSums(ABC):
    """a1 * sum x * sign(w) + a2 * sum sign(x) * magnitude(w).

    The sign of a weight is a bit of its own beside a magnitude of bits - 1: a magnitude that
    rounds to zero still decides the sign of its input's contribution. Both signs are taken after
    quantisation; sign(x) is 0 at 0 and at padding. No gradient flows through sign(x): what it is
    worth is below one point, and without it the input gradient is one convolution.
    """

    name: ClassVar[str]
    needs_training: ClassVar[bool] = True
    weight_bits: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)
    elementwise: ClassVar[bool] = True
    signed_magnitude: ClassVar[bool]
    """Whether the sum of input signs takes signed weights (ef) or magnitudes (mf)."""

    @abstractmethod
    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return (M,) factors on the sum of inputs and on the sum of signs, float64, detached."""

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return why the operator does not take this layer, or None."""
        return needs_weights(layer, self.name)

    def weight_forms(self, weight: Tensor, bits: int) -> tuple[Tensor | None, Tensor | None]:
        """Return (A, B): A = a1 * sign(w), B = a2 * magnitude, rounded as quantised.

        sign(w) has the gradient of tanh at the weights' own width, the rounded magnitude that of
        the magnitude; the factors are constants.
        """
        on_code, on_sign = self.factors(weight)
        magnitude, scale = self._magnitudes(weight, bits)
        exact = magnitude * per_channel(scale, magnitude)
        if self.signed_magnitude:
            half = straight_through(weight, exact * signs(weight.detach()))
        else:
            half = straight_through(weight.abs(), exact)
        plain = tanh_signs(weight) * per_channel(on_code, weight).to(weight.dtype)
        return plain, half * per_channel(on_sign, weight).to(weight.dtype)

    def quantize(
        self,
        layer: Layer,
        weight: FloatArray,
        gain: FloatArray,
        shift: FloatArray,
        bits: Bits,
        formats: tuple[ValueFormat, ...],
    ) -> QuantizedLayer:
        """Return the integers that compute gain[m] * f(x, w)[m] + shift[m].

        The two factors become integers in one unit per channel under a joint bound.

        Args:
            layer: for its shape.
            weight: float parameter, (M, ...).
            gain: (M,) batch-norm gamma / sigma; 1 without.
            shift: (M,) batch-norm beta - gamma * mean / sigma plus bias.
            bits: widths of the choice.
            formats: what the layer reads.
        """
        import torch

        tensor = torch.from_numpy(np.array(weight))
        on_code, on_sign = (factor.numpy() for factor in self.factors(tensor))
        magnitude, scale = self._magnitudes(tensor, bits.weight)
        sign: IntArray = signs(tensor).numpy().astype(np.int64)
        sizes: IntArray = magnitude.numpy().astype(np.int64)
        fitted = fit_multipliers(
            np.stack([gain * on_code * formats[0].scale, gain * on_sign * scale.numpy()]),
            np.stack(
                [largest_sums("code", sign, formats[0]), largest_sums("sign", sizes, formats[0])]
            ),
            shift,
        )
        return QuantizedLayer(
            tensors={
                "sign": sign,
                "magnitude": sizes,
                "code_multiplier": fitted.values[0],
                "sign_multiplier": fitted.values[1],
            },
            bias=fitted.bias,
            unit_exponent=fitted.exponent,
            input_formats=formats,
            bound=fitted.bound,
        )

    def terms(self, quantized: QuantizedLayer) -> tuple[Term, ...]:
        """Return the sum of inputs and the sum of input signs."""
        tensors = quantized.tensors
        sign, magnitude = tensors["sign"], tensors["magnitude"]
        half = magnitude * sign if self.signed_magnitude else magnitude
        return (
            Term("code", sign, tensors["code_multiplier"]),
            Term("sign", half, tensors["sign_multiplier"]),
        )

    def accumulate(
        self, codes: tuple[IntArray, ...], layer: Layer, quantized: QuantizedLayer
    ) -> IntArray:
        """Return `total` (see QuantizedLayer) for input codes (zero point still in), int64."""
        return accumulate_terms(codes[0], layer, quantized, self.terms(quantized))

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return two conditional negations and two additions.

        Accumulators: the wider operand + ceil(log2 taps), both of one width.
        """
        width = max(bits.input, bits.weight) + growth_bits(taps)
        return {f"xor_{bits.input + bits.weight}": 1, f"add_{width}": 2}

    def onnx_body(self, layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
        """Return the ONNX local function that computes `total`."""
        return terms_function(self.name.capitalize(), layer, quantized, self.terms(quantized))

    @staticmethod
    def _magnitudes(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Return magnitudes of bits - 1 bits and their scales (M,), float64."""
        import torch

        codes, mantissa, exponent = uniform_codes(weight, bits)
        return codes.abs().double(), torch.ldexp(mantissa, exponent)


def mean_magnitude(weight: Tensor) -> Tensor:
    """Return (M,) mean |w| of each output channel."""
    return weight.abs().flatten(1).mean(1)


def spread(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return (M,) root mean square and mean magnitude of detached weights, float64."""
    weight = weight.detach().double()
    return root_mean_square(weight), mean_magnitude(weight)
