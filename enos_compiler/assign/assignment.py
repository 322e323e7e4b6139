# SPDX-License-Identifier: Apache-2.0
"""One choice per layer and one width per vector operation: the best score that a budget allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from enos_compiler.assign.budget import Budget
from enos_compiler.assign.infeasible import below_floor, no_assignment
from enos_compiler.assign.milp import Model, Selection
from enos_compiler.assign.problem import build_problem
from enos_compiler.cores.accounting import Totals, itemise, totals
from enos_compiler.cores.baseline import baseline
from enos_compiler.errors import InfeasibleError, PassError
from enos_compiler.ir.kernels import fitted
from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

_SLACK = 1e-9
"""Relative room that the second solve leaves the best score, for the solver's rounding."""
_REPAIRS = 5
"""Most times that a budget overrun in the solver's last digits is cut off."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An assigned network and what the report says about how it was found."""

    network: Network
    summary: Mapping[str, Any]


def solve_assignment(
    network: Network, target: Target, budget: Budget, time_limit_s: float
) -> Assignment:
    """Return the network with the least total score that the budget allows.

    Kernels are cut to their assigned extents. Among assignments of best score the one of least
    energy is taken. Energies are upper bounds:
    leakage is priced over the sum of all latencies, which no schedule exceeds.

    Raises:
        InfeasibleError: the budget is below the floor, or capacities or widths admit nothing.
        PassError: the time limit passed before any assignment was found.
    """
    yardstick = baseline(network, target)
    baseline_pj = price(yardstick.network, target).energy_pj
    if budget.kind == "baseline":
        return _baseline_assignment(network, yardstick.network, yardstick.name, target)
    problem = build_problem(network, target)
    model = Model(problem)
    try:
        cheapest = model.least_energy(time_limit_s=time_limit_s)
        if cheapest is None:
            raise no_assignment(network, target, model, time_limit_s)
        floor_network = _assigned(network, cheapest)
        floor = price(floor_network, target)
        allowed_pj = budget.allowed_pj(floor.energy_pj, baseline_pj)
        if allowed_pj < floor.energy_pj:
            raise below_floor(floor_network, target, budget, allowed_pj, floor, baseline_pj)
        chosen, assigned = _within(model, network, target, allowed_pj, cheapest, time_limit_s)
    except TimeoutError as error:
        raise PassError(str(error), place="pass assign", remedy="time_limit_s=600") from error
    paid = price(assigned, target)
    notes = []
    if budget.kind == "floor" and floor.energy_pj >= baseline_pj:
        notes.append("the floor is not below the baseline: the budget is the floor")
    if chosen.gap > 0:
        notes.append(f"the time limit ended the proof at a gap of {chosen.gap:.2%}")
    summary = {
        "budget": str(budget),
        "budget_pj": allowed_pj if allowed_pj != float("inf") else None,
        "floor_pj": floor.energy_pj,
        "floor_parts_pj": _parts(floor),
        "baseline": yardstick.name,
        "baseline_pj": baseline_pj,
        "price_pj": paid.energy_pj,
        "price_parts_pj": _parts(paid),
        "score": chosen.score,
        "gap": chosen.gap,
        "options": sum(len(o) for o in problem.options.values()),
        "dominated": problem.dropped,
        "notes": notes,
    }
    return Assignment(fitted(assigned), summary)


def price(network: Network, target: Target) -> Totals:
    """Return the energy of an assigned network with leakage at its upper bound."""
    items = itemise(network, target)
    return totals(items, target, items.busy_ns)


def _within(
    model: Model,
    network: Network,
    target: Target,
    allowed_pj: float,
    cheapest: Selection,
    time_limit_s: float,
) -> tuple[Selection, Network]:
    """Return the selection of best score, then of least energy, that the budget truly holds.

    The solver meets the budget within its tolerance; an overrun in the last digits is cut off by
    a tighter limit. The cheapest selection always remains.
    """
    limit = allowed_pj
    for _ in range(_REPAIRS):
        best = model.best_score(budget_pj=limit, time_limit_s=time_limit_s)
        if best is None:
            break
        room = _SLACK * max(1.0, abs(best.score)) if best.score else _SLACK
        second = model.least_energy(score_limit=best.score + room, time_limit_s=time_limit_s)
        candidates = [best] if second is None else [second, best]
        for found in candidates:
            assigned = _assigned(network, found)
            if price(assigned, target).energy_pj <= allowed_pj:
                return replace(found, gap=best.gap), assigned
        limit -= 2 * max(best.energy_pj - limit, _SLACK * allowed_pj)
    return cheapest, _assigned(network, cheapest)


def _assigned(network: Network, selection: Selection) -> Network:
    """Return the network with the selection written into its layers and vector operations."""
    layers = {
        name: replace(layer, choice=selection.options[name].choice)
        for name, layer in network.layers.items()
    }
    vectors = {
        name: replace(vector, bits=selection.options[name].output)
        for name, vector in network.vectors.items()
    }
    return network.with_layers(layers).with_vectors(vectors)


def _baseline_assignment(
    network: Network, assigned: Network, name: str, target: Target
) -> Assignment:
    """Return the baseline as an assignment; its choices must be among the attached ones."""
    layers = {}
    for layer in network.layers.values():
        choice = assigned.layers[layer.name].choice
        if choice not in layer.choices:
            raise InfeasibleError(
                f"the baseline {choice} is not among its {len(layer.choices)} attached choices",
                place=f"layer {layer.name}",
                remedy="attach-choices{operators=mac weight_bits=8 activation_bits=8}",
            )
        layers[layer.name] = replace(layer, choice=choice)
    paid = price(assigned, target)
    summary: dict[str, Any] = {
        "budget": "baseline",
        "budget_pj": None,
        "baseline": name,
        "baseline_pj": paid.energy_pj,
        "price_pj": paid.energy_pj,
        "price_parts_pj": _parts(paid),
        "notes": [],
    }
    whole = network.with_layers(layers).with_vectors(assigned.vectors)
    return Assignment(fitted(whole), summary)


def _parts(priced: Totals) -> dict[str, float]:
    return {
        "layers_pj": priced.layers_pj,
        "edges_pj": priced.edges_pj,
        "vector_pj": priced.vector_pj,
        "host_pj": priced.host_pj,
        "programming_pj": priced.programming_pj,
        "leakage_pj": priced.leakage_pj,
    }
