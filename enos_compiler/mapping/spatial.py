# SPDX-License-Identifier: Apache-2.0
"""All choices of spatial factors of a mapspace, one layout on the axes for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import DIMS, LayerShape
from enos_compiler.mapping.lattice import Ints, divisors
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import Loops
from enos_compiler.mapping.space import MapSpace, Range
from enos_compiler.mapping.spread import Fanout

LIMIT = 400_000
"""Most choices that are listed."""

Layout = tuple[Loops, Loops]
"""X and Y loops, outer first."""


@dataclass(frozen=True, slots=True)
class SpatialChoices:
    """Every choice, as arrays."""

    factors: Ints
    """Spatial factor by choice, level and dimension."""
    options: tuple[tuple[tuple[Ints, Layout], ...], ...]
    """Choices of each level on its own."""
    picks: Ints
    """Which of a level's options, by choice and level."""

    def layout(self, choice: int) -> list[Layout]:
        """X and Y loops of every level."""
        return [
            options[pick][1] for options, pick in zip(self.options, self.picks[choice], strict=True)
        ]


def spatial_choices(shape: LayerShape, machine: Machine, space: MapSpace) -> SpatialChoices:
    """List the choices of spatial factors that fit the meshes and divide the bounds.

    Raises:
        InfeasibleError: more than `LIMIT` choices, or none.
    """
    bounds: dict[str, int] = dict(shape.bounds.items())
    extents = np.array([bounds[d] for d in DIMS], dtype=np.int64)
    options = tuple(
        _level_options(bounds, machine.fanout(s), level.spatial_x, level.spatial_y)
        for s, level in enumerate(space.levels)
    )
    picks = np.zeros((1, 0), dtype=np.int64)
    total = np.ones((1, len(DIMS)), dtype=np.int64)
    for level in options:
        vectors = np.array([vector for vector, _ in level], dtype=np.int64).reshape(-1, len(DIMS))
        if len(picks) * len(vectors) > 40 * LIMIT:
            raise _too_many(len(picks) * len(vectors))
        grown = total[:, None, :] * vectors[None, :, :]
        keep = np.nonzero(np.all(extents % grown == 0, axis=2))
        picks = np.concatenate([picks[keep[0]], keep[1][:, None]], axis=1)
        total = grown[keep]
    if len(picks) > LIMIT:
        raise _too_many(len(picks))
    if not len(picks):
        raise InfeasibleError(
            "no spatial factors fulfil the constraints",
            place=machine.name,
            remedy="wider ranges, or a bound that the fixed factors divide",
        )
    factors = np.stack(
        [
            np.array([vector for vector, _ in level], dtype=np.int64)[picks[:, s]]
            for s, level in enumerate(options)
        ],
        axis=1,
    )
    return SpatialChoices(factors, options, picks)


def _too_many(count: int) -> InfeasibleError:
    return InfeasibleError(
        f"{count} choices of spatial factors are more than the {LIMIT} that are searched",
        remedy="allow fewer dimensions per axis",
    )


def _level_options(
    bounds: Mapping[str, int],
    mesh: tuple[int, int],
    x_ranges: Mapping[str, Range],
    y_ranges: Mapping[str, Range],
) -> tuple[tuple[Ints, Layout], ...]:
    """Distinct factor vectors of one level; the first layout found stands for a vector."""
    found: dict[tuple[int, ...], Layout] = {}
    columns = _axis_options(bounds, mesh[0], x_ranges)
    rows = _axis_options(bounds, mesh[1], y_ranges)
    for x, y in product(columns, rows):
        if {dim for dim, _ in x} & {dim for dim, _ in y}:
            continue
        factor = dict(x) | dict(y)
        found.setdefault(tuple(factor.get(d, 1) for d in DIMS), (x, y))
    return tuple((np.array(v, dtype=np.int64), layout) for v, layout in sorted(found.items()))


def _axis_options(bounds: Mapping[str, int], size: int, ranges: Mapping[str, Range]) -> list[Loops]:
    """All factors that one axis can take; the loops in the order of the dimensions, outer first."""
    out: list[Loops] = [()]
    for dim in DIMS:
        if dim not in ranges:
            continue
        low, high = ranges[dim]
        most = size if high is None else min(high, size)
        factors = [f for f in divisors(bounds[dim]) if low <= f <= most]
        out = [
            (*loops, (dim, f)) if f > 1 else loops
            for loops in out
            for f in factors
            if f * prod(n for _, n in loops) <= size
        ]
    return out


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
    offsets: list[tuple[int, ...]] = [()]
    for factor, used in (*reversed(x), *reversed(y)):
        offsets = [(*o, i if used else 0) for i in range(factor) for o in offsets]
    columns = max(mesh[0], prod(f for f, _ in x))
    rows = max(mesh[1], prod(f for f, _ in y))
    fanout = Fanout(tuple(offsets), columns, rows, multicast=True, forwarding=False)
    groups = fanout.groups(range(fanout.children))
    return sum(fanout.hops(group) for group in groups), len(groups)
