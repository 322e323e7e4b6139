# SPDX-License-Identifier: Apache-2.0
"""ADC steps from data: the finest that clips nothing, or the one that errs least."""

from __future__ import annotations

from typing import Literal

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
Rule = Literal["range", "error"]
"""range: no sum of the data clips. error: least squared error, clipping and rounding together."""
RULES: tuple[Rule, ...] = ("range", "error")
HIGHEST_STEP = 40
"""No column sum of this model needs a coarser one."""


def calibrate_steps(
    matrix: IntegerMatrix,
    x: IntArray,
    input_bits: int,
    *,
    inputs_signed: bool = False,
    rule: Rule = "range",
) -> tuple[int, ...]:
    """Return ADC steps, one power of two per weight slice, all columns alike.

    Args and errors: as `column_steps`.
    """
    rows = _slices(matrix, x, input_bits, inputs_signed, rule)
    low, high = code_limits(matrix.spec.adc.bits, sums_signed(matrix, inputs_signed))
    return tuple(_step(sums.ravel(), low, high, rule) for sums in rows)


def column_steps(
    matrix: IntegerMatrix,
    x: IntArray,
    input_bits: int,
    *,
    inputs_signed: bool = False,
    rule: Rule = "range",
) -> IntArray:
    """Return ADC steps (slices, columns) as powers of two, each column with its own.

    Args:
        matrix: from `integer.store`.
        x: input codes (rows, B) of the data.
        input_bits: width of the inputs, sign included.
        inputs_signed: rows are driven with either sign.
        rule: which step is best.

    Raises:
        SpecError: there are no data, or a rule that is not known.
    """
    rows = _slices(matrix, x, input_bits, inputs_signed, rule)
    low, high = code_limits(matrix.spec.adc.bits, sums_signed(matrix, inputs_signed))
    return np.array([[_step(c, low, high, rule) for c in sums] for sums in rows], np.int64)


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
    matrix: IntegerMatrix, x: IntArray, input_bits: int, inputs_signed: bool, rule: Rule
) -> list[Floats]:
    """Return the checked data's sums, slice by slice."""
    if rule not in RULES:
        raise SpecError(f"`{rule}` is no rule of calibration", place="rule", remedy=str(RULES))
    if not x.size:
        raise SpecError(
            "no input vectors to calibrate the converters on",
            place="calibration data",
            remedy="give example inputs or data",
        )
    check_inputs(matrix, x, input_bits, inputs_signed)
    magnitude = input_bits - inputs_signed
    return [slice_sums(matrix, x, magnitude, i) for i in range(matrix.layout.slices)]


def _step(sums: Floats, low: int, high: int, rule: Rule) -> int:
    coarsest = _no_clip(float(np.abs(sums).max(initial=0.0)), high)
    if rule == "range":
        return coarsest
    errors = [_squared_error(sums, step, low, high) for step in range(coarsest + 1)]
    return int(np.argmin(errors))


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


def _squared_error(sums: Floats, step: int, low: int, high: int) -> float:
    unit = 2.0**step
    return float(np.square(np.clip(np.rint(sums / unit), low, high) * unit - sums).sum())
