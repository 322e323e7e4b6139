# SPDX-License-Identifier: Apache-2.0
"""How many nests a mapspace holds, exactly: the same lattice, with sums for minima."""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.typing import NDArray

from enos_compiler.ir.shape import DIMS, LayerShape
from enos_compiler.mapping import kernel
from enos_compiler.mapping.lattice import Ints
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.mapper import LayerSearch
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.space import MapSpace

_EXACT = 2.0**52
"""Sums of reals below this are exact integers."""


def count_mappings(
    shape: LayerShape,
    machine: Machine,
    *,
    space: MapSpace | None = None,
    widths: Widths | None = None,
) -> int:
    """Number of nests of a mapspace that fit the machine.

    Nests differ by the factors of any loop, by the axis of a spatial one, or by the order of the
    temporal loops of a level; loops of one iteration have no order.
    """
    search = LayerSearch(shape, machine, space or MapSpace.of_machine(machine), widths, "energy")
    choices = search.geo.choices
    ways = np.ones(len(choices.picks), dtype=np.int64)
    for level, options in enumerate(choices.options):
        ways *= options.ways[choices.picks[:, level]]
    known: dict[tuple[int, ...], int] = {}
    total = 0
    for choice, count in enumerate(ways):
        key = tuple(search.geo.inner[choice].ravel())
        if key not in known:
            known[key] = _chains(search, choice)
        total += int(count) * known[key]
    return total


def _chains(search: LayerSearch, choice: int) -> int:
    """Nests of one choice of spatial factors: chains of tiles, times the orders of their loops."""
    lattice, tiles, (_, low, high), _ = search.arguments
    q, inner = search.geo.temporal[choice], search.geo.inner[choice]
    _, factors, index = kernel.local_lattice(q, lattice)
    values = lattice[1][index]
    size, levels = len(index), len(inner)
    fits = [tiles[0][s][index + kernel.outer_index(inner[s], lattice)] for s in range(levels)]
    beyond: NDArray[np.object_] = np.zeros(size, dtype=object)
    beyond[-1] = int(fits[-1][-1])
    for level in range(levels - 1, 0, -1):
        beyond = _orders(beyond, q // values, factors, low[level], high[level])
        beyond[~fits[level - 1]] = 0
    start = _orders(beyond, q // values, factors, low[0], high[0])
    return int(start[0])


def _orders(
    after: NDArray[np.object_], room: Ints, factors: Ints, low: Ints, high: Ints
) -> NDArray[np.object_]:
    """Number of ways from each node through one level, its loops in every order."""
    exact = float(sum(after)) * factorial(len(DIMS)) < _EXACT
    kind = np.float64 if exact else object
    by_loops = np.zeros((len(DIMS) + 1, len(after)), dtype=kind)
    by_loops[0] = after
    for dim in range(len(DIMS)):
        if high[dim] == 1:
            continue
        grown = by_loops.copy() if low[dim] == 1 else np.zeros_like(by_loops)
        for _, factor, step in factors[factors[:, 0] == dim]:
            if low[dim] <= factor <= high[dim]:
                at = np.nonzero(room[:, dim] % factor == 0)[0]
                grown[1:, at] += by_loops[:-1, at + step]
        by_loops = grown
    total: NDArray[np.object_] = np.zeros(len(after), dtype=object)
    for loops, row in enumerate(by_loops):
        if row.any():
            total += np.array([int(n) for n in row], dtype=object) * factorial(loops)
    return total
