# SPDX-License-Identifier: Apache-2.0
"""Static errors of column converters: offset and integral non-linearity, drawn per converter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.integer import IntegerMatrix, sums_signed
from enos_compiler.errors import SpecError

Floats = npt.NDArray[np.float64]
ESS_PEAK = 1.5 * 3**0.5
"""t (1 - t^2) reaches 1 / ESS_PEAK, at t = 1 / sqrt(3)."""


@dataclass(frozen=True, slots=True)
class AdcErrors:
    """Offset and integral non-linearity of every converter, in LSB.

    The offset is normal per converter; the INL is a cubic and a parabola over the code range with
    normal amplitudes, zero at both ends, whose peak is `inl_lsb` at one standard deviation.
    Source: static error model of a converter (textbook form, reconstructed).
    """

    offset_lsb: float = 0.0
    inl_lsb: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative spreads."""
        for name in ("offset_lsb", "inl_lsb"):
            value = getattr(self, name)
            if value < 0:
                raise SpecError(f"{value} is negative", place=f"adc.{name}", remedy="0 or more")

    def draw(
        self, matrix: IntegerMatrix, rng: np.random.Generator, *, inputs_signed: bool
    ) -> ConverterErrors | None:
        """Return the errors of an array's converters; None where there are none.

        Neighbouring columns of one slice share a converter, slices do not.
        """
        if not (self.offset_lsb or self.inl_lsb):
            return None
        columns = matrix.blocks[0].levels[0].shape[2]
        unit = np.arange(columns) // matrix.spec.adc.columns_per_adc
        extent = (3, len(matrix.blocks), matrix.layout.slices, 2, int(unit[-1]) + 1)
        offset, bow, ess = rng.standard_normal(extent)[..., unit]
        both = sums_signed(matrix, inputs_signed)
        top = float((1 << (matrix.spec.adc.bits - both)) - 1)
        return ConverterErrors(
            self.offset_lsb * offset, self.inl_lsb * bow, self.inl_lsb * ESS_PEAK * ess, top, both
        )


@dataclass(frozen=True, slots=True)
class ConverterErrors:
    """The drawn errors, (blocks, slices, parts, columns) in LSB."""

    offset: Floats
    bow: Floats
    ess: Floats
    top: float
    """Highest code."""
    both: bool
    """Codes have both signs."""

    def distort(self, values: Floats, block: int, index: int) -> Floats:
        """Return column values (parts, columns, B) of a slice as the converters see them."""
        parts = len(values)
        offset, bow, ess = (
            e[block, index, :parts, :, None] for e in (self.offset, self.bow, self.ess)
        )
        t = (
            np.clip(values / self.top, -1, 1)
            if self.both
            else np.clip(2 * values / self.top - 1, -1, 1)
        )
        return np.asarray(values + offset + (bow + ess * t) * (1 - t**2))
