# SPDX-License-Identifier: Apache-2.0
"""Many networks from one search: a front over budgets, and samples of a posterior.

Each is assigned, its running statistics and ranges are re-estimated, and its accuracy is taken on
the validation split; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from enos_compiler.assign.assignment import price, solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.ir.network import Network
from enos_compiler.ir.units import energy_text
from enos_compiler.search.architecture import class_of
from enos_compiler.search.evaluate import evaluate, fixed_batch, module_predictor
from enos_compiler.search.tune import assigned_module, settle

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.data import Data
    from enos_compiler.search.methods import Variational

SOLVE_S = 60.0
"""Processor time for each assignment."""
CERTAIN = 50.0
"""Score that a sample gives to every choice but its own: only widths that clash may pay it."""


def draw_front(
    scored: Network, data: Data, target: Target, points: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return the networks of `points` budgets from floor to baseline, cheapest first."""
    front = []
    for number in range(points):
        share = number / max(1, points - 1)
        budget = Budget.parse(f"floor+{share:.4g}")
        found = solve_assignment(scored, target, budget, SOLVE_S).network
        point = _measured(found, data, target) | {"budget": str(budget)}
        front.append(point)
        say(f"front {number + 1}/{points}: {_words(point)}")
    return front


def posterior_samples(
    scored: Network,
    method: Variational,
    data: Data,
    target: Target,
    count: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Return networks drawn from the posterior, cheapest first; `best` marks the Pareto front."""
    found = []
    for number in range(count):
        drawn = method.sample(number)
        layers = {}
        for name, layer in scored.layers.items():
            chosen = method.architecture.spaces[name].classes[int(drawn[name].argmax())]
            scores = tuple(0.0 if class_of(c) == chosen else CERTAIN for c in layer.choices)
            layers[name] = replace(layer, scores=scores)
        sample = scored.with_layers(layers)
        assigned = solve_assignment(sample, target, Budget.parse("unlimited"), SOLVE_S).network
        found.append(_measured(assigned, data, target))
        say(f"posterior sample {number + 1}/{count}: {_words(found[-1])}")
    found.sort(key=lambda point: point["energy_pj"])
    best = -1.0
    for point in found:
        accuracy = point["validation_accuracy"] or 0.0
        point["best"] = accuracy > best
        best = max(best, accuracy)
    return found


def _measured(assigned: Network, data: Data, target: Target) -> dict[str, Any]:
    module = assigned_module(assigned)
    batch = fixed_batch(assigned)
    settle(module, data, batch)
    accuracy = evaluate(module_predictor(module), data, "validation", batch=batch)
    choices = {n: str(layer.choice) for n, layer in assigned.layers.items()}
    return {
        "energy_pj": price(assigned, target).energy_pj,
        "validation_accuracy": accuracy.fraction if accuracy else None,
        "choices": choices,
    }


def _words(point: dict[str, Any]) -> str:
    accuracy = point["validation_accuracy"]
    tail = "" if accuracy is None else f", validation accuracy {accuracy:.1%} before fine-tuning"
    return f"{energy_text(point['energy_pj'])}{tail}"
