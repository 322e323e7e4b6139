# SPDX-License-Identifier: Apache-2.0
"""Says why no assignment exists: the demand, the bound, what adds up to it, the way out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from enos_compiler.assign.budget import Budget
from enos_compiler.cores.accounting import Totals, energy_pj, itemise, totals
from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.network import Network
from enos_compiler.ir.units import energy_text, measure_text

if TYPE_CHECKING:
    from enos_compiler.assign.milp import Model
    from enos_compiler.cores.target import Target

_SHOWN = 4
"""Lines of the floor that a message names; the others are summed."""


def below_floor(
    network: Network,
    target: Target,
    budget: Budget,
    allowed: float,
    floor_value: float,
    baseline_value: float,
) -> InfeasibleError:
    """Return the error for a budget below the cheapest network, `network`.

    Args:
        network: the cheapest, assigned.
        target: what prices it.
        budget: as it was asked for.
        allowed: what the budget comes to, in pJ or in the units of its measure.
        floor_value: what the cheapest network comes to.
        baseline_value: what the baseline comes to.
    """
    if budget.measure != "energy":
        text = partial(measure_text, budget.measure)
        return InfeasibleError(
            f"budget {budget} = {text(allowed)} is below the least {budget.measure} "
            f"{text(floor_value)} of {network.name} on {target.name} "
            f"(baseline {text(baseline_value)})",
            remedy=f"--budget {budget.measure}:floor+0.1",
        )
    items = itemise(network, target)
    floor, baseline_pj = totals(items, target, items.busy_ns), baseline_value
    lines = _lines(network, target, floor)
    named = sorted(lines.items(), key=lambda item: -item[1])
    unit = floor.energy_pj
    shown = " + ".join(f"{name} {energy_text(pj, like=unit)}" for name, pj in named[:_SHOWN])
    rest = sum(pj for _, pj in named[_SHOWN:])
    if rest:
        shown += f" + others {energy_text(rest, like=unit)}"
    share = named[0][1] / floor.energy_pj
    stated = str(budget)
    come_to = energy_text(allowed, like=unit)
    head = f"budget {stated}" + ("" if budget.kind == "absolute" else f" = {come_to}")
    return InfeasibleError(
        f"{head} is below the floor {energy_text(unit)} of {network.name} on {target.name} "
        f"(baseline {energy_text(baseline_pj)})\n"
        f"  floor = {shown}, the cheapest feasible network\n"
        f"  {named[0][0]} dominates it with {share:.0%}",
        remedy=" · ".join(_levers(network, named[0][0])),
    )


def _lines(network: Network, target: Target, floor: Totals) -> dict[str, float]:
    """Return what the floor adds up to: one line a layer, one for each other kind."""
    lines = {
        layer.name: energy_pj(layer.cost_of(layer.choice), target)
        for layer in network.layers.values()
        if layer.choice is not None
    }
    others = {
        "edges": floor.edges_pj,
        "vector operations": floor.vector_pj,
        "host operations": floor.host_pj,
        "programming": floor.programming_pj,
        "leakage": floor.leakage_pj,
    }
    return lines | {name: pj for name, pj in others.items() if pj}


def _levers(network: Network, dominant: str) -> list[str]:
    levers = ["--budget floor+0.1"]
    if dominant in network.layers:
        layer = network.layers[dominant]
        if layer.first_or_last:
            levers.append(f"--first-last free (frees {dominant} from mac with 8-bit weights)")
        offered = {c.operator for c in layer.choices}
        shut = {r.operator: r.reason for r in layer.refusals if r.operator not in offered}
        levers += [f"{dominant} refuses {name}: {why}" for name, why in sorted(shut.items())[:2]]
        if offered == {"mac"} and not layer.first_or_last:
            levers.append("operators without multiplications (--search single)")
        if min(c.bits.weight for c in layer.choices) > 2:
            levers.append(f"narrower candidates for {dominant} (--bits)")
    elif dominant == "programming":
        levers.append("more inferences per set-up (--inferences)")
    elif dominant == "host operations":
        levers.append("operations that the vector unit takes, in the model")
    else:
        levers.append("narrower candidates (--bits)")
    return levers


def no_assignment(
    network: Network, target: Target, model: Model, time_limit_s: float
) -> InfeasibleError:
    """Return the error for a problem without any solution, whatever the budget."""
    problem = model.problem
    if model.least_price(time_limit_s=time_limit_s, capacities=False) is not None:
        for resource, amount in problem.capacities.items():
            least = model.least_use(resource, time_limit_s=time_limit_s)
            if least > amount:
                return InfeasibleError(
                    f"{network.name} needs at least {least:g} of {resource}, {target.name} has "
                    f"{amount}",
                    place=f"target {target.name}",
                    remedy="a target with more of it, or operators that another core takes",
                )
        return InfeasibleError(
            f"{network.name} does not fit the scarce resources of {target.name} together: "
            + ", ".join(f"{r} {n}" for r, n in problem.capacities.items()),
            place=f"target {target.name}",
            remedy="a target with more of them, or operators that another core takes",
        )
    for edge in problem.edges:
        if not edge.price:
            stored = sorted({o.output for o in problem.options[edge.producer]})
            asked = sorted({o.asks[edge.value].bits for o in problem.options[edge.consumer]})
            return InfeasibleError(
                f"{edge.producer} produces {_listing(stored)} bits, but {edge.consumer} asks "
                f"{_listing(asked)}",
                place=f"value {edge.value}",
                remedy="attach-choices with activation_bits that both take",
            )
    return InfeasibleError(
        f"no combination of widths satisfies every reader in {network.name}",
        place="pass assign",
        remedy="attach-choices with one more width in activation_bits",
    )


def _listing(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))
