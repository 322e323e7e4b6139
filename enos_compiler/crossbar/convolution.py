# SPDX-License-Identifier: Apache-2.0
"""Convolutions on crossbars: rows are input taps, groups are diagonal blocks of one matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.operators import CrossbarOperator, crossbar_product
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import LayerShape


def unfold(x: IntArray, shape: LayerShape, pad_code: int = 0) -> IntArray:
    """Row values of every output position, (G, C * R * S, N * P * Q), taps ordered (C, R, S).

    Args:
        x: input codes (N, G * C, H, W).
        shape: bounds, stride, dilation and padding.
        pad_code: code outside the input (its zero point).
    """
    top, left, bottom, right = shape.padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=pad_code)
    need = shape.input_extent
    if (
        x.shape[0] != shape.n
        or x.shape[1] != shape.g * shape.c
        or (x.shape[2] < need[0] or x.shape[3] < need[1])
    ):
        raise SpecError(
            f"input {x.shape} after padding is not "
            f"({shape.n}, {shape.g * shape.c}, >= {need[0]}, >= {need[1]})",
            place="inputs",
            remedy="inputs of shape (N, G * C, H, W) that match the layer's shape",
        )
    taps = [
        x[
            :,
            :,
            r * shape.dilation[0] :: shape.stride[0],
            s * shape.dilation[1] :: shape.stride[1],
        ][:, :, : shape.p, : shape.q]
        for r in range(shape.r)
        for s in range(shape.s)
    ]
    stacked = np.stack(taps, axis=2).reshape(shape.n, shape.g, shape.taps, shape.p * shape.q)
    return np.ascontiguousarray(stacked.transpose(1, 2, 0, 3)).reshape(shape.g, shape.taps, -1)


def crossbar_convolution(
    spec: CrossbarSpec,
    operator: CrossbarOperator,
    weights: IntArray,
    x: IntArray,
    shape: LayerShape,
    weight_bits: int,
    input_bits: int,
    *,
    inputs_signed: bool = False,
    zero_point: int = 0,
    signs: IntArray | None = None,
    steps_log2: Mapping[str, int | Sequence[int]] | int = 0,
) -> dict[str, IntArray]:
    """Accumulators (N, G * M, P, Q) of a convolution of any stride, dilation and grouping.

    Each group has its own rows and columns, and a conversion sees the rows of one group only: in a
    differential array the cells off the diagonal are empty, in an offset array the groups are read
    one after another. So the integers do not depend on how groups are packed; the waste does, and
    `placement` reports it.

    Args:
        spec: the array.
        operator: mac, bw, xnor or mf.
        weights: codes (G * M, C, R, S).
        x: codes (N, G * C, H, W).
        shape: the layer's nest.
        weight_bits: width of the weights.
        input_bits: width of the inputs.
        inputs_signed: inputs carry a sign.
        zero_point: code that stands for zero; the weights' sum times it is subtracted digitally
            behind the converters (mac and bw).
        signs: explicit weight signs, shaped as `weights`.
        steps_log2: ADC steps, see `integer.read`.
    """
    if zero_point and operator not in ("mac", "bw"):
        raise SpecError(
            f"{operator} reads the sign of an input, which a zero point of {zero_point} hides",
            place="zero_point",
            remedy="pass codes minus their zero point as signed inputs",
        )
    columns = unfold(x, shape, zero_point)
    matrix = weights.reshape(shape.g, shape.m, shape.taps)
    marks = None if signs is None else signs.reshape(matrix.shape)
    out: dict[str, list[IntArray]] = {}
    for g in range(shape.g):
        product = crossbar_product(
            spec,
            operator,
            matrix[g],
            columns[g],
            weight_bits,
            input_bits,
            inputs_signed=inputs_signed,
            signs=None if marks is None else marks[g],
            steps_log2=steps_log2,
        )
        if zero_point:
            seen = matrix[g] if operator == "mac" else np.where(matrix[g] < 0, -1, 1)
            if operator == "bw" and marks is not None:
                seen = marks[g]
            product["sum"] = product["sum"] - zero_point * seen.sum(axis=1, keepdims=True)
        for name, y in product.items():
            out.setdefault(name, []).append(y)
    extent = (shape.g * shape.m, shape.n, shape.p, shape.q)
    return {
        name: np.ascontiguousarray(np.concatenate(parts).reshape(extent).transpose(1, 0, 2, 3))
        for name, parts in out.items()
    }
