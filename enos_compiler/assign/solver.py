# SPDX-License-Identifier: Apache-2.0
"""Best scores under a bound on a figure, or on a product of figures.

One figure is linear in the assignment: a mixed-integer program answers exactly. A product is not,
but its logarithm is concave in the figures, so its tangent at any assignment lies above it: what
keeps the tangent within the bound keeps the product. Tangents are laid at one solution after the
other, from the cheapest assignment on, while the score improves; none is ever over the bound, and
what comes out is the best that these steps reach, not proven the best of all.

Source: the convex-concave procedure (Yuille and Rangarajan, 2003; remembered).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf, isfinite, log
from typing import TYPE_CHECKING

from enos_compiler.assign.figures import Figures, Rates, figures_of
from enos_compiler.assign.infeasible import no_assignment
from enos_compiler.assign.measures import factors
from enos_compiler.assign.milp import Model, Selection
from enos_compiler.assign.problem import build_problem
from enos_compiler.errors import UsageError
from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

_SLACK = 1e-9
"""Relative room that the second solve leaves the best score, for the solver's rounding."""
_REPAIRS = 5
"""Most times that a budget overrun in the solver's last digits is cut off."""
_TANGENTS = 12
"""Most tangents of a product that are laid; each solution is at least as good as the last."""


@dataclass(slots=True)
class Solver:
    """Assignments of a network under a bound on a measure.

    Args:
        network: with choices and scores.
        target: what prices them.
        measure: one of `figures.MEASURES`.
        time_limit_s: processor time for each solve.
    """

    network: Network
    target: Target
    measure: str
    time_limit_s: float
    options: int = 0
    """Options of the last problem that was solved."""
    dropped: int = 0
    """Options left out of it because another is at least as good everywhere."""
    unproven: dict[str, float] = field(default_factory=dict)
    """Gaps at which the time limit ended a proof, by what is then not proven to be the least."""
    _linear: Model | None = None

    def value(self, assigned: Network) -> float:
        """Return the measure of an assigned network."""
        return self._figures(assigned).of(self.measure)

    def least(self) -> Network:
        """Return the assigned network of least measure; for a product, the least that is found.

        Raises:
            InfeasibleError: capacities or widths admit nothing.
            UsageError: a factor of the measure is zero.
        """
        if len(factors(self.measure)) == 1:
            return self._cheapest(self._model())
        found = self._cheapest(self._build(Rates()))
        figures = self._figures(found)
        for factor in factors(self.measure):
            if not figures.of(factor):
                raise UsageError(
                    f"{factor} is 0 for {self.network.name} on {self.target.name}, and so is "
                    f"{self.measure}",
                    place="budget",
                    remedy="a measure without it, such as edp",
                )
        for _ in range(_TANGENTS):
            rates = self._figures(found).tangent(self.measure)
            better = self._cheapest(self._build(rates))
            if not self.value(better) < self.value(found) * (1 - _SLACK):
                break
            found = better
        return found

    def best(self, allowed: float, cheapest: Network) -> tuple[float, Network]:
        """Return the gap and the network of best score, then of least price, within the bound."""
        if len(factors(self.measure)) == 1:
            return self._within(self._model(), allowed, allowed, cheapest)
        if not isfinite(allowed):
            return self._within(self._build(Rates()), inf, inf, cheapest)
        gap, found = 0.0, cheapest
        for _ in range(_TANGENTS):
            figures = self._figures(found)
            room = log(allowed / figures.of(self.measure))
            model = self._build(figures.tangent(self.measure))
            limit = len(factors(self.measure)) + room
            gap, better = self._within(model, limit, allowed, found)
            if not score_of(better) < score_of(found) - _SLACK:
                break
            found = better
        return gap, found

    def _figures(self, assigned: Network) -> Figures:
        return figures_of(assigned, self.target)

    def _model(self) -> Model:
        """Return the problem of a single figure, built once."""
        if self._linear is None:
            self._linear = self._build(Rates(**({"energy": 0.0} | {self.measure: 1.0})))
        return self._linear

    def _build(self, rates: Rates) -> Model:
        problem = build_problem(self.network, self.target, rates)
        self.options = sum(len(o) for o in problem.options.values())
        self.dropped = problem.dropped
        return Model(problem)

    def _cheapest(self, model: Model) -> Network:
        found = model.least_price(time_limit_s=self.time_limit_s)
        if found is None:
            raise no_assignment(self.network, self.target, model, self.time_limit_s)
        self._note("the floor", found.gap)
        return _assigned(self.network, found)

    def _note(self, what: str, gap: float) -> None:
        if gap:
            self.unproven[what] = max(gap, self.unproven.get(what, 0.0))

    def _within(
        self, model: Model, limit: float, allowed: float, fallback: Network
    ) -> tuple[float, Network]:
        """Return the gap and the best network whose measure the bound truly holds.

        The solver meets a limit within its tolerance; an overrun in the last digits is cut off by
        a tighter one. The fallback always remains.
        """
        for _ in range(_REPAIRS):
            best = model.best_score(budget=limit, time_limit_s=self.time_limit_s)
            if best is None:
                break
            room = _SLACK * max(1.0, abs(best.score)) if best.score else _SLACK
            second = model.least_price(
                score_limit=best.score + room, time_limit_s=self.time_limit_s
            )
            self._note("the score", best.gap)
            self._note("the price at that score", 0.0 if second is None else second.gap)
            for found in [best] if second is None else [second, best]:
                assigned = _assigned(self.network, found)
                if self.value(assigned) <= allowed:
                    return best.gap, assigned
            limit -= 2 * max(best.price - limit, _SLACK * abs(limit))
        return 0.0, fallback


def score_of(assigned: Network) -> float:
    """Return the total score of an assigned network."""
    total = 0.0
    for layer in assigned.layers.values():
        if layer.choice is not None and layer.scores is not None:
            total += layer.scores[layer.choices.index(layer.choice)]
    return total


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
