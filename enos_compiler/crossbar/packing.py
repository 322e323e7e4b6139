# SPDX-License-Identifier: Apache-2.0
"""Tiles of several layers in a budget of arrays: packing, replication, taking turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from enos_compiler.crossbar.placement import LayerPlacement
from enos_compiler.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class ArrayPool:
    """Arrays of one size on the chip."""

    name: str
    rows: int
    columns: int
    count: int


@dataclass(frozen=True, slots=True)
class TileRequest:
    """A rectangle of lines to be placed; a pair of arrays is two requests."""

    layer: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class TileSite:
    """Where a rectangle lies: array `array` of `pool`, from row `row` and column `column` on."""

    request: TileRequest
    pool: str
    array: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Packing:
    """Sites of all requests, and how many arrays of each pool they touch."""

    sites: tuple[TileSite, ...]
    arrays_used: dict[str, int]
    utilisation: float
    """Area of the rectangles over the area of the arrays touched, 0..1."""


@dataclass(slots=True)
class _Shelves:
    """One array filled by shelves: strips of rows, each filled from column 0 on."""

    rows: int
    columns: int
    shelves: list[tuple[int, int, int]] = field(default_factory=list)
    """(first row, height, next free column) of each strip."""
    layers: set[str] = field(default_factory=set)

    @property
    def full(self) -> bool:
        """No line is left in any strip, nor room for another strip."""
        if sum(height for _, height, _ in self.shelves) < self.rows:
            return False
        return all(used == self.columns for _, _, used in self.shelves)

    def fit(self, rows: int, columns: int) -> tuple[int, int, int] | None:
        """(rows wasted, shelf, first row) of the tightest strip, the last one being a new strip."""
        best: tuple[int, int, int] | None = None
        for index, (start, height, used) in enumerate(self.shelves):
            if height >= rows and used + columns <= self.columns:
                candidate = (height - rows, index, start)
                best = candidate if best is None else min(best, candidate)
        top = sum(height for _, height, _ in self.shelves)
        if best is None and top + rows <= self.rows and columns <= self.columns:
            best = (0, len(self.shelves), top)
        return best

    def take(self, shelf: int, start: int, rows: int, columns: int) -> int:
        """Occupy and return the first column."""
        if shelf == len(self.shelves):
            self.shelves.append((start, rows, columns))
            return 0
        first, height, used = self.shelves[shelf]
        self.shelves[shelf] = (first, height, used + columns)
        return used


def tile_requests(name: str, placement: LayerPlacement) -> tuple[TileRequest, ...]:
    """Rectangles of a placed layer, one per physical array that it asks for."""
    return tuple(
        TileRequest(name, tile.rows, tile.columns)
        for matrix in placement.matrices
        for tile in matrix.tiles
        for _ in range(matrix.tile_planes)
    )


def pack(
    requests: Sequence[TileRequest],
    pools: Sequence[ArrayPool],
    *,
    share: bool = True,
    apart: bool = False,
) -> Packing:
    """Place every rectangle, tallest first, into the smallest array that takes it.

    Rectangles that share an array never overlap; a read drives the rows and converts the columns
    of one rectangle, so they are used one after another.

    Args:
        requests: rectangles.
        pools: arrays by size; a rectangle may lie in a larger array than it was cut for.
        share: several rectangles may share an array.
        apart: those of one layer may not, so that all of them are read at once.

    Raises:
        InfeasibleError: a rectangle finds no place; names its size, layer and what is left.
    """
    open_arrays: dict[str, list[_Shelves]] = {p.name: [] for p in pools}
    order = sorted(range(len(requests)), key=lambda i: (-requests[i].rows, -requests[i].columns, i))
    sites: dict[int, TileSite] = {}
    ladder = sorted(pools, key=lambda p: (p.rows * p.columns, p.name))
    room: dict[str, list[int]] = {p.name: [] for p in pools}
    for index in order:
        site = _place(requests[index], ladder, open_arrays, room, share=share, apart=apart)
        if site is None:
            raise _no_room(requests[index], requests, pools)
        sites[index] = site
    area = sum(len(open_arrays[p.name]) * p.rows * p.columns for p in pools)
    filled = sum(r.rows * r.columns for r in requests)
    return Packing(
        tuple(sites[i] for i in range(len(requests))),
        {name: len(used) for name, used in open_arrays.items()},
        filled / area if area else 0.0,
    )


def _place(
    request: TileRequest,
    ladder: Sequence[ArrayPool],
    open_arrays: dict[str, list[_Shelves]],
    room: dict[str, list[int]],
    *,
    share: bool,
    apart: bool,
) -> TileSite | None:
    """Place one rectangle; `room` lists the arrays of each pool that are not full."""
    for pool in ladder:
        if request.rows > pool.rows or request.columns > pool.columns:
            continue
        arrays = open_arrays[pool.name]
        fits = []
        whole = request.rows == pool.rows and request.columns == pool.columns
        for number in room[pool.name] if share and not whole else ():
            if apart and request.layer in arrays[number].layers:
                continue
            fit = arrays[number].fit(request.rows, request.columns)
            if fit is not None:
                fits.append((fit[0], number, fit[1], fit[2]))
        if not fits:
            if len(arrays) == pool.count:
                continue
            arrays.append(_Shelves(pool.rows, pool.columns))
            room[pool.name].append(len(arrays) - 1)
            fits = [(0, len(arrays) - 1, 0, 0)]
        _, number, shelf, row = min(fits)
        column = arrays[number].take(shelf, row, request.rows, request.columns)
        arrays[number].layers.add(request.layer)
        if arrays[number].full:
            room[pool.name].remove(number)
        return TileSite(request, pool.name, number, row, column)
    return None


def _no_room(
    request: TileRequest, requests: Sequence[TileRequest], pools: Sequence[ArrayPool]
) -> InfeasibleError:
    need = sum(r.rows * r.columns for r in requests)
    have = sum(p.rows * p.columns * p.count for p in pools)
    sizes = ", ".join(f"{p.count} of {p.rows}x{p.columns}" for p in pools)
    return InfeasibleError(
        f"a {request.rows}x{request.columns} tile finds no array: all tiles need {need} cells, "
        f"the budget has {have} ({sizes})",
        place=request.layer,
        remedy="more or larger arrays, fewer layers on crossbars, or taking turns (pack_rounds)",
    )


def pack_rounds(
    requests: Sequence[TileRequest], pools: Sequence[ArrayPool], *, share: bool = True
) -> tuple[Packing, ...]:
    """Place all rectangles in as few rounds as filling in order gives.

    One round means that all weights are resident. With more, the arrays are reprogrammed for every
    round of every inference.

    Raises:
        InfeasibleError: a rectangle is larger than every array.
    """
    rounds: list[Packing] = []
    left = list(requests)
    while left:
        low, high = 0, len(left)
        packing: Packing | None = None
        count = high
        while low < high:
            try:
                packing = pack(left[:count], pools, share=share)
            except InfeasibleError:
                if count == 1:
                    raise
                high = count - 1
            else:
                low = count
            count = (low + high + 1) // 2
        if packing is not None:
            rounds.append(packing)
        left = left[low:]
    return tuple(rounds)


@dataclass(frozen=True, slots=True)
class ReplicaDemand:
    """One layer as replication sees it."""

    layer: str
    arrays: int
    positions: int
    cycles_per_position: int

    def cycles(self, copies: int) -> int:
        """Cycles of the layer when `copies` arrays sets share its positions."""
        return -(-self.positions // copies) * self.cycles_per_position


def replicate(
    demands: Sequence[ReplicaDemand], arrays: int, *, objective: Literal["sum", "max"] = "sum"
) -> dict[str, int]:
    """Copies of every layer's weights within a budget of arrays.

    max (layers as a pipeline): the least bottleneck, exact. sum (layers one after another): copies
    go where a cycle saved costs the fewest arrays, step by step to the next count that saves any.

    Raises:
        InfeasibleError: one copy of every layer does not fit.
    """
    need = sum(d.arrays for d in demands)
    if need > arrays:
        raise InfeasibleError(
            f"one copy of every layer needs {need} arrays, the budget has {arrays}",
            place="replication",
            remedy="more arrays, or taking turns (pack_rounds)",
        )
    if objective == "max":
        return _replicate_max(demands, arrays)
    copies = {d.layer: 1 for d in demands}
    spare = arrays - need
    while True:
        steps = []
        for rank, d in enumerate(demands):
            now = copies[d.layer]
            waves = -(-d.positions // now)
            if waves > 1:
                target = -(-d.positions // (waves - 1))
                price = (target - now) * d.arrays
                if price <= spare:
                    saved = d.cycles(now) - d.cycles(target)
                    steps.append((-saved / price, rank, target, price))
        if not steps:
            return copies
        _, rank, target, price = min(steps)
        copies[demands[rank].layer] = target
        spare -= price


def _copies_for(demand: ReplicaDemand, limit: int) -> int | None:
    """Fewest copies under which the layer takes at most `limit` cycles."""
    waves = limit // demand.cycles_per_position
    return None if waves < 1 else -(-demand.positions // waves)


def _replicate_max(demands: Sequence[ReplicaDemand], arrays: int) -> dict[str, int]:
    low, high = 1, max(d.cycles(1) for d in demands)
    while low < high:
        middle = (low + high) // 2
        copies = [_copies_for(d, middle) for d in demands]
        fits = all(c is not None for c in copies) and arrays >= sum(
            d.arrays * (c or 0) for d, c in zip(demands, copies, strict=True)
        )
        low, high = (low, middle) if fits else (middle + 1, high)
    return {d.layer: _copies_for(d, low) or 1 for d in demands}
