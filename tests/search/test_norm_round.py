# SPDX-License-Identifier: Apache-2.0
"""Norm and rounding in few walks over memory are what they are one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import digits
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Network
from enos_compiler.search import compiled
from enos_compiler.search.fake import fake_quantize
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.norm_round import Extremes, norm_round, statistics_of, sum_round
from enos_compiler.semantics.quantizer import value_format

pytest.importorskip("numba")

EPS = 1e-5
FORMAT = ValueFormat(-4, 0, 8, 0, 255)


@pytest.fixture(autouse=True)
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LEAST", 1)


def images(*shape: int, seed: int = 0, mean: float = 0.0) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + mean
    return drawn.contiguous(memory_format=torch.channels_last)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*(st.integers(2, 9) for _ in range(4))),
    bits=st.integers(2, 8),
    signed=st.booleans(),
    mean=st.sampled_from([0.0, 3.0, -100.0]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_the_definition_is_a_norm_and_then_rounding(
    shape: tuple[int, int, int, int], bits: int, signed: bool, mean: float, threads: int, seed: int
) -> None:
    channels = shape[1]
    x = images(*shape, seed=seed, mean=mean).requires_grad_()
    weight = images(channels, 1, 1, 1, seed=seed + 1).flatten().requires_grad_()
    bias = images(channels, 1, 1, 1, seed=seed + 2).flatten().requires_grad_()
    behind = images(*shape, seed=seed + 3)
    fmt = value_format((-5.0 if signed else 0.0, 5.0), bits)
    normed = F.batch_norm(x, None, None, weight, bias, True, eps=EPS)
    expected = fake_quantize(normed, fmt)
    wanted = torch.autograd.grad(expected, (x, weight, bias), behind)

    seen: list[Extremes] = []

    def format_of(extremes: object) -> ValueFormat:
        seen.append(extremes())  # type: ignore[operator]
        return fmt

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = norm_round(x, weight, bias, statistics_of(x), EPS, format_of)
        gradients = torch.autograd.grad(found, (x, weight, bias), behind)
    finally:
        torch.set_num_threads(before)
    # A number between two codes may fall to either where the last bit of its norm differs.
    near = ((normed / fmt.scale) % 1 - 0.5).abs() < 0.01
    torch.testing.assert_close(found[~near], expected[~near], rtol=0, atol=0)
    assert float((found - expected).detach().abs().max()) <= fmt.scale
    torch.testing.assert_close(
        seen[0], tuple(map(float, normed.detach().aminmax())), rtol=1e-3, atol=1e-3
    )
    ends = [(fmt.low - fmt.zero_point) * fmt.scale, (fmt.high - fmt.zero_point) * fmt.scale]
    if all(float((normed - end).detach().abs().min()) > 1e-3 for end in ends):
        for ours, theirs in zip(gradients, wanted, strict=True):
            size = float(theirs.abs().max()) + 1e-3
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * size)


@settings(deadline=None, max_examples=20)
@given(shape=st.tuples(*(st.integers(1, 9) for _ in range(4))), threads=st.sampled_from([1, 2]))
def test_a_sum_is_rounded_exactly(shape: tuple[int, int, int, int], threads: int) -> None:
    x, y = images(*shape).requires_grad_(), images(*shape, seed=1).requires_grad_()
    behind = images(*shape, seed=2)
    expected = fake_quantize(x + y, FORMAT)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = sum_round(x, y, FORMAT)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)
    ours = torch.autograd.grad(found, (x, y), behind)
    theirs = torch.autograd.grad(expected, (x, y), behind)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_statistics_of_a_far_mean_are_those_of_float64() -> None:
    x = images(8, 5, 7, 3, mean=1e4)
    found = statistics_of(x)
    exact = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.mean, exact.mean(1), rtol=1e-7, atol=0)
    torch.testing.assert_close(found.variance, exact.var(1, correction=0), rtol=1e-5, atol=0)
    assert torch.equal(found.least, exact.amin(1))
    assert torch.equal(found.greatest, exact.amax(1))


def test_what_is_undefined_stays_undefined() -> None:
    x = images(4, 3, 5, 5)
    x[0, 1, 2, 3] = torch.nan
    one, none = torch.ones(3), torch.zeros(3)
    found = norm_round(x, one, none, statistics_of(x), EPS, lambda _: FORMAT)
    assert bool(found[:, 1].isnan().all())
    assert not bool(found[:, [0, 2]].isnan().any())
    y = images(4, 3, 5, 5)
    assert torch.equal(sum_round(x, y, FORMAT).isnan(), x.isnan())


def test_a_network_trains_alike_with_and_without(
    small: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EightBits:
        def stored(self, value: str) -> dict[int, float]:  # noqa: ARG002
            return {8: 1.0}

        def read(self, node: object, value: str) -> None:  # noqa: ARG002
            return None

    batch, _ = digits()
    plain = NetworkModule(small, widths=EightBits()).train()
    fused = copy.deepcopy(plain)
    outputs = []
    for module, installed in ((plain, False), (fused, True)):
        monkeypatch.setattr(compiled, "is_installed", lambda installed=installed: installed)
        for _ in range(2):
            output = module(batch[:64])
            assert isinstance(output, Tensor)
            outputs.append(output.detach())
            output.square().mean().backward()  # type: ignore[no-untyped-call]
        assert bool(module._settled) == installed
    size = float(outputs[0].abs().max())
    for before, after in ((outputs[0], outputs[2]), (outputs[1], outputs[3])):
        torch.testing.assert_close(after, before, rtol=0, atol=0.02 * size)
    torch.testing.assert_close(fused.ranges, plain.ranges, rtol=1e-3, atol=1e-3)
    for (name, ours), (_, theirs) in zip(
        fused.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        size = float(theirs.grad.abs().max())
        if size > 1e-4:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0.1 * size)
    for (name, one), (_, other) in zip(fused.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, msg=name)
