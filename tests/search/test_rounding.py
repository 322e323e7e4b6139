# SPDX-License-Identifier: Apache-2.0
"""Norm and rounding in few walks over memory are what they are one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import digits
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from enos_compiler import compiled
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Network
from enos_compiler.search import rounding
from enos_compiler.search.fake import bounds, fake_quantize
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.rounding import (
    Extremes,
    norm_rounded,
    rounded,
    statistics_of,
)
from enos_compiler.semantics.quantizer import value_format

pytest.importorskip("numba")

EPS = 1e-5
FORMAT = ValueFormat(-4, 0, 8, 0, 255)


@pytest.fixture(autouse=True)
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "LEAST", 1)
    monkeypatch.setattr(compiled, "LEAST_PART", 1)


def images(*shape: int, seed: int = 0, mean: float = 0.0) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + mean
    return drawn.contiguous(memory_format=torch.channels_last)


def on_threads(threads: int, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return compute()
    finally:
        torch.set_num_threads(before)


def mixed(x: Tensor, shares: Tensor, formats: Sequence[ValueFormat | None]) -> Tensor:
    """The definition: roundings one by one, weighted."""
    copies = [x if fmt is None else fake_quantize(x, fmt) for fmt in formats]
    parts = [copy * share for copy, share in zip(copies, shares, strict=True)]
    return torch.stack(parts).sum(0)


def off_ties(x: Tensor, formats: list[ValueFormat]) -> Tensor:
    """Where the last bit of x decides no rounding."""
    away = [((x / fmt.scale) % 1 - 0.5).abs() > 0.01 for fmt in formats]
    return torch.stack(away).all(0)


WIDTHS = st.lists(st.integers(2, 8), min_size=1, max_size=3, unique=True)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*(st.integers(2, 9) for _ in range(4))),
    widths=WIDTHS,
    signed=st.booleans(),
    mean=st.sampled_from([0.0, 3.0, -100.0]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_the_definition_is_a_norm_and_then_rounding(
    shape: tuple[int, int, int, int],
    widths: list[int],
    signed: bool,
    mean: float,
    threads: int,
    seed: int,
) -> None:
    x = images(*shape, seed=seed, mean=mean).requires_grad_()
    weight = images(shape[1], 1, 1, 1, seed=seed + 1).flatten().requires_grad_()
    bias = images(shape[1], 1, 1, 1, seed=seed + 2).flatten().requires_grad_()
    shares = torch.softmax(torch.arange(float(len(widths))), 0).requires_grad_()
    behind = images(*shape, seed=seed + 3)
    formats = [value_format((-5.0 if signed else 0.0, 5.0), bits) for bits in widths]
    normed = F.batch_norm(x, None, None, weight, bias, True, eps=EPS)
    expected = mixed(normed, shares, formats)
    learns = (x, weight, bias, *([shares] if len(widths) > 1 else []))  # a single share is 1
    wanted = torch.autograd.grad(expected, learns, behind, retain_graph=True)
    seen: list[Extremes] = []

    def compute() -> list[Tensor]:
        def formats_of(extremes: Callable[[], Extremes]) -> list[ValueFormat]:
            seen.append(extremes())
            return formats

        given = (weight, bias, list(shares), statistics_of(x, extremes=True), EPS)
        found = norm_rounded(x, *given, formats_of)
        return [found, *torch.autograd.grad(found, learns, behind)]

    found, *gradients = on_threads(threads, compute)
    clear = off_ties(normed.detach(), formats)
    torch.testing.assert_close(found[clear], expected[clear], rtol=1e-6, atol=1e-6)
    worst = sum(float(s) * fmt.scale for s, fmt in zip(shares.detach(), formats, strict=True))
    assert float((found - expected).detach().abs().max()) <= 1.001 * worst
    ends = tuple(map(float, normed.detach().aminmax()))
    torch.testing.assert_close(seen[0], ends, rtol=1e-3, atol=1e-3)
    size = [float(theirs.abs().max()) + 1e-3 for theirs in wanted]
    edges = torch.tensor([end for fmt in formats for end in bounds(fmt)])
    if float((normed.detach()[..., None] - edges).abs().min()) > 1e-4:
        for ours, theirs, greatest in zip(gradients[:3], wanted[:3], size[:3], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * greatest)
    if len(widths) > 1:
        fallen = max(fmt.scale for fmt in formats) * float(behind[~clear].abs().sum())
        assert float((gradients[3] - wanted[3]).abs().max()) <= 1e-3 * size[3] + fallen


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(*(st.integers(1, 9) for _ in range(4))),
    widths=WIDTHS,
    as_it_is=st.booleans(),
    threads=st.sampled_from([1, 2]),
)
def test_images_are_rounded_exactly(
    shape: tuple[int, int, int, int],
    widths: list[int],
    as_it_is: bool,
    threads: int,
) -> None:
    x, behind = images(*shape).requires_grad_(), images(*shape, seed=2)
    shares = torch.softmax(torch.arange(float(len(widths))), 0).requires_grad_()
    formats: list[ValueFormat | None] = [value_format((-5.0, 5.0), bits) for bits in widths]
    formats[0] = None if as_it_is and len(widths) > 1 else formats[0]
    single = len(widths) == 1
    inputs = (x, *([] if single else [shares]))

    def compute() -> list[Tensor]:
        found = rounded(x, list(shares), formats)
        return [found, *torch.autograd.grad(found, inputs, behind)]

    ours = on_threads(threads, compute)
    expected = mixed(x, shares, formats)
    theirs = [expected, *torch.autograd.grad(expected, inputs, behind)]
    if single:
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        return
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    greatest = float(theirs[-1].abs().max()) + 1e-3
    torch.testing.assert_close(ours[-1], theirs[-1], rtol=1e-4, atol=1e-4 * greatest)


def test_statistics_of_a_far_mean_are_those_of_float64() -> None:
    x = images(8, 5, 7, 3, mean=1e4)
    found = statistics_of(x, extremes=True)
    exact = x.double().transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(found.mean, exact.mean(1), rtol=1e-7)
    np.testing.assert_allclose(found.variance, exact.var(1), rtol=1e-5)
    np.testing.assert_array_equal(found.least, exact.min(1))
    np.testing.assert_array_equal(found.greatest, exact.max(1))


def test_what_is_undefined_stays_undefined() -> None:
    x = images(4, 3, 5, 5)
    x[0, 1, 2, 3] = torch.nan
    one, none = torch.ones(3), torch.zeros(3)
    found = norm_rounded(
        x, one, none, [1.0], statistics_of(x, extremes=True), EPS, lambda _: [FORMAT]
    )
    assert bool(found[:, 1].isnan().all())
    assert not bool(found[:, [0, 2]].isnan().any())
    assert torch.equal(rounded(x, [1.0], [FORMAT]).isnan(), x.isnan())


def test_a_network_trains_alike_with_and_without(
    small: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TwoWidths:
        def stored(self, value: str) -> dict[int, float]:  # noqa: ARG002
            return {8: 0.7, 4: 0.3}

        def read(self, node: object, value: str) -> None:  # noqa: ARG002
            return None

    batch, _ = digits()
    plain = NetworkModule(small, widths=TwoWidths()).train()
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
