# SPDX-License-Identifier: Apache-2.0
"""Softmax, layer and group normalisation without floating-point reductions.

Sums are integers; behind them stand only single IEEE double operations (Add, Sub, Mul, Div, Sqrt,
Round), each rounded correctly in numpy as in ONNX Runtime, in an order that no optimiser fuses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import ldexp, prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import EnosError
from enos_compiler.ir import ops
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.quantizer import CODE_COUNT, quantize_codes

if TYPE_CHECKING:
    from enos_compiler.semantics.onnx_builder import OnnxBuilder

FloatArray = NDArray[np.float64]

EXPONENTIAL_BITS = 30
"""Fraction bits of the table of exponentials: sums of 2**22 of them stay exact in float64."""
_LONGEST_SOFTMAX = 2 ** (52 - EXPONENTIAL_BITS)
_LEAST_VARIANCE = 2.0**-60
"""Stands for an epsilon of zero, in squared steps: a constant row gives zero, not 0 / 0."""


class Softmax(VectorOp):
    """Exponentials of code differences from a table, divided by their sum."""

    name: ClassVar[str] = "softmax"
    function = staticmethod(ops.softmax)

    @staticmethod
    def _table(fmt: ValueFormat) -> FloatArray:
        """Return exp(-d * scale) in units of 2**-EXPONENTIAL_BITS, for d = 0..255 steps."""
        steps = np.arange(CODE_COUNT, dtype=np.float64)
        return np.rint(np.exp(-steps * fmt.scale) * 2.0**EXPONENTIAL_BITS)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the codes of table[max - code] / sum of the same."""
        x, dim = codes[0], attributes["dim"]
        _check_extent(x.shape[dim], _LONGEST_SOFTMAX, self.name)
        parts = self._table(formats[0])[x.max(axis=dim, keepdims=True) - x]
        return quantize_codes(parts / parts.sum(axis=dim, keepdims=True), output)

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """Per element: compare for the maximum, subtract, look up, add to the sum, scale."""
        n = prod(output_shape)
        return {"compare": n, "add": 2 * n, "lookup": n, "multiply": n}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """ReduceMax, Sub, Gather, ReduceSum, Div and the double tail."""
        dim = attributes["dim"]
        _check_extent(builder.shape(inputs[0])[dim], _LONGEST_SOFTMAX, self.name)
        axes = builder.constant(np.array([dim], dtype=np.int64), "axes")
        x = builder.to_int64(inputs[0])
        distance = builder.node("Sub", [builder.node("ReduceMax", [x, axes]), x])
        table = builder.constant(self._table(formats[0]), "table")
        parts = builder.node("Gather", [table, distance], axis=0)
        share = builder.node("Div", [parts, builder.node("ReduceSum", [parts, axes])])
        return builder.round_double(share, 2.0**-output.exponent, output)


class _Normalisation(VectorOp, ABC):
    """(x - mean) / sqrt(var + eps) over runs of n elements, then gain and bias.

    With step counts c, sum S1 and sum of squares S2 that is
    (n*c - S1) / sqrt(n*S2 - S1**2 + eps * n**2 / scale**2): integers up to the square root.
    """

    @abstractmethod
    def _runs(self, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
        """Return a shape (batch leads as -1) whose last axis is one run."""

    @abstractmethod
    def _affine(
        self, shape: tuple[int, ...], output: ValueFormat, attributes: Mapping[str, Any]
    ) -> tuple[FloatArray, FloatArray]:
        """Return gain and bias in output steps, broadcasting against `shape`."""

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the codes of the normalised input."""
        shape = codes[0].shape
        steps = (codes[0] - formats[0].zero_point).reshape(self._runs(shape, attributes))
        n = steps.shape[-1]
        self._check(n, formats[0])
        total = steps.sum(axis=-1, keepdims=True)
        variance = n * (steps * steps).sum(axis=-1, keepdims=True) - total * total
        root = np.sqrt(variance.astype(np.float64) + self._epsilon(n, formats[0], attributes))
        normal = ((n * steps - total).astype(np.float64) / root).reshape(shape)
        gain, bias = self._affine(shape, output, attributes)
        return quantize_codes(normal * gain + bias, _in_steps(output))

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """Per element: two sums, a subtraction, a bias; a square, a division, a gain."""
        n = prod(output_shape)
        return {"add": 4 * n, "multiply": 3 * n}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Sums in int64, then Sqrt, Div, Mul, Add and the double tail."""
        shape = builder.shape(inputs[0])
        runs = self._runs(shape, attributes)
        n = prod(shape) // prod(shape[0] if extent == -1 else extent for extent in runs[:-1])
        self._check(n, formats[0])
        last = builder.constant(np.array([-1], dtype=np.int64), "axes")
        count = builder.constant(np.int64(n), "count")
        zero = builder.constant(np.int64(formats[0].zero_point), "zero_point")
        steps = builder.node("Sub", [builder.to_int64(builder.reshape(inputs[0], runs)), zero])
        total = builder.node("ReduceSum", [steps, last])
        squares = builder.node("ReduceSum", [builder.node("Mul", [steps, steps]), last])
        variance = builder.node(
            "Sub",
            [builder.node("Mul", [squares, count]), builder.node("Mul", [total, total])],
        )
        epsilon = builder.constant(np.float64(self._epsilon(n, formats[0], attributes)), "epsilon")
        root = builder.node("Sqrt", [builder.node("Add", [builder.to_double(variance), epsilon])])
        centred = builder.node("Sub", [builder.node("Mul", [steps, count]), total])
        normal = builder.node("Div", [builder.to_double(centred), root])
        gain, bias = self._affine(shape, output, attributes)
        real = builder.reshape(normal, (-1, *shape[1:]))
        real = builder.node("Mul", [real, builder.constant(gain, "gain")])
        real = builder.node("Add", [real, builder.constant(bias, "bias")])
        return builder.round_double(real, 1.0, output)

    @staticmethod
    def _epsilon(n: int, fmt: ValueFormat, attributes: Mapping[str, Any]) -> float:
        """Return eps in squared steps, times n**2."""
        return max(ldexp(float(attributes["eps"]) * n * n, -2 * fmt.exponent), _LEAST_VARIANCE)

    def _check(self, n: int, fmt: ValueFormat) -> None:
        _check_extent(n, 2**31 // fmt.max_abs, self.name)


class LayerNorm(_Normalisation):
    """Normalisation over trailing axes."""

    name: ClassVar[str] = "layer_norm"
    function = staticmethod(ops.layer_norm)
    parameters: ClassVar[tuple[str, ...]] = ops.NORM_PARAMETERS["layer_norm"]

    def _runs(self, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
        axes = attributes["shape"]
        return (-1, *shape[1 : len(shape) - len(axes)], prod(axes))

    def _affine(
        self,
        shape: tuple[int, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> tuple[FloatArray, FloatArray]:
        return _gain_and_bias(attributes["shape"], output, attributes)


class GroupNorm(_Normalisation):
    """Normalisation over runs of channels and space."""

    name: ClassVar[str] = "group_norm"
    function = staticmethod(ops.group_norm)
    parameters: ClassVar[tuple[str, ...]] = ops.NORM_PARAMETERS["group_norm"]

    def _runs(self, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
        groups = attributes["groups"]
        return (-1, groups, prod(shape[1:]) // groups)

    def _affine(
        self, shape: tuple[int, ...], output: ValueFormat, attributes: Mapping[str, Any]
    ) -> tuple[FloatArray, FloatArray]:
        per_channel = (shape[1], *(1,) * (len(shape) - 2))
        return _gain_and_bias(per_channel, output, attributes)


def _gain_and_bias(
    shape: tuple[int, ...], output: ValueFormat, attributes: Mapping[str, Any]
) -> tuple[FloatArray, FloatArray]:
    """Return gain and bias in output steps; one and zero where the norm has none."""
    gain, bias = attributes["weight"], attributes["bias"]
    gain = np.ones(shape) if gain is None else gain.reshape(shape)
    bias = np.zeros(shape) if bias is None else bias.reshape(shape)
    return np.ldexp(gain, -output.exponent), np.ldexp(bias, -output.exponent)


def _in_steps(fmt: ValueFormat) -> ValueFormat:
    """Return the format of numbers that count steps already."""
    return ValueFormat(0, fmt.zero_point, fmt.bits, fmt.low, fmt.high)


def _check_extent(extent: int, limit: int, name: str) -> None:
    if extent > limit:
        raise EnosError(
            f"`{name}` over {extent} elements exceeds the {limit} whose integer sums are exact",
            remedy="normalise over fewer elements",
        )
