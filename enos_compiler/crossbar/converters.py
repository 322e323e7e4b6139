# SPDX-License-Identifier: Apache-2.0
"""Transfer laws of converters: from ideal quantisers to circuits with finite gain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.blocks import FloatArray
from enos_compiler.crossbar.spec import AdcLaw, DacLaw

Floats = npt.NDArray[np.float64]


def code_limits(bits: int, signed: bool) -> tuple[int, int]:
    """Lowest and highest code: symmetric with a zero code when signed, 0..2^bits - 1 else."""
    top = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    return (-top if signed else 0), top


def quantize_uniform(values: FloatArray, low: float, high: float, codes: int) -> Floats:
    """Clip to [low, high] and round, half to even, to `codes` levels that include both ends."""
    step = (high - low) / (codes - 1)
    clipped = np.clip(np.asarray(values, np.float64), low, high)
    return np.rint((clipped - low) / step) * step + low


def convert_input(values: FloatArray, law: DacLaw, bits: int, signed: bool) -> Floats:
    """Row voltages of normalised inputs, full scale 1.

    quantizer: 2^bits levels over [-1, 1] or [0, 1] (no zero level when signed).
    sign_magnitude: 2^bits - 1 levels over [-1, 1], zero included.
    """
    if law == "ideal":
        return np.asarray(values, np.float64)
    if law == "sign_magnitude":
        return quantize_uniform(values, -1.0, 1.0, (1 << bits) - 1)
    return quantize_uniform(values, -1.0 if signed else 0.0, 1.0, 1 << bits)


def convert_sum(
    values: FloatArray,
    law: AdcLaw,
    bits: int,
    low: float,
    high: float,
    *,
    gain_db: float = 100.0,
    symmetric_cdac: bool = True,
) -> Floats:
    """Value of the code that an ADC over [low, high] gives for each column sum.

    Args:
        values: column sums, any shape.
        law: quantizer has 2^bits codes, the first at `low`, the last at `high`; sign_magnitude has
            2^bits - 1 codes, so that zero is one on a symmetric range; the circuit laws are
            mid-rise with 2^bits codes over +-V, V = max(|low|, |high|).
        bits: width of the code.
        low: lower end of the range; sums are clipped to it first.
        high: upper end of the range.
        gain_db: open-loop gain of the amplifier, circuit laws.
        symmetric_cdac: the ramp's capacitor array is symmetric about zero.

    Source: transfer laws as written out for the CrossSim 3.2 converter models (seen).
    """
    if law == "ideal":
        return np.asarray(values, np.float64)
    if law == "quantizer":
        return quantize_uniform(values, low, high, 1 << bits)
    if law == "sign_magnitude":
        return quantize_uniform(values, low, high, (1 << bits) - 1)
    clipped = np.clip(np.asarray(values, np.float64), low, high)
    span, gain = max(abs(low), abs(high)), 10.0 ** (gain_db / 20.0)
    if law == "ramp":
        code = _ramp_code(clipped, bits, span, gain, symmetric_cdac)
    elif law == "sar":
        code = _sar_code(clipped, bits, span, gain)
    else:
        code = _pipeline_code(clipped, bits, span, gain)
    return span * (2.0 * code - (1 << bits) + 1) / (1 << bits)


def _ramp_levels(bits: int, span: float, gain: float, symmetric: bool) -> Floats:
    """Levels of the ramp, compressed by 1 + 1 / (gain * feedback factor)."""
    index = np.arange(1 << bits, dtype=np.float64)
    ideal = span * (2 * index - (1 << bits) + 1) / (1 << bits)
    if symmetric:
        half = 1 << (bits - 1)
        feedback = half / (half + np.abs(index - half))
    else:
        feedback = (1 << bits) / ((1 << bits) + index)
    return np.asarray(ideal / (1 + 1 / (gain * feedback)))


def _ramp_code(values: Floats, bits: int, span: float, gain: float, symmetric: bool) -> Floats:
    """Nearest level, ties to the lower one."""
    levels = _ramp_levels(bits, span, gain, symmetric)
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values, side="left").astype(np.float64)


def _sar_code(values: Floats, bits: int, span: float, gain: float) -> Floats:
    """Binary search from the most significant bit; a bit stays while the value is above it."""
    thresholds = _ramp_levels(bits, span, gain, symmetric=True) - span / (1 << bits)
    code = np.zeros(values.shape, np.int64)
    for bit in reversed(range(bits)):
        trial = code | (1 << bit)
        code = np.where(values > thresholds[trial], trial, code)
    return code.astype(np.float64)


def _pipeline_code(values: Floats, bits: int, span: float, gain: float) -> Floats:
    """1.5-bit stages from the most significant; each doubles the residue, short of 2 / gain."""
    residue, code = values, np.zeros(values.shape)
    for bit in reversed(range(1, bits)):
        above, below = residue > span / 4, residue < -span / 4
        inside = np.abs(residue) < span / 4
        code += (1 << bit) * (above + 0.5 * inside)
        residue = (2 * residue - span * above + span * below) / (1 + 2 / gain)
    return np.asarray(code + (residue > 0))
