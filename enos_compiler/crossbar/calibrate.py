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
    """Return ADC steps, one power of two per weight slice.

    Args:
        matrix: from `integer.store`.
        x: input codes (rows, B) of the data.
        input_bits: width of the inputs, sign included.
        inputs_signed: rows are driven with either sign.
        rule: which step is best.

    Raises:
        SpecError: there are no data, or a rule that is not known.
    """
    if rule not in RULES:
        raise SpecError(f"`{rule}` is no rule of calibration", place="rule", remedy=str(RULES))
    if not x.size:
        raise SpecError(
            "no input vectors to calibrate the converters on",
            place="calibration data",
            remedy="give example inputs or data",
        )
    check_inputs(matrix, x, input_bits, inputs_signed)
    low, high = code_limits(matrix.spec.adc.bits, sums_signed(matrix, inputs_signed))
    steps = []
    for index in range(matrix.layout.slices):
        sums = slice_sums(matrix, x, input_bits - inputs_signed, index)
        coarsest = _no_clip(float(np.abs(sums).max(initial=0.0)), high)
        if rule == "range":
            steps.append(coarsest)
            continue
        errors = [_squared_error(sums, step, low, high) for step in range(coarsest + 1)]
        steps.append(int(np.argmin(errors)))
    return tuple(steps)


def slice_sums(matrix: IntegerMatrix, x: IntArray, magnitude: int, index: int) -> Floats:
    """Return what the converters of one slice see: all blocks, digits and columns, flat."""
    found = []
    for number, block in enumerate(matrix.blocks):
        parts = [
            (place, column_sums(matrix, block.levels[index], digit, number, None))
            for place, digit in input_parts(matrix, x[block.rows], magnitude)
        ]
        if matrix.spec.adc.per_digit:
            found += [sums.ravel() for _, sums in parts]
        else:
            found.append(sum((s * 2.0**p for p, s in parts), np.zeros(1)).ravel())
    return np.concatenate(found)


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
