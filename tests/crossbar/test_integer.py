# SPDX-License-Identifier: Apache-2.0
"""Integer meaning of a crossbar against plain integer definitions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar.analog import FloatMapping, ValueRange, multiply, program
from enos_compiler.crossbar.blocks import SplitRule, digits, split
from enos_compiler.crossbar.calibrate import calibrate_steps, column_steps, full_steps, slice_sums
from enos_compiler.crossbar.converters import code_limits
from enos_compiler.crossbar.integer import (
    Stored,
    layout,
    lossless_adc_bits,
    read,
    read_blocks,
    required_adc_bits,
    store,
    sums_signed,
)
from enos_compiler.crossbar.operators import CrossbarOperator, crossbar_product, weight_signs
from enos_compiler.crossbar.spec import AdcLaw, AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.errors import SpecError

FAST = settings(deadline=None, max_examples=60)


@st.composite
def specs(draw: st.DrawFn, adc_bits: int = 24) -> CrossbarSpec:
    rows = draw(st.integers(1, 20))
    return CrossbarSpec(
        rows=rows,
        columns=draw(st.integers(1, 20)),
        cell=CellSpec(bits=draw(st.integers(1, 4))),
        encoding=draw(st.sampled_from(["differential", "offset", "unit_column"])),
        subtract_before_adc=draw(st.booleans()),
        rows_at_once=draw(st.none() | st.integers(1, rows)),
        dac=DacSpec(digit_bits=draw(st.none() | st.integers(1, 3))),
        adc=AdcSpec(bits=adc_bits, per_digit=draw(st.booleans())),
    )


@st.composite
def products(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int, bool]:
    """Weights (outputs, rows), inputs (rows, batch), widths, and whether inputs are signed."""
    weight_bits, signed = draw(st.integers(2, 8)), draw(st.booleans())
    input_bits = draw(st.integers(2 if signed else 1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, outputs = draw(st.integers(1, 30)), draw(st.integers(1, 5))
    low, high = code_limits(weight_bits, True)
    w = rng.integers(low, high + 1, (outputs, rows))
    low, high = code_limits(input_bits, signed)
    x = rng.integers(low, high + 1, (rows, 3))
    if draw(st.booleans()):
        w = np.where(w < 0, -code_limits(weight_bits, True)[1], code_limits(weight_bits, True)[1])
    return w, x, weight_bits, input_bits, signed


@FAST
@given(spec=specs(), case=products())
def test_wide_converters_give_the_product_of_every_operator(
    spec: CrossbarSpec, case: tuple[Any, ...]
) -> None:
    w, x, weight_bits, input_bits, signed = case

    def run(operator: CrossbarOperator) -> dict[str, np.ndarray]:
        return crossbar_product(
            spec,
            operator,
            w,
            x,
            weight_bits,
            input_bits,
            inputs_signed=signed,
        )

    s = weight_signs(w)
    assert np.array_equal(run("mac")["sum"], w @ x)
    assert np.array_equal(run("bw")["sum"], s @ x)
    assert np.array_equal(run("xnor")["sum"], s @ np.sign(x))
    both = run("mf")
    assert np.array_equal(both["A"], np.abs(w) @ np.sign(x))
    assert np.array_equal(both["B"], s @ np.abs(x))


def test_xnor_is_a_popcount() -> None:
    """For inputs >= 0: 2 popcount(x and w) - popcount(x), w the bit of a non-negative weight."""
    rng = np.random.default_rng(1)
    w, x = rng.integers(-3, 4, (4, 50)), rng.integers(0, 4, (50, 6))
    spec = CrossbarSpec(rows=64, columns=64, encoding="offset", adc=AdcSpec(bits=6))
    bits_w, bits_x = w >= 0, x > 0
    joint = (bits_w[:, :, None] & bits_x[None]).sum(axis=1)
    expected = 2 * joint - bits_x.sum(axis=0)
    assert np.array_equal(crossbar_product(spec, "xnor", w, x, 3, 2)["sum"], expected)


def test_a_zero_weight_keeps_its_sign() -> None:
    """Minus zero: the half sign(w) |x| of mf reads the stored sign bit, not the code."""
    w, x = np.array([[0, 0]]), np.array([[3], [1]])
    spec = CrossbarSpec(rows=4, columns=4)
    signs = np.array([[-1, 1]])
    out = crossbar_product(spec, "mf", w, x, 4, 2, signs=signs)
    assert out["A"].item() == 0
    assert out["B"].item() == -2


@FAST
@given(spec=specs(), case=products())
def test_the_lossless_width_is_exact_and_tight(spec: CrossbarSpec, case: tuple[Any, ...]) -> None:
    """At the stated width the codes are the product; one bit less fails on the extreme case."""
    w, x, weight_bits, input_bits, signed = case
    stored = Stored(w, weight_bits)
    form = layout(spec, weight_bits, "signed")
    magnitude = input_bits - signed
    digit = magnitude
    if spec.adc.per_digit and spec.dac.digit_bits:
        digit = min(digit, spec.dac.digit_bits)
    block = max(b.stop - b.start for b in read_blocks(spec, w.shape[1]))
    both = signed or (form.planes == 2 and spec.subtract_before_adc)
    bits = lossless_adc_bits(block, cell_bits=max(form.slice_widths), digit_bits=digit, signed=both)
    enough = replace(spec, adc=replace(spec.adc, bits=bits))
    y = read(store(enough, stored), x, input_bits, inputs_signed=signed)
    assert np.array_equal(y, w @ x)
    tight = required_adc_bits(store(spec, stored), input_bits, inputs_signed=signed)
    assert max(tight) <= bits
    wide = replace(spec, adc=replace(spec.adc, bits=max(tight)))
    y = read(store(wide, stored), x, input_bits, inputs_signed=signed)
    assert np.array_equal(y, w @ x)


@FAST
@given(
    rows=st.integers(1, 40),
    cell_bits=st.integers(1, 4),
    digit_bits=st.integers(1, 4),
    pair=st.booleans(),
    step=st.integers(0, 2),
)
def test_one_bit_less_is_not_lossless(
    rows: int, cell_bits: int, digit_bits: int, pair: bool, step: int
) -> None:
    """All levels and digits at their top: some sum is lost whatever the step."""
    bits = lossless_adc_bits(rows, cell_bits=cell_bits, digit_bits=digit_bits, signed=pair)
    if bits - 1 < 1 + pair:
        return
    spec = CrossbarSpec(
        rows=rows,
        columns=1,
        cell=CellSpec(bits=cell_bits),
        dac=DacSpec(digit_bits=digit_bits),
        adc=AdcSpec(bits=bits - 1),
    )
    top = (1 << cell_bits) - 1
    form = "signed" if pair else "unsigned"
    stored = Stored(np.full((1, rows), top), cell_bits + pair, form)  # type: ignore[arg-type]
    full = np.full((rows, 1), (1 << digit_bits) - 1)
    matrix = store(spec, stored)
    assert read(replace(matrix, spec=replace(spec, adc=AdcSpec(bits=bits))), full, digit_bits) == (
        top * rows * ((1 << digit_bits) - 1)
    )
    single = np.zeros((rows, 1), np.int64)
    single[0] = 1
    lost = [
        read(matrix, x, digit_bits, steps_log2=step).item() != int((stored.codes @ x).item())
        for x in (full, single)
    ]
    assert any(lost)


def _half_even(value: Fraction) -> int:
    return round(value)


def _slow_read(
    spec: CrossbarSpec, w: np.ndarray, x: np.ndarray, wb: int, xb: int, signed: bool, step: int
) -> np.ndarray:
    """The array one scalar at a time, in Python integers."""
    outputs, rows = w.shape
    pair = spec.encoding == "differential"
    half = 0 if pair else 1 << (wb - 1)
    cell, dac = spec.cell.bits, spec.dac.digit_bits or xb
    both = signed or (pair and spec.subtract_before_adc)
    top = (1 << (spec.adc.bits - 1)) - 1 if both else (1 << spec.adc.bits) - 1

    def code(value: int) -> int:
        rounded = _half_even(Fraction(value, 1 << step))
        return max(-top if both else 0, min(top, rounded)) << step

    def converted(column: list[int], rows_in: range, b: int, sign: int) -> int:
        total = 0
        for s in range(0, wb, cell):
            level = [((max(sign * column[i], 0)) >> s) & ((1 << cell) - 1) for i in rows_in]
            other = [((max(-column[i], 0)) >> s) & ((1 << cell) - 1) for i in rows_in]
            analog = 0
            for k in range(0, xb, dac):
                value = 0
                for j, i in enumerate(rows_in):
                    xi = int(x[i, b])
                    digit = ((abs(xi) >> k) & ((1 << dac) - 1)) * (1 if xi >= 0 else -1)
                    net = level[j] - other[j] if pair and spec.subtract_before_adc else level[j]
                    value += digit * net
                if spec.adc.per_digit:
                    total += code(value) << (k + s)
                else:
                    analog += value << k
            if not spec.adc.per_digit:
                total += code(analog) << s
        return total

    y = np.zeros((outputs, x.shape[1]), np.int64)
    starts = [
        (start, min(start + spec.read_rows, block + spec.rows, rows))
        for block in range(0, rows, spec.rows)
        for start in range(block, min(block + spec.rows, rows), spec.read_rows)
    ]
    for b in range(x.shape[1]):
        for o in range(outputs):
            column = [int(v) + half for v in w[o]]
            for start, stop in starts:
                part = range(start, stop)
                value = converted(column, part, b, 1)
                if pair and not spec.subtract_before_adc:
                    value -= converted(column, part, b, -1)
                elif spec.encoding == "unit_column":
                    value -= converted([half] * rows, part, b, 1)
                y[o, b] += value
            if spec.encoding == "offset":
                y[o, b] -= half * int(x[:, b].sum())
    return y


@settings(deadline=None, max_examples=40)
@given(spec=specs(), case=products(), bits=st.integers(2, 6), step=st.integers(0, 3))
def test_narrow_converters_equal_a_scalar_definition(
    spec: CrossbarSpec, case: tuple[Any, ...], bits: int, step: int
) -> None:
    w, x, weight_bits, input_bits, signed = case
    w, x = w[:2], x[:, :1]
    spec = replace(spec, adc=replace(spec.adc, bits=bits))
    ours = read(
        store(spec, Stored(w, weight_bits)), x, input_bits, inputs_signed=signed, steps_log2=step
    )
    magnitude = input_bits - signed
    assert np.array_equal(ours, _slow_read(spec, w, x, weight_bits, magnitude, signed, step))


@settings(deadline=None, max_examples=40)
@given(spec=specs(), case=products(), bits=st.integers(2, 7))
def test_the_floating_point_engine_agrees(
    spec: CrossbarSpec, case: tuple[Any, ...], bits: int
) -> None:
    """One spec, two readers: an ideal on/off ratio and a range of one cell step per code.

    The reference's unit column holds half of a full slice, so slices must divide the weight there.
    """
    w, x, weight_bits, input_bits, signed = case
    assume(spec.encoding != "unit_column" or weight_bits % spec.cell.bits == 0)
    spec = replace(
        spec,
        rows_at_once=None,
        dac=replace(spec.dac, law="sign_magnitude" if signed else "quantizer", signed=signed),
    )
    form = layout(spec, weight_bits, "signed")
    both = signed or (form.planes == 2 and spec.subtract_before_adc)
    top = code_limits(bits, both)[1]
    magnitude = input_bits - signed
    width = spec.dac.digit_bits if spec.adc.per_digit and spec.dac.digit_bits else magnitude
    if not spec.adc.per_digit:
        spec = replace(spec, dac=replace(spec.dac, digit_bits=None))
    unit = ((1 << spec.cell.bits) - 1) * ((1 << width) - 1)
    limits = ((-top / unit if both else 0.0, top / unit),) * form.slices
    law: AdcLaw = "sign_magnitude" if both else "quantizer"
    spec = replace(spec, adc=replace(spec.adc, bits=bits, limits=limits, law=law))
    peak, reach = code_limits(weight_bits, True)[1], code_limits(input_bits, signed)[1]
    mapping = FloatMapping(
        weight_bits=weight_bits,
        slice_bits=spec.cell.bits,
        input_bits=input_bits,
        weight_range=ValueRange(-peak, peak),
        input_range=ValueRange(-reach if signed else 0, reach),
        row_split="full",
        column_split="full",
    )
    ours = read(store(spec, Stored(w, weight_bits)), x, input_bits, inputs_signed=signed)
    y = multiply(program(spec, mapping, w.astype(float)), x.astype(float))
    assert np.abs(y - ours).max() < 1e-6 * max(1, np.abs(ours).max())


@FAST
@given(spec=specs(), case=products(), bits=st.integers(2, 8))
def test_calibrated_steps_are_the_least_that_do_not_clip(
    spec: CrossbarSpec, case: tuple[Any, ...], bits: int
) -> None:
    w, x, weight_bits, input_bits, signed = case
    narrow = replace(spec, adc=replace(spec.adc, bits=bits, range_mode="calibrated"))
    free = replace(spec, adc=replace(spec.adc, law="ideal"))
    matrix = store(narrow, Stored(w, weight_bits))
    steps = calibrate_steps(matrix, x, input_bits, inputs_signed=signed)
    wide = replace(narrow, adc=replace(narrow.adc, bits=24))
    kwargs = {"inputs_signed": signed, "steps_log2": steps}
    clipped = read(matrix, x, input_bits, **kwargs)
    assert np.array_equal(clipped, read(replace(matrix, spec=wide), x, input_bits, **kwargs))
    exact = read(replace(matrix, spec=free), x, input_bits, inputs_signed=signed)
    if max(steps) == 0:
        assert np.array_equal(clipped, exact)


@FAST
@given(spec=specs(), case=products(), bits=st.integers(2, 6))
def test_least_error_steps_are_the_best_of_all(
    spec: CrossbarSpec, case: tuple[Any, ...], bits: int
) -> None:
    """Every step is tried on every sum, one by one; with room for all sums nothing is lost."""
    w, x, weight_bits, input_bits, signed = case
    matrix = store(replace(spec, adc=replace(spec.adc, bits=bits)), Stored(w, weight_bits))
    kwargs: dict[str, Any] = {"inputs_signed": signed}
    steps = calibrate_steps(matrix, x, input_bits, **kwargs)
    both = sums_signed(matrix, signed)
    top = 2 ** (bits - 1) - 1 if both else 2**bits - 1
    for index, step in enumerate(steps):
        sums = slice_sums(matrix, x, input_bits - signed, index).ravel()

        def error(exponent: int, sums: Any = sums) -> float:
            codes = [min(max(round(v / 2**exponent), -top if both else 0), top) for v in sums]
            return float(sum((c * 2**exponent - v) ** 2 for c, v in zip(codes, sums, strict=True)))

        assert error(step) == min(error(e) for e in range(16))
    wide = replace(matrix, spec=replace(matrix.spec, adc=replace(spec.adc, bits=24)))
    assert not any(calibrate_steps(wide, x, input_bits, **kwargs))


@settings(deadline=None, max_examples=40)
@given(specs(), products(), st.integers(2, 8), st.booleans())
def test_ranges_of_columns_and_of_weights(
    spec: CrossbarSpec, case: tuple[Any, ...], bits: int, per_column: bool
) -> None:
    """A column's own steps are the finest under which its sums do not clip; full ranges hold all.

    One finer clips the sum that the step is for.
    """
    w, x, weight_bits, input_bits, signed = case
    adc = replace(spec.adc, bits=bits, range_mode="calibrated")
    matrix = store(replace(spec, adc=adc), Stored(w, weight_bits))
    own = column_steps(matrix, x, input_bits, inputs_signed=signed)
    shared = calibrate_steps(matrix, x, input_bits, inputs_signed=signed)
    assert own.max(axis=1).tolist() == list(shared)
    top = 2 ** (bits - 1) - 1 if sums_signed(matrix, signed) else 2**bits - 1
    for index, steps in enumerate(own):
        sums = np.abs(slice_sums(matrix, x, input_bits - signed, index)).max(axis=1)
        for largest, step in zip(sums, steps, strict=True):
            assert round(float(largest) / 2**step) <= top
            assert step == 0 or round(float(largest) / 2 ** (step - 1)) > top
    unsigned = np.abs(x)
    full = full_steps(matrix, input_bits, per_column=per_column)
    used = column_steps(matrix, np.minimum(unsigned, 2**input_bits - 1), input_bits)
    assert (full >= used).all()


def test_calibration_needs_data_and_a_range_that_they_set() -> None:
    matrix = store(CrossbarSpec(rows=4, columns=4), Stored(np.array([[1, 2]]), 4))
    with pytest.raises(SpecError, match="no input vectors to calibrate"):
        calibrate_steps(matrix, np.zeros((2, 0), np.int64), 4)
    full = replace(matrix, spec=replace(matrix.spec, adc=AdcSpec(range_mode="full")))
    with pytest.raises(SpecError, match="a range of `full` is not set from data"):
        calibrate_steps(full, np.ones((2, 1), np.int64), 4)


@FAST
@given(extent=st.integers(1, 200), cap=st.integers(1, 60))
def test_splits_cover_every_line_once(extent: int, cap: int) -> None:
    for rule in get_args(SplitRule):
        parts = split(extent, cap, rule)
        assert [i for p in parts for i in range(p.start, p.stop)] == list(range(extent))
        assert len(parts) == -(-extent // cap)
        if rule != "equal":
            assert max(p.stop - p.start for p in parts) <= cap


@FAST
@given(code=st.integers(-255, 255), width=st.integers(1, 8))
def test_digits_recombine(code: int, width: int) -> None:
    parts = digits(np.array([code]), 8, width)
    assert sum(int(p.item()) << (k * width) for k, p in enumerate(parts)) == code


def test_codes_out_of_range_are_refused() -> None:
    with pytest.raises(SpecError, match=r"signed weights of 4 bits lie in -7\.\.7, found -8\.\.0"):
        Stored(np.array([[-8, 0]]), 4)
    matrix = store(CrossbarSpec(rows=4, columns=4), Stored(np.array([[1, 2]]), 4))
    with pytest.raises(SpecError, match=r"inputs of 2 bits lie in 0\.\.3, found -1\.\.0"):
        read(matrix, np.array([[-1], [0]]), 2)
    with pytest.raises(SpecError, match="do not match 2 rows"):
        read(matrix, np.array([[1]]), 2)
