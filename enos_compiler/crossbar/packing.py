# SPDX-License-Identifier: Apache-2.0
"""Tiles of several layers in arrays that they share.

A tile takes the smallest part of an array that holds it: the whole, or one of the parts that
halving it gives, columns and rows in turn. Parts are placed largest first, each in the first array
with a free part of its size, and none beside another tile of its layer: all tiles of a layer are
read at once, those of different layers one after another.

Whatever the layers, this never needs more arrays than the sum of `held_arrays`. Where a part of
size f finds no place, the m arrays that hold its layer hold a tile of it each, which counts as one
array since a smaller one follows, and all others are full, since every size is a multiple of the
next. So the layers count for more than m + f and the rest together: more than there are arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from enos_compiler.crossbar.placement import LayerPlacement
from enos_compiler.errors import InfeasibleError

_HALVINGS = 10
"""Most halvings of an array: a part is then no less than a thousandth, which a solver tells from
its tolerance."""


@dataclass(frozen=True, slots=True)
class TileRequest:
    """A rectangle of lines to be placed; a pair of arrays is two requests."""

    layer: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class TileSite:
    """Where a rectangle lies: in array `array`, from row `row` and column `column` on."""

    request: TileRequest
    array: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Packing:
    """Sites of all requests, in their order, and how many arrays they touch."""

    sites: tuple[TileSite, ...]
    arrays: int
    utilisation: float
    """Area of the rectangles over the area of the arrays touched, 0..1."""


def _parts(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Yield the extents of an array, its half, its quarter and so on."""
    for level in range(_HALVINGS + 1):
        if rows and columns:
            yield rows, columns
        rows, columns = (rows // 2, columns) if level % 2 else (rows, columns // 2)


def halvings(tile: tuple[int, int], array: tuple[int, int]) -> int:
    """Return how often an array is halved to get the smallest part that holds a tile.

    Args:
        tile: its rows and columns.
        array: its rows and columns, at least as many.
    """
    fitting = [
        level
        for level, (rows, columns) in enumerate(_parts(*array))
        if tile[0] <= rows and tile[1] <= columns
    ]
    return fitting[-1]


def held_arrays(placement: LayerPlacement, copies: int = 1) -> float:
    """Return how many arrays a layer holds: all but one whole, of that one the part it takes.

    The tile that shares is the smallest. Parts are negative powers of two, so sums are exact.
    """
    array = (placement.spec.rows, placement.spec.columns)
    most = max(
        halvings((tile.rows, tile.columns), array)
        for matrix in placement.matrices
        for tile in set(matrix.tiles)
    )
    return placement.arrays * copies - 1 + 0.5**most


@dataclass(slots=True)
class _Shared:
    """One array: its free parts by how often it was halved to get them, and who lies there."""

    free: dict[int, list[tuple[int, int]]]
    layers: set[str] = field(default_factory=set)

    def take(
        self, layer: str, level: int, parts: Sequence[tuple[int, int]]
    ) -> tuple[int, int] | None:
        """Return first row and column of the part that a layer gets, None where it gets none."""
        fitting = [n for n in self.free if n <= level]
        if not fitting or layer in self.layers:
            return None
        found = max(fitting)
        row, column = self.free[found].pop()
        if not self.free[found]:
            del self.free[found]
        for n in range(found, level):  # keep the first half, free the second
            rows, columns = parts[n + 1]
            beside = (row, column + columns) if rows == parts[n][0] else (row + rows, column)
            self.free.setdefault(n + 1, []).append(beside)
        self.layers.add(layer)
        return row, column


class _Pool:
    """Arrays of one size, and which of them have a free part."""

    def __init__(self, rows: int, columns: int, count: int) -> None:
        self._parts = list(_parts(rows, columns))
        self._left = count
        self._room: dict[int, _Shared] = {}
        self.used = 0

    def place(self, layer: str, level: int) -> tuple[int, tuple[int, int]] | None:
        """Return array, first row and column of a part, None where there is no place for it."""
        for number, array in self._room.items():
            if (place := array.take(layer, level, self._parts)) is not None:
                if not array.free:
                    del self._room[number]
                return number, place
        if self.used == self._left:
            return None
        self._room[self.used] = _Shared({0: [(0, 0)]})
        self.used += 1
        return self.place(layer, level)


def pack(requests: Sequence[TileRequest], rows: int, columns: int, count: int) -> Packing:
    """Place every rectangle in arrays of one size; see the module for the rule.

    Raises:
        InfeasibleError: an array is too small for a rectangle, or they are too few.
    """
    for request in requests:
        if request.rows > rows or request.columns > columns:
            raise _no_room(request, requests, f"arrays of {rows}x{columns} are too small for it")
    pool = _Pool(rows, columns, count)
    levels = [halvings((r.rows, r.columns), (rows, columns)) for r in requests]
    sites: dict[int, TileSite] = {}
    for index in sorted(range(len(requests)), key=lambda i: levels[i]):
        found = pool.place(requests[index].layer, levels[index])
        if found is None:
            have = f"the {count} arrays of {rows}x{columns} have no part of its size left"
            raise _no_room(requests[index], requests, have)
        number, place = found
        sites[index] = TileSite(requests[index], number, *place)
    filled = sum(r.rows * r.columns for r in requests)
    area = pool.used * rows * columns
    in_order = tuple(sites[i] for i in range(len(requests)))
    return Packing(in_order, pool.used, filled / area if area else 0.0)


def _no_room(
    request: TileRequest, requests: Iterable[TileRequest], problem: str
) -> InfeasibleError:
    need = sum(r.rows * r.columns for r in requests)
    return InfeasibleError(
        f"a {request.rows}x{request.columns} tile finds no array: {problem}; all tiles need "
        f"{need} cells",
        place=request.layer,
        remedy="more or larger arrays, or fewer layers that stay in them",
    )
