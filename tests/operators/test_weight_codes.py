# SPDX-License-Identifier: Apache-2.0
"""Weight codes, multipliers and surrogate gradients, against searches by brute force."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import OPERATORS, TRAINABLE, product_layer

from enos_compiler.errors import RefusalError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.operators.multipliers import (
    LEAST_MANTISSA_BITS,
    MANTISSA_BITS,
    fit_multipliers,
)
from enos_compiler.operators.weight_codes import uniform_codes
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

LAYER = Layer(
    name="layer",
    op="conv",
    inputs=("x",),
    output="layer",
    shape=LayerShape(m=4, c=4, r=3, s=3),
    weight="w",
)


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(2, 8),
    taps=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    input_max=st.sampled_from([None, 1, 255, 60_000]),
)
def test_scales_are_the_least_squares_ones(
    bits: int, taps: int, seed: int, input_max: int | None
) -> None:
    """No m * 2**e of the admitted set has a smaller error; codes are the nearest ones.

    The set spans half to four times the scale that just covers the largest weight, from an eighth
    at up to 4 bits, where clipping pays.
    """
    rng = np.random.default_rng(seed)
    rows = (rng.standard_t(4, (3, taps)) * 10 ** rng.uniform(-4, 4)).astype(np.float32)
    codes, mantissa, exponent = (
        t.numpy() for t in uniform_codes(torch.from_numpy(rows), bits, input_max=input_max)
    )
    top = 2 ** (bits - 1) - 1
    for row, code, m, e in zip(rows.astype(np.float64), codes, mantissa, exponent, strict=True):
        assert m % 2 == 1
        assert 1 <= m <= 15
        scale = m * 2.0**e
        assert np.array_equal(code, np.clip(np.rint(row / scale), -top, top))
        found = np.square(code * scale - row).sum()
        covering = int(np.floor(np.log2(np.abs(row).max() / np.float32(top))))
        for octave in range(covering - (3 if bits <= 4 else 1), covering + 2):
            for odd in range(1, 16, 2):
                trial = np.ldexp(odd, octave - odd.bit_length() + 1)
                other = np.clip(np.rint(row / trial), -top, top)
                limit = np.inf if input_max is None else 0.75 * EXACT_FLOAT32 / input_max
                if odd > 1 and odd * np.abs(other).sum() >= limit:
                    continue
                assert found <= np.square(other * trial - row).sum() * (1 + 1e-5)


@settings(deadline=None, max_examples=100)
@given(
    terms=st.integers(1, 2),
    reach=st.integers(0, 24),
    spread=st.integers(-12, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_multipliers_take_the_finest_unit_that_fits(
    terms: int, reach: int, spread: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.normal(0, 1, (terms, 3)) * np.array([[1.0], [2.0**spread]])[:terms]
    sums = rng.integers(1, 2**reach + 1, (terms, 3))
    shift = rng.normal(0, 1, 3)
    fitted = fit_multipliers(factors, sums, shift)
    totals = (np.abs(fitted.values) * sums).sum(axis=0) + np.abs(fitted.bias)
    assert fitted.bound == totals.max()
    unit = np.ldexp(1.0, fitted.exponent.astype(np.int32))
    assert np.all(np.abs(fitted.values * unit - factors) <= unit / 2)
    assert np.all(np.abs(fitted.bias * unit - shift) <= unit / 2)
    smallest = np.abs(factors).min(axis=0) / unit
    bias = np.rint(np.abs(shift) * 2 / unit)
    crowded = bias >= 2**21
    if fitted.bound < EXACT_FLOAT32:
        finer = (np.rint(np.abs(factors) * 2 / unit) * sums).sum(axis=0) + bias
        full = smallest >= 2 ** (MANTISSA_BITS - 1)
        assert np.all(full | crowded | (finer >= EXACT_FLOAT32))
    else:
        power = np.floor(np.log2(np.abs(factors).min(axis=0))) - (LEAST_MANTISSA_BITS - 1)
        coarse = np.exp2(power)
        largest = (np.rint(np.abs(factors) / coarse) * sums).sum(axis=0)
        assert np.any(largest + np.rint(np.abs(shift) / coarse) >= EXACT_FLOAT32)
    assert np.all(crowded | (smallest >= 2 ** (LEAST_MANTISSA_BITS - 1)))
    assert np.all(smallest < 2**MANTISSA_BITS)


def _apply(name: str, x: torch.Tensor, weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The operator's rows (N, C) by weights (M, C), in its training form."""
    plain, signed = OPERATORS[name].weight_forms(weight, bits)
    y = torch.zeros(len(x), len(weight), dtype=x.dtype)
    if plain is not None:
        y = y + x @ plain.T
    return y if signed is None else y + torch.sign(x) @ signed.T


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("deviation", [0.02, 0.1, 0.4])
def test_outputs_keep_the_deviation_of_mac(name: str, deviation: float) -> None:
    """Rectified unit normal inputs, 512 taps: over samples and channels, within 10 %.

    Except the ternary weights of 2 bits, whose deviation is 0.9 of the float weights'.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 512, generator=generator) * deviation
    x = torch.relu(torch.randn(500, 512, generator=generator))
    expected = (x @ weight.T).std()
    for bits in OPERATORS[name].weight_bits:
        ratio = float(_apply(name, x, weight, bits).std() / expected)
        assert abs(ratio - 1) < (0.15 if bits == 2 else 0.1), (bits, ratio)


@pytest.mark.parametrize(
    ("name", "correlation"), [("bw", 0.80), ("shift", 0.98), ("xnor", 2 / pi), ("ef", 0.88)]
)
def test_taps_correlate_with_the_product(name: str, correlation: float) -> None:
    """Rectified normal inputs and normal weights, tap by tap.

    Source: measured on 4 million samples; shift there at 5 bits without a scale. xnor on {0, 1}:
    E|x w| over the two root mean squares.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 200_000, generator=generator) * 0.05
    x = torch.relu(torch.randn(1, 200_000, generator=generator))
    plain, signed = OPERATORS[name].weight_forms(weight, OPERATORS[name].weight_bits[-1])
    y = 0 if plain is None else x * plain
    y = y if signed is None else y + torch.sign(x) * signed
    pair = torch.cat([x * weight, torch.as_tensor(y)])
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(correlation, abs=0.01)


@pytest.mark.parametrize("name", ["mac", "bw", "shift", "xnor"])
def test_single_sums_pass_the_gradient_on(name: str) -> None:
    weight = torch.randn(3, 5, requires_grad=True)
    forms = OPERATORS[name].weight_forms(weight, OPERATORS[name].weight_bits[-1])
    form = next(f for f in forms if f is not None)
    (gradient,) = torch.autograd.grad((form * torch.arange(15.0).view(3, 5)).sum(), weight)
    assert torch.equal(gradient, torch.arange(15.0).view(3, 5))


@pytest.mark.parametrize("name", ["mf", "ef"])
def test_two_sums_bend_the_sign(name: str) -> None:
    """dA/dw = a1 / r * (1 - tanh(w / r)**2), r the channel's root mean square; dB/dw = +-a2."""
    weight = torch.randn(2, 50, dtype=torch.float64, requires_grad=True)
    operator = OPERATORS[name]
    plain, signed = operator.weight_forms(weight, 8)
    assert plain is not None
    assert signed is not None
    on_code, on_sign = operator.factors(weight)
    rms = weight.detach().square().mean(1, keepdim=True).sqrt()
    (bend,) = torch.autograd.grad(plain.sum(), weight)
    expected = on_code[:, None] / rms * (1 - torch.tanh(weight.detach() / rms) ** 2)
    assert torch.allclose(bend, expected)
    (slope,) = torch.autograd.grad(signed.sum(), weight)
    direction = 1.0 if name == "ef" else torch.sign(weight.detach())
    assert torch.allclose(slope, on_sign[:, None] * direction)
    assert torch.equal(torch.sign(plain), torch.sign(weight))


def test_a_zero_weight_has_a_sign() -> None:
    for name in ("bw", "shift", "mf", "ef"):
        plain, _ = OPERATORS[name].weight_forms(torch.tensor([[0.0, 1.0]]), 4)
        assert plain is not None
        assert float(plain[0, 0]) > 0
    assert OPERATORS["shift"].weight_forms(torch.zeros(1, 3), 4)[0].abs().max() == 0


def _energy(name: str) -> float:
    """Energy of one operation in pJ at 45 nm.

    Source: interpolations of Horowitz (ISSCC 2014) and Aladdin's 40 nm tables.
    """
    kind, _, width = name.partition("_")
    if kind == "multiply":
        a, w = (int(n) for n in width.split("x"))
        return float(0.2 * (a * w / 64) ** 0.989)
    if kind == "popcount":
        return 0.0029
    b = int(width)
    per_kind = {"add": 0.0067 + 0.0029 * b, "shift": 0.024 * (b / 8) ** 1.22, "xor": 0.00056 * b}
    return float(per_kind[kind])


@pytest.mark.parametrize(
    ("name", "bits", "expected"),
    [
        ("mac", 2, 0.060),
        ("mac", 4, 0.110),
        ("mac", 8, 0.282),
        ("bw", 4, 0.050),
        ("bw", 8, 0.063),
        ("mf", 2, 0.085),
        ("mf", 8, 0.127),
        ("ef", 4, 0.099),
        ("shift", 2, 0.050),
        ("shift", 3, 0.062),
        ("shift", 4, 0.080),
        ("adder", 3, 0.068),
        ("adder", 8, 0.100),
        ("xnor", 8, 0.0035),
        ("xnor2", 8, 0.0070),
    ],
)
def test_elementary_operations_give_the_published_sums(
    name: str, bits: int, expected: float
) -> None:
    """Energy of arithmetic per tap for 576 taps and equal widths, pJ."""
    weight = 1 if name in ("bw", "xnor", "xnor2") else bits
    operations = OPERATORS[name].elementary_operations(Bits(bits, weight, bits), 576)
    found = sum(count * _energy(operation) for operation, count in operations.items())
    assert found == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("name", "signed", "reason"),
    [
        ("mac", True, None),
        ("bw", True, None),
        ("ef", True, None),
        ("shift", True, None),
        ("mf", False, None),
        (
            "mf",
            True,
            "mf is uncorrelated with the product where inputs have both signs; ef is not",
        ),
        ("xnor", False, None),
        (
            "xnor",
            True,
            "xnor reads one plane of sign bits {0, 1}; signed inputs take three values and need"
            " a second plane for the negative ones: xnor2",
        ),
        ("xnor2", True, None),
        ("xnor2", False, "inputs have one sign: xnor reads them in one plane"),
        (
            "adder",
            False,
            "adder's sums are never positive: it needs a normalisation behind it",
        ),
    ],
)
def test_refusals(name: str, signed: bool, reason: str | None) -> None:
    assert OPERATORS[name].refusal(LAYER, signed_input=signed) == reason


@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "mac"])
def test_products_are_mac_only(name: str) -> None:
    layer = product_layer(1, 2, 3, 4)
    assert OPERATORS["mac"].refusal(layer, signed_input=True) is None
    expected = f"{name} recodes stored weights; both operands here are activations"
    signed = name not in ("mf", "xnor")
    assert OPERATORS[name].refusal(layer, signed_input=signed) == expected


def test_adder_has_no_weight_form() -> None:
    with pytest.raises(RefusalError, match=r"4-bit weights of shape \(2, 3\)"):
        OPERATORS["adder"].weight_forms(torch.zeros(2, 3), 4)
