# SPDX-License-Identifier: Apache-2.0
"""adder: the form that trains, and its thermometer codes, against the definition tap by tap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import Case, layers

from enos_compiler import compiled
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.operators import adder_training
from enos_compiler.operators.adder import Adder
from enos_compiler.operators.adder_onnx import thermometer
from enos_compiler.operators.adder_training import distance_sum


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99), bits=st.integers(2, 4), signed=st.booleans(), wide=st.integers(2, 4)
)
def test_thermometer_codes_give_the_distance(seed: int, bits: int, signed: bool, wide: int) -> None:
    """Every input step against every weight code, in planes less their value at zero."""
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    rng = np.random.default_rng(seed)
    weight = rng.integers(-(2 ** (wide - 1)), 2 ** (wide - 1), (3, 5))
    signs, constant = thermometer(weight, low, high)
    x = rng.integers(low, high + 1, 5)
    thresholds = np.arange(low, high)[:, None]
    planes = (x[None] > thresholds).astype(int) - (thresholds < 0)
    found = np.einsum("tmc,tc->m", signs, planes) + constant
    assert np.array_equal(found, np.abs(x - weight).sum(axis=1))


@settings(deadline=None, max_examples=40)
@given(case=layers(), seed=st.integers(0, 99))
def test_training_sum_is_minus_the_integer_distance(case: Case, seed: int) -> None:
    """On integers the float sum is that of the reference with multiplier and bias removed."""
    rng = np.random.default_rng(seed)
    fmt = ValueFormat(0, 8, 4)
    layer = replace(case.layer, norm="n")
    weight = rng.integers(-8, 8, case.weight_shape).astype(float)
    codes = rng.integers(0, 16, case.input_shape)
    ones = np.ones(case.channels)
    from enos_compiler.ir.choice import Bits

    quantized = Adder().quantize(layer, weight, ones, 0 * ones, Bits(4, 4, 8), (fmt,))
    total = Adder().accumulate((codes,), layer, quantized)
    unit = np.ldexp(1.0, quantized.unit_exponent.astype(np.int32))
    shape = (-1, *(1,) * (total.ndim - 2)) if layer.op == "conv" else (-1,)
    x = torch.tensor(codes - 8, dtype=torch.float32)
    found = Adder().train_sum(x, torch.tensor(weight, dtype=torch.float32), layer, 4, fmt)
    np.testing.assert_allclose(found.numpy(), total * unit.reshape(shape), rtol=1e-5, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(case=layers(), seed=st.integers(0, 99), threads=st.sampled_from([1, 2]))
def test_compiled_loops_are_the_unfolded_windows(case: Case, seed: int, threads: int) -> None:
    """Sums and both gradients, for every kind of convolution."""
    pytest.importorskip("numba")
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(case.input_shape, generator=draws).requires_grad_()
    weight = torch.randn(case.weight_shape, generator=draws).requires_grad_()
    found = []
    before = torch.get_num_threads(), adder_training.LEAST, compiled.LEAST_PART
    torch.set_num_threads(threads)
    compiled.LEAST_PART = 1
    try:
        for least in (1, 10**9):
            adder_training.LEAST = least
            output = distance_sum(x, weight, case.layer)
            upstream = torch.arange(output.numel()).view(output.shape).sin()
            found.append((output, *torch.autograd.grad(output, (x, weight), upstream)))
    finally:
        torch.set_num_threads(before[0])
        adder_training.LEAST, compiled.LEAST_PART = before[1:]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(case=layers(), seed=st.integers(0, 99))
def test_surrogate_gradients_are_those_of_the_definition(case: Case, seed: int) -> None:
    """d/dw = x - w and d/dx = clip(w - x, -1, 1), each tap: the gradient of a sum of such terms."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(case.input_shape, generator=draws, requires_grad=True)
    weight = torch.randn(case.weight_shape, generator=draws, requires_grad=True)
    output = distance_sum(x, weight, case.layer)
    upstream = torch.randn(output.shape, generator=draws)
    output.backward(upstream)  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert weight.grad is not None
    for tensor, gradient in ((x, x.grad), (weight, weight.grad)):
        place = tuple(int(torch.randint(n, (), generator=draws)) for n in tensor.shape)
        expected = _expected(case, x.detach(), weight.detach(), upstream, tensor is weight, place)
        assert float(gradient[place]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def _expected(
    case: Case,
    x: torch.Tensor,
    weight: torch.Tensor,
    upstream: torch.Tensor,
    of_weight: bool,
    place: tuple[int, ...],
) -> float:
    """The surrogate summed over the outputs that the entry at `place` enters, one by one."""
    total = 0.0
    probe = torch.zeros_like(weight if of_weight else x)
    probe[place] = 1.0
    for output in np.ndindex(tuple(upstream.shape)):
        for inputs, kernel, a, b in _taps(case, output, x, weight):
            if (kernel if of_weight else inputs) != place:
                continue
            term = a - b if of_weight else max(-1.0, min(1.0, b - a))
            total += float(upstream[output]) * term
    return total


def _taps(
    case: Case, output: tuple[int, ...], x: torch.Tensor, weight: torch.Tensor
) -> list[tuple[tuple[int, ...] | None, tuple[int, ...], float, float]]:
    """Input place (None in the padding), kernel place and values of every tap of an output."""
    shape = case.layer.shape
    if case.layer.op != "conv":
        *rows, m = output
        return [
            ((*rows, c), (m, c), float(x[(*rows, c)]), float(weight[m, c]))
            for c in range(weight.shape[1])
        ]
    n, m, *at = output
    per_group = weight.shape[0] // shape.g
    found: list[tuple[tuple[int, ...] | None, tuple[int, ...], float, float]] = []
    for c, *kernel in np.ndindex(tuple(weight.shape[1:])):
        spots = [
            at[a] * shape.stride[a] + kernel[a] * shape.dilation[a] - shape.padding[a]
            for a in range(len(at))
        ]
        channel = m // per_group * weight.shape[1] + c
        inside = all(0 <= s < extent for s, extent in zip(spots, x.shape[2:], strict=True))
        place = (n, channel, *spots) if inside else None
        value = float(x[place]) if place else 0.0
        found.append((place, (m, c, *kernel), value, float(weight[(m, c, *kernel)])))
    return found
