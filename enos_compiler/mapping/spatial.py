# SPDX-License-Identifier: Apache-2.0
"""All choices of spatial factors of a mapspace, one layout on the axes for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import DIMS, LayerShape
from enos_compiler.mapping.lattice import Ints, divisors
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import Loops
from enos_compiler.mapping.space import MapSpace, Range

LIMIT = 400_000
"""Most choices that are listed."""

Layout = tuple[Loops, Loops]
"""X and Y loops, outer first."""


@dataclass(frozen=True, slots=True)
class LevelOptions:
    """Spatial factors that one level can have."""

    vectors: Ints
    """Factor by option and dimension."""
    layouts: tuple[Layout, ...]
    ways: Ints
    """Layouts that give the same factors, by option."""


@dataclass(frozen=True, slots=True)
class SpatialChoices:
    """Every choice, as arrays."""

    factors: Ints
    """Spatial factor by choice, level and dimension."""
    options: tuple[LevelOptions, ...]
    """Choices of each level on its own."""
    picks: Ints
    """Which of a level's options, by choice and level."""

    def layout(self, choice: int) -> list[Layout]:
        """X and Y loops of every level."""
        return [
            level.layouts[pick]
            for level, pick in zip(self.options, self.picks[choice], strict=True)
        ]


def spatial_choices(shape: LayerShape, machine: Machine, space: MapSpace) -> SpatialChoices:
    """List the choices of spatial factors that fit the meshes and divide the bounds.

    Raises:
        InfeasibleError: more than `LIMIT` choices.
    """
    bounds: dict[str, int] = dict(shape.bounds.items())
    extents = np.array([bounds[d] for d in DIMS], dtype=np.int64)
    options = tuple(
        _level_options(
            machine.fanout(s),
            _axis_factors(bounds, machine.fanout(s)[0], level.spatial_x),
            _axis_factors(bounds, machine.fanout(s)[1], level.spatial_y),
        )
        for s, level in enumerate(space.levels)
    )
    picks = np.zeros((1, 0), dtype=np.int64)
    total = np.ones((1, len(DIMS)), dtype=np.int64)
    for level in options:
        vectors = level.vectors
        if len(picks) * len(vectors) > 40 * LIMIT:
            raise _too_many(len(picks) * len(vectors))
        grown = total[:, None, :] * vectors[None, :, :]
        keep = np.nonzero(np.all(extents % grown == 0, axis=2))
        picks = np.concatenate([picks[keep[0]], keep[1][:, None]], axis=1)
        total = grown[keep]
    if len(picks) > LIMIT:
        raise _too_many(len(picks))
    factors = np.stack([level.vectors[picks[:, s]] for s, level in enumerate(options)], axis=1)
    return SpatialChoices(factors, options, picks)


def _too_many(count: int) -> InfeasibleError:
    return InfeasibleError(
        f"{count} choices of spatial factors are more than the {LIMIT} that are searched",
        remedy="allow fewer dimensions per axis",
    )


AxisFactors = tuple[tuple[str, tuple[int, ...]], ...]
"""Factors that an axis can give to each dimension."""


def _axis_factors(bounds: Mapping[str, int], size: int, ranges: Mapping[str, Range]) -> AxisFactors:
    out = []
    for dim in DIMS:
        if dim in ranges:
            low, high = ranges[dim]
            most = size if high is None else min(high, size)
            out.append((str(dim), tuple(f for f in divisors(bounds[dim]) if low <= f <= most)))
    return tuple(out)


@lru_cache(maxsize=1024)
def _level_options(
    mesh: tuple[int, int], x_factors: AxisFactors, y_factors: AxisFactors
) -> LevelOptions:
    """Distinct factor vectors of one level; the first layout found stands for a vector."""
    columns = _axis_options(mesh[0], x_factors)
    rows = _axis_options(mesh[1], y_factors)
    x, y = _vectors(columns), _vectors(rows)
    apart = ~np.any((x[:, None] > 1) & (y[None] > 1), axis=2)
    pairs = np.stack(np.nonzero(apart), axis=1)
    vectors = x[pairs[:, 0]] * y[pairs[:, 1]]
    vectors, first, ways = np.unique(vectors, axis=0, return_index=True, return_counts=True)
    layouts = tuple((columns[i], rows[j]) for i, j in pairs[first])
    return LevelOptions(vectors, layouts, ways)


def _vectors(options: list[Loops]) -> Ints:
    table = [dict(loops) for loops in options]
    return np.array([[entry.get(d, 1) for d in DIMS] for entry in table], dtype=np.int64).reshape(
        -1, len(DIMS)
    )


def _axis_options(size: int, factors: AxisFactors) -> list[Loops]:
    """All factors that one axis can take; the loops in the order of the dimensions, outer first."""
    out: list[tuple[int, Loops]] = [(1, ())]
    for dim, values in factors:
        out = [
            (used * f, (*loops, (dim, f)) if f > 1 else loops)
            for used, loops in out
            for f in values
            if used * f <= size
        ]
    return [loops for _, loops in out]


@lru_cache(maxsize=65536)
def hop_pattern(
    x: tuple[tuple[int, bool], ...], y: tuple[tuple[int, bool], ...], mesh: tuple[int, int]
) -> tuple[float, int]:
    """Hops of one element to every group of children, and the number of groups.

    Args:
        x: (factor, whether the tensor uses the dimension) of the X loops, outer first.
        y: the same of the Y loops.
        mesh: columns and rows of children.
    """
    group = np.zeros(1, dtype=np.int64)
    for factor, used in (*reversed(x), *reversed(y)):
        step = int(group.max()) + 1 if used else 0
        group = (np.arange(factor)[:, None] * step + group).ravel()
    columns = max(mesh[0], prod(f for f, _ in x))
    rows = max(mesh[1], prod(f for f, _ in y))
    middle = (rows - 1) / 2
    row, column = np.divmod(np.arange(len(group)), columns)
    order = np.lexsort((row, column, group))
    group, column, row = group[order], column[order], row[order]
    starts = np.nonzero(np.diff(group * columns + column, prepend=-1))[0]
    ends = np.append(starts[1:], len(group)) - 1
    vertical = np.maximum(0, middle - row[starts]) + np.maximum(0, row[ends] - middle)
    last = np.nonzero(np.diff(group, append=-1))[0]
    return float(vertical.sum() + column[last].sum()), len(last)
