# SPDX-License-Identifier: Apache-2.0
"""Kernel extents as choices: the grown network is the user's, the fitted one the chosen kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_network import build

from enos_compiler.assign.assignment import price, solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.compiler import compile as compile_network
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import load_target
from enos_compiler.errors import UsageError
from enos_compiler.frontend.data import Data
from enos_compiler.ir.kernels import extent_of, fitted, grown
from enos_compiler.ir.network import Network
from enos_compiler.ir.verify import verify
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.run import SearchSettings, search


@pytest.fixture
def attached() -> Network:
    request = Request(("mac",), (8,), (8,), kernels=(3, 5, 7))
    return attach_choices(build(width=6), load_target("digital"), request)[0]


def run(network: Network) -> torch.Tensor:
    found = NetworkModule(network).eval()(network.example_inputs[0])
    assert isinstance(found, torch.Tensor)
    return found


def scored(network: Network, wanted: dict[str, int]) -> Network:
    """Score the wanted extent of each layer best."""
    layers = {
        name: replace(
            layer,
            scores=tuple(float(extent_of(c) != wanted.get(name, 0)) for c in layer.choices),
        )
        for name, layer in network.layers.items()
    }
    return replace(network.with_layers(layers), facts=network.facts | {"scored"})


def test_grown_network_computes_the_same() -> None:
    network = build(width=6)
    bigger = grown(network, {"c2": 7, "c3": 5})
    assert bigger.tensor("c2_weight").shape[2:] == (7, 7)
    assert bigger.layers["c3"].shape.padding == (2, 2, 2, 2)
    assert torch.allclose(run(bigger), run(network), atol=1e-5)
    assert network.tensor("c2_weight").shape[2:] == (3, 3)
    verify(bigger, "grown")


def test_choices_name_extents_the_user_s_own_first_and_dearer_ones_cost_more(
    attached: Network,
) -> None:
    for name in ("c2", "c3"):
        layer = attached.layers[name]
        extents = [extent_of(choice) for choice in layer.choices]
        assert list(dict.fromkeys(extents)) == [3, 5, 7]
        macs = [sum(cost.events.values()) for cost in layer.costs]
        assert macs == sorted(macs)
        assert macs[0] < macs[-1]
    assert all(extent_of(c) == 0 for c in attached.layers["c1"].choices)


def test_prices_are_those_of_the_layer_with_that_kernel() -> None:
    target = load_target("digital")
    plain, _ = attach_choices(build(width=6), target, Request(("mac",), (8,), (8,)))
    several, _ = attach_choices(build(width=6), target, Request(("mac",), (8,), (8,), kernels=(7,)))
    own = [c for c in several.layers["c2"].choices if extent_of(c) == 3]
    assert [several.layers["c2"].cost_of(c) for c in own] == list(plain.layers["c2"].costs)


def test_baseline_keeps_the_user_s_kernels(attached: Network) -> None:
    plain = attach_choices(build(width=6), load_target("digital"), Request(("mac",), (8,), (8,)))[0]
    budget = Budget.parse("baseline")
    target = load_target("digital")
    whole = solve_assignment(attached, target, budget, 60.0)
    assert whole.summary["baseline_pj"] == pytest.approx(
        solve_assignment(plain, target, budget, 60.0).summary["baseline_pj"]
    )
    assert torch.allclose(run(whole.network), run(plain), atol=1e-5)


def test_assigned_network_has_the_chosen_kernels(attached: Network) -> None:
    with torch.no_grad():
        attached.tensor("c2_weight").normal_()
    target = load_target("digital")
    wanted = scored(attached, {"c2": 5, "c3": 3})
    found = solve_assignment(wanted, target, Budget.parse("unlimited"), 60.0).network
    assert found.layers["c2"].shape.r == 5
    assert found.layers["c3"].shape.r == 3
    assert torch.equal(found.tensor("c2_weight"), attached.tensor("c2_weight")[:, :, 1:6, 1:6])
    assert all(layer.choice and not extent_of(layer.choice) for layer in found.layers.values())
    verify(replace(found, facts=found.facts | {"assigned"}), "assign")
    assert fitted(found) is found
    again, _ = attach_choices(found, target, Request(("mac",), (8,), (8,)))
    fresh = solve_assignment(again, target, Budget.parse("baseline"), 60.0).network
    assert price(found, target).energy_pj == pytest.approx(price(fresh, target).energy_pj)


@pytest.mark.parametrize("extent", [0, 4])
def test_extents_without_a_middle_are_refused(extent: int) -> None:
    request = Request(("mac",), (8,), (8,), kernels=(3, extent))
    with pytest.raises(UsageError, match=f"{extent} is no odd kernel extent"):
        attach_choices(build(width=6), load_target("digital"), request)


def test_search_learns_extents_within_the_budget(data: Data, tmp_path: Path) -> None:
    target = load_target("digital")
    request = Request(("mac", "shift"), (8, 4), (8,), kernels=(3, 5))
    network, _ = attach_choices(build(width=6), target, request)
    budget = Budget.parse("floor+0.6")
    settings = SearchSettings(
        epochs=2,
        pretrain=0,
        budget=budget,
        learning_rate=3e-3,
        architecture_rate=0.2,
        warm_up=0.2,
        seed=0,
        folder=tmp_path,
        say=lambda _: None,
    )
    found, section = search(network, data, target, settings)
    labels = section["epochs"][-1]["shares"]["c2"]
    assert any("3x3" in label for label in labels)
    assert any("5x5" in label for label in labels)
    assert found.tensor("c2_weight")[:, :, 0].abs().sum() > 0
    assigned = solve_assignment(found, target, budget, 60.0)
    assert price(assigned.network, target).energy_pj <= assigned.summary["budget_pj"]
    assert torch.isfinite(run(assigned.network)).all()


def test_sensitivity_scores_an_extent_that_cuts_weights_away(attached: Network) -> None:
    from enos_compiler.assign.sensitivity import score_layers

    with torch.no_grad():
        attached.tensor("c2_weight").normal_()
    layer = score_layers(attached, images=8, seed=0).layers["c2"]
    assert layer.scores is not None
    by_extent = {extent_of(c): s for c, s in zip(layer.choices, layer.scores, strict=True)}
    assert by_extent[3] > by_extent[5] > by_extent[7]


def test_compiled_network_runs_with_its_chosen_kernels() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )
    compiled = compile_network(
        module,
        (torch.rand(4, 1, 8, 8),),
        target="digital",
        search="sensitivity",
        budget="unlimited",
        kernels=(1, 5),
    )
    assert compiled.report["checks"]["onnx_max_steps"] == 0
    assert compiled.report["checks"]["simulator_max_steps"] == 0
