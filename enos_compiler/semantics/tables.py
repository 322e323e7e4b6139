# SPDX-License-Identifier: Apache-2.0
"""Functions of one value as tables of codes: exact in every runtime, whatever the function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from enos_compiler.ir import ops
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.quantizer import CODE_COUNT, dequantize, quantize_codes

if TYPE_CHECKING:
    from enos_compiler.semantics.onnx_builder import OnnxBuilder

FloatArray = NDArray[np.float64]


def code_table(
    function: Callable[[FloatArray], FloatArray], old: ValueFormat, new: ValueFormat
) -> IntArray:
    """Return the output codes of a real function for the 256 input codes.

    The function is taken in float64. Where it has no value (the logarithm of a negative number)
    the code is that of zero; infinities saturate.

    Args:
        function: the last axis of its result belongs to the codes; leading axes make more tables.
        old: format of the input codes.
        new: format of the output codes.
    """
    with np.errstate(all="ignore"):
        real = function(dequantize(np.arange(CODE_COUNT), old))
    return quantize_codes(np.where(np.isnan(real), 0.0, real), new)


class Elementwise(VectorOp):
    """One of the listed functions of one value, as a table of 256 codes."""

    name: ClassVar[str] = "elementwise"
    function = staticmethod(ops.elementwise)

    @staticmethod
    def _table(old: ValueFormat, new: ValueFormat, attributes: Mapping[str, Any]) -> IntArray:
        import torch

        def apply(real: FloatArray) -> FloatArray:
            result: FloatArray = ops.elementwise(torch.from_numpy(real), **attributes).numpy()
            return result

        return code_table(apply, old, new)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Look each code up."""
        table = self._table(formats[0], output, attributes)
        looked_up: IntArray = table[codes[0]]
        return looked_up

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """One look-up per element."""
        return {"lookup": prod(output_shape)}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Gather from the table."""
        return builder.table(inputs[0], self._table(formats[0], output, attributes))


class BatchNorm(VectorOp):
    """Batch normalisation that follows no layer: one table of 256 codes per channel of axis 1."""

    name: ClassVar[str] = "batch_norm"
    function = staticmethod(ops.batch_norm)
    parameters: ClassVar[tuple[str, ...]] = ops.NORM_PARAMETERS["batch_norm"]

    @staticmethod
    def _tables(old: ValueFormat, new: ValueFormat, attributes: Mapping[str, Any]) -> IntArray:
        """Return the tables, shape (channels, 256)."""
        mean, var = attributes["mean"], attributes["var"]
        weight = np.ones_like(mean) if attributes["weight"] is None else attributes["weight"]
        bias = np.zeros_like(mean) if attributes["bias"] is None else attributes["bias"]
        gain = weight / np.sqrt(var + attributes["eps"])
        shift = bias - mean * gain
        return code_table(lambda real: gain[:, None] * real + shift[:, None], old, new)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Look each code up in its channel's table."""
        tables = self._tables(formats[0], output, attributes)
        channel = np.arange(len(tables)).reshape(-1, *(1,) * (codes[0].ndim - 2))
        looked_up: IntArray = tables[channel, codes[0]]
        return looked_up

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """A multiplication and an addition per element, as hardware does without a table."""
        elements = prod(output_shape)
        return {"multiply": elements, "add": elements}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Gather from the joined tables at 256 * channel + code."""
        return builder.table(inputs[0], self._tables(formats[0], output, attributes))
