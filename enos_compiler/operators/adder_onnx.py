# SPDX-License-Identifier: Apache-2.0
"""The ONNX body of adder: distances as a convolution of thermometer codes.

With thresholds t from the least to below the greatest input step, |x - w| is the sum over t of
|[x > t] - [w > t]| = [w > t] + [x > t] (1 - 2 [w > t]), for w inside that range; what lies outside
is a constant per weight. Planes are taken less their value at x = 0, so that padding with zeros is
padding with real zeros. The distance is then one convolution of the planes with weights of +-1 and
a constant per channel; an input of b bits has 2**b - 1 planes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enos_compiler.ir.formats import IntArray, QuantizedLayer
from enos_compiler.ir.network import Layer
from enos_compiler.operators.onnx_body import (
    FunctionBody,
    conv_attributes,
    output_rank,
    packed,
    real_tensor,
    weighted_product,
)
from enos_compiler.operators.terms import along_channels
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

if TYPE_CHECKING:
    from enos_compiler.semantics.base import OnnxFunction


def thermometer(weight: IntArray, low: int, high: int) -> tuple[IntArray, IntArray]:
    """Return weights for the planes and the constant of each channel.

    Args:
        weight: codes (M, ...).
        low: least input step, at most 0.
        high: greatest input step, at least 0.

    Returns:
        +-1 (high - low, M, ...) for planes [x > t] - [0 > t], t = low .. high - 1, and (M,).
    """
    inside = np.clip(weight, low, high)
    thresholds = np.arange(low, high).reshape(-1, *(1,) * weight.ndim)
    signs: IntArray = 1 - 2 * (inside[None] > thresholds).astype(np.int64)
    beyond = np.abs(weight - inside) + (inside - low)
    constant = beyond + (signs * (thresholds < 0)).sum(axis=0)
    return signs, constant.reshape(len(weight), -1).sum(axis=1)


def distance_function(layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
    """Return the local function of an adder layer."""
    from enos_compiler.semantics.base import OnnxFunction

    fmt, weight = quantized.input_formats[0], quantized.tensors["weight"]
    double = quantized.bound >= EXACT_FLOAT32
    low, high = fmt.low - fmt.zero_point, fmt.high - fmt.zero_point
    signs, constant = thermometer(weight, low, high)
    body = FunctionBody()
    planes = _planes(body, fmt.zero_point, low, high, axis=1 if layer.op == "conv" else -1)
    if layer.shape.g > 1:
        # Planes come threshold by threshold; a group wants all those of its own channels.
        channels = np.arange((high - low) * layer.shape.g * layer.shape.c)
        grouped = channels.reshape(high - low, layer.shape.g, layer.shape.c).swapaxes(0, 1)
        planes = body.node("Gather", planes, body.tensor("order", grouped.reshape(-1)), axis=1)
    stacked = np.moveaxis(signs, 0, 1).reshape(len(weight), -1, *weight.shape[2:])
    sums = weighted_product(body, layer, planes, packed(stacked), "")
    rank = output_rank(layer, weight)

    def channel(name: str, values: IntArray, *, wide: bool) -> str:
        return body.tensor(name, real_tensor(along_channels(values, layer, rank), double=wide))

    distance = body.node("Add", sums, channel("constant", constant, wide=False))
    if double:
        distance = body.cast(distance, double=True)
    multiplier = channel("multiplier", quantized.tensors["multiplier"], wide=double)
    scaled = body.node("Mul", distance, multiplier)
    body.node("Add", scaled, channel("bias", quantized.bias, wide=double), output="total")
    marks = f"{fmt.bits}Z{fmt.zero_point}" + ("Double" if double else "")
    kind = "Conv" if layer.op == "conv" else "Linear"
    return OnnxFunction(
        name=f"Adder{kind}{marks}{'Grouped' if layer.shape.g > 1 else ''}",
        nodes=tuple(body.nodes),
        inputs=("codes", *body.tensors),
        output="total",
        tensors=body.tensors,
        attributes=conv_attributes(layer, weight) if layer.op == "conv" else {},
    )


def _planes(body: FunctionBody, zero_point: int, low: int, high: int, *, axis: int) -> str:
    """Add the planes [x > t] - [0 > t] of all thresholds, one behind the other along an axis."""
    codes = body.cast("codes")
    planes = []
    for threshold in range(low, high):
        level = np.array(threshold + zero_point, dtype=np.float32)
        above = body.node("Greater", codes, body.tensor(f"level_{threshold - low}", level))
        plane = body.cast(above)
        if threshold < 0:
            if "one" not in body.tensors:
                body.tensor("one", np.array(1, dtype=np.float32))
            plane = body.node("Sub", plane, "one")
        planes.append(plane)
    return body.node("Concat", *planes, axis=axis)
