# SPDX-License-Identifier: Apache-2.0
"""One choice per layer and one width per vector operation: the best score that a budget allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

from enos_compiler.assign.budget import Budget
from enos_compiler.assign.figures import figures_of
from enos_compiler.assign.infeasible import below_floor
from enos_compiler.assign.solver import Solver, score_of
from enos_compiler.cores.accounting import Totals, itemise, totals
from enos_compiler.cores.baseline import baseline
from enos_compiler.errors import InfeasibleError, PassError
from enos_compiler.ir.kernels import fitted
from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


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
    price is taken. Energies are upper bounds: leakage is priced over the sum of all latencies,
    which no schedule exceeds.

    Raises:
        InfeasibleError: the budget is below the floor, or capacities or widths admit nothing.
        PassError: the time limit passed before any assignment was found.
    """
    yardstick = baseline(network, target)
    if budget.kind == "baseline":
        return _baseline_assignment(network, yardstick.network, yardstick.name, target)
    solver = Solver(network, target, budget.measure, time_limit_s)
    top = figures_of(yardstick.network, target).of(budget.measure)
    try:
        cheapest = solver.least()
        floor = solver.value(cheapest)
        allowed = budget.allowed(floor, top)
        if allowed < floor:
            raise below_floor(cheapest, target, budget, allowed, floor, top)
        gap, assigned = solver.best(allowed, cheapest)
    except TimeoutError as error:
        raise PassError(str(error), place="pass assign", remedy=_more_time(time_limit_s)) from error
    notes = []
    if budget.kind == "floor" and floor >= top:
        notes.append("the floor is not below the baseline: the budget is the floor")
    for what, open_gap in solver.unproven.items():
        notes.append(
            f"{what} is at most {open_gap:.2%} above the least there is: after {time_limit_s:g} s "
            f"of processor time the proof was cut short; {_more_time(time_limit_s)}"
        )
    least, paid = price(cheapest, target), price(assigned, target)
    in_energy = budget.measure == "energy" and allowed != inf
    summary: dict[str, Any] = {
        "budget": str(budget),
        "budget_pj": allowed if in_energy else None,
        "floor_pj": least.energy_pj,
        "floor_parts_pj": _parts(least),
        "baseline": yardstick.name,
        "baseline_pj": price(yardstick.network, target).energy_pj,
        "price_pj": paid.energy_pj,
        "price_parts_pj": _parts(paid),
        "score": score_of(assigned),
        "gap": gap,
        "options": solver.options,
        "dominated": solver.dropped,
        "notes": notes,
    }
    if budget.measure != "energy":
        summary["measure"] = {
            "name": budget.measure,
            "allowed": allowed if allowed != inf else None,
            "floor": floor,
            "baseline": top,
            "value": solver.value(assigned),
        }
    return Assignment(fitted(assigned), summary)


def _more_time(time_limit_s: float) -> str:
    return f"assign{{time_limit_s={10 * time_limit_s:g}}} in --passes gives it more"


def price(network: Network, target: Target) -> Totals:
    """Return the energy of an assigned network with leakage at its upper bound."""
    items = itemise(network, target)
    return totals(items, target, items.busy_ns)


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
