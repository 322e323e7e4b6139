# SPDX-License-Identifier: Apache-2.0
"""A compiled layer on crossbars: the integers that its operator has become there.

total[m] = sum over terms t of multiplier[t][m] * S_t[m] + bias[m], as for the operator itself, but
S_t is what the array gives: per row block, input digit and weight slice a column sum, converted,
shifted and added. Inputs enter as unsigned codes; a zero point z times the column's weight sum is
taken away behind the converters. Signs of inputs are read in one plane, or where z > 0 in two, the
negative one subtracted. Padding holds code z, and no sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.converters import code_limits
from enos_compiler.crossbar.convolution import unfold
from enos_compiler.crossbar.integer import (
    Floats,
    Form,
    IntegerMatrix,
    Stored,
    holds_every_sum,
    read,
    required_adc_bits,
    store,
    sums_signed,
)
from enos_compiler.crossbar.operators import CROSSBAR_OPERATORS, stored_forms
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.errors import RefusalError
from enos_compiler.ir.formats import ArrayForm, ArrayRead, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.operators.terms import Term, largest_sums
from enos_compiler.semantics.operands import operator_of

if TYPE_CHECKING:
    from enos_compiler.semantics.base import OnnxFunction

_CHUNK = 1 << 22
"""Row values that are unfolded at a time."""
RowValue = Literal["code", "positive", "negative"]


@dataclass(frozen=True, slots=True)
class RowRead:
    """One way in which a term drives its rows."""

    value: RowValue
    """The input's code, or whether it lies above or below its zero point."""
    bits: int
    sign: int
    """What the digital side multiplies the result with."""


def row_reads(term: Term, fmt: ValueFormat) -> tuple[RowRead, ...]:
    """Reads of one term's matrix for inputs of a format."""
    if term.reads == "code":
        return (RowRead("code", fmt.bits, 1),)
    above = RowRead("positive", 1, 1)
    return (above, RowRead("negative", 1, -1)) if fmt.zero_point else (above,)


def row_values(read_: RowRead, codes: IntArray, fmt: ValueFormat) -> IntArray:
    """What the rows are driven with."""
    if read_.value == "code":
        return codes
    above = codes > fmt.zero_point if read_.value == "positive" else codes < fmt.zero_point
    return above.astype(codes.dtype)


def stored_form(layer: Layer, term: Term) -> tuple[int, Form]:
    """Width and form in which cells keep a term's weights.

    Raises:
        RefusalError: the operator's weights are no levels of cells.
    """
    if layer.choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    name = next((o for o in CROSSBAR_OPERATORS if o == layer.choice.operator), None)
    if name is None:
        raise RefusalError(
            f"{layer.choice.operator} does not run on crossbars",
            place=layer.name,
            remedy=f"one of: {', '.join(CROSSBAR_OPERATORS)}",
        )
    forms = stored_forms(name, layer.choice.bits.weight)
    return forms[-1] if term.reads == "code" else forms[0]  # of two, the second reads codes


def layer_terms(layer: Layer, quantized: QuantizedLayer) -> tuple[Term, ...]:
    """The operator's sums, in the order of an `ArrayForm`'s reads."""
    terms: tuple[Term, ...] = operator_of(layer).terms(quantized)
    return terms


def stored_groups(
    layer: Layer, term: Term, spec: CrossbarSpec, form: Form, bits: int
) -> tuple[IntegerMatrix, ...]:
    """A term's weights in cells, one matrix per group."""
    shape = layer.shape
    weight = term.weight.reshape(shape.g, shape.m, shape.taps)
    return tuple(store(spec, Stored(codes, bits, form)) for codes in weight)


def array_form(layer: Layer, spec: CrossbarSpec, steps: tuple[IntArray, ...]) -> ArrayForm:
    """The form that travels with a layer, for converter steps per term."""
    if layer.quantized is None:
        raise ValueError(f"layer {layer.name} has no integers")
    reads = [
        ArrayRead(form, bits, step)
        for term, step in zip(layer_terms(layer, layer.quantized), steps, strict=True)
        for bits, form in [stored_form(layer, term)]
    ]
    return ArrayForm(
        arithmetic="crossbar",
        rows=spec.rows,
        rows_at_once=spec.read_rows,
        cell_bits=spec.cell.bits,
        encoding=spec.encoding,
        subtract_before_adc=spec.subtract_before_adc,
        digit_bits=spec.dac.digit_bits or 0,
        adc_bits=spec.adc.bits,
        reads=tuple(reads),
    )


def form_spec(form: ArrayForm) -> CrossbarSpec:
    """The array of a form; its columns do not matter to what is computed."""
    return CrossbarSpec(
        rows=form.rows,
        columns=1,
        cell=CellSpec(bits=form.cell_bits),
        encoding=form.encoding,
        subtract_before_adc=form.subtract_before_adc,
        rows_at_once=form.rows_at_once,
        dac=DacSpec(digit_bits=form.digit_bits or None),
        adc=AdcSpec(bits=form.adc_bits),
    )


@dataclass(slots=True)
class Saturation:
    """Conversions of one layer, and those whose sum lay outside the converter's range."""

    conversions: int = 0
    saturated: int = 0


_tallies: ContextVar[dict[str, Saturation] | None] = ContextVar("saturation", default=None)


@contextmanager
def count_saturation() -> Iterator[dict[str, Saturation]]:
    """Count, by layer, what the converters clip while layers are computed inside the block."""
    tallies: dict[str, Saturation] = {}
    token = _tallies.set(tallies)
    try:
        yield tallies
    finally:
        _tallies.reset(token)


class CrossbarArithmetic:
    """Computes a layer's total as the array does; see `operators.base.Operator`."""

    def accumulate(
        self, codes: tuple[IntArray, ...], layer: Layer, quantized: QuantizedLayer
    ) -> IntArray:
        """Return `total` (see QuantizedLayer) for input codes (zero point still in), int64."""
        form, fmt = _form(quantized), quantized.input_formats[0]
        spec, images = form_spec(form), as_images(codes[0], layer)
        total = quantized.bias[:, None, None]
        for term, how in zip(layer_terms(layer, quantized), form.reads, strict=True):
            sums = _term_sums(layer, term, how, spec, images, fmt)
            total = total + term.multiplier[:, None, None] * sums
        return _like(total, codes[0], layer)

    def onnx_body(self, layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
        """Return the ONNX local function that computes `total`, converters included."""
        from enos_compiler.crossbar.onnx_body import crossbar_function

        return crossbar_function(layer, quantized)


def _form(quantized: QuantizedLayer) -> ArrayForm:
    if quantized.array is None:
        raise ValueError("a layer without an array computes its operator's integers")
    return quantized.array


def _term_sums(
    layer: Layer,
    term: Term,
    how: ArrayRead,
    spec: CrossbarSpec,
    images: IntArray,
    fmt: ValueFormat,
) -> IntArray:
    """Sums (N, G * M, P, Q) of one term, a few images at a time."""
    matrices = stored_groups(layer, term, spec, how.form, how.bits)
    shape = layer.shape
    step = max(1, _CHUNK // (shape.g * shape.taps * shape.p * shape.q))
    parts = [
        _image_sums(layer, term, how, matrices, images[start : start + step], fmt)
        for start in range(0, len(images), step)
    ]
    sums = np.concatenate(parts)
    if term.reads == "code" and fmt.zero_point:
        sums = (
            sums
            - fmt.zero_point * term.weight.reshape(len(term.weight), -1).sum(axis=1)[:, None, None]
        )
    return sums


def _image_sums(
    layer: Layer,
    term: Term,
    how: ArrayRead,
    matrices: tuple[IntegerMatrix, ...],
    images: IntArray,
    fmt: ValueFormat,
) -> IntArray:
    shape = replace(layer.shape, n=len(images))
    total: IntArray = np.zeros((shape.g, shape.m, shape.n * shape.p * shape.q), np.int64)
    for row_read in row_reads(term, fmt):
        pad = fmt.zero_point if row_read.value == "code" else 0
        rows = unfold(row_values(row_read, images, fmt), shape, pad)
        for g, matrix in enumerate(matrices):
            tally = _Tally(layer.name, matrix) if _tallies.get() is not None else None
            total[g] += row_read.sign * read(
                matrix,
                rows[g].astype(np.int64),
                row_read.bits,
                steps_log2=group_steps(how.steps, g, len(matrices)),
                code_hook=tally,
            )
    extent = (shape.g * shape.m, shape.n, shape.p, shape.q)
    return np.ascontiguousarray(total.reshape(extent).transpose(1, 0, 2, 3))


def group_steps(steps: IntArray, group: int, groups: int) -> IntArray:
    """Steps (slices, 1 or columns) of one group."""
    if steps.shape[1] == 1:
        return steps
    width = steps.shape[1] // groups
    return steps[:, group * width : (group + 1) * width]


class _Tally:
    """Counts what a matrix's converters clip, and changes nothing."""

    def __init__(self, layer: str, matrix: IntegerMatrix) -> None:
        tallies = _tallies.get()
        self._seen = Saturation() if tallies is None else tallies.setdefault(layer, Saturation())
        self._low, self._high = code_limits(matrix.spec.adc.bits, sums_signed(matrix, False))

    def __call__(self, values: Floats, block: int, index: int) -> Floats:
        """Take column values in ADC steps; return them as they are."""
        del block, index
        codes = np.rint(values)
        self._seen.conversions += values.size
        self._seen.saturated += int(((codes < self._low) | (codes > self._high)).sum())
        return values


def as_images(codes: IntArray, layer: Layer) -> IntArray:
    """A layer's input as (N, G * C, H, W): lines as images of one column, rows of one element."""
    if layer.op != "conv":
        return codes.reshape(-1, codes.shape[-1], 1, 1)
    return codes[..., None] if codes.ndim == 3 else codes


def _like(total: IntArray, codes: IntArray, layer: Layer) -> IntArray:
    """Outputs (N, M, P, Q) in the rank of the layer's input."""
    if layer.op != "conv":
        return total.reshape(*codes.shape[:-1], total.shape[1])
    return total[..., 0] if codes.ndim == 3 else total


def largest_total(layer: Layer, quantized: QuantizedLayer) -> int:
    """Bound of |total|, of every partial sum of its parts in any order, and of each part.

    A conversion gives at most its highest code, and at most half a step more than its sum.
    """
    form, fmt = _form(quantized), quantized.input_formats[0]
    spec, shape = form_spec(form), layer.shape
    total = np.abs(quantized.bias).astype(object)
    for term, how in zip(layer_terms(layer, quantized), form.reads, strict=True):
        matrices = stored_groups(layer, term, spec, how.form, how.bits)
        parts = [
            _largest_sum(matrix, row_read, group_steps(how.steps, g, shape.g))
            for g, matrix in enumerate(matrices)
            for row_read in row_reads(term, fmt)
        ]
        reads = len(row_reads(term, fmt))
        sums = np.array(
            [sum(parts[g * reads : (g + 1) * reads]) for g in range(shape.g)], dtype=object
        ).repeat(shape.m)
        weights = np.abs(term.weight).reshape(len(term.weight), -1).sum(axis=1).astype(object)
        if term.reads == "code":
            sums = sums + fmt.zero_point * weights
        total = total + np.abs(term.multiplier).astype(object) * sums
    return int(max(total))


def _largest_sum(matrix: IntegerMatrix, row_read: RowRead, steps: IntArray) -> int:
    """Largest magnitude that all parts of one group's read add up to."""
    spec, layout = matrix.spec, matrix.layout
    high = code_limits(spec.adc.bits, sums_signed(matrix, False))[1]
    width = spec.dac.digit_bits or row_read.bits
    places = range(0, row_read.bits, width)
    planes = layout.planes if not spec.subtract_before_adc else 1
    total = 0
    for i in range(layout.slices):
        code = high << int(steps[i].max())
        total += sum(code << (i * spec.cell.bits + place) for place in places)
    total *= planes * len(matrix.blocks) * (layout.gain + matrix.unit_column)
    return total + layout.offset * matrix.rows * ((1 << row_read.bits) - 1)


def without_array(layer: Layer) -> Layer:
    """The layer with its operator's own integers, and the bound that holds for them."""
    if layer.quantized is None or layer.quantized.array is None:
        return layer
    quantized = replace(layer.quantized, array=None)
    bound = np.abs(quantized.bias)
    for term in layer_terms(layer, quantized):
        sums = largest_sums(term.reads, term.weight, quantized.input_formats[0])
        bound = bound + np.abs(term.multiplier) * sums
    return replace(layer, quantized=replace(quantized, bound=int(bound.max())))


def conversions_differ(layer: Layer, spec: CrossbarSpec) -> bool:
    """Whether the converters change any sum of a quantised layer for any input."""
    if layer.quantized is None:
        raise ValueError(f"layer {layer.name} has no integers")
    fmt = layer.quantized.input_formats[0]
    for term in layer_terms(layer, layer.quantized):
        bits, form = stored_form(layer, term)
        reads = row_reads(term, fmt)
        if all(holds_every_sum(spec, layer.shape.taps, one.bits) for one in reads):
            continue
        for matrix in stored_groups(layer, term, spec, form, bits):
            for row_read in reads:
                if max(required_adc_bits(matrix, row_read.bits)) > spec.adc.bits:
                    return True
    return False
