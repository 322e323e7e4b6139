# SPDX-License-Identifier: Apache-2.0
"""Real numbers to codes and back: the one place that chooses scales and rounds.

Rounding is half to even, once, followed by saturation. Every scale is a power of two, so a change
of scale is a shift: `requantize` computes it in float64, which is exact because integers below
2**53 times a power of two are. A product with the power is what `ldexp` gives, many times faster.
"""

from __future__ import annotations

from math import frexp, isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray

from enos_compiler.errors import EnosError
from enos_compiler.ir.formats import IntArray, ValueFormat

EXACT_FLOAT64 = 2**53
"""Integers below it are exact in float64."""
EXACT_FLOAT32 = 2**24
"""Integers below it are exact in float32."""
CODE_COUNT = 256
"""Codes that a uint8 container can hold; the length of every table."""
MIN_EXPONENT, MAX_EXPONENT = -48, 48
"""Scales outside 2**-48 .. 2**48 would leave float32's range once two of them are multiplied."""


def value_format(
    real_range: tuple[float, float],
    bits: int,
    activation_clip: tuple[float, float] | None = None,
) -> ValueFormat:
    """Return the codes of a value whose calibrated extremes are known.

    The zero point is 0 where the least value is not negative, else 2**(bits - 1). The exponent is
    the least e with `high <= 2**bits * 2**e` (unsigned) or `max(-low, high) <= 2**(bits-1) * 2**e`
    (signed): the extreme saturates by at most one step, which is no more than the rounding error
    of every value would be at the next exponent.

    Args:
        real_range: least and greatest real value seen, after the fused activation.
        bits: width of the codes, 2..8.
        activation_clip: the bounds of a fused relu or clip, (0, inf) for relu; they become the
            least and the greatest code, and the range is cut to them.

    Raises:
        EnosError: a width outside 2..8 or a range that is not finite and ordered.
    """
    low, high = real_range
    if not 2 <= bits <= 8:
        raise EnosError(f"values are stored at 2..8 bits, not {bits}", remedy="choose 2..8 bits")
    if not (isfinite(low) and isfinite(high) and low <= high):
        raise EnosError(
            f"calibrated range ({low}, {high}) is not finite and ordered",
            remedy="check the example inputs and the weights for NaN and infinity",
        )
    clip_low, clip_high = activation_clip or (-np.inf, np.inf)
    low, high = (min(max(end, clip_low), clip_high) for end in (low, high))
    signed = low < 0
    zero_point = 2 ** (bits - 1) if signed else 0
    exponent = _least_exponent(max(-low, high), bits - 1 if signed else bits)
    top = 2**bits - 1
    least = _clip_code(clip_low, exponent, zero_point, top)
    greatest = _clip_code(clip_high, exponent, zero_point, top)
    return ValueFormat(exponent, zero_point, bits, least, greatest)


def _least_exponent(extreme: float, magnitude_bits: int) -> int:
    """Return the least e with extreme <= 2**magnitude_bits * 2**e; 0 for an extreme of zero."""
    if extreme <= 0:
        return 0
    mantissa, power = frexp(extreme)
    ceil_log2 = power - 1 if mantissa == 0.5 else power
    return min(max(ceil_log2 - magnitude_bits, MIN_EXPONENT), MAX_EXPONENT)


def _clip_code(bound: float, exponent: int, zero_point: int, top: int) -> int:
    """Return the code of one clip bound, saturated to 0..top."""
    return int(np.clip(np.rint(np.ldexp(bound, -exponent)) + zero_point, 0, top))


def quantize_codes(real: ArrayLike, fmt: ValueFormat) -> IntArray:
    """Return the codes of real numbers: round half to even, then saturate; NaN is undefined."""
    return _saturate(np.asarray(real, dtype=np.float64) * 2.0**-fmt.exponent, fmt)


def dequantize(codes: IntArray, fmt: ValueFormat) -> NDArray[np.float64]:
    """Return the real numbers of codes, exactly."""
    real = (codes - fmt.zero_point).astype(np.float64)
    real *= 2.0**fmt.exponent
    return real


def requantize(
    total: IntArray,
    unit_exponent: IntArray | int,
    fmt: ValueFormat,
    *,
    divisor: IntArray | int = 1,
) -> IntArray:
    """Return the codes of `total * 2**unit_exponent / divisor`: half to even, then saturate.

    A quotient is rounded once by IEEE division. That decides every tie rightly: a tie is a float64
    and so exact, and no other quotient by less than 2**40 comes near enough to one.

    Args:
        total: integers of magnitude at most 2**53.
        unit_exponent: scale of `total`, one or broadcastable against it.
        fmt: format of the codes.
        divisor: the count of an average, one or broadcastable against `total`.

    Raises:
        EnosError: a magnitude above 2**53, which float64 could not shift exactly.
    """
    exact_in_float64(total)
    shift = np.asarray(unit_exponent, dtype=np.int64) - fmt.exponent
    steps: NDArray[np.float64] = np.multiply(total, np.ldexp(1.0, shift.astype(np.int32)))
    return _saturate(steps if np.all(divisor == 1) else steps / divisor, fmt)


def _saturate(steps: NDArray[np.float64], fmt: ValueFormat) -> IntArray:
    """Return the codes of steps from the zero point, which are rounded where they lie."""
    steps = np.asarray(steps)
    np.rint(steps, out=steps)
    steps += fmt.zero_point
    codes: IntArray = np.clip(steps, fmt.low, fmt.high, out=steps).astype(np.int64)
    return codes


def narrow(codes: IntArray, fmt: ValueFormat, bits: int) -> IntArray:
    """Return the copy that a consumer of `bits` reads, in the format `fmt.narrowed(bits)`."""
    if bits >= fmt.bits:
        return codes
    return requantize(codes - fmt.zero_point, fmt.exponent, fmt.narrowed(bits))


def exact_in_float64(total: IntArray) -> None:
    """Refuse integers that float64 cannot hold.

    Raises:
        EnosError: a magnitude above 2**53.
    """
    if not total.size:
        return
    largest = max(int(total.max()), -int(total.min()))
    if largest > EXACT_FLOAT64:
        raise EnosError(
            f"an integer sum reaches {largest}, above 2**53 where float64 stops being exact",
            remedy="use narrower operands, or operands whose scales lie closer together",
        )
