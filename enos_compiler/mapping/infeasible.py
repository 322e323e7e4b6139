# SPDX-License-Identifier: Apache-2.0
"""Why a mapspace holds no nest of a layer: the first level that asks for more than there is.

Dimension by dimension: the factors that each level may have, the products that they reach, hence
the smallest tile that each level must hold and the smallest fan-out that it must serve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import DIMS, TENSORS, Dim, LayerShape, Tensor
from enos_compiler.mapping.lattice import divisors
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import MappingError
from enos_compiler.mapping.prices import Widths, operands_per_word
from enos_compiler.mapping.problem import Problem
from enos_compiler.mapping.space import MapSpace, Range

_KINDS = ("loops", "X", "Y")
Factors = Mapping[tuple[int, str, Dim], tuple[int, ...]]
"""Factors of a dimension that divide its bound and fit, by (level, kind of loop, dimension)."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What was to be mapped, and where."""

    shape: LayerShape
    machine: Machine
    space: MapSpace
    widths: Widths | None

    def ranges(self, level: int, kind: str, dim: str) -> Range:
        """Factors that the space allows."""
        entry = self.space.levels[level]
        if kind == "loops":
            return entry.range(dim)
        return (entry.spatial_x if kind == "X" else entry.spatial_y).get(dim, (1, 1))

    def mesh(self, level: int, kind: str) -> int | None:
        """Children along an axis; loops in time have no limit."""
        return None if kind == "loops" else self.machine.fanout(level)[_KINDS.index(kind) - 1]


def infeasible(
    shape: LayerShape, machine: Machine, space: MapSpace, widths: Widths | None
) -> InfeasibleError:
    """Return the error of a layer that has no nest, with level, tensor, needed and available."""
    question = _Question(shape, machine, space, widths)
    factors: dict[tuple[int, str, Dim], tuple[int, ...]] = {}
    for level in range(len(machine.levels)):
        for kind in _KINDS:
            for dim in DIMS:
                found = _allowed(question, level, kind, dim)
                if isinstance(found, MappingError):
                    return found
                factors[level, kind, dim] = found
    return (
        _unreachable(question, factors)
        or _crowded(question, factors)
        or _too_small(question, factors)
        or InfeasibleError(
            f"no nest of {shape}: each level could serve it alone, all of them together cannot",
            place=machine.name,
            remedy="wider ranges of factors, more dimensions per axis, or padded bounds",
        )
    )


def _allowed(q: _Question, level: int, kind: str, dim: Dim) -> tuple[int, ...] | MappingError:
    """Factors of one dimension at one place, or the error that there are none."""
    low, high = q.ranges(level, kind, dim)
    bound, room, name = q.shape.bounds[dim], q.mesh(level, kind), q.machine.levels[level].name
    if room is not None and low > room:
        return MappingError(
            f"{dim} is to be spread over at least {low} in {kind}, the fan-out has {room}",
            level=name,
            needed=low,
            available=room,
            remedy=f"at most {room} in {kind} of {name}",
        )
    most = min(bound if high is None else high, bound if room is None else room)
    found = tuple(f for f in divisors(bound) if low <= f <= most)
    if found:
        return found
    what = f"{low}" if low == high else f"at least {low}"
    where = "loops" if kind == "loops" else f"columns ({kind})" if kind == "X" else f"rows ({kind})"
    return MappingError(
        f"{dim} is to have a factor of {what} in its {where}, but no such factor divides {bound}",
        level=name,
        needed=low,
        available=bound,
        remedy=f"a factor that divides {bound}, or a padded bound",
    )


def _products(bound: int, lists: Iterable[tuple[int, ...]]) -> set[int]:
    """Products of one factor from each list that divide `bound`."""
    reached = {1}
    for factors in lists:
        reached = {a * f for a in reached for f in factors if bound % (a * f) == 0}
    return reached


def _span(
    q: _Question, factors: Factors, dim: Dim, levels: Iterable[int], skip: tuple[int, str] | None
) -> set[int]:
    """Products that the loops of some levels reach, one place left out."""
    places = [(s, kind) for s in levels for kind in _KINDS if (s, kind) != skip]
    return _products(q.shape.bounds[dim], [factors[s, kind, dim] for s, kind in places])


def _unreachable(q: _Question, factors: Factors) -> MappingError | None:
    """A bound that no factors multiply to."""
    for dim in DIMS:
        bound = q.shape.bounds[dim]
        reached = _span(q, factors, dim, range(len(q.machine.levels)), None)
        if bound not in reached:
            most = max(reached, default=0)
            return MappingError(
                f"the factors that {dim} may have multiply to {most} at most, its bound is {bound}",
                level=q.machine.name,
                needed=bound,
                available=most,
                remedy=f"loops over {dim} at some level, or wider ranges",
            )
    return None


def _crowded(q: _Question, factors: Factors) -> MappingError | None:
    """A fan-out whose dimensions, each as small as it may be, do not fit beside each other."""
    levels = range(len(q.machine.levels))
    for s in levels:
        for kind in ("X", "Y"):
            least = {}
            for dim in DIMS:
                rest = _span(q, factors, dim, levels, (s, kind))
                bound = q.shape.bounds[dim]
                least[dim] = min(f for f in factors[s, kind, dim] if bound // f in rest)
            needed, room = prod(least.values()), q.mesh(s, kind)
            if room is not None and needed > room:
                parts = "  ".join(f"{dim} {f}" for dim, f in least.items() if f > 1)
                return MappingError(
                    f"the fan-out in {kind} must serve at least {parts} = {needed}, it has {room}",
                    level=q.machine.levels[s].name,
                    needed=needed,
                    available=room,
                    remedy="smaller least factors, or other dimensions on this axis",
                )
    return None


def _too_small(q: _Question, factors: Factors) -> MappingError | None:
    """A level whose smallest tile does not fit."""
    levels = range(len(q.machine.levels))
    per_word = operands_per_word(q.machine, q.widths, finished=False)
    problem = Problem.from_shape(q.shape)
    for s, spec in enumerate(q.machine.levels):
        tile: dict[str, int] = {}
        for dim in DIMS:
            inside = _span(q, factors, dim, levels[: s + 1], None)
            outside = _span(q, factors, dim, levels[s + 1 :], None)
            bound = q.shape.bounds[dim]
            tile[dim] = min(t for t in inside if bound // t in outside)
        words: dict[Tensor, int] = {}
        for t, tensor in enumerate(TENSORS):
            reserved = s == q.space.home(tensor) < len(levels) - 1
            if tensor in q.space.levels[s].keep and not reserved:
                words[tensor] = -(-problem.tensor(tensor).volume(tile) // int(per_word[s, t]))
        extents = " ".join(f"{dim}{n}" for dim, n in tile.items() if n > 1) or "one element"
        for tensor, needed in words.items():
            room = spec.tensor_capacity(tensor)
            if room is not None and needed > room:
                return _full(spec.name, tensor, extents, f"{needed}", needed, room)
        shared = {t: n for t, n in words.items() if spec.tensor_capacity(t) is None}
        total = sum(shared.values())
        if spec.capacity is not None and total > spec.capacity:
            largest = max(shared, key=lambda t: shared[t])
            parts = ", ".join(f"{t} {n}" for t, n in shared.items())
            text = f"{total} ({parts})" if len(shared) > 1 else f"{total}"
            return _full(spec.name, largest, extents, text, total, spec.capacity)
    return None


def _full(
    level: str, tensor: str, extents: str, words: str, needed: int, available: int
) -> MappingError:
    return MappingError(
        f"the smallest tile that the constraints allow ({extents}) takes {words} words, "
        f"there are {available}",
        level=level,
        tensor=tensor,
        needed=needed,
        available=available,
        remedy="a larger memory, fewer kept tensors, narrower operands, or loops further out",
    )
