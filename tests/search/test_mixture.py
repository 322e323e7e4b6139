# SPDX-License-Identifier: Apache-2.0
"""A mixture against its candidates run one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_network import offer

from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Network
from enos_compiler.search.architecture import Architecture, SearchedWidths
from enos_compiler.search.forms import Call, branch_sum
from enos_compiler.search.mixture import REFRESH, BranchMixture, FoldedMixture
from enos_compiler.search.module import NetworkModule

BRANCHES = (("mac", 8, 8), ("mac", 4, 4), ("bw", 8, 1), ("mf", 8, 4))


def a_call(network: Network) -> Call:
    layer = network.layers["c2"]
    node = next(n for n in network.graph.graph.nodes if n.name == "c2")
    x = torch.rand(4, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    rounding = {8: 1 / 256, 4: 1 / 16}
    return Call(
        layer=layer,
        product=lambda *tensors: node.target(*tensors, **node.kwargs),
        inputs=(x,),
        weight=network.tensor("c2_weight"),
        bias=None,
        gain=None,
        read_format=lambda _value, bits: ValueFormat(-bits, 0, bits),
        read=lambda _value, bits: (x / rounding[bits]).round() * rounding[bits],
    )


def test_mixture_is_the_weighted_sum_of_its_branches(small: Network) -> None:
    call = a_call(small)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    mixed = BranchMixture(BRANCHES, rescale=False).mix(call, weights)
    pairs = zip(weights, BRANCHES, strict=True)
    one_by_one = sum(w * branch_sum(call, b, fold=False) for w, b in pairs)
    torch.testing.assert_close(mixed, one_by_one)


def test_rescaled_branches_have_the_deviation_of_the_first(small: Network) -> None:
    call = a_call(small)
    mixture = BranchMixture(BRANCHES, rescale=True)
    with torch.no_grad():
        deviations = [float(mixture.mix(call, row).std()) for row in torch.eye(len(BRANCHES))]
    torch.testing.assert_close(torch.tensor(deviations), torch.full((4,), deviations[0]))


@pytest.mark.parametrize("rescale", [False, True])
def test_folded_mixture_is_the_plain_one(small: Network, *, rescale: bool) -> None:
    """Outputs and the gradients of weights and probabilities, with freshly measured scales."""
    results = []
    for mixture in (
        BranchMixture(BRANCHES, rescale=rescale),
        FoldedMixture(
            BRANCHES, rescale=rescale, scales=torch.ones(len(BRANCHES)), age=torch.tensor(-1)
        ),
    ):
        call = a_call(small)
        weight = small.tensor("c2_weight").detach().clone().requires_grad_()
        shares = torch.tensor([0.4, 0.3, 0.2, 0.1], requires_grad=True)
        mixed = mixture.mix(replace(call, weight=weight), shares)
        mixed.square().sum().backward()  # type: ignore[no-untyped-call]
        results.append((mixed.detach(), weight.grad, shares.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_folded_mixture_measures_scales_only_while_it_trains(small: Network) -> None:
    call, shares = a_call(small), torch.full((4,), 0.25)
    scales, age = torch.ones(4), torch.tensor(-1)
    mixture = FoldedMixture(BRANCHES, rescale=True, scales=scales, age=age)
    with torch.no_grad():
        mixture.mix(call, shares)
    assert scales.tolist() == [1, 1, 1, 1]
    mixture.mix(call, shares)
    assert scales[0] == 1
    assert (scales[1:] != 1).all()
    measured = scales.clone()
    weight = small.tensor("c2_weight") ** 3
    for _ in range(REFRESH - 1):
        mixture.mix(replace(call, weight=weight), shares)
    assert torch.equal(scales, measured)
    mixture.mix(replace(call, weight=weight), shares)
    assert not torch.equal(scales, measured)


def test_gradient_of_a_probability_is_its_branch(small: Network) -> None:
    call = a_call(small)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], requires_grad=True)
    BranchMixture(BRANCHES, rescale=False).mix(call, weights).sum().backward()  # type: ignore[no-untyped-call]
    expected = [float(branch_sum(call, b, fold=False).detach().sum()) for b in BRANCHES]
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, torch.tensor(expected), rtol=1e-4, atol=1e-2)


def test_candidates_that_compute_the_same_share_a_branch(small: Network) -> None:
    """Classes that differ in the output width alone need one convolution."""
    network = offer(small, ("mac", "shift"), (8, 4))
    space = Architecture(network).spaces["c2"]
    assert len(space.classes) == 12
    assert sorted(space.mixture.branches) == [
        ("mac", 4, 4),
        ("mac", 4, 8),
        ("mac", 8, 4),
        ("mac", 8, 8),
        ("shift", 4, 4),
        ("shift", 8, 4),
    ]


def test_searched_network_trains_weights_and_architecture(small: Network) -> None:
    network = offer(small, ("mac", "mf", "shift"), (8, 4))
    architecture = Architecture(network)
    module = NetworkModule(network, architecture.forms(), SearchedWidths(architecture)).train()
    module(small.example_inputs[0]).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in architecture.free)
    assert all(p.grad is not None for p in module.parameters())
