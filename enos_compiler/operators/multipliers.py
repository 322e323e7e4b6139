# SPDX-License-Identifier: Apache-2.0
"""Real factors per channel to signed integer multipliers in one shared power-of-two unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enos_compiler.ir.formats import IntArray
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

MANTISSA_BITS = 8
"""Bits of the smallest multiplier: its error, 2**-9, is half a step of an 8-bit output."""
LEAST_MANTISSA_BITS = 6
"""With fewer (errors above 2**-6) the layer leaves the float32 bound rather than lose more.

Source: design choice; the double tail then costs 2.4-2.6 times a fused convolution in ONNX
Runtime against 1.8-2.4 (measured), and hardware multiplies by 8 bits either way.
"""
_LARGEST_BIAS_BITS = 21
"""The unit is never so fine that the bias alone exceeds this many bits."""
_DOUBLE_BITS = 50
"""Bits of a layer's largest total where float32 is given up; float64 sums are exact below 53."""
_LEAST_EXPONENT = -96
"""Units stay normal numbers in float32, whatever a channel's gain."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Multipliers:
    """Integers with factors[t, m] ~ values[t, m] * 2**exponent[m], the bias in the same unit."""

    values: IntArray
    """(terms, M)."""
    exponent: IntArray
    """(M,)."""
    bias: IntArray
    """(M,)."""
    bound: int
    """Largest sum of |values| * sums + |bias| over channels."""


def fit_multipliers(factors: FloatArray, sums: IntArray, shift: FloatArray) -> Multipliers:
    """Return multipliers for total[m] = sum_t values[t, m] * S[t, m] + bias[m].

    Each channel takes the finest unit, at most MANTISSA_BITS for its smallest factor, whose total
    stays below 2**24. Where fewer than LEAST_MANTISSA_BITS would be left, every channel keeps
    MANTISSA_BITS and the layer's bound says that float32 does not hold it.

    Args:
        factors: (terms, M) real factors, signed; zeros allowed.
        sums: (terms, M) largest |S| that any input reaches, partial sums included.
        shift: (M,) real constant behind the sums.
    """
    magnitudes = np.abs(factors)
    smallest = np.where(magnitudes > 0, magnitudes, np.inf).min(axis=0)
    dead = ~np.isfinite(smallest)
    top = np.where(dead, np.abs(shift) / 2**MANTISSA_BITS, smallest)
    base = _floor_log2(top)
    floor = np.maximum(_floor_log2(np.abs(shift)) + 1 - _LARGEST_BIAS_BITS, _LEAST_EXPONENT)
    exponent = np.zeros(shift.shape, dtype=np.int64)
    open_channels = np.ones(shift.shape, dtype=bool)
    for mantissa_bits in range(MANTISSA_BITS, LEAST_MANTISSA_BITS - 1, -1):
        trial = np.maximum(base - (mantissa_bits - 1), floor)
        fits = open_channels & (_totals(factors, sums, shift, trial) < EXACT_FLOAT32)
        exponent[fits] = trial[fits]
        open_channels &= ~fits
    if open_channels.any():
        real_total = (magnitudes * sums).sum(axis=0) + np.abs(shift)
        finest = np.maximum(_floor_log2(real_total) + 1 - _DOUBLE_BITS, _LEAST_EXPONENT)
        exponent = np.maximum(base - (MANTISSA_BITS - 1), finest)
    values = _rounded(factors, exponent)
    bias = _rounded(shift, exponent)
    totals = (np.abs(values) * sums).sum(axis=0) + np.abs(bias)
    return Multipliers(values, exponent, bias, int(totals.max()))


def _totals(
    factors: FloatArray, sums: IntArray, shift: FloatArray, exponent: IntArray
) -> FloatArray:
    """Return (M,) largest totals at a unit; float64, exact where they matter (below 2**53)."""
    steps = np.rint(np.ldexp(np.abs(factors), -exponent.astype(np.int32)))
    bias = np.rint(np.ldexp(np.abs(shift), -exponent.astype(np.int32)))
    totals: FloatArray = (steps * sums).sum(axis=0) + bias
    return totals


def _rounded(real: FloatArray, exponent: IntArray) -> IntArray:
    """Return real / 2**exponent, half to even."""
    return np.rint(np.ldexp(real, -exponent.astype(np.int32))).astype(np.int64)


def _floor_log2(values: FloatArray) -> IntArray:
    """Return floor(log2(value)) exactly; the least exponent for 0."""
    _, power = np.frexp(values)
    return np.where(values > 0, power - 1, _LEAST_EXPONENT).astype(np.int64)
