# SPDX-License-Identifier: Apache-2.0
"""The contract of an operator: the arithmetic a layer uses in place of multiply-accumulate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer

if TYPE_CHECKING:
    from torch import Tensor

    from enos_compiler.semantics.base import OnnxFunction

FloatArray = NDArray[np.float64]


@runtime_checkable
class TrainsItself(Protocol):
    """An operator that no weight form computes."""

    def train_sum(
        self, x: Tensor, weight: Tensor, layer: Layer, bits: int, fmt: ValueFormat
    ) -> Tensor:
        """Return the float sum over an input of format `fmt`, differentiably."""


class Operator(Protocol):
    """One arithmetic: how it trains, which integers it computes, what it costs, its ONNX body.

    Weight tensors are (M, C, R, S), groups folded into M; a linear layer has R = S = 1 and (M, C).
    """

    name: ClassVar[str]
    needs_training: ClassVar[bool]
    """Whether a pretrained mac network must be retrained for it (false: mac)."""
    weight_bits: ClassVar[tuple[int, ...]]
    """Widths that it offers; `(1,)` for sign-only operators."""
    elementwise: ClassVar[bool]
    """Whether each weight form depends on its own weight and on the root mean square of its
    channel only: then all its candidates fold into one convolution while they are searched."""

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return why the operator does not take this layer, or None."""

    def weight_forms(self, weight: Tensor, bits: int) -> tuple[Tensor | None, Tensor | None]:
        """Return (A, B) so that the float output is conv(x, A) + conv(sign x, B), differentiably.

        Surrogate gradients are inside; None where a half is absent. `weight` is the float
        parameter. The integer form computes exactly this after scales are applied.
        """

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
            weight: float parameter.
            gain: (M,) batch-norm gamma / sigma times any output normalisation; 1 without.
            shift: (M,) batch-norm beta - gamma * mean / sigma plus bias.
            bits: widths of the choice.
            formats: what the layer reads.
        """

    def accumulate(
        self, codes: tuple[IntArray, ...], layer: Layer, quantized: QuantizedLayer
    ) -> IntArray:
        """Return `total` (see QuantizedLayer) for input codes (zero point still in), int64."""

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return elementary operations of one tap by name, e.g. {"multiply_8x8": 1, "add_26": 1}.

        Names: `multiply_<a>x<w>`, `add_<b>`, `shift_<b>`, `xor_<b>`,
        `register_<b>`, `popcount`; widths include accumulator growth ceil(log2 taps).
        """

    def onnx_body(self, layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
        """Return the ONNX local function (domain `enos`) that computes `total`."""
