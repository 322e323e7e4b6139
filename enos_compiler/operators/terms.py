# SPDX-License-Identifier: Apache-2.0
"""The integer form that all operators but adder share: a sum of scaled integer convolutions.

    total[m] = sum over terms t of multiplier[t][m] * (in_t * weight_t)[m] + bias[m]

where `in_t` is the input code less its zero point, or the sign of that. Padding contributes
nothing to either. The same terms give the numpy sums, the bound and the ONNX body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.semantics.products import convolve, matmul

Reads = Literal["code", "sign"]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One integer convolution or matrix product and its multiplier per channel."""

    reads: Reads
    """The input code less its zero point, or that number's sign (0 at 0)."""
    weight: IntArray
    """(M, ...) in the layer's weight shape."""
    multiplier: IntArray
    """(M,)."""


def largest_input(reads: Reads, fmt: ValueFormat) -> int:
    """Return the largest magnitude that a term reads of a value."""
    return 1 if reads == "sign" else fmt.max_abs


def largest_sums(reads: Reads, weight: IntArray, fmt: ValueFormat) -> IntArray:
    """Return (M,) bounds of |sum| per channel that hold for every partial sum in any order."""
    norms: IntArray = np.abs(weight).reshape(weight.shape[0], -1).sum(axis=1)
    return norms * largest_input(reads, fmt)


def accumulate_terms(
    codes: IntArray, layer: Layer, quantized: QuantizedLayer, terms: Sequence[Term]
) -> IntArray:
    """Return `total`, int64, in the shape of the layer's output."""
    steps = codes.astype(np.int64) - quantized.input_formats[0].zero_point
    bias = along_channels(quantized.bias, layer, codes.ndim)
    total: IntArray | None = None
    for term in terms:
        operand = np.sign(steps) if term.reads == "sign" else steps
        part = weighted_sum(operand, term.weight, layer)
        part = part * along_channels(term.multiplier, layer, codes.ndim)
        total = part if total is None else total + part
    return bias if total is None else total + bias


def along_channels(vector: IntArray, layer: Layer, rank: int) -> IntArray:
    """Return `vector` (M,) in a shape that broadcasts against an output of that rank.

    Channels are axis 1 of a convolution, the last axis of a linear layer.
    """
    return vector.reshape(-1, *(1,) * (rank - 2)) if layer.op == "conv" else vector


def weighted_sum(operand: IntArray, weight: IntArray, layer: Layer) -> IntArray:
    """Return the layer's exact integer sums of operand and weight.

    Args:
        operand: (N, G*C, H, W) or (N, G*C, L) of a convolution, (..., C) of a linear layer.
        weight: (G*M, C, R, S), (G*M, C, R) or (M, C).
        layer: for its kind, stride, padding, dilation and groups.
    """
    if layer.op != "conv":
        rows = operand.reshape(-1, operand.shape[-1])
        return matmul(rows, weight.T).reshape(*operand.shape[:-1], weight.shape[0])
    shape = layer.shape
    flat = weight.ndim == 3
    result = convolve(
        operand[..., None] if flat else operand,
        weight[..., None] if flat else weight,
        stride=shape.stride,
        padding=shape.padding,
        dilation=shape.dilation,
        groups=shape.g,
    )
    return result[..., 0] if flat else result
