# SPDX-License-Identifier: Apache-2.0
"""Budgets of other figures than energy, against every assignment of a small network."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from math import isclose

import pytest
from small_network import build

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.assign.figures import figures_of
from enos_compiler.assign.solver import score_of
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import Target, load_target
from enos_compiler.errors import InfeasibleError, UsageError
from enos_compiler.ir.network import Network


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("isaac")


@pytest.fixture(scope="module")
def offered(target: Target) -> Network:
    """Two layers with four crossbar sizes and one copy each; scores at random."""
    network, _ = attach_choices(build(width=8), target, Request(("mac",), (8,), (8,)))
    draws = random.Random(3)
    layers = {}
    for name, layer in network.layers.items():
        kept = [i for i, c in enumerate(layer.choices) if "copies" not in dict(c.options)]
        kept = kept[:1] if layer.first_or_last else kept
        layers[name] = replace(
            layer,
            choices=tuple(layer.choices[i] for i in kept),
            costs=tuple(layer.costs[i] for i in kept),
            programming=tuple(layer.programming[i] for i in kept),
            scores=tuple(draws.random() for _ in kept),
        )
    return replace(network.with_layers(layers), facts=network.facts | {"scored"})


def every(network: Network) -> list[Network]:
    names = list(network.layers)
    found = []
    for rows in product(*(network.layers[name].choices for name in names)):
        layers = {
            name: replace(network.layers[name], choice=choice)
            for name, choice in zip(names, rows, strict=True)
        }
        found.append(network.with_layers(layers))
    return found


@pytest.mark.parametrize("measure", ["latency", "area", "memory"])
def test_single_figures_are_exact(offered: Network, target: Target, measure: str) -> None:
    networks = every(offered)
    values = {i: figures_of(n, target).of(measure) for i, n in enumerate(networks)}
    found = solve_assignment(offered, target, Budget.parse(f"{measure}:floor+0.3"), 60.0)
    said = found.summary["measure"]
    assert isclose(said["floor"], min(values.values()), rel_tol=1e-9)
    within = [n for i, n in enumerate(networks) if values[i] <= said["allowed"] * (1 + 1e-9)]
    assert isclose(score_of(found.network), min(map(score_of, within)), abs_tol=1e-9)
    assert said["value"] <= said["allowed"] * (1 + 1e-12)


@pytest.mark.parametrize("measure", ["edp", "edap"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_products_stay_within_their_bound_and_near_the_best(
    offered: Network, target: Target, measure: str, share: float
) -> None:
    """The floor is the least of all; the score lies in the best tenth of what the bound admits."""
    networks = every(offered)
    values = [figures_of(n, target).of(measure) for n in networks]
    found = solve_assignment(offered, target, Budget.parse(f"{measure}:floor+{share}"), 60.0)
    said = found.summary["measure"]
    assert isclose(said["floor"], min(values), rel_tol=1e-9)
    assert said["value"] <= said["allowed"]
    assert found.summary["budget_pj"] is None
    within = sorted(
        score_of(n) for n, v in zip(networks, values, strict=True) if v <= said["allowed"]
    )
    assert score_of(found.network) <= within[len(within) // 10] + 1e-9


def test_area_counts_the_arrays_of_every_layer(offered: Network, target: Target) -> None:
    core = target.cores["xbar"]
    one = every(offered)[0]
    area = sum(core.held_um2(layer, layer.choice) for layer in one.layers.values())  # type: ignore[attr-defined]
    assert figures_of(one, target).area == pytest.approx(area)
    whole = sum(size.count.value for size in core.spec.sizes)  # type: ignore[attr-defined]
    assert 0 < area < core.area_um2() / whole * 1000


def test_all_arrays_make_up_the_core(target: Target) -> None:
    from enos_compiler.cores.crossbar_prices import array_um2

    core = target.cores["xbar"]
    arrays = sum(
        size.count.value * array_um2(core.spec, size, core.chip.arithmetic)  # type: ignore[attr-defined]
        for size in core.spec.sizes  # type: ignore[attr-defined]
    )
    buffers = core.spec.input_buffer.area_um2.value  # type: ignore[attr-defined]
    assert arrays + buffers == pytest.approx(core.area_um2())


def test_a_chip_without_arrays_has_no_area_to_bind() -> None:
    target = load_target("digital")
    network, _ = attach_choices(build(width=6), target, Request(("mac",), (8,), (8,)))
    layers = {n: replace(x, scores=(0.0,) * len(x.choices)) for n, x in network.layers.items()}
    with pytest.raises(UsageError) as caught:
        solve_assignment(network.with_layers(layers), target, Budget.parse("edap:0.9"), 60.0)
    assert str(caught.value) == (
        "budget: area is 0 for small on digital, and so is edap\n"
        "  try: a measure without it, such as edp"
    )


def test_a_bound_below_the_least_says_so(offered: Network, target: Target) -> None:
    with pytest.raises(InfeasibleError, match="is below the least edp"):
        solve_assignment(offered, target, Budget.parse("edp:0.001"), 60.0)


@pytest.mark.parametrize("text", ["edap:12uJ", "edp:baseline", "power:0.6"])
def test_what_no_measure_takes_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a budget"):
        Budget.parse(text)


def test_energy_may_be_named() -> None:
    named, plain = Budget.parse("energy:0.6"), Budget.parse("0.6")
    assert (named.measure, named.kind, named.value) == (plain.measure, plain.kind, plain.value)
    assert str(named) == "energy:0.6"
