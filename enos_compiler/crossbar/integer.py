# SPDX-License-Identifier: Apache-2.0
"""Integer meaning of a crossbar: levels in cells, column sums, ADC codes, shift-and-add.

Every quantity is an integer held in float64 (exact below 2^53, far above any column sum) until the
ADC, and int64 after it. Perturbed levels run through the same lines, so a model without errors
equals the ideal one bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.blocks import IntArray, digit_widths, digits, split
from enos_compiler.crossbar.converters import code_limits
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.errors import SpecError

Floats = npt.NDArray[np.float64]
Form = Literal["signed", "unsigned", "binary"]
ColumnHook = Callable[[Floats, Floats, Floats, int], Floats]
"""(sums (parts, columns, B), planes, row values (rows, B), block) -> sums: an analog error."""
Steps = int | Sequence[int] | IntArray
"""ADC steps as powers of two of the accumulator unit: one, one per slice, or (slices, columns)."""
CodeHook = Callable[[Floats, int, int], Floats]
"""(column values in ADC steps, block, slice) -> the same with the converter's own errors."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An integer matrix (outputs, rows) to be kept in cells.

    signed: two's complement range short of its lowest value. unsigned: 0..2^bits - 1. binary: -1
    or +1 (`bits` is 1).
    """

    codes: IntArray
    bits: int
    form: Form = "signed"

    def __post_init__(self) -> None:
        """Refuse codes outside the form's range."""
        low, high = self.limits
        wrong = (self.codes < low) | (self.codes > high)
        if self.form == "binary":
            wrong |= self.codes == 0
        if self.bits < 1 or bool(wrong.any()):
            raise SpecError(
                f"{self.form} weights of {self.bits} bits lie in {low}..{high}, "
                f"found {self.codes.min()}..{self.codes.max()}",
                place="weights",
                remedy="clip the codes symmetrically, or raise the weight bits",
            )

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code."""
        if self.form == "binary":
            return -1, 1
        return code_limits(self.bits, self.form == "signed")


@dataclass(frozen=True, slots=True)
class Layout:
    """How one stored form lies in cells: what `store` writes and the cost model counts."""

    planes: int
    """Cells per weight and slice: 2 for a pair."""
    slice_widths: tuple[int, ...]
    """Bits of each slice, least significant first."""
    gain: int
    """Digital factor on the recombined sum."""
    offset: int
    """Digital multiple of the inputs' sum that is taken away."""

    @property
    def slices(self) -> int:
        """Columns per weight and plane."""
        return len(self.slice_widths)


def layout(spec: CrossbarSpec, bits: int, form: Form) -> Layout:
    """Cells, slices and recovery of weights of `bits` bits in `form` on `spec`."""
    if spec.cell.bits < 1:
        raise SpecError(
            "integer arithmetic needs cells with levels, cell.bits = 0 is continuous",
            place="cell.bits",
            remedy="1..4",
        )
    if bits < (2 if form == "signed" else 1):
        raise SpecError(
            f"{form} weights of {bits} bits have no magnitude",
            place="weight bits",
            remedy="2 bits or more, or the operator bw for one-bit weights",
        )
    width = spec.cell.bits
    if form == "unsigned":
        return Layout(1, digit_widths(bits, width), 1, 0)
    if spec.encoding == "differential":
        return Layout(2, digit_widths(bits if form == "binary" else bits - 1, width), 1, 0)
    if form == "binary":
        return Layout(1, (1,), 2, 1)
    return Layout(1, digit_widths(bits, width), 1, 1 << (bits - 1))


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Rows that are converted together; levels per slice, shape (planes, rows, columns)."""

    rows: slice
    levels: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class IntegerMatrix:
    """A stored matrix in cells, one block per group of rows read together."""

    spec: CrossbarSpec
    layout: Layout
    form: Form
    outputs: int
    rows: int
    blocks: tuple[StoredBlock, ...]
    floor_level: float = 0.0
    """Conductance of an empty cell in cell steps, where a finite on/off ratio is modelled."""

    @property
    def unit_column(self) -> bool:
        """The last column of every block holds the offset."""
        return self.spec.encoding == "unit_column" and self.layout.offset > 0


def read_blocks(spec: CrossbarSpec, rows: int) -> tuple[slice, ...]:
    """Groups of rows that share a conversion: arrays first, then the rows read at once."""
    return tuple(
        slice(block.start + part.start, block.start + part.stop)
        for block in split(rows, spec.rows)
        for part in split(block.stop - block.start, spec.read_rows)
    )


def store(spec: CrossbarSpec, stored: Stored) -> IntegerMatrix:
    """Write a stored matrix into cells (levels are exact integers)."""
    form = layout(spec, stored.bits, stored.form)
    codes = stored.codes.T
    if form.offset:
        codes = (codes + form.offset) // form.gain
    parts = digits(codes, sum(form.slice_widths), spec.cell.bits)
    if spec.encoding == "unit_column" and form.offset:
        unit = np.full((codes.shape[0], 1), form.offset, np.int64)
        extra = digits(unit, sum(form.slice_widths), spec.cell.bits)
        parts = [np.concatenate(pair, axis=1) for pair in zip(parts, extra, strict=True)]
    levels = [
        np.stack([np.maximum(p, 0), np.maximum(-p, 0)][: form.planes]).astype(np.float64)
        for p in parts
    ]
    blocks = tuple(
        StoredBlock(rows, tuple(np.ascontiguousarray(v[:, rows]) for v in levels))
        for rows in read_blocks(spec, codes.shape[0])
    )
    return IntegerMatrix(spec, form, stored.form, stored.codes.shape[0], codes.shape[0], blocks)


def sums_signed(matrix: IntegerMatrix, inputs_signed: bool) -> bool:
    """Whether a converter sees sums of both signs."""
    return inputs_signed or (matrix.layout.planes == 2 and matrix.spec.subtracts_pairs)


def lossless_adc_bits(rows: int, *, cell_bits: int, digit_bits: int, signed: bool) -> int:
    """Fewest ADC bits of step 1 that represent every column sum.

    A sum of `rows` products of a digit and a level reaches S = rows (2^c - 1)(2^d - 1). Codes
    0..2^b - 1 hold it from b = bitlength(S) on; symmetric codes +-(2^(b-1) - 1), as for the
    difference of a pair or for signed inputs, need one bit more. One bit less clips the sum S
    itself, and any larger step loses an odd sum. Source: derived here.
    """
    return (rows * ((1 << cell_bits) - 1) * ((1 << digit_bits) - 1)).bit_length() + signed


def converted_bits(spec: CrossbarSpec, input_bits: int, inputs_signed: bool) -> int:
    """Input bits that enter one conversion: a digit, or all where the sum is analog."""
    magnitude = input_bits - inputs_signed
    width = spec.dac.digit_bits
    return magnitude if width is None or not spec.adc.per_digit else min(width, magnitude)


def holds_every_sum(spec: CrossbarSpec, taps: int, input_bits: int) -> bool:
    """Whether converters of step 1 hold all sums of so many taps, whatever the weights are."""
    return spec.adc.bits >= lossless_adc_bits(
        min(taps, spec.read_rows),
        cell_bits=spec.cell.bits,
        digit_bits=converted_bits(spec, input_bits, inputs_signed=False),
        signed=spec.subtracts_pairs,
    )


def column_reach(matrix: IntegerMatrix, input_bits: int, *, inputs_signed: bool = False) -> Floats:
    """Largest magnitude (slices, columns) that any inputs give a conversion of each column."""
    top = (1 << converted_bits(matrix.spec, input_bits, inputs_signed)) - 1
    reach = np.zeros((matrix.layout.slices, matrix.outputs + matrix.unit_column))
    for block in matrix.blocks:
        for i, levels in enumerate(block.levels):
            sums = levels.sum(axis=1)
            if inputs_signed and matrix.spec.subtract_before_adc:
                sums = sums.sum(axis=0, keepdims=True)
            reach[i] = np.maximum(reach[i], sums.max(axis=0))
    return reach * top


def required_adc_bits(
    matrix: IntegerMatrix, input_bits: int, *, inputs_signed: bool = False
) -> tuple[int, ...]:
    """Lossless ADC bits of step 1 per slice, for any inputs, given the weights in the cells."""
    both = sums_signed(matrix, inputs_signed)
    reach = column_reach(matrix, input_bits, inputs_signed=inputs_signed).max(axis=1)
    return tuple(max(1, int(r).bit_length()) + both for r in reach)


def _steps(matrix: IntegerMatrix, steps_log2: Steps) -> tuple[IntArray, ...]:
    """Exponents per slice, each (1, 1) or (columns, 1)."""
    slices, columns = matrix.layout.slices, matrix.outputs + matrix.unit_column
    if matrix.spec.adc.law == "ideal":
        return (np.zeros((1, 1), np.int64),) * slices
    given = np.asarray(steps_log2, np.int64)
    steps = np.full((slices, 1), given) if given.ndim == 0 else given.reshape(len(given), -1)
    if steps.shape not in ((slices, 1), (slices, columns)) or steps.min() < 0:
        raise SpecError(
            f"{given.tolist()} are not {slices} ADC steps of 2^0 or more",
            place="steps_log2",
            remedy=f"one exponent, one per weight slice, or one per slice and column ({columns})",
        )
    return tuple(row[:, None] for row in steps)


def input_parts(matrix: IntegerMatrix, x: IntArray, bits: int) -> list[tuple[int, Floats]]:
    """(shift, row values) of each input digit, least significant first."""
    width = matrix.spec.dac.digit_bits or bits
    parts = digits(x, bits, width)
    return [(k * width, p.astype(np.float64)) for k, p in enumerate(parts)]


def check_inputs(matrix: IntegerMatrix, x: IntArray, bits: int, signed: bool) -> None:
    """Refuse inputs of another extent or outside their width.

    Raises:
        SpecError: names the extent or the range.
    """
    low, high = code_limits(bits, signed)
    if x.ndim != 2 or x.shape[0] != matrix.rows:
        raise SpecError(
            f"inputs of shape {x.shape} do not match {matrix.rows} rows",
            place="inputs",
            remedy="columns of shape (rows, batch)",
        )
    if x.size and (int(x.min()) < low or int(x.max()) > high):
        raise SpecError(
            f"inputs of {bits} bits lie in {low}..{high}, found {x.min()}..{x.max()}",
            place="inputs",
            remedy="clip the codes, raise the input bits, or set inputs_signed",
        )


def column_sums(
    matrix: IntegerMatrix, levels: Floats, x: Floats, block: int, hook: ColumnHook | None
) -> Floats:
    """Analog sums of one access, (parts, columns, B): one part once a pair is subtracted."""
    sums = np.matmul(levels.transpose(0, 2, 1), x)
    if hook is not None:
        sums = hook(sums, levels, x, block)
    if matrix.layout.planes == 2 and matrix.spec.subtract_before_adc:
        sums = sums[:1] - sums[1:]
    return np.asarray(sums)


def read(
    matrix: IntegerMatrix,
    x: IntArray,
    input_bits: int,
    *,
    inputs_signed: bool = False,
    steps_log2: Steps = 0,
    column_hook: ColumnHook | None = None,
    code_hook: CodeHook | None = None,
) -> IntArray:
    """Product (outputs, B) of the stored matrix with input codes (rows, B), as the array has it.

    Args:
        matrix: from `store`, possibly perturbed.
        x: integer codes of `input_bits` bits (sign included where `inputs_signed`).
        input_bits: width of the inputs; it sets the number of digits.
        inputs_signed: rows are driven with either sign.
        steps_log2: ADC steps; an ideal converter has none, its sums are rounded once, at the end.
        column_hook: analog error on the sums of one access.
        code_hook: error of the converter, in steps.
    """
    check_inputs(matrix, x, input_bits, inputs_signed)
    spec, adc = matrix.spec, matrix.spec.adc
    steps = _steps(matrix, steps_log2)
    low, high = code_limits(adc.bits, sums_signed(matrix, inputs_signed))

    ideal = adc.law == "ideal"

    def convert(sums: Floats, index: int, block: int) -> npt.NDArray[Any]:
        step = steps[index]
        values: npt.NDArray[Any] = sums * 2.0**-step
        if code_hook is not None:
            values = code_hook(values, block, index)
        if not ideal:
            values = np.clip(np.rint(values), low, high).astype(np.int64) * (1 << step)
        return np.asarray(values[0] - values[1] if len(values) == 2 else values[0])

    extent = (matrix.outputs + matrix.unit_column, x.shape[1])
    total: npt.NDArray[Any] = np.zeros(extent, np.float64 if ideal else np.int64)
    for number, block in enumerate(matrix.blocks):
        parts = input_parts(matrix, x[block.rows], input_bits - inputs_signed)
        for i, levels in enumerate(block.levels):
            slice_value = 1 << (i * spec.cell.bits)
            analog = np.zeros((1, 1, 1))
            for place, digit in parts:
                sums = column_sums(matrix, levels, digit, number, column_hook)
                if adc.per_digit:
                    total += convert(sums, i, number) * (slice_value << place)
                else:
                    analog = analog + sums * 2.0**place
            if not adc.per_digit:
                total += convert(analog, i, number) * slice_value
    return _recover(matrix, np.rint(total).astype(np.int64) if ideal else total, x)


def floor_per_input(matrix: IntegerMatrix) -> float:
    """What empty cells add to an output per unit of the inputs' sum, removed digitally.

    It cancels in pairs; a unit column takes away one of the `gain` floors in a sum.
    """
    if matrix.layout.planes == 2:
        return 0.0
    scale = sum(1 << (i * matrix.spec.cell.bits) for i in range(matrix.layout.slices))
    return matrix.floor_level * scale * (matrix.layout.gain - matrix.unit_column)


def _recover(matrix: IntegerMatrix, total: IntArray, x: IntArray) -> IntArray:
    """Take away the empty cells' floor and the offset of the encoding."""
    x_sum, floor = x.sum(axis=0), floor_per_input(matrix)
    y = matrix.layout.gain * total
    y = y[:-1] - total[-1:] if matrix.unit_column else y - matrix.layout.offset * x_sum
    return y - np.rint(floor * x_sum).astype(np.int64) if floor else np.asarray(y)
