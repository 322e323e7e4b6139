# SPDX-License-Identifier: Apache-2.0
"""Operations that move codes: reshape, permute, slice, pad, expand, resize, interleave, embed."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from enos_compiler.errors import EnosError
from enos_compiler.ir import ops
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.quantizer import quantize_codes, requantize

if TYPE_CHECKING:
    from enos_compiler.semantics.onnx_builder import OnnxBuilder


SELECTING = frozenset({"slice", "embedding"})
"""Operations that read no more of an operand than they hand on."""


class _Movement(VectorOp):
    """Every output code is a copy of an input code (or the padding's)."""

    keeps_format: ClassVar[bool] = True

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """One move per output element."""
        return {"move": prod(output_shape)}


class Reshape(_Movement):
    """View with another shape."""

    name: ClassVar[str] = "reshape"
    function = staticmethod(ops.reshape)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the same codes in another shape."""
        return codes[0].reshape(attributes["shape"])

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """No work: the codes stay where they are."""
        return {}

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Reshape of uint8."""
        return builder.reshape(inputs[0], attributes["shape"])


class Permute(_Movement):
    """Another order of axes."""

    name: ClassVar[str] = "permute"
    function = staticmethod(ops.permute)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the transposed codes."""
        return codes[0].transpose(attributes["dims"])

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Transpose of uint8."""
        return builder.node("Transpose", inputs, perm=attributes["dims"])


class Slice(_Movement):
    """Part of one axis."""

    name: ClassVar[str] = "slice"
    function = staticmethod(ops.slice_)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the selected codes."""
        part = slice(attributes["start"], attributes["stop"], attributes["step"])
        index: tuple[slice, ...] = (slice(None),) * attributes["dim"] + (part,)
        return codes[0][index]

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Slice of uint8."""
        fields = ("start", "stop", "dim", "step")
        bounds = [builder.constant(np.array([attributes[f]], dtype=np.int64), f) for f in fields]
        return builder.node("Slice", [inputs[0], *bounds])


class Pad(_Movement):
    """Surround with a constant; zero is the zero point."""

    name: ClassVar[str] = "pad"
    function = staticmethod(ops.pad)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the padded codes."""
        rank = codes[0].ndim
        pads = attributes["pads"]
        widths = list(zip(pads[:rank], pads[rank:], strict=True))
        return np.pad(codes[0], widths, constant_values=_fill(formats[0], attributes))

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Pad of uint8."""
        pads = builder.constant(np.array(attributes["pads"], dtype=np.int64), "pads")
        fill = builder.constant(np.uint8(_fill(formats[0], attributes)), "fill")
        return builder.node("Pad", [inputs[0], pads, fill])


def _fill(fmt: ValueFormat, attributes: Mapping[str, Any]) -> int:
    """Return the code of the padding's value, in the kept format."""
    return int(quantize_codes(attributes["value"], fmt))


class Expand(_Movement):
    """Repeat axes of extent 1."""

    name: ClassVar[str] = "expand"
    function = staticmethod(ops.expand)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the repeated codes."""
        shape = attributes["shape"]
        lead = (1,) * (len(shape) - codes[0].ndim) + codes[0].shape
        full = [old if new == -1 else new for old, new in zip(lead, shape, strict=True)]
        return np.broadcast_to(codes[0], full)

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Expand of uint8; an extent of 1 keeps an axis there."""
        shape = np.array([max(n, 1) for n in attributes["shape"]], dtype=np.int64)
        return builder.node("Expand", [inputs[0], builder.constant(shape, "shape")])


class ResizeNearest(_Movement):
    """Repeat each element of the last axes."""

    name: ClassVar[str] = "resize_nearest"
    function = staticmethod(ops.resize_nearest)

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the repeated codes."""
        result = codes[0]
        scale = attributes["scale"]
        for axis, times in enumerate(scale, start=result.ndim - len(scale)):
            result = result.repeat(times, axis=axis)
        return result

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Resize of uint8 by whole factors."""
        scale = attributes["scale"]
        lead = len(builder.shape(inputs[0])) - len(scale)
        scales = builder.constant(np.array([1.0] * lead + list(scale), dtype=np.float32), "scales")
        return builder.node(
            "Resize",
            [inputs[0], "", scales],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )


class Interleave(_Movement):
    """Merge the phases of a transposed convolution; each is rounded into the common format."""

    name: ClassVar[str] = "interleave"
    function = staticmethod(ops.interleave)
    keeps_format: ClassVar[bool] = False
    asks_output_width: ClassVar[bool] = True

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the merged codes."""
        stride = attributes["stride"]
        axes = len(stride)
        shape = codes[0].shape
        full = tuple(n * s for n, s in zip(shape[-axes:], stride, strict=True))
        merged = np.empty((*shape[:-axes], *full), dtype=np.int64)
        for place, phase, fmt in zip(np.ndindex(*stride), codes, formats, strict=True):
            index: tuple[Any, ...] = (
                ...,
                *(slice(i, None, s) for i, s in zip(place, stride, strict=True)),
            )
            merged[index] = requantize(phase - fmt.zero_point, fmt.exponent, output)
        return merged

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Stack the phases behind the last axis, then Reshape, Transpose, Reshape."""
        stride = attributes["stride"]
        axes = len(stride)
        shape = builder.shape(inputs[0])
        behind = builder.constant(np.array([-1], dtype=np.int64), "axes")
        phases = [
            builder.node("Unsqueeze", [builder.rescale(c, f, output), behind])
            for c, f in zip(inputs, formats, strict=True)
        ]
        stacked = builder.reshape(
            builder.node("Concat", phases, axis=-1), (-1, *shape[1:], *stride)
        )
        lead = len(shape) - axes
        order = [*range(lead)]
        for axis in range(lead, len(shape)):
            order += [axis, axis + axes]
        moved = builder.node("Transpose", [stacked], perm=order)
        full = [n * s for n, s in zip(shape[-axes:], stride, strict=True)]
        return builder.reshape(moved, (-1, *shape[1:lead], *full))


class Embedding(_Movement):
    """Select rows of a table of codes by integer indices."""

    name: ClassVar[str] = "embedding"
    function = staticmethod(ops.embedding)
    keeps_format: ClassVar[bool] = False

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return the selected rows in the output's format.

        Raises:
            EnosError: an index outside the table.
        """
        entries = len(codes[1])
        if codes[0].size and not 0 <= codes[0].min() <= codes[0].max() < entries:
            raise EnosError(
                f"indices {codes[0].min()}..{codes[0].max()} leave the table of {entries} entries",
                place="embedding",
                remedy=f"give indices in 0..{entries - 1}",
            )
        table = requantize(codes[1] - formats[1].zero_point, formats[1].exponent, output)
        rows: IntArray = table[codes[0]]
        return rows

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Gather of uint8 rows."""
        table = builder.rescale(inputs[1], formats[1], output)
        return builder.node("Gather", [table, inputs[0]], axis=0)
