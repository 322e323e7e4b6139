# SPDX-License-Identifier: Apache-2.0
"""The ONNX local function of a layer on crossbars, converters included, in standard operators.

Row blocks are the groups of one convolution, weight slices (and the sides of a pair that are
converted apart) its output channels; one such convolution runs per input digit:

    digit -> Gather of the blocks' channels -> Conv -> Mul 1/step -> Round -> Clip
          -> Mul by the place's value -> ReduceSum over blocks and slices

Column sums are integers below 2**24 and steps powers of two, so the convolution and the division
are exact in float32 in any order of summation. What follows the converters is float32 where every
part of the total is below 2**24, else float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.converters import code_limits
from enos_compiler.crossbar.integer import IntegerMatrix, sums_signed
from enos_compiler.crossbar.layer import (
    RowRead,
    form_spec,
    group_steps,
    layer_terms,
    row_reads,
    stored_groups,
)
from enos_compiler.ir.formats import ArrayRead, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.operators.onnx_body import FunctionBody, packed, real_tensor
from enos_compiler.operators.terms import Term
from enos_compiler.semantics.base import OnnxFunction
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

_SPATIAL = ("strides", "pads", "dilations")


@dataclass(frozen=True, slots=True, eq=False)
class _Kernel:
    """One term's cells as a convolution, and what its channels mean.

    Channels are ordered (group, block, slice, side, column).
    """

    weight: IntArray
    """(channels, K, R, S): levels, zero outside the block's rows."""
    channels: IntArray | None
    """Input channels of the blocks, K each; None where each group is one block."""
    groups: int
    """Groups of the convolution: groups of the layer times row blocks."""
    parts: int
    """Conversions that add up to one column: blocks x slices x sides."""
    columns: int
    """Columns of a group, a unit column included."""
    steps: IntArray
    """(1, G, parts, columns, 1): exponents of the converters' steps."""
    places: IntArray
    """(1, G, parts, columns, 1): value of a code, with the sign of its side."""


@dataclass(slots=True)
class _Writer:
    """Writes one layer's function."""

    layer: Layer
    quantized: QuantizedLayer
    body: FunctionBody
    double: bool

    @property
    def shape(self) -> LayerShape:
        return self.layer.shape

    @property
    def fmt(self) -> ValueFormat:
        return self.quantized.input_formats[0]

    def real(self, name: str, values: IntArray) -> str:
        """Add whole numbers in the type of the total."""
        return self.body.tensor(name, real_tensor(values, double=self.double))

    def single(self, name: str, values: NDArray[np.float32] | float) -> str:
        return self.body.tensor(name, np.asarray(values, np.float32))

    def shaped(self, tensor: str, name: str, extents: tuple[int, ...]) -> str:
        target = self.body.tensor(name, np.array(extents, np.int64))
        return self.body.node("Reshape", tensor, target)

    # From codes to rows

    def images(self) -> str:
        """Return the codes as float32 images, whatever the layer's rank."""
        codes = self.body.cast("codes")
        if self.layer.op != "conv":
            return self.shaped(codes, "rows", (-1, self.shape.c, 1, 1))
        if self.quantized.input_formats and self._flat():
            axis = self.body.tensor("last_axis", np.array([3], np.int64))
            return self.body.node("Unsqueeze", codes, axis)
        return codes

    def _flat(self) -> bool:
        return layer_terms(self.layer, self.quantized)[0].weight.ndim == 3

    def row_value(self, read: RowRead, images: str, padded: str) -> str:
        """Return what the rows are driven with."""
        zero = self.fmt.zero_point
        if read.value == "code":
            return padded
        if not zero:
            return self.body.node("Min", images, self.single("one", 1))
        origin = self.single("zero_point", zero)
        operands = (images, origin) if read.value == "positive" else (origin, images)
        return self.body.node("Relu", self.body.node("Sign", self.body.node("Sub", *operands)))

    def padded(self, images: str) -> str:
        """Return images with code z around them where z is not zero."""
        pads = self.shape.padding
        if not self.fmt.zero_point or not any(pads):
            return images
        top, left, bottom, right = pads
        around = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        fill = self.single("pad_code", self.fmt.zero_point)
        return self.body.node("Pad", images, self.body.tensor("pad", around), fill)

    def digits(self, value: str, read: RowRead, width: int) -> list[tuple[int, str]]:
        """Return (place, digit) of unsigned values, least significant first."""
        width = width or read.bits
        places = list(range(0, read.bits, width))
        above = [self._dropped(value, place) for place in places]
        found = []
        for i, place in enumerate(places):
            digit = above[i]
            if i + 1 < len(places):
                base = self.single(f"base_{width}", 2.0**width)
                digit = self.body.node("Sub", digit, self.body.node("Mul", above[i + 1], base))
            found.append((place, digit))
        return found

    def _dropped(self, value: str, places: int) -> str:
        if not places:
            return value
        unit = self.single(f"drop_{places}", 2.0**-places)
        return self.body.node("Floor", self.body.node("Mul", value, unit))

    # From rows to sums

    def term(self, index: int, term: Term, how: ArrayRead, images: str) -> str:
        """Return one term's sums (N, G, M, P * Q) in the type of the total."""
        form = self.quantized.array
        if form is None:
            raise ValueError("a layer without an array has its operator's body")
        spec, tag = form_spec(form), f"_{index}"
        matrices = stored_groups(self.layer, term, spec, how.form, how.bits)
        kernel = _kernel(matrices, how.steps, self.shape)
        weight = self.body.cast(self.body.tensor(f"levels{tag}", packed(kernel.weight)))
        limits = code_limits(form.adc_bits, sums_signed(matrices[0], False))
        total, rows = "", ""
        for read in row_reads(term, self.fmt):
            value = self.row_value(read, images, self.padded(images))
            bare = read.value == "code" and value != images
            for place, digit in self.digits(value, read, form.digit_bits):
                sums = self._convolution(kernel, weight, digit, tag, bare=bare)
                codes = self._converted(sums, kernel, limits, tag)
                places = kernel.places * (read.sign << place)
                part = self._joined(codes, places, f"places{tag}_{read.value}_{place}")
                total = self.body.node("Add", total, part) if total else part
            if matrices[0].layout.offset and not matrices[0].unit_column:
                part = self._row_sum(value, read, bare=bare)
                rows = self.body.node("Add", rows, part) if rows else part
        return self._recovered(total, rows, matrices[0], term, tag)

    def _convolution(
        self, kernel: _Kernel, weight: str, digit: str, tag: str, *, bare: bool
    ) -> str:
        if kernel.channels is not None:
            channels = self.body.tensor(f"channels{tag}", kernel.channels)
            digit = self.body.node("Gather", digit, channels, axis=1)
        return self._conv(digit, weight, kernel.groups, bare=bare)

    def _conv(self, value: str, weight: str, groups: int, *, bare: bool) -> str:
        """Add a Conv with the layer's geometry; `bare` where padding is done already."""
        from onnx import AttributeProto

        result = self.body.node("Conv", value, weight, group=groups)
        for name in _SPATIAL if not bare else ("strides", "dilations"):
            self.body.nodes[-1].attribute.append(
                AttributeProto(name=name, ref_attr_name=name, type=AttributeProto.INTS)
            )
        return result

    def _converted(self, sums: str, kernel: _Kernel, limits: tuple[int, int], tag: str) -> str:
        """Return converter codes (N, G, parts, columns, P * Q)."""
        extents = (0, self.shape.g, kernel.parts, kernel.columns, -1)
        sums = self.shaped(sums, f"columns{tag}", extents)
        if kernel.steps.any():
            unit = np.ldexp(np.float32(1), -kernel.steps.astype(np.int32))
            sums = self.body.node("Mul", sums, self.single(f"inverse_steps{tag}", unit))
            sums = self.body.node("Round", sums)
        low, high = (
            self.single(n, v) for n, v in zip((f"low{tag}", f"high{tag}"), limits, strict=True)
        )
        codes = self.body.node("Clip", sums, low, high)
        return self.body.cast(codes, double=True) if self.double else codes

    def _joined(self, codes: str, places: IntArray, name: str) -> str:
        """Return the weighted sum of the conversions of each column, (N, G, columns, P * Q)."""
        values = self.body.node("Mul", codes, self.real(name, places))
        axis = self.body.tensor("parts_axis", np.array([2], np.int64))
        return self.body.node("ReduceSum", values, axis, keepdims=0)

    def _row_sum(self, value: str, read: RowRead, *, bare: bool) -> str:
        """Return the sum of what the rows were driven with, (N, G, 1, P * Q)."""
        shape = self.shape
        ones = self.single("ones", np.ones((shape.g, shape.c, shape.r, shape.s), np.float32))
        sums = self._conv(value, ones, shape.g, bare=bare)
        sums = self.shaped(sums, "row_sums", (0, shape.g, 1, -1))
        if self.double:
            sums = self.body.cast(sums, double=True)
        if read.sign > 0:
            return sums
        return self.body.node("Neg", sums)

    def _recovered(self, total: str, rows: str, matrix: IntegerMatrix, term: Term, tag: str) -> str:
        """Return signed sums: the encoding's offset and the zero point's share taken away."""
        layout, body = matrix.layout, self.body
        if matrix.unit_column:
            total = self._less_unit_column(total, layout.gain, tag)
        elif layout.gain != 1:
            total = body.node("Mul", total, self.real(f"gain{tag}", np.array(layout.gain)))
        if rows:
            offset = self.real(f"offset{tag}", np.array(layout.offset))
            total = body.node("Sub", total, body.node("Mul", rows, offset))
        if term.reads == "code" and self.fmt.zero_point:
            sums = term.weight.reshape(len(term.weight), -1).sum(axis=1) * self.fmt.zero_point
            total = body.node("Sub", total, self.real(f"zero{tag}", self.per_channel(sums)))
        return total

    def _less_unit_column(self, total: str, gain: int, tag: str) -> str:
        body, m = self.body, self.shape.m
        ends = [
            body.tensor(name, np.array([value], np.int64))
            for name, value in (("first", 0), ("unit", m), ("end", m + 1), ("column_axis", 2))
        ]
        weights = body.node("Slice", total, ends[0], ends[1], ends[3])
        if gain != 1:
            weights = body.node("Mul", weights, self.real(f"gain{tag}", np.array(gain)))
        return body.node("Sub", weights, body.node("Slice", total, ends[1], ends[2], ends[3]))

    def per_channel(self, values: IntArray) -> IntArray:
        """Return (G * M,) as (1, G, M, 1)."""
        return values.reshape(1, self.shape.g, self.shape.m, 1)

    def finish(self, total: str) -> None:
        """Give the total its layer's shape, under the name `total`."""
        shape, body = self.shape, self.body
        channels = shape.g * shape.m
        if self.layer.op != "conv":
            leading = body.node("Shape", "codes", end=-1)
            last = body.tensor("outputs", np.array([channels], np.int64))
            extents = body.node("Concat", leading, last, axis=0)
        else:
            spatial = (shape.p,) if self._flat() else (shape.p, shape.q)
            extents = body.tensor("outputs", np.array((0, channels, *spatial), np.int64))
        body.node("Reshape", total, extents, output="total")


def crossbar_function(layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
    """Return the local function of a layer on crossbars: its total with the converters' doing."""
    form = quantized.array
    if form is None or layer.choice is None:
        raise ValueError(f"layer {layer.name} has no array")
    writer = _Writer(layer, quantized, FunctionBody(), quantized.bound >= EXACT_FLOAT32)
    body, images, total = writer.body, writer.images(), ""
    terms = layer_terms(layer, quantized)
    for index, (term, how) in enumerate(zip(terms, form.reads, strict=True)):
        sums = writer.term(index, term, how, images)
        factor = writer.real(f"multiplier_{index}", writer.per_channel(term.multiplier))
        scaled = body.node("Mul", sums, factor)
        total = body.node("Add", total, scaled) if total else scaled
    bias = writer.real("bias", writer.per_channel(quantized.bias))
    writer.finish(body.node("Add", total, bias))
    variant = ("Signed" if writer.fmt.zero_point else "") + ("Double" if writer.double else "")
    return OnnxFunction(
        name=f"Crossbar{layer.choice.operator.capitalize()}{layer.op.capitalize()}{variant}",
        nodes=tuple(body.nodes),
        inputs=("codes", *body.tensors),
        output="total",
        tensors=body.tensors,
        attributes=_attributes(layer.shape, body),
    )


def _attributes(shape: LayerShape, body: FunctionBody) -> dict[str, Any]:
    values = {
        "strides": list(shape.stride),
        "pads": list(shape.padding),
        "dilations": list(shape.dilation),
    }
    used = {a.ref_attr_name for node in body.nodes for a in node.attribute}
    return {name: value for name, value in values.items() if name in used}


def _kernel(matrices: tuple[IntegerMatrix, ...], steps: IntArray, shape: LayerShape) -> _Kernel:
    """Return a term's cells as one convolution with a group per row block."""
    first = matrices[0]
    area, blocks = shape.r * shape.s, first.blocks
    spans = [(b.rows.start // area, -(-b.rows.stop // area)) for b in blocks]
    width = max(last - start for start, last in spans)
    sides = 1 if first.layout.planes == 1 or first.spec.subtract_before_adc else 2
    kernels, inputs = [], []
    for g, matrix in enumerate(matrices):
        for block, (start, _) in zip(matrix.blocks, spans, strict=True):
            skipped = block.rows.start - start * area
            inputs.append(g * shape.c + np.minimum(start + np.arange(width), shape.c - 1))
            for levels in block.levels:
                kernels += [_taps(side, skipped, width * area) for side in _sides(levels, sides)]
    columns = first.outputs + first.unit_column
    extents = (len(kernels) * columns, width, shape.r, shape.s)
    per_part = [
        (i, side) for _ in blocks for i in range(first.layout.slices) for side in range(sides)
    ]
    by_group = [group_steps(steps, g, shape.g) for g in range(shape.g)]
    exponents = np.array(
        [[np.broadcast_to(s[i], (columns,)) for i, _ in per_part] for s in by_group], np.int64
    )
    values = (1 << (i * first.spec.cell.bits) for i, _ in per_part)
    signs = (1 - 2 * side for _, side in per_part)
    units = np.array([v * s for v, s in zip(values, signs, strict=True)], np.int64)
    return _Kernel(
        weight=np.stack(kernels).reshape(extents),
        channels=np.concatenate(inputs) if len(blocks) > 1 else None,
        groups=shape.g * len(blocks),
        parts=len(per_part),
        columns=columns,
        steps=exponents[None, ..., None],
        places=(units[:, None] << exponents)[None, ..., None],
    )


def _sides(levels: NDArray[np.float64], sides: int) -> list[IntArray]:
    """Return levels (rows, columns) that are converted together, signed where subtracted before."""
    whole = levels.astype(np.int64)
    if sides == 2 or len(whole) == 1:
        return list(whole)
    return [whole[0] - whole[1]]


def _taps(levels: IntArray, skipped: int, taps: int) -> IntArray:
    """Return (columns, taps) with the block's rows behind those it shares a channel with."""
    found = np.zeros((levels.shape[1], taps), np.int64)
    found[:, skipped : skipped + levels.shape[0]] = levels.T
    return found
