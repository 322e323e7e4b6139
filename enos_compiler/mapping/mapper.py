# SPDX-License-Identifier: Apache-2.0
"""The optimal mapper: the best nest of a layer on a machine, with a certificate.

Every choice of spatial factors has a lower bound; choices are opened in the order of their bounds,
each is solved exactly by a shortest path over tile shapes (`kernel`), and the search ends where the
next bound reaches the best nest found. That end is the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import DIMS, TENSORS, LayerShape
from enos_compiler.mapping.automaton import Automaton, build_automaton
from enos_compiler.mapping.engine import Engine, Solver, solver
from enos_compiler.mapping.infeasible import infeasible
from enos_compiler.mapping.kernel import INF
from enos_compiler.mapping.lattice import Lattice, build_lattice
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.objective import Objective
from enos_compiler.mapping.path import NEVER, Chain, PathProblem, PathSearch, build_nest
from enos_compiler.mapping.prices import (
    USED,
    Geometry,
    HopPatterns,
    PathPrices,
    Reals,
    Widths,
    add_hops,
    build_geometry,
    check_words,
    energy_rates,
    operands_per_word,
    path_prices,
    word_rates,
)
from enos_compiler.mapping.space import MapSpace
from enos_compiler.mapping.spatial import spatial_choices

Key = tuple[float, float]

COVERED = (
    "the plain rule in real numbers: words read, filled and updated, re-read partial sums, hops, "
    "every router pass, leakage, and the bandwidth of each level"
)
"""What a certificate speaks of."""
OUTSIDE = (
    "rounding to whole words and blocks, data that neighbours pass on, distance saved where input "
    "boxes coincide along two dimensions; nests close to the optimum are not priced again with "
    "these"
)
"""What events count beside it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was proven about a mapping.

    It speaks of the mapper's own prices, which are those of `count.PLAIN` before rounding: see
    `COVERED`, and `OUTSIDE` for what `count_events` counts of the nest found, beyond the proof.
    """

    space: str
    """The mapspace in words."""
    choices: int
    """Choices of spatial factors in the space."""
    opened: int
    """Choices solved exactly; all others have bounds that are no better than the optimum."""
    tiles: int
    """Tiles of the layer, by level the nodes of the path."""
    value: float
    """Objective of the mapping, by the mapper's own prices."""
    lower_bound: float
    """No mapping of the space is below this."""

    @property
    def optimal(self) -> bool:
        """Whether the bound meets the value."""
        return self.lower_bound >= self.value * (1 - 1e-9)


@dataclass(frozen=True, slots=True)
class MapResult:
    """The best mapping of a layer."""

    shape: LayerShape
    nest: Nest
    energy_pj: float
    """By the mapper's prices: plain rule, no rounding to blocks."""
    cycles: float
    objective: Objective
    certificate: Certificate


def map_layer(
    shape: LayerShape,
    machine: Machine,
    *,
    objective: Objective = "edp",
    space: MapSpace | None = None,
    widths: Widths | None = None,
    engine: Engine | None = None,
    without: Nest | None = None,
) -> MapResult:
    """Find the best mapping of a layer.

    Args:
        shape: the layer.
        machine: levels, fan-outs, energies and bandwidths.
        objective: what is minimised.
        space: nests to choose from; None takes `MapSpace.of_machine`.
        widths: operand widths; None lets every operand take one word.
        engine: form of the kernel; None takes the compiled one where it is cached.
        without: leave out all nests with the spatial factors of this one; for the runner-up.

    Raises:
        InfeasibleError: no nest of the space fits, with the level that is too small.
        MappingError: an operand is wider than a word of a level that keeps it.
    """
    search = LayerSearch(shape, machine, space or MapSpace.of_machine(machine), widths, objective)
    found = search.run(solver(engine), without=without)
    if found is None:
        raise search.infeasible()
    return found


_LISTED, _BOUNDED, _SOLVED = range(3)
"""How much is known of a choice in the queue."""


class LayerSearch:
    """Branch and bound over the choices of spatial factors."""

    def __init__(
        self,
        shape: LayerShape,
        machine: Machine,
        space: MapSpace,
        widths: Widths | None,
        objective: Objective,
    ) -> None:
        self.shape, self.machine, self.space = shape, machine, space
        self.widths, self.objective = widths, objective
        check_words(machine, space, widths)
        choices = spatial_choices(shape, machine, space)
        if not len(choices.picks):
            raise self.infeasible()
        self.geo: Geometry = build_geometry(shape, machine, space, choices, widths)
        self.energy = path_prices(self.geo, energy_rates(machine, widths))
        self.resources = self._resources()
        self.lattice: Lattice = build_lattice(tuple(shape.bounds[d] for d in DIMS))
        self.automaton: Automaton = build_automaton(machine, space)
        self.arguments = self._kernel_arguments()
        self.patterns: dict[tuple[int, int], HopPatterns] = {}
        self.last = self._tile_levels() - 1
        self.state = self.arguments[3][0][self.last, 0]
        self.nodes: Any = None
        if self.last < len(machine.levels) - 2:
            fits = self.arguments[1][0][: self.last + 1].all(axis=0)
            self.nodes = np.nonzero(fits)[0]
        leak = np.array([level.leak_pj_per_cycle for level in machine.levels])
        self.leak: Reals = np.maximum(1, self.geo.instances) @ leak
        self.steps: Reals = self.geo.temporal.prod(axis=1).astype(np.float64)
        self.latency = sum(
            level.network.fill_latency_cycles + level.network.drain_latency_cycles
            for level in machine.levels
        )

    def _tile_levels(self) -> int:
        """Levels, from the innermost, that always hold the same tile."""
        count = 1
        for s, level in enumerate(self.space.levels[1:-1], 1):
            closed = all(level.range(dim) == (1, 1) for dim in DIMS)
            if not closed or self.machine.fanout(s) != (1, 1):
                break
            count = s + 1
        return count

    def _resources(self) -> list[PathPrices]:
        """Cycles that each limit of bandwidth asks for; last, where asked for, outermost words."""
        found = []
        top = len(self.machine.levels) - 1
        for s, level in enumerate(self.machine.levels):
            limits = (
                (level.read_bandwidth, True, False),
                (level.write_bandwidth, False, True),
                (level.shared_bandwidth, True, True),
            )
            for limit, reads, writes in limits:
                if limit is not None:
                    rates = word_rates(
                        self.machine, self.widths, s, 1 / limit, reads=reads, writes=writes
                    )
                    found.append(path_prices(self.geo, rates))
        if self.objective == "accesses":
            rates = word_rates(self.machine, self.widths, top, 1.0, reads=True, writes=True)
            found.append(path_prices(self.geo, rates))
        return found

    def _kernel_arguments(self) -> tuple[Any, Any, Any, Any]:
        shape, lattice = self.shape, self.lattice
        axes = np.stack(
            [lattice.axis_dim, lattice.axis_prime, lattice.axis_exponent, lattice.axis_stride],
            axis=1,
        )
        geometry = np.array([*shape.stride, *shape.dilation], dtype=np.int64)
        e = lattice.values
        rows = (e[:, 4] - 1) * geometry[0] + (e[:, 6] - 1) * geometry[2] + 1
        columns = (e[:, 5] - 1) * geometry[1] + (e[:, 7] - 1) * geometry[3] + 1
        box = e[:, 0] * e[:, 1] * e[:, 3] * rows * columns
        edges = np.stack([rows, columns]).astype(np.float64)
        tiles = (self._fits(box), box.astype(np.float64), edges, geometry)
        top = max(shape.bounds.values())
        ranges = [[level.range(d) for d in DIMS] for level in self.space.levels]
        low = np.array([[r[0] for r in level] for level in ranges], dtype=np.int64)
        high = np.array([[r[1] or top for r in level] for level in ranges], dtype=np.int64)
        return (np.ascontiguousarray(axes), e), tiles, (~USED, low, high), self.automaton.arrays()

    def _fits(self, box: Any) -> Any:
        """Whether a tile fits, by level and node."""
        per_word = operands_per_word(self.machine, self.widths, finished=False)
        volumes = [np.where(USED[t], self.lattice.values, 1).prod(axis=1) for t in range(3)]
        volumes[1] = box
        out = np.ones((len(self.machine.levels), self.lattice.nodes), dtype=np.bool_)
        top = len(self.machine.levels) - 1
        for s, spec in enumerate(self.machine.levels):
            used = np.zeros(self.lattice.nodes, dtype=np.int64)
            for t, tensor in enumerate(TENSORS):
                if tensor not in self.space.levels[s].keep or s == self.space.home(tensor) < top:
                    continue
                words = -(-volumes[t] // per_word[s, t])
                room = spec.tensor_capacity(tensor)
                if room is None:
                    used += words
                else:
                    out[s] &= words <= room
            if spec.capacity is not None:
                out[s] &= used <= spec.capacity
        return out

    def key(self, choice: Any, costs: Any) -> tuple[Any, Any]:
        """Order of mappings: the objective, then energy.

        Args:
            choice: one choice, or as many as there are columns of costs.
            costs: energy, then one line per resource.
        """
        costs = np.minimum(costs, 1e150)  # what cannot be is left large, and its product finite
        limits = costs[1:-1] if self.objective == "accesses" else costs[1:]
        cycles = self.steps[choice] + np.zeros_like(costs[0])
        for limit in limits:
            cycles = np.maximum(cycles, limit)
        total = costs[0] + self.leak[choice] * cycles
        cycles = cycles + self.latency
        if self.objective == "energy":
            return total, total
        if self.objective == "latency":
            return cycles, total
        return (total * cycles if self.objective == "edp" else costs[-1]), total

    def run(
        self, solve: Solver, limit: Key | None = None, without: Nest | None = None
    ) -> MapResult | None:
        """The best mapping, or None where none is below `limit`.

        A choice is first listed with its floor, then bounded by its innermost tiles, then solved
        for energy, then, with limits of bandwidth, for all costs; what has the least bound goes on.
        """
        floors = np.stack(
            [self.energy.floor, *(resource.floor for resource in self.resources)], axis=0
        )
        first, second = self.key(slice(None), floors)
        queue = [
            (a, b, _BOUNDED if self.nodes is None else _LISTED, choice)
            for choice, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True))
        ]
        heapify(queue)
        best: tuple[Key, int, Chain | None] | None = None
        opened = 0
        proven: Key | None = None
        while queue:
            value, energy, stage, choice = heappop(queue)
            bound: Key = value, energy
            known = best[0] if best else limit
            if known is not None and bound >= known:
                proven = bound
                break
            if stage == _LISTED:
                if without is not None and self._same_factors(choice, without):
                    continue
                bound = max(bound, self._inside_bound(choice, solve, floors[:, choice]))
                heappush(queue, (*bound, _BOUNDED, choice))
            elif stage == _BOUNDED:
                if without is not None and self._same_factors(choice, without):
                    continue
                opened += 1
                bound = max(bound, self._least(choice, solve, floors[:, choice]))
                if bound[1] < NEVER:
                    heappush(queue, (*bound, _SOLVED, choice))
            elif not self.resources:
                best = bound, choice, None
            else:
                found = self._open_limited(choice, solve, floors[:, choice], known)
                best = (found[0], choice, found[1]) if found else best
        if best is None:
            return None
        key, choice, chain = best
        if chain is None:
            chain = self._trace(choice, solve)
        return MapResult(
            shape=self.shape,
            nest=build_nest(self.space, self.geo.choices.layout(choice), chain),
            energy_pj=key[1],
            cycles=self._cycles(choice, chain),
            objective=self.objective,
            certificate=Certificate(
                space=self.space.describe(self.machine),
                choices=len(first),
                opened=opened,
                tiles=self.lattice.nodes,
                value=key[0],
                lower_bound=key[0] if proven is None else min(key[0], proven[0]),
            ),
        )

    def _same_factors(self, choice: int, nest: Nest) -> bool:
        """Whether a choice spreads every level as `nest` does."""
        factors = self.geo.choices.factors[choice]
        return all(
            dict(level.spatial) == {str(d): int(f) for d, f in zip(DIMS, row, strict=True) if f > 1}
            for level, row in zip(nest.levels, factors, strict=True)
        )

    def _inside_bound(self, choice: int, solve: Solver, floors: Reals) -> Key:
        """Bound of a choice by the tiles that its innermost levels can hold."""
        problem = self._energy_problem(choice)
        inside = problem.bound(solve, self.state, self.last, self.nodes)
        bound = floors.copy()
        bound[0] = max(floors[0], self.energy.outer_floor[self.last][choice] + inside)
        return self._scalar_key(choice, bound)

    def _least(self, choice: int, solve: Solver, floors: Reals) -> Key:
        """Key of the least energy of a choice, at the floors of all limits."""
        problem = self._energy_problem(choice)
        costs = floors.copy()
        costs[0] = float(problem.table(solve)[0, 0].min()) + problem.constant
        return self._scalar_key(choice, costs)

    def _open_limited(
        self, choice: int, solve: Solver, floors: Reals, best: Key | None
    ) -> tuple[Key, Chain] | None:
        """Energy and the limits together: first the nest of least energy, then what can beat it."""
        problems = [
            self._energy_problem(choice),
            *(self._problem(r, choice) for r in self.resources),
        ]
        tables: list[Any] = [problems[0].table(solve)] + [None] * len(self.resources)
        floors = floors.copy()
        floors[0] = float(tables[0][0, 0].min()) + problems[0].constant

        def key(costs: Any) -> tuple[Any, Any]:
            return self.key(choice, costs)

        search = PathSearch(problems, tables, self.automaton, floors, solve)
        chain = search.thrifty()
        if chain is None:
            return None
        value = self._scalar_key(choice, np.array(chain.costs))
        found = (value, chain) if best is None or value < best else None
        limit = found[0] if found else best
        if self._scalar_key(choice, floors) >= (value[0] * (1 - 1e-12), 0.0):
            return found
        bounds = floors.copy()
        for r in range(1, len(problems)):
            if chain.costs[r] > bounds[r]:
                tables[r] = problems[r].table(solve)
                bounds[r] = max(bounds[r], float(tables[r][0, 0].min()) + problems[r].constant)
        if limit is not None and self._scalar_key(choice, bounds) >= limit:
            return found
        search.floors = bounds[:, None]
        return search.search(key, limit) or found

    def _trace(self, choice: int, solve: Solver) -> Chain:
        """The chain of least energy of one choice."""
        problem = self._energy_problem(choice)
        tables = [problem.table(solve)]
        chain = PathSearch([problem], tables, self.automaton, [-INF], solve).thrifty()
        if chain is None:
            raise self.infeasible()
        return chain

    def _scalar_key(self, choice: int, costs: Reals) -> Key:
        first, second = self.key(choice, costs[:, None])
        return float(first[0]), float(second[0])

    def _cycles(self, choice: int, chain: Chain) -> float:
        limits = chain.costs[1:-1] if self.objective == "accesses" else chain.costs[1:]
        return max([float(self.steps[choice]), *limits]) + self.latency

    def _energy_problem(self, choice: int) -> PathProblem:
        more, constant = add_hops(self.geo, choice, self.patterns)
        return self._problem(self.energy, choice, more, constant)

    def _problem(
        self, prices: PathPrices, choice: int, more: Reals | None = None, constant: float = 0.0
    ) -> PathProblem:
        """Arguments of the kernel for one choice; `more` is the price of distance."""
        lattice, tiles, limits, automaton = self.arguments
        geo = self.geo
        outward = [*range(1, len(geo.inner[choice])), len(geo.inner[choice]) - 1]
        extra = np.zeros((3, len(outward))) if more is None else more
        weights, outputs = geo.covers[0, choice], geo.covers[1, choice]
        return PathProblem(
            q=geo.temporal[choice],
            inner=geo.inner[choice],
            lattice=lattice,
            tiles=tiles,
            price_i=(
                prices.inputs[choice] + extra[1],
                prices.inputs_per_box[choice],
                geo.choices.factors[choice][outward],
            ),
            prices=(
                prices.weights[choice] + extra[0] * weights,
                prices.outputs[choice] + extra[2] * outputs,
                prices.finished[choice] + extra[2] * outputs,
            ),
            limits=limits,
            automaton=automaton,
            slides=self.shape.r > 1 or self.shape.s > 1,
            constant=float(prices.constant[choice]) + constant,
        )

    def infeasible(self) -> InfeasibleError:
        """Return the error that says which level asks for more than there is."""
        return infeasible(self.shape, self.machine, self.space, self.widths)
