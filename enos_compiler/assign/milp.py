# SPDX-License-Identifier: Apache-2.0
"""The assignment problem as a mixed-integer linear program, solved by HiGHS.

Binary x[n, o] picks option o of node n. An edge's cost depends on the classes (core, width) of its
two ends, so continuous y[e, k, k'] >= 0 carries it with sum_k' y = sum of x over the producer's
class k and sum_k y = sum of x over the consumer's class k': with x binary, y is one exactly at the
pair in use, and pairs that the width rules forbid have no y at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from enos_compiler.assign.core_problem import (
    SCALE,
    FloatArray,
    Row,
    Solution,
    assemble,
    minimise,
)
from enos_compiler.assign.problem import Edge, Option, Problem


@dataclass(frozen=True, slots=True)
class Selection:
    """One option per node, and how far the solver proved it."""

    options: Mapping[str, Option]
    price: float
    """Edges included."""
    score: float
    gap: float = 0.0
    """Relative distance between the objective and its proven bound; 0 is optimal."""


@dataclass(slots=True)
class Model:
    """The constraint matrix of a problem, built once and solved for several objectives."""

    problem: Problem
    _columns: dict[tuple[str, int], int] = field(default_factory=dict)
    _price: list[float] = field(default_factory=list)
    _rows: list[tuple[Row, float, float]] = field(default_factory=list)
    _binaries: int = 0

    def __post_init__(self) -> None:
        """Number the binaries, then add every constraint but budget and capacity."""
        for node, options in self.problem.options.items():
            for i, option in enumerate(options):
                self._columns[node, i] = len(self._price)
                self._price.append(option.price)
            self._add({self._columns[node, i]: 1.0 for i in range(len(options))}, 1.0, 1.0)
        self._binaries = len(self._price)
        for edge in self.problem.edges:
            if not edge.is_free:
                self._add_edge(edge)
        self._add_demands()
        for group in self.problem.ties:
            for one, other in pairwise(group):
                self._add_tie(one, other)

    def least_price(
        self, *, score_limit: float | None = None, time_limit_s: float, capacities: bool = True
    ) -> Selection | None:
        """Return the selection of least price; None where none exists.

        Args:
            score_limit: largest total score, if any.
            time_limit_s: on expiry the best found is returned with its gap.
            capacities: whether scarce resources bind.
        """
        rows = [] if score_limit is None else [(self._score_row(), score_limit)]
        return self._solve(np.array(self._price), rows, time_limit_s, capacities=capacities)

    def best_score(self, *, budget: float, time_limit_s: float) -> Selection | None:
        """Return the selection of least score within the budget; None where none exists."""
        price_row = {i: e for i, e in enumerate(self._price) if e}
        rows = [(price_row, budget)] if np.isfinite(budget) else []
        objective = np.zeros(len(self._price))
        for column, score in self._score_row().items():
            objective[column] = score
        return self._solve(objective, rows, time_limit_s)

    def least_use(self, resource: str, *, time_limit_s: float) -> float:
        """Return the least amount of a scarce resource that any assignment holds."""
        objective = np.zeros(len(self._price))
        for column, count in self._use_row(resource).items():
            objective[column] = count
        found = self._solve(objective, [], time_limit_s, capacities=False)
        if found is None:
            return float("inf")
        return sum(dict(o.uses).get(resource, 0) for o in found.options.values())

    def _add(self, row: Row, low: float, high: float) -> None:
        self._rows.append((row, low, high))

    def _members(self, node: str, key: Hashable, of: Iterable[Hashable]) -> dict[int, float]:
        """Return the binaries of a node whose class, listed in `of`, is `key`."""
        return {self._columns[node, i]: 1.0 for i, k in enumerate(of) if k == key}

    def _add_edge(self, edge: Edge) -> None:
        sources = [(o.core, o.output) for o in self.problem.options[edge.producer]]
        readers = [(o.core, o.asks[edge.value].bits) for o in self.problem.options[edge.consumer]]
        column_of = {}
        for pair, price in edge.price.items():
            column_of[pair] = len(self._price)
            self._price.append(price)
        for end, (node, classes) in enumerate(((edge.producer, sources), (edge.consumer, readers))):
            for key in dict.fromkeys(classes):
                flow = {c: 1.0 for pair, c in column_of.items() if pair[end] == key}
                for column in self._members(node, key, classes):
                    flow[column] = -1.0
                self._add(flow, 0.0, 0.0)

    def _add_demands(self) -> None:
        """A value is stored at a width that one of its readers asks."""
        for producer, readers in self.problem.demands.items():
            value = self.problem.outputs[producer]
            options = self.problem.options[producer]
            for bits in {o.output for o in options}:
                row = self._members(producer, bits, [o.output for o in options])
                for reader in readers:
                    asks = [o.asks[value].bits for o in self.problem.options[reader]]
                    for column in self._members(reader, bits, asks):
                        row[column] = row.get(column, 0.0) - 1.0
                self._add(row, -np.inf, 0.0)

    def _add_tie(self, one: str, other: str) -> None:
        keys = {name: [o.tie for o in self.problem.options[name]] for name in (one, other)}
        for key in dict.fromkeys((*keys[one], *keys[other])):
            row = self._members(one, key, keys[one])
            row |= dict.fromkeys(self._members(other, key, keys[other]), -1.0)
            self._add(row, 0.0, 0.0)

    def _score_row(self) -> dict[int, float]:
        return {
            self._columns[node, i]: option.score
            for node, options in self.problem.options.items()
            for i, option in enumerate(options)
            if option.score
        }

    def _use_row(self, resource: str) -> dict[int, float]:
        return {
            self._columns[node, i]: float(count)
            for node, options in self.problem.options.items()
            for i, option in enumerate(options)
            if (count := dict(option.uses).get(resource, 0))
        }

    def _solve(
        self,
        objective: FloatArray,
        limits: Sequence[tuple[Row, float]],
        time_limit_s: float,
        *,
        capacities: bool = True,
    ) -> Selection | None:
        rows = list(self._rows)
        for row, limit in limits:
            size = max((abs(v) for v in row.values()), default=1.0) / SCALE
            rows.append(({c: v / size for c, v in row.items()}, -np.inf, limit / size))
        if capacities:
            for resource, amount in self.problem.capacities.items():
                if row := self._use_row(resource):
                    rows.append((row, -np.inf, float(amount)))
        assembled = assemble(rows, len(self._price))
        found = minimise(objective, assembled, self._binaries, time_limit_s)
        return None if found is None else self._selection(found)

    def _selection(self, found: Solution) -> Selection:
        chosen: dict[str, Option] = {}
        for node, options in self.problem.options.items():
            start = self._columns[node, 0]
            chosen[node] = options[int(np.argmax(found.x[start : start + len(options)]))]
        price = sum(o.price for o in chosen.values())
        for edge in self.problem.edges:
            source, reader = chosen[edge.producer], chosen[edge.consumer]
            ends = (source.core, source.output), (reader.core, reader.asks[edge.value].bits)
            price += edge.price[ends]
        return Selection(chosen, price, sum(o.score for o in chosen.values()), found.gap)
