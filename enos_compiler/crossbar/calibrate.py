# SPDX-License-Identifier: Apache-2.0
"""ADC steps from data: the finest that clips nothing, or the one that errs least.

The range mode of the matrix's converters says which: `calibrated` or `least-error`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.converters import code_limits
from enos_compiler.crossbar.integer import (
    IntegerMatrix,
    check_inputs,
    column_reach,
    column_sums,
    input_parts,
    sums_signed,
)
from enos_compiler.errors import SpecError

Floats = npt.NDArray[np.float64]
HIGHEST_STEP = 40
"""No column sum of this model needs a coarser one."""
_TALLIED = 1 << 22
"""Whole sums over a span of at most so many values are counted value by value."""


def calibrate_steps(
    matrix: IntegerMatrix,
    x: IntArray,
    input_bits: int,
    *,
    inputs_signed: bool = False,
) -> tuple[int, ...]:
    """Return ADC steps, one power of two per weight slice, all columns alike.

    Args and errors: as `column_steps`.
    """
    rows = _slices(matrix, x, input_bits, inputs_signed)
    step = _Stepper(matrix, inputs_signed)
    return tuple(step(sums.ravel()) for sums in rows)


def column_steps(
    matrix: IntegerMatrix,
    x: IntArray,
    input_bits: int,
    *,
    inputs_signed: bool = False,
) -> IntArray:
    """Return ADC steps (slices, columns) as powers of two, each column with its own.

    Args:
        matrix: from `integer.store`.
        x: input codes (rows, B) of the data.
        input_bits: width of the inputs, sign included.
        inputs_signed: rows are driven with either sign.

    Raises:
        SpecError: there are no data, or the converters' range does not depend on any.
    """
    rows = _slices(matrix, x, input_bits, inputs_signed)
    step = _Stepper(matrix, inputs_signed)
    return np.array([[step(column) for column in sums] for sums in rows], np.int64)


def full_steps(matrix: IntegerMatrix, input_bits: int, *, per_column: bool = False) -> IntArray:
    """Return the finest ADC steps (slices, 1 or columns) under which no input clips a sum.

    Args:
        matrix: from `integer.store`; the reach of its columns is that of its weights.
        input_bits: width of the inputs.
        per_column: each column has its own range; else all share the widest.
    """
    top = code_limits(matrix.spec.adc.bits, sums_signed(matrix, False))[1]
    reach = column_reach(matrix, input_bits)
    widest = reach if per_column else reach.max(axis=1, keepdims=True)
    return np.array([[_no_clip(float(v), top) for v in row] for row in widest], np.int64)


def _slices(
    matrix: IntegerMatrix, x: IntArray, input_bits: int, inputs_signed: bool
) -> list[Floats]:
    """Return the checked data's sums, slice by slice."""
    adc = matrix.spec.adc
    if not adc.set_from_data:
        raise SpecError(
            f"a range of `{adc.range_mode}` is not set from data",
            place="adc.range_mode",
            remedy="calibrated or least-error",
        )
    if not x.size:
        raise SpecError(
            "no input vectors to calibrate the converters on",
            place="calibration data",
            remedy="give example inputs or data",
        )
    check_inputs(matrix, x, input_bits, inputs_signed)
    magnitude = input_bits - inputs_signed
    return [slice_sums(matrix, x, magnitude, i) for i in range(matrix.layout.slices)]


class _Stepper:
    """Finds the step of sums that share one, as the converters' range mode has it."""

    def __init__(self, matrix: IntegerMatrix, inputs_signed: bool) -> None:
        adc = matrix.spec.adc
        self._low, self._high = code_limits(adc.bits, sums_signed(matrix, inputs_signed))
        self._may_clip = adc.range_mode == "least-error"

    def __call__(self, sums: Floats) -> int:
        """Return the exponent; of equally good ones the finest."""
        coarsest = _no_clip(float(np.abs(sums).max(initial=0.0)), self._high)
        if not coarsest or not self._may_clip:
            return coarsest
        values, counts = _tallied(sums)
        errors = [self._squared_error(values, counts, step) for step in range(coarsest + 1)]
        return int(np.argmin(errors))

    def _squared_error(self, values: Floats, counts: IntArray, step: int) -> float:
        unit = 2.0**step
        codes = np.clip(np.rint(values / unit), self._low, self._high)
        return float(np.square(codes * unit - values) @ counts)


def _tallied(sums: Floats) -> tuple[Floats, IntArray]:
    """Return the values that occur in whole sums, and how often each does."""
    low, high = float(sums.min()), float(sums.max())
    if high - low >= _TALLIED:
        values, found = np.unique(sums, return_counts=True)
        return values, found.astype(np.int64)
    counts = np.bincount((sums - low).astype(np.int64))
    seen = np.flatnonzero(counts)
    return np.asarray(seen + low, np.float64), counts[seen].astype(np.int64)


def slice_sums(matrix: IntegerMatrix, x: IntArray, magnitude: int, index: int) -> Floats:
    """Return what the converters of one slice see, (columns, blocks x digits x inputs)."""
    found = []
    for number, block in enumerate(matrix.blocks):
        parts = [
            (place, column_sums(matrix, block.levels[index], digit, number, None))
            for place, digit in input_parts(matrix, x[block.rows], magnitude)
        ]
        if matrix.spec.adc.per_digit:
            found += [sums for _, sums in parts]
        else:
            found.append(np.asarray(sum((s * 2.0**p for p, s in parts), np.zeros(1))))
    by_column = [sums.transpose(1, 0, 2).reshape(sums.shape[1], -1) for sums in found]
    return np.concatenate(by_column, axis=1)


def _no_clip(largest: float, top: int) -> int:
    for step in range(HIGHEST_STEP):
        if np.rint(largest * 2.0**-step) <= top:
            return step
    raise SpecError(
        f"a column sum of {largest:.3g} fits no converter of {top} codes",
        place="calibration data",
        remedy="more ADC bits, or fewer rows read at once",
    )
