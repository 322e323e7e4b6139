# SPDX-License-Identifier: Apache-2.0
"""Walking the path: from cost tables to the loops of the best nest.

The kernel gives the least cost to go from every state. Here the chain of tiles is walked from the
inside out; every way to fill the next level's loops is priced, and branches are opened in the order
of their bounds. With one cost the first branch is the best one. With several (energy and the cycles
that each bandwidth allows) every cost has its own table, and a branch is cut where even the least
of each, taken together, is no better than the best nest known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enos_compiler.ir.shape import DIMS
from enos_compiler.mapping.automaton import Automaton
from enos_compiler.mapping.engine import Solver
from enos_compiler.mapping.nest import LevelNest, Loops, Nest
from enos_compiler.mapping.space import MapSpace
from enos_compiler.mapping.spatial import Layout

Key = tuple[float, float]
KeyOf = Callable[[Any], tuple[Any, Any]]
"""Objective and tie-break of arrays of costs, shape (costs, candidates)."""
NEVER = 1e149
"""Energy above which a mapping does not exist."""
TINY = 1e-12
"""Relative difference that counts as none."""

_ORDERS: tuple[tuple[int, int], ...] = (
    (0, -1),
    (0, 4),
    (0, 5),
    (2, -1),
    (2, 6),
    (2, 7),
    (1, -1),
    (1, 4),
    (1, 5),
    (1, 6),
    (1, 7),
)
"""Orders of a level's loops that can differ in cost: (tensor whose free dimensions run innermost,
dimension whose loop lets input tiles overlap)."""


@dataclass(frozen=True, slots=True)
class PathProblem:
    """One kind of cost for one choice of spatial factors: the arguments of `kernel.solve`."""

    q: Any
    inner: Any
    lattice: Any
    tiles: Any
    price_i: Any
    prices: Any
    limits: Any
    automaton: Any
    slides: bool
    constant: float
    """What does not depend on temporal loops."""

    def bound(self, solve: Solver, state: Any, last: int, nodes: Any) -> float:
        """Least cost of filling the levels up to `last` with one tile."""
        return solve.first_bound(
            self.q,
            self.inner,
            self.lattice,
            self.tiles,
            self.price_i,
            self.prices,
            state,
            last,
            self.slides,
            nodes,
        )

    def table(self, solve: Solver) -> Any:
        """Least cost to go, by level, state and node."""
        return solve.solve(
            self.q,
            self.inner,
            self.lattice,
            self.tiles,
            self.price_i,
            self.prices,
            self.limits,
            self.automaton,
            self.slides,
        )


@dataclass(frozen=True, slots=True)
class Chain:
    """A chosen chain of tiles."""

    loops: tuple[Loops, ...]
    """Temporal loops by level, outer first."""
    costs: tuple[float, ...]
    """Every cost of the nest, constants included."""
    steps: tuple[tuple[int, int, int], ...]
    """By level: node, and what was reused in its loops (see `_ORDERS`)."""


@dataclass(frozen=True, slots=True)
class _Branches:
    """Ways to go on that share a loop order."""

    level: int
    state: int
    at: Any
    """Nodes reached."""
    costs: Any
    """Costs so far, by kind and node."""
    tensor: int
    dim: int


@dataclass(frozen=True, slots=True)
class _Place:
    level: int
    node: int
    state: int
    costs: Any
    loops: tuple[Loops, ...]
    steps: tuple[tuple[int, int, int], ...]


class PathSearch:
    """The best chain of one choice of spatial factors.

    Args:
        problems: one for each kind of cost.
        tables: their tables; None where a kind is bounded by its floor alone.
        automaton: states of the path.
        floors: what no chain falls below, by kind.
        solve: the kernel.
    """

    def __init__(
        self,
        problems: Sequence[PathProblem],
        tables: Sequence[Any],
        automaton: Automaton,
        floors: Any,
        solve: Solver,
    ) -> None:
        self.problems, self.tables, self.automaton = problems, tables, automaton
        self.kinds = len(problems)
        self.key: KeyOf = _first_cost
        self.floors = np.array(floors, dtype=np.float64)[:, None]
        first = problems[0]
        self.inner, self.geometry = first.inner, first.tiles[3]
        self.free, self.low, self.high = first.limits
        axes, _, index = solve.local_lattice(first.q, first.lattice)
        self.fills: list[Any] = []
        levels = len(self.inner)
        one, none = np.ones(levels), np.zeros(levels)
        across = first.price_i[2]

        def tiles(price: Any) -> Any:
            return solve.local_tiles(
                first.q, first.inner, index, first.lattice, first.tiles, (*price, across)
            )

        self.values, room, self.feasible, fill, self.extent = tiles((one, none))
        coincide = any(p.price_i[1].any() for p in problems)
        boxes = tiles((none, one))[3] if coincide else fill
        self.fills = [
            p.price_i[0][:, None] * fill + p.price_i[1][:, None] * boxes for p in problems
        ]
        self.top = len(self.inner) - 1
        self.end = len(self.values) - 1
        digits = (np.arange(len(self.values))[:, None] // axes[:, 2]) % (axes[:, 1] + 1)
        self.run_part = [
            (digits * axes[:, 2] * self.free[t, axes[:, 0]]).sum(axis=1) for t in range(3)
        ]
        self.ratios = [
            np.where(self.free[t], room, 1).prod(axis=1).astype(np.float64) for t in range(3)
        ]
        self.best: tuple[Key, Chain] | None = None
        self.limit: Key | None = None

    def thrifty(self) -> Chain | None:
        """The chain of least first cost, with all its costs."""
        self.kinds, self.key = 1, _first_cost
        found = self._search(None)
        self.kinds = len(self.problems)
        return None if found is None else self._follow(found[1])

    def search(self, key: KeyOf, limit: Key | None) -> tuple[Key, Chain] | None:
        """The best chain whose key is below `limit`; `key` orders arrays of costs."""
        self.key = key
        return self._search(limit)

    def _follow(self, chain: Chain) -> Chain:
        """The same chain with every kind of cost."""
        costs = np.array([p.constant for p in self.problems])
        place = _Place(0, chain.steps[0][0], 0, costs, chain.loops[:1], chain.steps[:1])
        for node, tensor, dim in chain.steps[1:]:
            ways: list[_Branches] = []
            if node == place.node:
                ways.append(self._stay(place))
            else:
                factor = self.values // self.values[place.node]
                ways += self._ordered_ways(place, tensor, dim, np.array([node]), factor)
            # where the tensor may also stay pending, the cheaper way of the two was meant
            best = min(ways, key=lambda way: self._togo(way, 0)[0])
            place = _Place(best.level, node, best.state, best.costs[:, 0], (), ())
        return Chain(chain.loops, tuple(map(float, place.costs + self._last(place))), chain.steps)

    def _stay(self, place: _Place) -> _Branches:
        """The next level has no loops."""
        state = self.automaton.stay[place.level][place.state]
        here = np.array([place.node])
        return _Branches(place.level + 1, state, here, place.costs[:, None], 0, -1)

    def _togo(self, branch: _Branches, kind: int) -> Any:
        """One cost of each branch when the nest is over, as its table knows it."""
        return branch.costs[kind] + self.tables[kind][branch.level, branch.state][branch.at]

    def _search(self, limit: Key | None) -> tuple[Key, Chain] | None:
        self.best, self.limit = None, limit
        constants = np.array([p.constant for p in self.problems[: self.kinds]])
        at = np.nonzero(
            self.feasible[0]
            & np.all((self.values >= self.low[0]) & (self.values <= self.high[0]), axis=1)
        )[0]
        if len(at):
            costs = np.repeat(constants[:, None], len(at), axis=1)
            start = _Place(-1, 0, 0, constants, (), ())
            self._visit(start, [_Branches(0, 0, at, costs, 0, -1)])
        return self.best

    def _visit(self, place: _Place, branches: Sequence[_Branches]) -> None:
        for first, second, number, k in self._sorted(branches):
            if _no_better((first, second), self.limit):
                return
            branch = branches[number]
            factors = self.values[branch.at[k]] // self.values[place.node]
            child = _Place(
                branch.level,
                int(branch.at[k]),
                branch.state,
                branch.costs[:, k],
                (*place.loops, _ordered(factors, branch.tensor, branch.dim, self.free)),
                (*place.steps, (int(branch.at[k]), branch.tensor, branch.dim)),
            )
            if child.level < self.top:
                self._visit(child, self._onward(child))
            elif child.node == self.end:
                self._arrive(child)

    def _arrive(self, place: _Place) -> None:
        """Pay what is pending and keep the chain if it is the best."""
        costs = place.costs + self._last(place)
        first, second = self.key(costs[:, None])
        key = float(first[0]), float(second[0])
        if not _no_better(key, self.limit):
            self.best = key, Chain(place.loops, tuple(map(float, costs)), place.steps)
            self.limit = key

    def _last(self, place: _Place) -> Any:
        """What is still pending when all loops are over."""
        pending = self.automaton.states[self.top][place.state]
        end = np.array([self.end])
        return np.array(
            [
                sum(part[0] for part in self._pending(r, pending, self.top, (end, end, end)))
                for r in range(self.kinds)
            ]
        )

    def _onward(self, place: _Place) -> list[_Branches]:
        """All ways to fill the loops of the next level."""
        level = place.level + 1
        x = self.values[place.node]
        factor = self.values // x
        fits = self.feasible[level] & np.all(self.values % x == 0, axis=1)
        fits &= np.all((factor >= self.low[level]) & (factor <= self.high[level]), axis=1)
        if level == self.top:
            fits[: self.end] = False
        out = []
        if fits[place.node]:
            out.append(self._stay(place))
            fits[place.node] = False
        at = np.nonzero(fits)[0]
        pending = self.automaton.states[place.level][place.state]
        for tensor, dim in _ORDERS:
            if dim < 0 or (self.problems[0].slides and pending[1] >= 0):
                chosen = at if dim < 0 else at[factor[at, dim] > 1]
                if len(chosen):
                    out += self._ordered_ways(place, tensor, dim, chosen, factor)
        return out

    def _ordered_ways(
        self, place: _Place, tensor: int, dim: int, at: Any, factor: Any
    ) -> list[_Branches]:
        """Loops in one order: `tensor`'s free dimensions first; a loop over `dim` slides inputs."""
        level = place.level + 1
        pending = self.automaton.states[place.level][place.state]
        here = np.full(len(at), place.node)
        run = place.node - self.run_part[tensor][place.node] + self.run_part[tensor][at]
        where = [run if t == tensor else here for t in range(3)]
        counts = factor[at, dim] if dim >= 0 else 1
        others, own = [], []
        for r in range(self.kinds):
            parts = self._pending(r, pending, place.level, where, dim, counts)
            own.append(parts[tensor])
            others.append(sum(part for t, part in enumerate(parts) if t != tensor))
        before = place.costs[:, None] + np.array(others)
        fresh = self.automaton.fresh[level]
        out = [_Branches(level, fresh, at, before + np.array(own), tensor, dim)]
        only = run == at
        if only.any() and not (tensor == 1 and dim >= 0):
            carry = self.automaton.carry[level][tensor][pending[tensor] + 1]
            out.append(_Branches(level, carry, at[only], before[:, only], tensor, dim))
        return out

    def _pending(
        self,
        r: int,
        pending: Sequence[int],
        last: int,
        where: Sequence[Any],
        dim: int = -1,
        counts: Any = 1,
    ) -> list[Any]:
        """Pending costs of kind `r` by tensor, each at its own nodes."""
        weights, partial, final = self.problems[r].prices
        out = [np.zeros(len(at)) for at in where]
        if pending[0] >= 0:
            out[0] = weights[pending[0] : last + 1].sum() * self.ratios[0][where[0]]
        if pending[2] >= 0:
            part, ratio = slice(pending[2], last + 1), self.ratios[2][where[2]]
            out[2] = np.where(ratio == 1, final[part].sum(), partial[part].sum() * ratio)
        if pending[1] >= 0:
            at = where[1]
            for c in range(pending[1], last + 1):
                kept: Any = 1.0
                if dim >= 0:
                    step = self.geometry[dim - 4] * self.values[at, dim] * self.inner[last + 1, dim]
                    size = self.extent[c, dim % 2][at]
                    kept = (size + (counts - 1) * np.minimum(size, step)) / (counts * size)
                out[1] = out[1] + self.fills[r][c][at] * kept
        return out

    def _sorted(self, branches: Sequence[_Branches]) -> Iterator[tuple[float, float, int, int]]:
        """(bound, tie-break, branches, which of them) in the order of the bounds."""
        keys = []
        for branch in branches:
            bound = np.maximum(branch.costs, self.floors[: self.kinds])
            for r in range(self.kinds):
                if self.tables[r] is not None:
                    bound[r] = np.maximum(bound[r], self._togo(branch, r))
            keys.append(self.key(bound))
        if not keys:
            return
        first = np.concatenate([key[0] for key in keys])
        second = np.concatenate([key[1] for key in keys])
        number = np.repeat(np.arange(len(branches)), [len(b.at) for b in branches])
        which = np.concatenate([np.arange(len(b.at)) for b in branches])
        order = np.lexsort((second, first))
        for k in order:
            yield float(first[k]), float(second[k]), int(number[k]), int(which[k])


def _first_cost(costs: Any) -> tuple[Any, Any]:
    """Order by the first cost alone."""
    return costs[0], costs[0]


def _no_better(key: Key, limit: Key | None) -> bool:
    """Whether `key` is not below `limit` by more than rounding."""
    if key[1] >= NEVER:
        return True
    if limit is None:
        return False
    if key[0] < limit[0] * (1 - TINY):
        return False
    return key[0] > limit[0] * (1 + TINY) or key[1] >= limit[1] * (1 - TINY)


def _ordered(factors: Any, tensor: int, dim: int, free: Any) -> Loops:
    """Loops, outer first: `tensor`'s free dimensions inside, `dim` as far in as can be."""
    inside = [d for d in range(len(DIMS)) if free[tensor, d]]
    outside = [d for d in range(len(DIMS)) if not free[tensor, d]]
    for part in (inside, outside):
        if dim in part:
            part.remove(dim)
            part.insert(0, dim)
    order = [*inside, *outside]
    return tuple((str(DIMS[d]), int(factors[d])) for d in reversed(order) if factors[d] > 1)


def build_nest(space: MapSpace, layout: Sequence[Layout], chain: Chain) -> Nest:
    """The nest of a chain."""
    return Nest(
        tuple(
            LevelNest(keep=level.keep, temporal=loops, spatial_x=x, spatial_y=y)
            for level, loops, (x, y) in zip(space.levels, chain.loops, layout, strict=True)
        )
    )
