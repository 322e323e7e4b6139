# SPDX-License-Identifier: Apache-2.0
"""Mapspaces: which nests the mapper may choose from, stated level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from enos_compiler.errors import SpecError, nearest
from enos_compiler.ir.shape import DIMS, TENSORS
from enos_compiler.mapping.machine import Machine

Range = tuple[int, int | None]
"""Least and largest factor; None leaves the largest open."""
FREE: Range = (1, None)


@dataclass(frozen=True, slots=True)
class LevelSpace:
    """What one level may do; a dimension that a fan-out does not name is not spread over it."""

    keep: frozenset[str]
    temporal: Mapping[str, Range] = field(default_factory=dict)
    """Factors of temporal loops; dimensions not named are free."""
    spatial_x: Mapping[str, Range] = field(default_factory=dict)
    spatial_y: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse unknown names and empty ranges."""
        for name in self.keep:
            if name not in TENSORS:
                raise SpecError(f"no tensor {name}", remedy=nearest(name, TENSORS))
        for ranges in (self.temporal, self.spatial_x, self.spatial_y):
            for dim, (low, high) in ranges.items():
                if dim not in DIMS:
                    raise SpecError(f"no dimension {dim}", remedy=nearest(dim, DIMS))
                if low < 1 or (high is not None and high < low):
                    raise SpecError(f"factors of {dim} from {low} to {high} are an empty range")

    def range(self, dim: str) -> Range:
        """Temporal factors that `dim` may have."""
        return self.temporal.get(dim, FREE)


@dataclass(frozen=True, slots=True)
class MapSpace:
    """One `LevelSpace` per storage level, innermost first.

    Factors are perfect (they multiply to the bounds), loop orders free, and each choice of spatial
    factors has one layout on the two axes. A fan-out spreads both P and R, or both Q and S, only
    over a level that keeps Inputs: their boxes coincide in a way that depends on the tile.
    """

    levels: tuple[LevelSpace, ...]
    finished_outputs: bool = False
    """Whether outputs reach their home finished only: no partial sum rests there and comes back.
    A home whose room was reserved for output codes has none for the wider sums."""

    def home(self, tensor: str) -> int:
        """Outermost level that keeps `tensor`."""
        kept = [i for i, level in enumerate(self.levels) if tensor in level.keep]
        if not kept:
            raise SpecError(f"no level keeps {tensor}", remedy="keep it at the outermost level")
        return kept[-1]

    @classmethod
    def of_machine(
        cls,
        machine: Machine,
        *,
        joint: bool = True,
        spatial: Mapping[str, tuple[str, str]] | None = None,
        homes: Mapping[str, str] | None = None,
    ) -> MapSpace:
        """The widest space of a machine.

        Args:
            machine: its levels say which tensors they may keep; all that may be are kept.
            joint: levels with one mesh share their tiles: only the innermost of them has temporal
                loops, as where scratchpads of one processing element feed one MAC.
            spatial: dimensions allowed in X and in Y, by level name; levels not named are free.
            homes: outermost level of a tensor that does not come from the outermost one; its room
                there is taken to be reserved, and nothing is counted for it further out.

        Raises:
            SpecError: a level that does not exist, or a home that may not keep its tensor.
        """
        spatial, homes = spatial or {}, homes or {}
        for name in spatial:
            machine.index(name)
        for tensor, name in homes.items():
            if not machine.levels[machine.index(name)].may_keep(tensor):
                raise SpecError(
                    f"{tensor} may not be stored at {name}, which is given as its home",
                    place=machine.name,
                    remedy=f"add {tensor} to the tensors that {name} keeps",
                )
        levels = []
        for i, level in enumerate(machine.levels):
            columns, rows = machine.fanout(i)
            x, y = spatial.get(level.name, ("".join(DIMS), "".join(DIMS)))
            inner = i > 0 and machine.fanout(i) == (1, 1) and i + 1 < len(machine.levels)
            keep = frozenset(
                t
                for t in TENSORS
                if level.may_keep(t) and (t not in homes or i <= machine.index(homes[t]))
            )
            levels.append(
                LevelSpace(
                    keep=keep,
                    temporal=dict.fromkeys(DIMS, (1, 1)) if joint and inner else {},
                    spatial_x=dict.fromkeys(x, FREE) if columns > 1 else {},
                    spatial_y=dict.fromkeys(y, FREE) if rows > 1 else {},
                )
            )
        return cls(tuple(levels))

    @classmethod
    def from_reference(
        cls, levels: Sequence[Mapping[str, Any]], rename: Mapping[str, str] | None = None
    ) -> MapSpace:
        """Build a space from a constraint set of the reference.

        Args:
            levels: the constraint objects, innermost level first.
            rename: dimension of a layer for each dimension of the constraints.
        """
        names = rename or {}

        def ranges(factors: Mapping[str, int]) -> dict[str, Range]:
            return {names.get(dim, dim): (n, n) for dim, n in factors.items()}

        out = []
        for level in levels:
            x: dict[str, Range] = {}
            y: dict[str, Range] = {}
            if "spatial" in level:
                fixed = ranges(level["spatial"]["factors"])
                order = level["spatial"]["permutation"]
                for position, dim in enumerate(order):
                    axis = x if position < level["spatial"]["split"] else y
                    axis[names.get(dim, dim)] = fixed.get(names.get(dim, dim), FREE)
            out.append(
                LevelSpace(
                    keep=frozenset(level["keep"]),
                    temporal=ranges(level.get("temporal", {}).get("factors", {})),
                    spatial_x=x,
                    spatial_y=y,
                )
            )
        return cls(tuple(out))

    def with_level(self, index: int, **changes: Any) -> MapSpace:
        """This space with one level changed."""
        levels = list(self.levels)
        levels[index] = replace(levels[index], **changes)
        return replace(self, levels=tuple(levels))

    def describe(self, machine: Machine) -> str:
        """The space in words, one line per level."""
        lines = []
        for level, spec in zip(self.levels, machine.levels, strict=True):
            tensors = " ".join(t for t in TENSORS if t in level.keep) or "nothing"
            parts = [f"keeps {tensors}"]
            if self.finished_outputs and level is self.levels[self.home("Outputs")]:
                parts.append("finished Outputs only")
            closed = [d for d in DIMS if level.range(d) == (1, 1)]
            if len(closed) == len(DIMS):
                parts.append("no loops of its own")
            else:
                bound = [f"{d} {_words(r)}" for d, r in level.temporal.items() if r != FREE]
                parts.append("loops " + (", ".join(bound) + ", rest free" if bound else "free"))
            for axis, ranges in (("X", level.spatial_x), ("Y", level.spatial_y)):
                names = [d if r == FREE else f"{d} {_words(r)}" for d, r in ranges.items()]
                if names:
                    parts.append(f"{axis} over {' '.join(names)}")
            lines.append(f"{spec.name}: {'; '.join(parts)}")
        return "\n".join(lines)


def _words(limits: Range) -> str:
    low, high = limits
    if high is None:
        return f"at least {low}"
    return f"= {low}" if low == high else f"{low} to {high}"
