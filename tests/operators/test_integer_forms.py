# SPDX-License-Identifier: Apache-2.0
"""The integers of every operator: equal to their definition, and to the form that trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operator_cases import (
    OPERATORS,
    TRAINABLE,
    Case,
    by_definition,
    float_layer,
    formats,
    layers,
    product_layer,
    random_codes,
    weight_bits,
)

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.operators.base import FloatArray
from enos_compiler.operators.mac import Mac
from enos_compiler.operators.terms import along_channels
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

SEEDS = st.integers(0, 2**32 - 1)


def _random_layer(
    name: str, case: Case, fmt: ValueFormat, bits: int, seed: int
) -> tuple[np.random.Generator, FloatArray, FloatArray, FloatArray, QuantizedLayer]:
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 10 ** rng.uniform(-3, 1), case.weight_shape).astype(np.float32)
    weight[rng.random(case.weight_shape) < 0.1] = 0
    gain = rng.normal(0, 1, case.channels)
    gain[rng.random(case.channels) < 0.1] = 0
    wide = weight.astype(np.float64)
    size = np.abs(wide).reshape(case.channels, -1).max(axis=1) * np.abs(gain)
    shift = rng.normal(0, 1, case.channels) * size * fmt.max_abs * fmt.scale
    quantized = OPERATORS[name].quantize(
        case.layer, wide, gain, shift, Bits(fmt.bits, bits, 8), (fmt,)
    )
    return rng, wide, gain, shift, quantized


@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("name", list(OPERATORS))
@given(data=st.data(), case=layers(), fmt=formats(), seed=SEEDS)
def test_sums_equal_the_definition(
    name: str, data: st.DataObject, case: Case, fmt: ValueFormat, seed: int
) -> None:
    """Each tap computed by hand, padding read as zero; and no total leaves its stated bound."""
    bits = data.draw(weight_bits(name))
    rng, *_, quantized = _random_layer(name, case, fmt, bits, seed)
    codes = random_codes(rng, fmt, case.input_shape)
    total = OPERATORS[name].accumulate((codes,), case.layer, quantized)
    assert np.array_equal(total, by_definition(name, codes, case, quantized))
    assert np.abs(total).max() <= quantized.bound


@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("name", TRAINABLE)
@given(data=st.data(), case=layers(), fmt=formats(), seed=SEEDS)
def test_training_form_equals_the_integers(
    name: str, data: st.DataObject, case: Case, fmt: ValueFormat, seed: int
) -> None:
    """gain * (conv(x, A) + conv(sign x, B)) + shift, up to the rounding of the scales.

    mac: half a bias step. Others: half a unit on each multiplier times the largest sum, half a
    unit on the bias; at most 2**-6 of the smallest factor, 2**-8 where 8 bits were free.
    """
    bits = data.draw(weight_bits(name))
    rng, weight, gain, shift, quantized = _random_layer(name, case, fmt, bits, seed)
    codes = random_codes(rng, fmt, case.input_shape)
    x = np.ldexp((codes - fmt.zero_point).astype(np.float64), fmt.exponent)
    operator = OPERATORS[name]
    shape = (-1, *(1,) * (weight.ndim - 1))
    if name == "mac":
        scaled = torch.from_numpy(weight * gain.reshape(shape))
        forms = operator.weight_forms(scaled, bits, input_max=fmt.max_abs)
        outer = np.ones_like(gain)
    else:
        forms = operator.weight_forms(torch.from_numpy(weight), bits)
        outer = gain
    plain, signed = forms
    result = 0.0
    if plain is not None:
        result = result + float_layer(case, x, plain).numpy()
    if signed is not None:
        result = result + float_layer(case, np.sign(x), signed).numpy()

    def across(vector: FloatArray) -> FloatArray:
        return along_channels(vector, case.layer, codes.ndim)  # type: ignore[arg-type,return-value]

    expected = result * across(outer) + across(shift)
    unit = np.ldexp(1.0, quantized.unit_exponent.astype(np.int32))
    total = operator.accumulate((codes,), case.layer, quantized)
    actual = total * across(unit)
    if name == "mac":
        tolerance = unit * quantized.tensors["multiplier"] / 2
    else:
        taps = np.prod(weight.shape[1:])
        reach = (fmt.max_abs if plain is not None else 0) * taps
        if name == "shift":
            reach = fmt.max_abs * np.abs(quantized.tensors["weight"]).reshape(len(gain), -1).sum(1)
        if signed is not None:
            sizes = quantized.tensors.get("magnitude", quantized.tensors.get("weight"))
            assert sizes is not None
            reach = reach + np.abs(sizes).reshape(len(gain), -1).sum(1)
        tolerance = unit * (reach + 1) / 2
        smallest = min(
            (
                np.abs(t[t != 0]).min()
                for k, t in quantized.tensors.items()
                if "multiplier" in k and np.any(t)
            ),
            default=2**5,
        )
        assert smallest >= 2**5 or quantized.bias.any()
    slack = 1e-9 * (np.abs(expected) + 1)
    assert np.all(np.abs(actual - expected) <= across(tolerance) + slack)


@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("name", ["mac", "bw", "shift", "xnor", "xnor2"])
@given(case=layers(), fmt=formats(), seed=SEEDS, power=st.integers(-6, 2))
def test_powers_of_two_leave_no_rounding(
    name: str, case: Case, fmt: ValueFormat, seed: int, power: int
) -> None:
    """Weights of one magnitude 2**power, gains +-2**k, a bias on the grid: exactly equal."""
    rng = np.random.default_rng(seed)
    weight = np.ldexp(rng.choice([-1.0, 1.0], case.weight_shape), power)
    gain = np.ldexp(rng.choice([-1.0, 1.0], case.channels), rng.integers(-3, 3, case.channels))
    codes = random_codes(rng, fmt, case.input_shape)
    shift = np.ldexp(rng.integers(-9, 9, case.channels) * np.abs(gain), power)
    if not name.startswith("xnor"):
        shift = np.ldexp(shift, fmt.exponent)
    operator = OPERATORS[name]
    bits = Bits(fmt.bits, operator.weight_bits[0], 8)
    quantized = operator.quantize(case.layer, weight, gain, shift, bits, (fmt,))
    x = np.ldexp((codes - fmt.zero_point).astype(np.float64), fmt.exponent)
    if name.startswith("xnor"):
        x = np.sign(x)

    def across(vector: FloatArray) -> FloatArray:
        return along_channels(vector, case.layer, codes.ndim)  # type: ignore[arg-type,return-value]

    expected = float_layer(case, x, torch.from_numpy(weight)).numpy() * across(gain) + across(shift)
    total = operator.accumulate((codes,), case.layer, quantized)
    unit = np.ldexp(1.0, quantized.unit_exponent.astype(np.int32))
    assert np.array_equal(total * across(unit), expected)


@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("name", list(OPERATORS))
@given(case=layers(), fmt=formats(), seed=SEEDS, weakness=st.integers(24, 60))
def test_a_dead_channel_does_not_leave_float32(
    name: str, case: Case, fmt: ValueFormat, seed: int, weakness: int
) -> None:
    """A bias that dwarfs the weights of its channel stays right to 2**-15 of itself."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, case.weight_shape)
    alive = rng.normal(0, 1, case.channels)
    shift = rng.normal(0, 1, case.channels) * fmt.scale
    bits = Bits(fmt.bits, OPERATORS[name].weight_bits[-1], 8)
    plain, quantized = (
        OPERATORS[name].quantize(case.layer, weight, gain, shift, bits, (fmt,))
        for gain in (alive, np.ldexp(alive, -weakness))
    )
    assume(plain.bound < EXACT_FLOAT32)
    assert quantized.bound < EXACT_FLOAT32
    unit = np.ldexp(1.0, quantized.unit_exponent.astype(np.int32))
    if weakness >= 40:
        assert np.all(np.abs(quantized.bias * unit - shift) <= 2**-15 * np.abs(shift))


@settings(deadline=None, max_examples=30)
@given(
    extents=st.tuples(*[st.integers(1, 5)] * 4),
    left=formats(),
    right=formats(),
    seed=SEEDS,
)
def test_activation_products(
    extents: tuple[int, int, int, int], left: ValueFormat, right: ValueFormat, seed: int
) -> None:
    """Both operands are codes with their own zero point and scale."""
    g, n, c, m = extents
    rng = np.random.default_rng(seed)
    layer = product_layer(g, n, c, m)
    none = np.zeros(0)
    bits = Bits(left.bits, right.bits, 8)
    quantized = Mac().quantize(layer, none, none, none, bits, (left, right))
    a, b = random_codes(rng, left, (g, n, c)), random_codes(rng, right, (g, c, m))
    total = Mac().accumulate((a, b), layer, quantized)
    expected = np.einsum("gnc,gcm->gnm", a - left.zero_point, b - right.zero_point)
    assert np.array_equal(total, expected)
    assert np.abs(total).max() <= quantized.bound
    assert set(quantized.unit_exponent) == {left.exponent + right.exponent}


@settings(deadline=None, max_examples=30)
@given(case=layers(), fmt=formats(), bits=st.integers(2, 8), seed=SEEDS)
def test_unfolded_mac_keeps_the_plain_codes(
    case: Case, fmt: ValueFormat, bits: int, seed: int
) -> None:
    """Layers that share weights share codes, whatever their gains."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, case.weight_shape)
    gains = [rng.normal(0, 1, case.channels) for _ in range(2)]
    shift = rng.normal(0, 1, case.channels)
    forms = [
        Mac().quantize(case.layer, weight, g, shift, Bits(fmt.bits, bits, 8), (fmt,), fold=False)
        for g in gains
    ]
    assert np.array_equal(forms[0].tensors["weight"], forms[1].tensors["weight"])
    for gain, form in zip(gains, forms, strict=True):
        multiplier = form.tensors["multiplier"]
        assert (multiplier * gain >= 0).all(), "a small gain may round to zero, never change sign"
        assert multiplier[np.abs(gain).argmax()] != 0
