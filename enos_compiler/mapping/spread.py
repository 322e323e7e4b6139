# SPDX-License-Identifier: Apache-2.0
"""Reuse in space: which children of a level share an access, and which are served by a neighbour.

Children are numbered by the mixed-radix number of the spatial loops, inner loop fastest, X loops
first. In every step the children whose boxes coincide form a group that takes one access (for
outputs, one partial sum after adding on the way). A child whose mesh neighbour held, one step
before, exactly what it now needs may be served by that neighbour instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from enos_compiler.mapping.problem import TensorSpec
from enos_compiler.mapping.reuse import Loop, Step, Vector


@dataclass(frozen=True, slots=True)
class Fanout:
    """Children of one instance of a level for one tensor."""

    offsets: tuple[Vector, ...]
    """Where the tile of each child lies relative to child 0."""
    columns: int
    """Columns of the mesh that positions are computed in."""
    rows: int
    multicast: bool
    forwarding: bool

    @property
    def children(self) -> int:
        """Children in use."""
        return len(self.offsets)

    def position(self, child: int) -> tuple[int, int]:
        """Column and row of a child."""
        return child % self.columns, child // self.columns

    def groups(self, served: Sequence[int]) -> list[list[int]]:
        """Children that share one access, in order of their first member."""
        if not self.multicast:
            return [[child] for child in served]
        found: dict[Vector, list[int]] = {}
        for child in served:
            found.setdefault(self.offsets[child], []).append(child)
        return list(found.values())

    def hops(self, group: Sequence[int]) -> float:
        """Hops from the middle of the left edge to all of `group`: along a row, then columns."""
        middle = (self.rows - 1) / 2
        columns: dict[int, tuple[int, int]] = {}
        for child in group:
            column, row = self.position(child)
            low, high = columns.get(column, (row, row))
            columns[column] = (min(low, row), max(high, row))
        vertical = sum(
            max(0.0, middle - low) + max(0.0, high - middle) for low, high in columns.values()
        )
        return max(columns) + vertical

    def served(self, groups: Sequence[Sequence[int]]) -> list[Served]:
        """Groups by size, with the way to them."""
        sizes: dict[int, list[Sequence[int]]] = {}
        for group in groups:
            sizes.setdefault(len(group), []).append(group)
        return [
            ((size, len(members)), len(members), sum(self.hops(group) for group in members))
            for size, members in sizes.items()
        ]


Served = tuple[tuple[int, int], int, float]
"""(children that share an access, groups of that size), groups, hops of one element to all."""


@dataclass(slots=True)
class Traffic:
    """What one instance of a level sends to (or, for outputs, receives from) its children."""

    accesses: dict[tuple[int, int], int] = field(default_factory=dict)
    """Accesses by (children that share one, groups served in the step)."""
    hops: dict[tuple[int, int], float] = field(default_factory=dict)
    link_transfers: int = 0
    """Elements passed on between neighbours."""

    def add(self, served: Sequence[Served], amount: int) -> None:
        """Serve groups of children, each with `amount` elements."""
        for key, groups, path in served:
            self.accesses[key] = self.accesses.get(key, 0) + groups * amount
            self.hops[key] = self.hops.get(key, 0.0) + path * amount


def child_offsets(tensor: TensorSpec, loops: Sequence[Loop]) -> tuple[Vector, ...]:
    """Offset of every child's tile, in the order of the children; `loops` are inner to outer."""
    offsets: list[Vector] = [tuple(0 for _ in tensor.ranks)]
    for loop in loops:
        move = tensor.step(loop.dim, loop.stride)
        offsets = [
            tuple(o + index * m for o, m in zip(offset, move, strict=True))
            for index in range(loop.factor)
            for offset in offsets
        ]
    return tuple(offsets)


def spread(fanout: Fanout, steps: Sequence[Step], first: Step) -> Traffic:
    """Traffic of a level with spatial loops over the whole run.

    Args:
        fanout: the children and their wires.
        steps: movements of child 0, inner to outer.
        first: the first tile, which nobody held before.
    """
    traffic = Traffic()
    everyone = range(fanout.children)
    all_groups = fanout.groups(everyone)
    all_served = fanout.served(all_groups)
    forwarded: dict[Vector, tuple[int, list[Served]]] = {}
    for before, now, weight in _pairs(steps, first):
        amount = now.size * weight
        if not amount:
            continue
        links, served = 0, all_served
        apart = _distance(before, now) if before is not None and fanout.forwarding else None
        if apart is not None:
            if apart not in forwarded:
                linked = _linked(fanout, apart)
                unlinked = fanout.groups([child for child in everyone if child not in linked])
                saves = len(unlinked) < len(all_groups)
                forwarded[apart] = (
                    (len(linked), fanout.served(unlinked)) if saves else (0, all_served)
                )
            links, served = forwarded[apart]
        traffic.link_transfers += links * amount
        traffic.add(served, amount)
    return traffic


def _pairs(steps: Sequence[Step], first: Step) -> Iterator[tuple[Step | None, Step, int]]:
    """(step before, step, how often); between two other steps the innermost loop always moves."""
    yield None, first, 1
    if not steps:
        return
    inner = steps[0]
    again = inner.factor - 1
    yield first, inner, again
    for outer in steps[1:]:
        yield inner, outer, outer.weight
        yield outer, inner, again * outer.weight


def _linked(fanout: Fanout, apart: Vector) -> set[int]:
    """Children with a mesh neighbour that lies just so far from them."""
    offsets, columns, rows = fanout.offsets, fanout.columns, fanout.rows
    linked = set()
    for child, offset in enumerate(offsets):
        wanted = tuple(o - a for o, a in zip(offset, apart, strict=True))
        row, column = divmod(child, columns)
        for x, y in ((column + 1, row), (column - 1, row), (column, row + 1), (column, row - 1)):
            neighbour = y * columns + x
            inside = 0 <= x < columns and 0 <= y < rows and neighbour < len(offsets)
            if inside and offsets[neighbour] == wanted:
                linked.add(child)
                break
    return linked


def _distance(before: Step, now: Step) -> Vector | None:
    """How far a child lies from one that held, a step before, what it needs now; None: nowhere.

    Translation keeps the order of boxes, so the first of either set decides how far they lie apart.
    """
    if not before.boxes:
        return None
    first, second = min(before.boxes), min(now.boxes)
    shift = tuple(b[0] - n[0] for b, n in zip(first, second, strict=True))
    moved = frozenset(
        tuple((low + s, high + s) for (low, high), s in zip(box, shift, strict=True))
        for box in now.boxes
    )
    if moved != frozenset(before.boxes):
        return None
    return tuple(s - t for s, t in zip(shift, now.translation, strict=True))
