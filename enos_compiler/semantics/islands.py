# SPDX-License-Identifier: Apache-2.0
"""Float islands: operations that dequantise, compute in floating point and quantise again.

Their float arithmetic is the runtime's own, so a result that falls near a tie may differ by a step
between two runtimes; they are compiled under `--allow-float` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from enos_compiler.ir import ops
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.quantizer import dequantize, quantize_codes

if TYPE_CHECKING:
    from torch import Tensor

    from enos_compiler.semantics.onnx_builder import OnnxBuilder


class _Island(VectorOp):
    """What the float islands share: the torch body in float64 is the reference."""

    is_float: ClassVar[bool] = True

    def _real(self, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        """Return the float result of one operand."""
        raise NotImplementedError

    def _onnx_real(
        self,
        builder: OnnxBuilder,
        real: str,
        shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> str:
        """Add the float operation on a tensor of `shape` and return its output."""
        raise NotImplementedError

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the codes of the operation taken in float64."""
        import torch

        real = torch.from_numpy(dequantize(codes[0], formats[0]))
        return quantize_codes(self._real(real, attributes).numpy(), output)

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Dequantise, the float operation, quantise."""
        real = builder.dequantize(inputs[0], formats[0])
        shape = builder.shape(inputs[0])
        return builder.quantize(self._onnx_real(builder, real, shape, attributes), output)


class Softmax(_Island):
    """Exponentials along an axis, divided by their sum."""

    name: ClassVar[str] = "softmax"
    function = staticmethod(ops.softmax)

    def _real(self, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        return ops.softmax(x, dim=attributes["dim"])

    def _onnx_real(
        self,
        builder: OnnxBuilder,
        real: str,
        shape: tuple[int, ...],  # noqa: ARG002
        attributes: Mapping[str, Any],
    ) -> str:
        return builder.node("Softmax", [real], axis=attributes["dim"])

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],  # noqa: ARG002
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],  # noqa: ARG002
    ) -> Mapping[str, int]:
        """Per element: compare for the maximum, subtract, look up exp, sum, scale."""
        n = prod(output_shape)
        return {"compare": n, "add": 2 * n, "lookup": n, "multiply": n}


class _Normalisation(_Island):
    """Layer and group normalisation: parameters, and work per element."""

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],  # noqa: ARG002
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],  # noqa: ARG002
    ) -> Mapping[str, int]:
        """Per element: sum, subtract, square, sum; scale, gain and bias."""
        n = prod(output_shape)
        return {"add": 4 * n, "multiply": 3 * n}


class LayerNorm(_Normalisation):
    """Normalisation over trailing axes."""

    name: ClassVar[str] = "layer_norm"
    function = staticmethod(ops.layer_norm)
    parameters: ClassVar[tuple[str, ...]] = ops.NORM_PARAMETERS["layer_norm"]

    def _real(self, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        weight, bias = (_tensor(attributes[name]) for name in self.parameters)
        return ops.layer_norm(x, weight, bias, shape=attributes["shape"], eps=attributes["eps"])

    def _onnx_real(
        self,
        builder: OnnxBuilder,
        real: str,
        shape: tuple[int, ...],  # noqa: ARG002
        attributes: Mapping[str, Any],
    ) -> str:
        axes = attributes["shape"]
        gain, bias = _gain_and_bias(attributes, axes)
        return builder.node(
            "LayerNormalization",
            [real, builder.constant(gain, "gain"), builder.constant(bias, "bias")],
            axis=-len(axes),
            epsilon=float(attributes["eps"]),
        )


class GroupNorm(_Normalisation):
    """Normalisation over runs of channels and space."""

    name: ClassVar[str] = "group_norm"
    function = staticmethod(ops.group_norm)
    parameters: ClassVar[tuple[str, ...]] = ops.NORM_PARAMETERS["group_norm"]

    def _real(self, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        weight, bias = (_tensor(attributes[name]) for name in self.parameters)
        return ops.group_norm(x, weight, bias, groups=attributes["groups"], eps=attributes["eps"])

    def _onnx_real(
        self,
        builder: OnnxBuilder,
        real: str,
        shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> str:
        gain, bias = _gain_and_bias(attributes, shape[1:2])
        return builder.node(
            "GroupNormalization",
            [real, builder.constant(gain, "gain"), builder.constant(bias, "bias")],
            num_groups=attributes["groups"],
            epsilon=float(attributes["eps"]),
        )


def _tensor(parameter: Any) -> Tensor | None:
    """Return a parameter as float64 tensor."""
    import torch

    return None if parameter is None else torch.from_numpy(np.asarray(parameter, dtype=np.float64))


def _gain_and_bias(attributes: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return float32 gain and bias; ones and zeros where the norm has none."""
    gain, bias = attributes["weight"], attributes["bias"]
    gain = np.ones(shape) if gain is None else gain
    bias = np.zeros(shape) if bias is None else bias
    return gain.astype(np.float32), bias.astype(np.float32)
