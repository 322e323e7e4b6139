# SPDX-License-Identifier: Apache-2.0
"""adder: differences in place of products, y = -sum |x - w|."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from enos_compiler.errors import RefusalError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.operators.base import FloatArray
from enos_compiler.operators.growth import growth_bits
from enos_compiler.operators.multipliers import fit_multipliers
from enos_compiler.operators.single_sum import needs_weights
from enos_compiler.operators.terms import along_channels

if TYPE_CHECKING:
    from torch import Tensor

    from enos_compiler.semantics.base import OnnxFunction


class Adder:
    """The negative l1 distance of input and kernel, both on the input's scale.

    |x - w| has integers only if x and w share one scale: weights are rounded to the input's
    power-of-two scale, whose width they take. Padding is not neutral: a padded tap contributes
    -|w|. No sum of convolutions at the input's width computes it; the exported form has a plane
    for each step of the input, so inputs have at most 4 bits. It is not linear in x or sign x, so
    that it trains as a branch of its own.
    Source: AdderNet, arXiv 1912.13200 (opening seen); shared scale: abstract of 2101.10015.
    """

    name: ClassVar[str] = "adder"
    needs_training: ClassVar[bool] = True
    weight_bits: ClassVar[tuple[int, ...]] = (2, 3, 4)
    elementwise: ClassVar[bool] = False
    widest_input: ClassVar[int] = 4

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return why the operator does not take the layer, or None."""
        reason = needs_weights(layer, self.name)
        if reason is None and layer.norm is None:
            return "adder's sums are never positive: it needs a normalisation behind it"
        return reason

    def weight_forms(self, weight: Tensor, bits: int) -> tuple[Tensor | None, Tensor | None]:
        """Refuse: the sum is not conv(x, A) + conv(sign x, B) for any A and B.

        Raises:
            RefusalError: always.
        """
        raise RefusalError(
            f"adder has no weight form ({bits}-bit weights of shape {tuple(weight.shape)})",
            remedy="train it by its own sum",
        )

    def train_sum(
        self, x: Tensor, weight: Tensor, layer: Layer, bits: int, fmt: ValueFormat
    ) -> Tensor:
        """Return the float sum over an input of format `fmt`, differentiably."""
        from enos_compiler.operators.adder_training import distance_sum
        from enos_compiler.operators.weight_codes import straight_through

        top = 2 ** (bits - 1)
        codes = (weight.detach() / fmt.scale).round_().clamp_(-top, top - 1)
        return distance_sum(x, straight_through(weight, codes * fmt.scale), layer)

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
            formats: what the layer reads; its scale is the weights' too.
        """
        fmt = formats[0]
        steps = np.rint(np.ldexp(weight, -fmt.exponent))
        top = 2 ** (bits.weight - 1)
        codes: IntArray = np.clip(steps, -top, top - 1).astype(np.int64)
        farthest = (np.abs(codes) + fmt.max_abs).reshape(codes.shape[0], -1).sum(axis=1)
        fitted = fit_multipliers((-gain * fmt.scale)[None], farthest[None], shift)
        return QuantizedLayer(
            tensors={"weight": codes, "multiplier": fitted.values[0]},
            bias=fitted.bias,
            unit_exponent=fitted.exponent,
            input_formats=formats,
            bound=fitted.bound,
        )

    def accumulate(
        self, codes: tuple[IntArray, ...], layer: Layer, quantized: QuantizedLayer
    ) -> IntArray:
        """Return `total` (see QuantizedLayer) for input codes (zero point still in), int64."""
        steps = codes[0].astype(np.int64) - quantized.input_formats[0].zero_point
        distance = _distances(steps, quantized.tensors["weight"], layer)
        multiplier = along_channels(quantized.tensors["multiplier"], layer, steps.ndim)
        return distance * multiplier + along_channels(quantized.bias, layer, steps.ndim)

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return one difference, one conditional negation and one addition.

        Accumulator: the wider operand + 1 + ceil(log2 taps).
        """
        width = max(bits.input, bits.weight) + 1
        total = width + growth_bits(taps)
        operations = {f"add_{width}": 1.0, f"xor_{width}": 1.0}
        operations[f"add_{total}"] = operations.get(f"add_{total}", 0.0) + 1.0
        return operations

    def onnx_body(self, layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
        """Return the ONNX local function that computes `total`, by thermometer codes."""
        from enos_compiler.operators.adder_onnx import distance_function

        return distance_function(layer, quantized)


def _distances(steps: IntArray, weight: IntArray, layer: Layer) -> IntArray:
    """Return sum |x - w| for every output, tap by tap: memory is that of the output times C."""
    if layer.op != "conv":
        distance: IntArray = np.abs(steps[..., None, :] - weight).sum(axis=-1)
        return distance
    flat = weight.ndim == 3
    if flat:
        steps, weight = steps[..., None], weight[..., None]
    shape = layer.shape
    top, left, bottom, right = shape.padding
    padded = np.pad(steps, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, channels, height, width = padded.shape
    m, per_group, rows, columns = weight.shape
    groups = channels // per_group
    grouped = padded.reshape(n, groups, 1, per_group, height, width)
    kernels = weight.reshape(1, groups, m // groups, per_group, rows, columns)
    (sy, sx), (dy, dx) = shape.stride, shape.dilation
    p = (height - (rows - 1) * dy - 1) // sy + 1
    q = (width - (columns - 1) * dx - 1) // sx + 1
    total = np.zeros((n, groups, m // groups, p, q), dtype=np.int64)
    for r in range(rows):
        for s in range(columns):
            box = grouped[..., r * dy :: sy, s * dx :: sx][..., :p, :q]
            total += np.abs(box - kernels[..., r, s, None, None]).sum(axis=3)
    total = total.reshape(n, m, p, q)
    return total[..., 0] if flat else total
