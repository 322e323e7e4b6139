# SPDX-License-Identifier: Apache-2.0
"""The example's default budget asks for more than one operator and core, by arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.cores.accounting import energy_pj
from enos_compiler.cores.target import Target, load_target
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import load_user_model
from enos_compiler.ir import Choice, Layer, Network
from enos_compiler.options import Options
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pipeline

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("hybrid")


@pytest.fixture(scope="module")
def network(target: Target) -> Network:
    """The example with the choices that its default pipeline attaches."""
    user = load_user_model(str(DIGITS))
    steps = Options().pipeline(can_train=True).split(",search")[0]
    attached = Pipeline(parse_passes(steps)).run(trace(user), Context(target=target, user=user))
    return _among(attached, lambda _choice: True)


def _among(network: Network, keep: Callable[[Choice], bool]) -> Network:
    """Return the network with some of its choices, all of equal score."""
    changed: dict[str, Layer] = {}
    for name, layer in network.layers.items():
        kept = [i for i, choice in enumerate(layer.choices) if keep(choice)]
        changed[name] = replace(
            layer,
            choices=tuple(layer.choices[i] for i in kept),
            costs=tuple(layer.costs[i] for i in kept),
            programming=tuple(layer.programming[i] for i in kept),
            scores=(0.0,) * len(kept),
        )
    return replace(network.with_layers(changed), facts=network.facts | {"scored"})


def _floor_pj(network: Network, target: Target) -> float:
    """Return the energy of the cheapest feasible network, by the integer program."""
    summary = solve_assignment(network, target, Budget.parse("floor"), 60.0).summary
    floor_pj: float = summary["floor_pj"]
    return floor_pj


def _least_pj(layer: Layer, operator: str, core: str, target: Target) -> float:
    """Return the least energy of a layer with an operator on a core, its share of the set-up in."""
    share = 1 / target.inferences_per_programming
    return min(
        energy_pj(cost, target) + energy_pj(programming, target) * share
        for choice, cost, programming in zip(
            layer.choices, layer.costs, layer.programming, strict=True
        )
        if choice.operator == operator and choice.core == core
    )


def test_the_default_budget_needs_two_operators_and_two_cores(
    network: Network, target: Target
) -> None:
    """By arithmetic some inner layer is neither mac nor shift, and crossbars do it for less.

    Converters are lossless, so a layer's accuracy is its operator's on either core, and the least
    energy decides between them.
    """
    whole = solve_assignment(network, target, Budget.parse("floor+0.5"), 60.0).summary
    budget_pj = whole["budget_pj"]
    all_mac = _floor_pj(_among(network, lambda choice: choice.operator == "mac"), target)
    wide = _floor_pj(_among(network, lambda choice: choice.operator in ("mac", "shift")), target)
    assert budget_pj < wide <= all_mac <= whole["baseline_pj"]
    for layer in network.layers.values():
        if not layer.first_or_last:
            for operator in ("bw", "xnor", "mf", "ef"):
                assert _least_pj(layer, operator, "xbar", target) < (
                    _least_pj(layer, operator, "mac", target)
                )
            assert _least_pj(layer, "mac", "mac", target) < _least_pj(layer, "mac", "xbar", target)


def test_crossbars_alone_cannot_hold_the_example(network: Network) -> None:
    """First and last layers are mac at 8 bits on the baseline core: one core is digital."""
    ends = [layer for layer in network.layers.values() if layer.first_or_last]
    assert len(ends) == 2
    assert all({c.core for c in layer.choices} == {"mac"} for layer in ends)
