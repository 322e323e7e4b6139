# SPDX-License-Identifier: Apache-2.0
"""A layer in ONNX: which of four forms it takes, each equal to the integers bit for bit.

* `Q/DQ`: mac under the float32 bound. ONNX Runtime fuses it or computes it in float32; both are
  exact because every partial sum is an integer below 2**24 times a power of two.
* `product`: two activations, Q/DQ around MatMul under the same bound.
* `integer`: mac above the bound: ConvInteger or MatMulInteger and the double tail.
* `function`: any other operator, and arrays whose converters change the sums: a local function of
  domain `enos`, then the requantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.semantics.onnx_builder import OnnxBuilder
from enos_compiler.semantics.operands import arithmetic_of, quantized
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

Form = Literal["Q/DQ", "product", "integer", "function"]

INT8_SAFE_WEIGHT = 64
"""Weights up to here times any uint8: two products fit the 16 bits that some kernels add in."""
INT8_SAFE_CODE = 127
"""Input codes up to here times any int8 weight: likewise."""
UINT8_ZERO_POINT = 128
"""Zero point of weights that need all 8 bits: unsigned products do not saturate."""
_INT32_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class Result:
    """What a layer's nodes compute: real numbers (float32), or its total in double."""

    tensor: str
    kind: Literal["real", "total"]
    rank: int


def layer_form(layer: Layer) -> Form:
    """Return the form that a quantised layer is written in."""
    integers = quantized(layer)
    if layer.choice is None or layer.choice.operator != "mac" or integers.array is not None:
        return "function"
    if layer.shape.activation_product:
        bound = layer.shape.c * _product_bound(integers.input_formats)
        return "product" if bound < EXACT_FLOAT32 else "function"
    if _fits_uint8(integers) and _fits_float32(integers):
        return "Q/DQ"
    return "integer" if _fits_uint8(integers) and _fits_int32(integers) else "function"


def _fits_uint8(integers: QuantizedLayer) -> bool:
    """Return whether every weight is a code of 8 bits."""
    weight = integers.tensors["weight"]
    return bool(np.all((weight >= -UINT8_ZERO_POINT) & (weight < UINT8_ZERO_POINT)))


def _product_bound(formats: tuple[ValueFormat, ...]) -> int:
    left, right = formats
    return left.max_abs * right.max_abs


def _sums(integers: QuantizedLayer) -> IntArray:
    """Return (M,) largest |code sum| of a mac layer, from its weights and input format alone."""
    weight = integers.tensors["weight"]
    norms: IntArray = np.abs(weight).reshape(len(weight), -1).sum(axis=1)
    return norms * integers.input_formats[0].max_abs


def _fits_float32(integers: QuantizedLayer) -> bool:
    """Return whether scales and bias can be written as Q/DQ and every total stays below 2**24."""
    multiplier = integers.tensors["multiplier"]
    if np.any(multiplier <= 0) or np.any(integers.bias % multiplier):
        return False
    totals = multiplier * _sums(integers) + np.abs(integers.bias)
    return bool(np.all(totals < EXACT_FLOAT32))


def _fits_int32(integers: QuantizedLayer) -> bool:
    """Return whether sums of unsigned codes and weights cannot leave int32 on the way."""
    weight = integers.tensors["weight"]
    taps = weight[0].size
    return bool(taps * 255 * 255 < _INT32_LIMIT)


def write_layer(
    builder: OnnxBuilder, layer: Layer, codes: tuple[str, ...], metadata: Mapping[str, str]
) -> Result:
    """Add a layer's nodes; `codes` are the uint8 tensors that it reads, already narrowed."""
    form, rank = layer_form(layer), len(builder.shape(codes[0]))
    if form == "Q/DQ":
        return Result(_write_qdq(builder, layer, codes[0], metadata), "real", rank)
    if form == "product":
        formats = quantized(layer).input_formats
        real = [builder.dequantize(c, f) for c, f in zip(codes, formats, strict=True)]
        return Result(builder.node("MatMul", real, metadata=metadata), "real", rank)
    if form == "integer":
        return Result(_write_integer(builder, layer, codes[0], metadata), "total", rank)
    return _write_function(builder, layer, codes, metadata)


def _write_qdq(builder: OnnxBuilder, layer: Layer, codes: str, metadata: Mapping[str, str]) -> str:
    """Add DequantizeLinear of input, weights and bias, and Conv or Gemm; return real numbers."""
    integers = quantized(layer)
    fmt = integers.input_formats[0]
    multiplier = integers.tensors["multiplier"]
    scale = np.ldexp(multiplier.astype(np.float64), _int32(integers.unit_exponent - fmt.exponent))
    weight, zero = _stored_weight(integers.tensors["weight"], fmt)
    zeros = np.full(len(weight), zero, dtype=weight.dtype)
    operands = [
        builder.dequantize(_rows(builder, layer, codes), fmt),
        _dequantized(builder, weight, scale, zeros, "weight"),
    ]
    if np.any(integers.bias):
        bias = (integers.bias // multiplier).astype(np.int32)
        operands.append(_dequantized(builder, bias, scale * fmt.scale, np.zeros_like(bias), "bias"))
    if layer.op == "conv":
        attributes = _conv_attributes(layer, weight)
        return builder.node("Conv", operands, metadata=metadata, **attributes)
    real = builder.node("Gemm", operands, metadata=metadata, transB=1)
    return _like_input(builder, layer, codes, real)


def _dequantized(
    builder: OnnxBuilder,
    integers: NDArray[Any],
    scale: NDArray[np.float64],
    zeros: NDArray[Any],
    hint: str,
) -> str:
    """Add constant integers and their DequantizeLinear, one scale and zero point per channel."""
    operands = [
        builder.constant(integers, hint),
        builder.constant(scale.astype(np.float32), f"{hint}_scale"),
        builder.constant(zeros, f"{hint}_zero_point"),
    ]
    return builder.node("DequantizeLinear", operands, axis=0)


def _stored_weight(weight: IntArray, fmt: ValueFormat) -> tuple[NDArray[Any], int]:
    """Return weights in the container whose products no kernel saturates, and its zero point."""
    if np.abs(weight).max(initial=0) <= INT8_SAFE_WEIGHT or fmt.high <= INT8_SAFE_CODE:
        return weight.astype(np.int8), 0
    return (weight + UINT8_ZERO_POINT).astype(np.uint8), UINT8_ZERO_POINT


def _write_integer(
    builder: OnnxBuilder, layer: Layer, codes: str, metadata: Mapping[str, str]
) -> str:
    """Add ConvInteger or MatMulInteger on uint8 x uint8; return the total in double."""
    integers = quantized(layer)
    fmt = integers.input_formats[0]
    weight = (integers.tensors["weight"] + UINT8_ZERO_POINT).astype(np.uint8)
    zeros = [
        builder.constant(np.uint8(fmt.zero_point), "zero_point"),
        builder.constant(np.uint8(UINT8_ZERO_POINT), "weight_zero_point"),
    ]
    if layer.op == "conv":
        attributes = _conv_attributes(layer, weight)
        pads = attributes.pop("pads")
        if any(pads):
            codes = builder.pad(codes, pads, fmt.zero_point)
        operands = [codes, builder.constant(weight, "weight"), *zeros]
        sums = builder.node("ConvInteger", operands, metadata=metadata, **attributes)
    else:
        operands = [codes, builder.constant(np.ascontiguousarray(weight.T), "weight"), *zeros]
        sums = builder.node("MatMulInteger", operands, metadata=metadata)
    total = builder.to_double(sums)
    for op, tensor in (("Mul", integers.tensors["multiplier"]), ("Add", integers.bias)):
        operand = _along_channels(layer, weight.ndim, tensor.astype(np.float64))
        total = builder.node(op, [total, builder.constant(operand, op.lower())])
    return total


def _write_function(
    builder: OnnxBuilder, layer: Layer, codes: tuple[str, ...], metadata: Mapping[str, str]
) -> Result:
    """Add the call of the operator's local function and its unit."""
    integers = quantized(layer)
    function = arithmetic_of(layer).onnx_body(layer, integers)
    total = builder.call(function, codes, metadata=metadata)
    rank = len(builder.shape(codes[0]))
    if integers.bound >= EXACT_FLOAT32:
        return Result(total, "total", rank)
    unit = _unit(builder, layer, rank, np.float32)
    return Result(builder.node("Mul", [total, unit]), "real", rank)


def finish_codes(builder: OnnxBuilder, layer: Layer, result: Result, fmt: ValueFormat) -> str:
    """Add the requantisation of a layer's result to `fmt`; return the codes."""
    if result.kind == "real":
        return builder.quantize(result.tensor, fmt)
    unit = quantized(layer).unit_exponent - fmt.exponent
    factor = _along_channels(layer, result.rank, np.ldexp(1.0, _int32(unit)))
    return builder.round_double(result.tensor, factor, fmt)


def finish_real(builder: OnnxBuilder, layer: Layer, result: Result) -> str:
    """Add what turns a layer's result into real numbers, float32."""
    if result.kind == "real":
        return result.tensor
    real = builder.node("Mul", [result.tensor, _unit(builder, layer, result.rank, np.float64)])
    return builder.node("Cast", [real], to=TensorProto.FLOAT)


def _unit(builder: OnnxBuilder, layer: Layer, rank: int, dtype: type[np.floating[Any]]) -> str:
    """Add the real size of one unit of the total, per channel."""
    unit = np.ldexp(1.0, _int32(quantized(layer).unit_exponent)).astype(dtype)
    return builder.constant(_along_channels(layer, rank, unit), "unit")


def _along_channels(layer: Layer, rank: int, vector: NDArray[Any]) -> NDArray[Any]:
    """Return a vector (M,) in a shape that broadcasts against the layer's total."""
    if layer.op == "conv":
        return vector.reshape(-1, *(1,) * (rank - 2))
    return vector


def _conv_attributes(layer: Layer, weight: NDArray[Any]) -> dict[str, Any]:
    """Return the attributes of a convolution with as many axes as its weight has."""
    axes = weight.ndim - 2
    pads = layer.shape.padding
    return {
        "kernel_shape": list(weight.shape[2:]),
        "strides": list(layer.shape.stride[:axes]),
        "pads": list(pads) if axes == 2 else [pads[0], pads[2]],
        "dilations": list(layer.shape.dilation[:axes]),
        "group": layer.shape.g,
    }


def _rows(builder: OnnxBuilder, layer: Layer, codes: str) -> str:
    """Return a linear layer's codes as (rows, channels), which Gemm asks for."""
    shape = builder.shape(codes)
    if layer.op == "conv" or len(shape) == 2:
        return codes
    return builder.reshape(codes, (-1, shape[-1]))


def _like_input(builder: OnnxBuilder, layer: Layer, codes: str, real: str) -> str:
    """Return Gemm's rows in the rank of the layer's input."""
    shape = builder.shape(codes)
    if len(shape) == 2:
        return real
    return builder.reshape(real, (-1, *shape[1:-1], layer.shape.m * layer.shape.g))


def _int32(exponents: IntArray) -> NDArray[np.int32]:
    return exponents.astype(np.int32)
