# SPDX-License-Identifier: Apache-2.0
"""A product of figures in the search: its expectation, and that it is held."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import exp

import pytest
import torch
from small_network import build

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.assign.figures import Rates, figures_of
from enos_compiler.assign.solver import Solver
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import load_target
from enos_compiler.frontend.data import Data
from enos_compiler.ir.kernels import extent_of
from enos_compiler.ir.network import Network
from enos_compiler.search.architecture import Architecture, class_of
from enos_compiler.search.energy import expected_energy, unscored
from enos_compiler.search.run import SearchSettings, search


def _small_kernels(scored: Network) -> float:
    """Return the probability of the least kernel, summed over layers."""
    return sum(
        exp(-score)
        for layer in scored.layers.values()
        for choice, score in zip(layer.choices, layer.scores or (), strict=True)
        if extent_of(choice) == 1 and choice.options[-1] == ("rows", 32)
    )


def test_expected_figures_of_a_certain_choice_are_those_of_the_assignment() -> None:
    """Each factor of EDAP, with every layer's probability on one choice per class."""
    target = load_target("isaac")
    network, _ = attach_choices(build(width=6), target, Request(("mac", "bw"), (8,), (8,)))
    cheapest = Solver(unscored(network), target, "edap", 60.0).least()
    rates = figures_of(cheapest, target).tangent("edap")
    architecture = Architecture(network)
    certain = {
        name: torch.tensor([float(one == class_of(layer.choice)) for one in space.classes])
        for (name, space), layer in zip(
            architecture.spaces.items(), cheapest.layers.values(), strict=True
        )
        if layer.choice is not None
    }
    architecture.compute_with(certain)
    wanted = figures_of(cheapest, target)
    for factor in ("energy", "latency", "area"):
        alone = Rates(**({"energy": 0.0} | {factor: 1.0}))
        expected = expected_energy(network, target, alone, rates)(architecture.drawn)
        assert float(expected) == pytest.approx(wanted.of(factor), rel=1e-4)


def test_edap_is_held_by_search_and_assignment(data: Data) -> None:
    target = load_target("isaac")
    request = Request(("mac", "bw"), (8,), (8,), kernels=(1,))
    network, _ = attach_choices(build(width=6), target, request)
    settings = SearchSettings(
        epochs=3,
        pretrain=1,
        budget=Budget.parse("edap:floor+0.05"),
        learning_rate=3e-3,
        architecture_rate=0.3,
        warm_up=0.2,
        seed=0,
        folder=None,
        say=lambda _: None,
    )
    scored, section = search(network, data, target, settings)
    free, _ = search(network, data, target, replace(settings, budget=Budget.parse("unlimited")))
    found = solve_assignment(scored, target, settings.budget, 60.0)
    assert found.summary["measure"]["value"] <= found.summary["measure"]["allowed"]
    assert section["budget_pj"] is None
    assert section["epochs"][-1]["figures"]["lambda"] > 0
    assert _small_kernels(scored) > _small_kernels(free) + 0.1


def test_crossbar_sizes_differ_by_their_noise() -> None:
    """Of one arithmetic, the score of each size is its array's noise above the least."""
    target = load_target("isaac")
    network, _ = attach_choices(build(width=6), target, Request(("mac",), (8,), (8,)))
    architecture = Architecture(network)
    layer = network.layers["c2"]
    noise = {
        name: tuple(0.001 * row for row in range(len(one.choices)))
        for name, one in network.layers.items()
    }
    architecture.expect(noise, 10.0)
    scores = architecture.scores(layer)
    steps = [after - before for before, after in pairwise(scores)]
    assert steps == pytest.approx([0.01] * len(steps), rel=1e-3)
    assert architecture.scores(layer)[0] == pytest.approx(0.0, abs=1e-6)
