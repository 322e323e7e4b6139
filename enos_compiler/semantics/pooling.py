# SPDX-License-Identifier: Apache-2.0
"""Maximum and averages of windows and of whole axes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from enos_compiler.ir import ops
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.quantizer import CODE_COUNT, requantize

if TYPE_CHECKING:
    from enos_compiler.semantics.onnx_builder import OnnxBuilder

MEASURED_AVERAGES: tuple[tuple[int, int], ...] = ((2, 2), (3, 3), (4, 4), (7, 7), (8, 8))
"""Windows whose Q/DQ average was checked for every sum at scale steps 2**-2..2**2."""
FLOAT32_DIVISORS = 2**14
"""Counts up to here: a float32 quotient decides ties between 8-bit codes rightly."""


class MaxPool(VectorOp):
    """Greatest code of each window; padding holds code 0, which never wins."""

    name: ClassVar[str] = "max_pool"
    function = staticmethod(ops.max_pool)
    keeps_format: ClassVar[bool] = True

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the maxima."""
        axes = len(attributes["kernel"])
        windows = _windows(codes[0], attributes)
        maxima: IntArray = windows.max(axis=tuple(range(-axes, 0)))
        return maxima

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """A comparison per element of each window but the first."""
        return {"compare": prod(output_shape) * (prod(attributes["kernel"]) - 1)}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """MaxPool of uint8; padding as wide as the kernel, which it refuses, by a Pad of code 0.

        ONNX Runtime would fuse a bare Pad back into the pool and then refuse it: a Min without
        effect stands between them.
        """
        codes, kernel = inputs[0], attributes["kernel"]
        pads = _pads(builder.shape(codes), attributes)
        if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
            padded = builder.pad(codes, pads, 0)
            top = builder.constant(np.uint8(CODE_COUNT - 1), "high")
            codes = builder.node("Min", [padded, top])
            pads = (0,) * len(pads)
        return builder.node(
            "MaxPool",
            [codes],
            kernel_shape=kernel,
            strides=attributes["stride"],
            pads=pads,
            dilations=attributes["dilation"],
        )


class AvgPool(VectorOp):
    """Mean of each window, divided and rounded once."""

    name: ClassVar[str] = "avg_pool"
    function = staticmethod(ops.avg_pool)
    asks_output_width: ClassVar[bool] = True

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the rounded means."""
        axes = len(attributes["kernel"])
        windows = _windows(codes[0] - formats[0].zero_point, attributes)
        total = windows.sum(axis=tuple(range(-axes, 0)))
        counts = _counts(codes[0].shape, attributes)
        return requantize(total, formats[0].exponent, output, divisor=counts)

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """Additions within each window and a multiplication by 1 / count."""
        outputs = prod(output_shape)
        return {"add": outputs * (prod(attributes["kernel"]) - 1), "multiply": outputs}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Q/DQ around AveragePool where that was measured, else window sums and a double tail."""
        shape, kernel = builder.shape(inputs[0]), attributes["kernel"]
        shift = formats[0].exponent - output.exponent
        pads = _pads(shape, attributes)
        if kernel in MEASURED_AVERAGES and abs(shift) <= 2 and not attributes["ceil_mode"]:
            real = builder.node(
                "AveragePool",
                [builder.dequantize(inputs[0], formats[0])],
                kernel_shape=kernel,
                strides=attributes["stride"],
                pads=pads,
                count_include_pad=int(attributes["count_include_pad"]),
            )
            return builder.quantize(real, output)
        ones = builder.constant(np.ones((shape[1], 1, *kernel), dtype=np.float32), "ones")
        total = builder.node(
            "Conv",
            [builder.steps(inputs[0], formats[0]), ones],
            strides=attributes["stride"],
            pads=pads,
            group=shape[1],
        )
        counts = _counts(shape, attributes)
        return builder.round_double(builder.to_double(total), 2.0**shift, output, divisor=counts)


class Mean(VectorOp):
    """Mean over whole axes (global averages), divided and rounded once."""

    name: ClassVar[str] = "mean"
    function = staticmethod(ops.mean)
    asks_output_width: ClassVar[bool] = True

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the rounded means."""
        dims = tuple(attributes["dims"])
        total = (codes[0] - formats[0].zero_point).sum(axis=dims, keepdims=attributes["keepdim"])
        count = prod(codes[0].shape[d] for d in dims)
        return requantize(total, formats[0].exponent, output, divisor=count)

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """Additions down to each mean and a multiplication by 1 / count."""
        outputs = prod(output_shape)
        return {"add": prod(input_shapes[0]) - outputs, "multiply": outputs}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """ReduceMean between Q and DQ; sums and a double tail where float32 may miss a tie.

        The fused global average of ONNX Runtime errs at ties, ReduceMean stays as it is.
        """
        shape, dims = builder.shape(inputs[0]), attributes["dims"]
        count = prod(shape[d] for d in dims)
        shift = formats[0].exponent - output.exponent
        axes = builder.constant(np.array(dims, dtype=np.int64), "axes")
        keep = int(attributes["keepdim"])
        if count * 2 ** max(0, -shift) <= FLOAT32_DIVISORS:
            real = builder.dequantize(inputs[0], formats[0])
            real = builder.node("ReduceMean", [real, axes], keepdims=keep)
            return builder.quantize(real, output)
        steps = builder.steps(inputs[0], formats[0], double=True)
        total = builder.node("ReduceSum", [steps, axes], keepdims=keep)
        return builder.round_double(total, 2.0**shift, output, divisor=count)


def _extents(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the pooled extents of the last axes.

    With ceil_mode a last window that would start behind input and left padding is dropped.
    """
    kernel = attributes["kernel"]
    dilation = attributes.get("dilation", (1,) * len(kernel))
    extents = []
    for size, k, s, p, d in zip(
        shape[-len(kernel) :],
        kernel,
        attributes["stride"],
        attributes["padding"],
        dilation,
        strict=True,
    ):
        room = size + 2 * p - d * (k - 1) - 1
        extent = (-(-room // s) if attributes["ceil_mode"] else room // s) + 1
        if attributes["ceil_mode"] and (extent - 1) * s >= size + p:
            extent -= 1
        extents.append(extent)
    return tuple(extents)


def _pads(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Return elements before and after each pooled axis so that every window is complete."""
    kernel, padding = attributes["kernel"], attributes["padding"]
    dilation = attributes.get("dilation", (1,) * len(kernel))
    ends = tuple(
        max(0, (extent - 1) * s + d * (k - 1) + 1 - size - p)
        for extent, size, k, s, p, d in zip(
            _extents(shape, attributes),
            shape[-len(kernel) :],
            kernel,
            attributes["stride"],
            padding,
            dilation,
            strict=True,
        )
    )
    return (*padding, *ends)


def _windows(codes: IntArray, attributes: Mapping[str, Any]) -> IntArray:
    """Return the windows as trailing axes, (..., P, Q, R, S); padding holds 0."""
    kernel, stride = attributes["kernel"], attributes["stride"]
    dilation = attributes.get("dilation", (1,) * len(kernel))
    axes = len(kernel)
    pads = _pads(codes.shape, attributes)
    extents = _extents(codes.shape, attributes)
    widths = [(0, 0)] * (codes.ndim - axes) + list(zip(pads[:axes], pads[axes:], strict=True))
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(
        np.pad(codes, widths), span, axis=tuple(range(-axes, 0))
    )
    index: tuple[Any, ...] = (
        ...,
        *(slice(0, (n - 1) * s + 1, s) for n, s in zip(extents, stride, strict=True)),
        *(slice(None, None, d) for d in dilation),
    )
    windows: IntArray = view[index]
    return windows


def _counts(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> IntArray:
    """Return how many elements each window's mean divides by, shape (P, Q).

    With `count_include_pad` padding counts, but never what ceil_mode adds behind it.
    """
    per_axis = []
    for extent, size, k, s, p in zip(
        _extents(shape, attributes),
        shape[-len(attributes["kernel"]) :],
        attributes["kernel"],
        attributes["stride"],
        attributes["padding"],
        strict=True,
    ):
        starts = np.arange(extent) * s - p
        ends = np.minimum(starts + k, size + p)
        if not attributes["count_include_pad"]:
            starts, ends = np.maximum(starts, 0), np.minimum(ends, size)
        per_axis.append(ends - starts)
    counts: IntArray = reduce(np.multiply.outer, per_axis).astype(np.int64)
    return counts
