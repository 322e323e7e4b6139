# SPDX-License-Identifier: Apache-2.0
"""Sum, difference, product and join of values: integers in a common unit, rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from enos_compiler.errors import EnosError
from enos_compiler.ir import ops
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.quantizer import requantize

if TYPE_CHECKING:
    from enos_compiler.semantics.onnx_builder import OnnxBuilder

FLOAT32_SPREAD = 14
"""Exponents up to this far apart: the sum of two 8-bit operands is exact in float32."""
FLOAT64_SPREAD = 43
"""Exponents up to this far apart: the sum of two 8-bit operands is exact in float64."""


class _Sum(VectorOp):
    """Both signs of a sum with broadcasting."""

    asks_output_width: ClassVar[bool] = True
    sign: ClassVar[int]
    onnx_op: ClassVar[str]

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the codes of a +- b, summed in the finer of the two units."""
        unit = _finer_unit(formats, self.name)
        a, b = (
            (c - f.zero_point) << (f.exponent - unit) for c, f in zip(codes, formats, strict=True)
        )
        return requantize(a + self.sign * b, unit, output)

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """One addition per output element."""
        return {"add": prod(output_shape)}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Q/DQ around Add or Sub, or the double tail where the scales lie far apart."""
        unit = _finer_unit(formats, self.name)
        if max(f.exponent for f in formats) - unit <= FLOAT32_SPREAD:
            real = [builder.dequantize(c, f) for c, f in zip(inputs, formats, strict=True)]
            return builder.quantize(builder.node(self.onnx_op, real), output)
        total = builder.node(
            self.onnx_op,
            [
                builder.node(
                    "Mul",
                    [
                        builder.steps(c, f, double=True),
                        builder.constant(np.float64(2.0 ** (f.exponent - unit)), "unit"),
                    ],
                )
                for c, f in zip(inputs, formats, strict=True)
            ],
        )
        return builder.round_double(total, 2.0 ** (unit - output.exponent), output)


def _finer_unit(formats: tuple[ValueFormat, ...], name: str) -> int:
    """Return the smaller exponent of two operands.

    Raises:
        EnosError: the scales lie so far apart that no float64 holds the sum.
    """
    low, high = min(f.exponent for f in formats), max(f.exponent for f in formats)
    if high - low > FLOAT64_SPREAD:
        raise EnosError(
            f"the operands of `{name}` have scales 2**{low} and 2**{high}, "
            f"more than 2**{FLOAT64_SPREAD} apart",
            remedy="check the calibration: one of the two values is all but zero",
        )
    return low


class Add(_Sum):
    """Sum of two values."""

    name: ClassVar[str] = "add"
    function = staticmethod(ops.add)
    sign: ClassVar[int] = 1
    onnx_op: ClassVar[str] = "Add"


class Sub(_Sum):
    """Difference of two values."""

    name: ClassVar[str] = "sub"
    function = staticmethod(ops.sub)
    sign: ClassVar[int] = -1
    onnx_op: ClassVar[str] = "Sub"


class Mul(VectorOp):
    """Elementwise product of two values; the product of two scales is a power of two again."""

    name: ClassVar[str] = "mul"
    function = staticmethod(ops.mul)
    asks_output_width: ClassVar[bool] = True

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the codes of a * b."""
        a, b = (c - f.zero_point for c, f in zip(codes, formats, strict=True))
        return requantize(a * b, formats[0].exponent + formats[1].exponent, output)

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """One multiplication per output element."""
        return {"multiply": prod(output_shape)}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Q/DQ around Mul: a product of two 8-bit codes is exact in float32."""
        real = [builder.dequantize(c, f) for c, f in zip(inputs, formats, strict=True)]
        return builder.quantize(builder.node("Mul", real), output)


class Concat(VectorOp):
    """Join along an axis; each part is rounded into the common format."""

    name: ClassVar[str] = "concat"
    function = staticmethod(ops.concat)
    asks_output_width: ClassVar[bool] = True

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the joined codes."""
        parts = [
            requantize(c - f.zero_point, f.exponent, output)
            for c, f in zip(codes, formats, strict=True)
        ]
        return np.concatenate(parts, axis=attributes["dim"])

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """One move per element."""
        return {"move": prod(output_shape)}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Join codes where the formats agree, else Q/DQ around Concat."""
        if all(f == output for f in formats):
            return builder.node("Concat", inputs, axis=attributes["dim"])
        real = [builder.dequantize(c, f) for c, f in zip(inputs, formats, strict=True)]
        return builder.quantize(builder.node("Concat", real, axis=attributes["dim"]), output)
