# SPDX-License-Identifier: Apache-2.0
"""The composite layer against its candidates run one by one, outputs and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import offer
from torch import Tensor

from enos_compiler import plugins
from enos_compiler.ir import ops
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.kernels import inside
from enos_compiler.ir.network import Layer, Network
from enos_compiler.search.architecture import Architecture, SearchedWidths
from enos_compiler.search.forms import Call, branch_sum
from enos_compiler.search.mixture import (
    REFRESH,
    BranchMixture,
    CompositeMixture,
    Shares,
)
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.tables import (
    ENTRIES,
    REACH,
    RESOLUTION,
    Candidate,
    bank,
    is_tabulated,
)

CANDIDATES: tuple[Candidate, ...] = (
    ("mac", 8, 0),
    ("mac", 4, 3),
    ("mac", 2, 0),
    ("bw", 1, 0),
    ("mf", 8, 0),
    ("mf", 4, 5),
    ("ef", 3, 3),
    ("shift", 4, 0),
    ("xnor", 1, 3),
)
ROUNDING = {8: 1 / 256, 4: 1 / 16}


def a_call(x: Tensor, weight: Tensor, **attributes: Any) -> Call:
    """A convolution of `x`, or a linear layer where the weight has two axes."""
    axes = weight.dim() - 2
    if axes:
        bound = {
            "stride": (1,) * axes,
            "padding": (weight.shape[-1] // 2,) * (2 * axes),
            "dilation": (1,) * axes,
            "groups": 1,
        } | attributes
        compute: Any = ops.FUNCTIONS["conv"]
    else:
        bound, compute = {}, ops.FUNCTIONS["linear"]
    layer = Layer("layer", "conv" if axes else "linear", ("x",), "y", weight="w")
    return Call(
        layer=layer,
        product=lambda *tensors: compute(*tensors, **bound),
        attributes=bound,
        inputs=(x,),
        weight=weight,
        bias=None,
        gain_of=lambda: None,
        read_format=lambda _value, bits: ValueFormat(-bits, 0, bits),
        read=lambda _value, bits: (x / ROUNDING[bits]).round() * ROUNDING[bits],
        read_mixed=lambda value, shares: rounded_mix(x, value, shares),
    )


def rounded_mix(x: Tensor, value: str, shares: Mapping[int, Tensor]) -> Tensor:
    parts = [rounded(x, value, bits) * share for bits, share in shares.items()]
    return torch.stack(parts).sum(0)


def straight_through(x: Tensor, bits: int) -> Tensor:
    return x + ((x / ROUNDING[bits]).round() * ROUNDING[bits] - x).detach()


def composite(
    candidates: tuple[Candidate, ...], inputs: tuple[int, ...] = (8,), **options: Any
) -> CompositeMixture:
    return CompositeMixture(
        candidates,
        inputs,
        rescale=options.get("rescale", False),
        scales=options.get("scales", torch.ones(len(candidates))),
        age=torch.tensor(-1),
    )


def rounded(x: Tensor, _value: str, bits: int) -> Tensor:
    """Return x on the grid of a width, straight-through."""
    return x + ((x / ROUNDING[bits]).round() * ROUNDING[bits] - x).detach()


def naive_forms(weight: Tensor, candidate: Candidate) -> tuple[Tensor, Tensor]:
    """A and B of one candidate: its table read weight by weight, its slopes as surrogates."""
    operator, bits, kernel = candidate
    middle, margins = inside(weight, kernel)
    rows = bank(((operator, bits),)).rows.view(6, ENTRIES)
    flat = middle.detach().flatten(1)
    rms = flat.square().mean(1).sqrt().view(-1, *(1,) * (weight.dim() - 1))
    code = ((middle.detach() / rms + REACH) * RESOLUTION).floor().clamp(0, ENTRIES - 1).long()
    values = [rows[2 * part][code] * rms**power for part, power in ((0, 1), (2, 2), (1, 1))]
    slopes = [
        rows[2 * part + 1][code] * rms ** (power - 1) for part, power in ((0, 1), (2, 2), (1, 1))
    ]
    forms = []
    for value, slope in ((values[0], slopes[0]), (values[1] + values[2], slopes[1] + slopes[2])):
        form = value + slope * (middle - middle.detach())
        forms.append(torch.nn.functional.pad(form, margins) if margins else form)
    return forms[0], forms[1]


def naive(call: Call, candidates: tuple[Candidate, ...], shares: Shares) -> Tensor:
    """Every (candidate, input width) as a branch of its own; one sign, of the widest copy."""
    assert call.weight is not None
    signs = torch.sign(call.read("x", 8).detach())
    total: Tensor | int = 0
    for bits, share in zip((8, 4), shares.inputs, strict=False):
        x = call.read("x", bits)
        for candidate, probability in zip(candidates, shares.candidates, strict=True):
            a, b = naive_forms(call.weight, candidate)
            branch = call.product(x, a, None) + call.product(signs, b, None)
            total = total + share * probability * branch
    assert isinstance(total, Tensor)
    return total


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "square": ((4, 6, 9, 9), (5, 6, 5, 5), {}),
    "strided": ((4, 6, 9, 9), (5, 6, 5, 5), {"stride": (2, 2)}),
    "grouped": ((4, 6, 9, 9), (6, 3, 5, 5), {"groups": 2}),
    "depthwise": ((4, 6, 9, 9), (6, 1, 5, 5), {"groups": 6}),
    "lopsided": ((4, 6, 9, 9), (5, 6, 5, 5), {"padding": (1, 1, 2, 2)}),
    "one axis": ((4, 6, 9), (5, 6, 5), {}),
    "linear": ((4, 6), (5, 6), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_composite_is_the_naive_sum_of_branches(case: str) -> None:
    """Outputs and gradients within 1e-5 of the greatest entry; inputs of two widths mixed."""
    extents, kernel, attributes = CASES[case]
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(extents, generator=generator).sub(0.3).clamp(min=0)
    kernel_values = 0.2 * torch.randn(kernel, generator=generator)
    candidates = CANDIDATES if len(kernel) > 2 else tuple((o, b, 0) for o, b, _ in CANDIDATES)
    weights = torch.rand(len(candidates), generator=generator)
    upstream: Tensor | None = None
    results = []
    for compute in (composite(candidates, (8, 4)).mix, None):
        x = image.clone().requires_grad_()
        weight = kernel_values.clone().requires_grad_()
        probabilities = weights.clone().requires_grad_()
        inputs = torch.tensor([0.7, 0.3], requires_grad=True)
        call = a_call(x, weight, **attributes)
        call = replace(call, read=partial(rounded, x))
        shares = Shares(probabilities, inputs)
        mixed = compute(call, shares) if compute else naive(call, candidates, shares)
        if upstream is None:
            upstream = torch.randn(mixed.shape, generator=generator)
        mixed.backward(upstream)  # type: ignore[no-untyped-call]
        results.append([mixed.detach(), x.grad, weight.grad, probabilities.grad])
    for one, other in zip(*results, strict=True):
        assert one is not None
        assert other is not None
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)


@settings(deadline=None, max_examples=20)
@given(
    operator=st.sampled_from(["mac", "bw", "shift", "mf", "ef", "xnor"]),
    rms=st.sampled_from([0.03, 0.1, 0.4]),
    seed=st.integers(0, 5),
)
def test_tables_are_the_operators_own_forms(operator: str, rms: float, seed: int) -> None:
    """For normal channels at each width; an operator fits its scale to the very channel."""
    weight = rms * torch.randn(4, 512, generator=torch.Generator().manual_seed(seed))
    made = plugins.load("operators", operator)()
    assert is_tabulated(operator)
    for bits in made.weight_bits:
        forms = naive_forms(weight, (operator, bits, 0))
        for mine, own in zip(forms, made.weight_forms(weight, bits), strict=True):
            if own is None:
                assert mine.abs().max() == 0
                continue
            error = (mine - own).square().mean().sqrt() / own.square().mean().sqrt()
            assert error < {2: 0.45, 3: 0.3, 4: 0.2}.get(bits, 0.16), (bits, error)


def test_half_the_batch_estimates_the_gradient_of_signs_without_bias() -> None:
    """The mean of the estimates from both halves is the gradient from all rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 6, 6, generator=generator).sub(0.4).clamp(min=0)
    upstream = torch.randn(4, 5, 6, 6, generator=generator)
    gradients = []
    for rows in (None, slice(0, 2), slice(2, 4)):
        weight = torch.randn(
            5, 3, 3, 3, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        mixture = composite((("mac", 8, 0), ("xnor", 1, 0)))
        mixture.sign_rows = rows
        shares = Shares(torch.tensor([0.5, 0.5]), torch.ones(1))
        mixture.mix(a_call(x, weight), shares).backward(upstream)  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        gradients.append(weight.grad)
    torch.testing.assert_close((gradients[1] + gradients[2]) / 2, gradients[0])
    assert not torch.allclose(gradients[1], gradients[0])


def test_improbable_signs_are_left_out() -> None:
    x, weight = torch.rand(2, 3, 6, 6), torch.randn(5, 3, 3, 3)
    mixture = composite((("mac", 8, 0), ("bw", 1, 0), ("xnor", 1, 0)))
    call = a_call(x, weight)
    for share, same in ((0.009, True), (0.02, False)):
        shares = torch.tensor([0.5, 0.5 - share, share])
        plain = shares * torch.tensor([1.0, 1.0, 0.0])
        mixed = mixture.mix(call, Shares(shares, torch.ones(1)))
        without = mixture.mix(call, Shares(plain, torch.ones(1)))
        assert torch.equal(mixed, without) is same


def test_scales_give_every_candidate_the_first_ones_deviation() -> None:
    x = torch.rand(8, 6, 9, 9, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(5, 6, 3, 3, generator=torch.Generator().manual_seed(2))
    candidates = tuple((o, b, 0) for o, b, _ in CANDIDATES)
    mixture = composite(candidates, rescale=True)
    call = a_call(x, weight)
    mixture.mix(call, Shares(torch.full((9,), 1 / 9), torch.ones(1)))
    deviations = []
    for row in torch.eye(9):
        with torch.no_grad():
            deviations.append(float(mixture.mix(call, Shares(row, torch.ones(1))).std()))
    torch.testing.assert_close(torch.tensor(deviations), torch.full((9,), deviations[0]))


def test_scales_are_measured_only_while_it_trains_and_not_at_every_step() -> None:
    x = torch.rand(8, 6, 9, 9, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(5, 6, 3, 3, generator=torch.Generator().manual_seed(2))
    mixture = composite((("mac", 8, 0), ("mf", 4, 0)), rescale=True)
    shares = Shares(torch.full((2,), 0.5), torch.ones(1))
    with torch.no_grad():
        mixture.mix(a_call(x, weight), shares)
    assert mixture.scales.tolist() == [1, 1]
    mixture.mix(a_call(x, weight), shares)
    measured = mixture.scales.clone()
    assert measured[0] == 1
    assert measured[1] != 1
    changed = a_call(x, weight**3)
    for _ in range(REFRESH - 1):
        mixture.mix(changed, shares)
    assert torch.equal(mixture.scales, measured)
    mixture.mix(changed, shares)
    assert not torch.equal(mixture.scales, measured)


def test_activation_product_is_the_weighted_sum_of_its_branches(small: Network) -> None:
    left, right = torch.rand(2, 3, 4), torch.rand(2, 4, 5)
    operands = {"l": left, "r": right}
    call = replace(
        a_call(left, torch.ones(2, 2)),
        layer=Layer("m", "matmul", ("l", "r"), "y"),
        product=torch.matmul,
        inputs=(left, right),
        weight=None,
        read=lambda v, bits: (operands[v] / ROUNDING[bits]).round() * ROUNDING[bits],
    )
    branches = (("mac", 8, 8), ("mac", 4, 8))
    shares = torch.tensor([0.6, 0.4])
    mixed = BranchMixture(branches).mix(call, Shares(shares, torch.ones(1)))
    one_by_one = sum(p * branch_sum(call, b) for p, b in zip(shares, branches, strict=True))
    torch.testing.assert_close(mixed, one_by_one)


def test_candidates_that_compute_the_same_are_one(small: Network) -> None:
    """Classes that differ in the widths of values alone need one weight."""
    network = offer(small, ("mac", "shift"), (8, 4))
    space = Architecture(network).spaces["c2"]
    assert len(space.classes) == 12
    assert isinstance(space.mixture, CompositeMixture)
    assert space.mixture.candidates == (("mac", 8, 0), ("mac", 4, 0), ("shift", 4, 0))
    assert space.mixture.input_bits == (8, 4)
    drawn = torch.softmax(torch.arange(12.0), 0)
    shares = space.shares(drawn)
    for row, candidate in enumerate(space.mixture.candidates):
        alike = [
            c.operator == candidate[0] and c.bits.weight == candidate[1] for c in space.classes
        ]
        assert float(shares.candidates[row]) == pytest.approx(float(drawn[alike].sum()))
    narrow = [c.bits.input == 4 for c in space.classes]
    assert float(shares.inputs[1]) == pytest.approx(float(drawn[narrow].sum()))


def test_searched_network_trains_weights_and_architecture(small: Network) -> None:
    network = offer(small, ("mac", "mf", "shift"), (8, 4))
    architecture = Architecture(network)
    module = NetworkModule(network, architecture.forms(), SearchedWidths(architecture)).train()
    module(small.example_inputs[0]).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in architecture.free)
    assert all(p.grad is not None for p in module.parameters())


ADDERS: tuple[Candidate, ...] = (("mac", 8, 0), ("adder", 4, 0), ("adder", 3, 0), ("adder", 2, 0))


def gradients(shares: Shares) -> list[Tensor]:
    """Output of a linear layer with adders, and gradients of weight and probabilities."""
    draws = torch.Generator().manual_seed(4)
    x, weight = torch.rand(4, 6, generator=draws), torch.randn(5, 6, generator=draws)
    weight.requires_grad_()
    scales = torch.tensor([1.0, 0.3, 0.2, 0.1])
    output = composite(ADDERS, scales=scales).mix(a_call(x, weight), shares)
    upstream = torch.randn(output.shape, generator=draws)
    return [output.detach(), *torch.autograd.grad(output, (weight, shares.candidates), upstream)]


def leaf(*values: float) -> Tensor:
    return torch.tensor(values).requires_grad_()


def sum_of_all() -> list[Tensor]:
    """What every adder by itself adds up to: a mixture of each with nothing of the others."""
    probabilities = (0.4, 0.3, 0.2, 0.1)
    base = gradients(Shares(leaf(probabilities[0], 0.0, 0.0, 0.0), leaf(1.0), torch.ones(4)))
    total = [base[0], base[1], torch.zeros(4)]
    total[2][0] = base[2][0]
    for k in (1, 2, 3):
        only = [0.0] * 4
        only[k] = probabilities[k]
        found = gradients(Shares(leaf(*only), leaf(1.0), torch.ones(4)))
        total[0] = total[0] + found[0]
        total[1] = total[1] + found[1]
        total[2][k] = found[2][k]
    return total


def test_one_drawn_adder_stands_for_all_without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    odds = torch.tensor([0.3, 0.2, 0.1]) / 0.6
    mean: list[Tensor] | None = None
    for k in range(3):
        monkeypatch.setattr(torch, "multinomial", lambda *_, k=k: torch.tensor([k]))
        found = gradients(Shares(leaf(0.4, 0.3, 0.2, 0.1), leaf(1.0)))
        weighed = [part * odds[k] for part in found]
        mean = weighed if mean is None else [a + b for a, b in zip(mean, weighed, strict=True)]
    assert mean is not None
    for ours, theirs in zip(mean, sum_of_all(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_drawn_candidate_runs_alone_and_tells_of_itself_without_bias() -> None:
    """On average over drawings, an adder's probability hears what it would were it always run."""
    odds = torch.tensor([0.4, 0.3, 0.2, 0.1])
    for k in (1, 2, 3):
        one = [float(row == k) for row in range(4)]
        found = gradients(Shares(leaf(*one), leaf(1.0), odds))
        always = gradients(Shares(leaf(*one), leaf(1.0), torch.ones(4)))
        torch.testing.assert_close(found[0], always[0])
        torch.testing.assert_close(found[1], always[1])
        assert float(found[2][k] * odds[k]) == pytest.approx(float(always[2][k]), rel=1e-4)
        others = [row for row in (1, 2, 3) if row != k]
        assert not bool(found[2][others].any())
    mac = gradients(Shares(leaf(1.0, 0.0, 0.0, 0.0), leaf(1.0), odds))
    assert not bool(mac[2][1:].any())
