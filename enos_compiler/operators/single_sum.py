# SPDX-License-Identifier: Apache-2.0
"""Operators that are one sum of inputs, or of their signs, with retrained weight codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.operators.base import FloatArray
from enos_compiler.operators.multipliers import fit_multipliers
from enos_compiler.operators.onnx_body import terms_function
from enos_compiler.operators.terms import Reads, Term, accumulate_terms, largest_sums
from enos_compiler.operators.weight_codes import per_channel, straight_through

if TYPE_CHECKING:
    from torch import Tensor

    from enos_compiler.semantics.base import OnnxFunction


def needs_weights(layer: Layer, operator: str) -> str | None:
    """Return why an operator with stored weights does not take an activation product, or None."""
    if layer.shape.activation_product:
        return f"{operator} recodes stored weights; both operands here are activations"
    return None


class SingleSum(ABC):
    """gain * scale * sum(codes * input) + shift, the first two factors one signed multiplier.

    A subclass says how weights become codes and a scale per channel. Scales give the output the
    standard deviation of mac's for independent inputs, so that operators can stand in for each
    other without a normalisation behind them.
    """

    name: ClassVar[str]
    needs_training: ClassVar[bool] = True
    weight_bits: ClassVar[tuple[int, ...]] = (1,)
    elementwise: ClassVar[bool] = True
    reads: ClassVar[Reads] = "code"

    @abstractmethod
    def codes(self, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Return integer codes (M, ...) and scales (M,), float64, of detached weights."""

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return why the operator does not take this layer, or None."""
        return needs_weights(layer, self.name)

    def weight_forms(self, weight: Tensor, bits: int) -> tuple[Tensor | None, Tensor | None]:
        """Return (A, None) for operators of x, (None, B) for operators of sign x.

        The gradient with respect to the weights is one (see `straight_through`).
        """
        codes, scale = self.codes(weight, bits)
        form = straight_through(weight, codes * per_channel(scale, codes))
        return (None, form) if self.reads == "sign" else (form, None)

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

        Args:
            layer: for its shape.
            weight: float parameter, (M, ...).
            gain: (M,) batch-norm gamma / sigma; 1 without.
            shift: (M,) batch-norm beta - gamma * mean / sigma plus bias.
            bits: widths of the choice.
            formats: what the layer reads.
        """
        import torch

        codes, scale = self.codes(torch.from_numpy(np.array(weight)), bits.weight)
        integers: IntArray = codes.numpy().astype(np.int64)
        unit = 1.0 if self.reads == "sign" else formats[0].scale
        fitted = fit_multipliers(
            (gain * scale.numpy() * unit)[None],
            largest_sums(self.reads, integers, formats[0])[None],
            shift,
        )
        return QuantizedLayer(
            tensors={"weight": integers, "multiplier": fitted.values[0]},
            bias=fitted.bias,
            unit_exponent=fitted.exponent,
            input_formats=formats,
            bound=fitted.bound,
        )

    def terms(self, quantized: QuantizedLayer) -> tuple[Term, ...]:
        """Return the one sum with its multiplier."""
        tensors = quantized.tensors
        return (Term(self.reads, tensors["weight"], tensors["multiplier"]),)

    def accumulate(
        self, codes: tuple[IntArray, ...], layer: Layer, quantized: QuantizedLayer
    ) -> IntArray:
        """Return `total` (see QuantizedLayer) for input codes (zero point still in), int64."""
        return accumulate_terms(codes[0], layer, quantized, self.terms(quantized))

    @abstractmethod
    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return elementary operations of one tap by name."""

    def onnx_body(self, layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
        """Return the ONNX local function that computes `total`."""
        return terms_function(self.name.capitalize(), layer, quantized, self.terms(quantized))
