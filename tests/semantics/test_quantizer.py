# SPDX-License-Identifier: Apache-2.0
"""Codes, scales and rounding against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.errors import EnosError
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.semantics.quantizer import (
    dequantize,
    narrow,
    quantize_codes,
    requantize,
    value_format,
)

exact = settings(deadline=None, max_examples=150)


@st.composite
def formats(draw: st.DrawFn) -> ValueFormat:
    bits = draw(st.integers(2, 8))
    zero_point = draw(st.sampled_from([0, 2 ** (bits - 1)]))
    high = draw(st.integers(zero_point, 2**bits - 1))
    return ValueFormat(draw(st.integers(-20, 20)), zero_point, bits, 0, high)


def exact_code(real: Fraction, fmt: ValueFormat) -> int:
    """Python rounds a Fraction half to even."""
    return min(max(round(real / Fraction(2) ** fmt.exponent) + fmt.zero_point, fmt.low), fmt.high)


@exact
@given(
    totals=st.lists(st.integers(-(2**53), 2**53) | st.integers(-3000, 3000), min_size=1),
    unit=st.integers(-60, 40),
    fmt=formats(),
)
def test_requantize_equals_fractions(totals: list[int], unit: int, fmt: ValueFormat) -> None:
    expected = [exact_code(t * Fraction(2) ** unit, fmt) for t in totals]
    assert requantize(np.array(totals, dtype=np.int64), unit, fmt).tolist() == expected


def test_requantize_rounds_ties_to_even_with_a_unit_per_channel() -> None:
    total = np.array([[1, 3, 5], [1, 3, 5]], dtype=np.int64)
    codes = requantize(total, np.array([[-1], [0]]), ValueFormat(0, 2, 3))
    assert codes.tolist() == [[2, 4, 4], [3, 5, 7]]


def test_requantize_refuses_what_float64_cannot_hold() -> None:
    with pytest.raises(EnosError, match=r"above 2\*\*53"):
        requantize(np.array([2**53 + 1]), 0, ValueFormat(0, 0, 8))


@exact
@given(fmt=formats(), bits=st.integers(2, 8), data=st.data())
def test_narrow_equals_fractions(fmt: ValueFormat, bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(fmt.low, fmt.high), min_size=1))
    copy = fmt.narrowed(bits)
    reals = [(c - fmt.zero_point) * Fraction(2) ** fmt.exponent for c in codes]
    expected = [exact_code(r, copy) for r in reals] if bits < fmt.bits else codes
    assert narrow(np.array(codes), fmt, bits).tolist() == expected


@exact
@given(
    ends=st.tuples(
        st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(-1e6, 1e6, allow_subnormal=False)
    ),
    bits=st.integers(2, 8),
)
def test_least_exponent_that_saturates_by_at_most_one_step(
    ends: tuple[float, float], bits: int
) -> None:
    low, high = min(ends), max(ends)
    fmt = value_format((low, high), bits)
    assert fmt.zero_point == (2 ** (bits - 1) if low < 0 else 0)
    extreme = max(-low, high)
    if -48 < fmt.exponent < 48 and extreme > 0:
        reals = np.array([low, high])
        saturated = np.abs(dequantize(quantize_codes(reals, fmt), fmt) - reals)
        assert (saturated <= fmt.scale).all()
        steps = 2 ** (bits - 1 if low < 0 else bits)
        assert steps * fmt.scale >= extreme > steps * fmt.scale / 2


@exact
@given(fmt=formats())
def test_codes_survive_the_round_trip(fmt: ValueFormat) -> None:
    codes = np.arange(fmt.low, fmt.high + 1)
    assert quantize_codes(dequantize(codes, fmt), fmt).tolist() == codes.tolist()


def test_clip_bounds_become_code_bounds() -> None:
    relu6 = value_format((0.0, 5.9), 8, (0.0, 6.0))
    assert (relu6.exponent, relu6.zero_point, relu6.low, relu6.high) == (-5, 0, 0, 192)
    unreached = value_format((0.0, 3.9), 8, (0.0, 6.0))
    assert (unreached.exponent, unreached.high) == (-6, 255)
    hardtanh = value_format((-1.0, 1.0), 4, (-1.0, 1.0))
    assert (hardtanh.exponent, hardtanh.zero_point, hardtanh.low, hardtanh.high) == (-3, 8, 0, 15)
    skewed = value_format((-0.5, 4.0), 8, (-0.5, 4.0))
    assert (skewed.exponent, skewed.low, skewed.high) == (-5, 112, 255)
    assert value_format((-2.0, 3.0), 8, (0.0, float("inf"))).zero_point == 0


def test_a_value_that_is_always_zero_has_a_format() -> None:
    assert value_format((0.0, 0.0), 4) == ValueFormat(0, 0, 4)


@pytest.mark.parametrize("bad", [(float("nan"), 1.0), (0.0, float("inf")), (1.0, 0.0)])
def test_a_range_without_meaning_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(EnosError, match="not finite and ordered"):
        value_format(bad, 8)
