# SPDX-License-Identifier: Apache-2.0
"""The assignment equals enumeration, follows the budget, and explains what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_network import TinyCore, TinyTarget, attach, layer, network

from enos_compiler.assign import core_problem, milp
from enos_compiler.assign.assignment import price, solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.cores.target import Target
from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Layer, Network, Vector

WIDTHS = [Bits(8, 8, 8), Bits(8, 4, 4), Bits(4, 4, 4), Bits(4, 8, 8)]


def _vector(name: str, op: str, inputs: tuple[str, ...], core: str = "vec") -> Vector:
    return Vector(name=name, op=op, inputs=inputs, output=name, core=core)


def _nets() -> dict[str, Network]:
    return {
        "chain": network([layer("a", ("x",)), layer("b", ("a",)), layer("c", ("b",))], ("c",)),
        "residual": network(
            [layer("a", ("x",)), layer("b", ("a",)), _vector("s", "add", ("a", "b")),
             layer("c", ("s",))],
            ("c",),
        ),
        "pooled": network(
            [layer("a", ("x",)), _vector("p", "max_pool", ("a",)), layer("b", ("p",)),
             layer("c", ("p",))],
            ("b", "c"),
        ),
        "table": network(
            [layer("a", ("x",)), _vector("t", "elementwise", ("a",)), layer("b", ("t",))], ("b",)
        ),
        "averaged": network(
            [layer("a", ("x",)), layer("b", ("a",)), _vector("m", "mean", ("b",))], ("m",)
        ),
        "tied": network([layer("a", ("x",), "w"), layer("b", ("a",), "w")], ("b",)),
    }  # fmt: skip


def _chip(**changes: Any) -> TinyTarget:
    cores = {
        "mac": TinyCore("mac", leakage=0.5),
        "xbar": TinyCore(
            "xbar", kind="crossbar", operators=("mac", "mf"), crossbars=7, resident=True
        ),
    }
    return replace(TinyTarget(cores), **changes)


def _target(chip: TinyTarget) -> Target:
    return cast("Target", chip)


def _energy(net: Network, chip: TinyTarget) -> float:
    return price(net, _target(chip)).energy_pj


def _score(net: Network) -> float:
    return sum(
        n.scores[n.choices.index(n.choice)] for n in net.layers.values() if n.scores and n.choice
    )


def _enumerate(net: Network, chip: TinyTarget) -> Iterator[Network]:
    """Yield every assignment that the rules of widths, ties and capacities allow."""
    for picks in product(*(n.choices for n in net.layers.values())):
        layers = {
            n.name: replace(n, choice=c) for n, c in zip(net.layers.values(), picks, strict=True)
        }
        for bits in product((4, 8), repeat=len(net.vectors)):
            vectors = {
                v.name: replace(v, bits=b) for v, b in zip(net.vectors.values(), bits, strict=True)
            }
            found = net.with_layers(layers).with_vectors(vectors)
            if _is_allowed(found, chip):
                yield found


def _choice(node: Layer) -> Choice:
    assert node.choice is not None
    return node.choice


def _is_allowed(net: Network, chip: TinyTarget) -> bool:
    stored = {"x": 8}
    for node in net.nodes():
        stored[node.output] = _choice(node).bits.output if isinstance(node, Layer) else node.bits
    asks: dict[str, set[int]] = {v: set() for v in stored}
    for node in net.nodes():
        for value in node.inputs:
            width = stored[value]
            if isinstance(node, Layer):
                asks[value].add(_choice(node).bits.input)
                if width < _choice(node).bits.input:
                    return False
            elif node.op == "elementwise":
                asks[value].add(width)
                if node.bits > width:
                    return False
            else:
                asks[value].add(node.bits)
                if width < node.bits or (node.op == "max_pool" and width != node.bits):
                    return False
                if node.output in net.outputs and node.bits != 8:
                    return False
    inner = [v for v in stored if v != "x" and v not in net.outputs]
    if any(stored[v] not in asks[v] for v in inner):
        return False
    ties: dict[str, Any] = {}
    used = 0
    for node in net.layers.values():
        choice = _choice(node)
        if ties.setdefault(node.weight_key, choice.tied_fields) != choice.tied_fields:
            return False
        first = next(n for n in net.layers.values() if n.weight_key == node.weight_key)
        if node is first:
            used += chip.cores[choice.core].capacity(choice, node).get("crossbars", 0)
    return used <= (chip.cores["xbar"].crossbars or 0)


@pytest.mark.parametrize("name", list(_nets()))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_equals_enumeration(name: str, seed: int, share: float) -> None:
    chip = _chip()
    net = attach(_nets()[name], chip, ("mac", "mf"), WIDTHS, seed)
    every = [(_score(n), _energy(n, chip)) for n in _enumerate(net, chip)]
    found = solve_assignment(net, _target(chip), Budget.parse(f"floor+{share}"), 30.0)
    assert found.summary["floor_pj"] == pytest.approx(min(e for _, e in every), rel=1e-12)
    allowed = found.summary["budget_pj"]
    best = min((s, e) for s, e in every if e <= allowed * (1 + 1e-12))
    assert _is_allowed(found.network, chip)
    assert _score(found.network) == best[0]
    assert _energy(found.network, chip) == pytest.approx(best[1], rel=1e-12)
    assert found.summary["price_pj"] <= allowed


@pytest.mark.parametrize("name", list(_nets()))
def test_more_budget_is_never_worse(name: str) -> None:
    chip = _chip()
    net = attach(_nets()[name], chip, ("mac", "mf"), WIDTHS, seed=7)
    scores = []
    for share in (0.0, 0.1, 0.3, 0.6, 1.0):
        budget = Budget.parse(f"floor+{share}")
        scores.append(_score(solve_assignment(net, _target(chip), budget, 30.0).network))
    best = solve_assignment(net, _target(chip), Budget.parse("unlimited"), 30.0)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] >= _score(best.network)


def test_what_a_time_limit_left_unproven_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = _chip()
    net = attach(_nets()["chain"], chip, ("mac", "mf"), WIDTHS, seed=7)

    def cut_short(*arguments: Any) -> core_problem.Solution | None:
        found = core_problem.minimise(*arguments)
        return None if found is None else replace(found, gap=0.02)

    monkeypatch.setattr(milp, "minimise", cut_short)
    summary = solve_assignment(net, _target(chip), Budget.parse("floor+0.3"), 30.0).summary
    assert summary["gap"] == 0.02
    assert summary["notes"] == [
        f"{what} is at most 2.00% above the least there is: after 30 s of processor time the proof "
        "was cut short; assign{time_limit_s=300} in --passes gives it more"
        for what in ("the floor", "the score", "the price at that score")
    ]


def test_residents_are_programmed_once_for_shared_weights() -> None:
    chip = _chip()
    net = attach(_nets()["tied"], chip, ("mf",), [Bits(8, 8, 8)], seed=1)
    found = solve_assignment(net, _target(chip), Budget.parse("unlimited"), 30.0)
    parts = found.summary["price_parts_pj"]
    assert parts["programming_pj"] == 100 * 8 * 2 / 10


def test_capacity_binds_and_is_named() -> None:
    chip = _chip()
    chip.cores["xbar"].crossbars = 2
    net = attach(_nets()["chain"], chip, ("mf",), WIDTHS, seed=1)
    with pytest.raises(InfeasibleError) as caught:
        solve_assignment(net, _target(chip), Budget.parse("unlimited"), 30.0)
    assert "needs at least 6 of xbar.crossbars, tiny has 2" in str(caught.value)


def test_infeasible_budget_names_the_floor_and_what_dominates() -> None:
    chip = _chip()
    big = _nets()["chain"].with_layers(
        {"b": replace(layer("b", ("a",), macs=160), first_or_last=True)}
    )
    net = attach(big, chip, ("mac",), WIDTHS, seed=3)
    with pytest.raises(InfeasibleError) as caught:
        solve_assignment(net, _target(chip), Budget.parse("10pJ"), 30.0)
    assert str(caught.value) == (
        "budget 10pJ is below the floor 1.99 nJ of tinynet on tiny (baseline 5.12 nJ)\n"
        "  floor = b 1.32 nJ + programming 0.24 nJ + c 0.17 nJ + a 0.16 nJ + others 0.10 nJ, "
        "the cheapest feasible network\n"
        "  b dominates it with 66%\n"
        "  try: --budget floor+0.1 · --first-last free (frees b from mac with 8-bit weights) · "
        "narrower candidates for b (--bits)"
    )


def test_widths_that_never_meet_are_named() -> None:
    chip = _chip()
    net = _nets()["chain"]
    attached = attach(net, chip, ("mac",), [Bits(8, 8, 4)], seed=1)
    with pytest.raises(InfeasibleError) as caught:
        solve_assignment(attached, _target(chip), Budget.parse("unlimited"), 30.0)
    assert "value a: a produces 4 bits, but b asks 8" in str(caught.value)


def test_baseline_needs_no_scores() -> None:
    chip = _chip()
    net = attach(_nets()["residual"], chip, ("mac",), [Bits(8, 8, 8)], seed=1)
    bare = net.with_layers({n: replace(v, scores=None) for n, v in net.layers.items()})
    found = solve_assignment(bare, _target(chip), Budget.parse("baseline"), 30.0)
    assert found.summary["baseline"] == "all-mac-digital-8/8"
    assert {str(n.choice) for n in found.network.layers.values()} == {"mac@mac 8/8/8"}


def test_missing_scores_are_an_error() -> None:
    chip = _chip()
    net = attach(_nets()["chain"], chip, ("mac",), WIDTHS, seed=1)
    bare = net.with_layers({"b": replace(net.layers["b"], scores=None)})
    with pytest.raises(ValueError, match="layer b has no scores"):
        solve_assignment(bare, _target(chip), Budget.parse("0.5"), 30.0)
