# SPDX-License-Identifier: Apache-2.0
"""A mapping: the loops, fan-outs and kept tensors of every storage level, and its validity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from enos_compiler.errors import InfeasibleError
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.problem import Problem

Loops = tuple[tuple[str, int], ...]
"""(dimension, factor), outer loop first; factors of one are left out."""


class MappingError(InfeasibleError):
    """A mapping asks of a level more than it has.

    Args:
        message: the broken rule with its numbers.
        level: storage level, or the compute array.
        needed: what the mapping asks for.
        available: what there is, in the same unit.
        tensor: the tensor concerned, if one.
        remedy: the way out.
    """

    def __init__(
        self,
        message: str,
        *,
        level: str,
        needed: int,
        available: int,
        tensor: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, place=level, remedy=remedy)
        self.level = level
        self.tensor = tensor
        self.needed = needed
        self.available = available

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that `--json` prints."""
        fields = {name: getattr(self, name) for name in ("level", "tensor", "needed", "available")}
        return super().as_dict() | fields


@dataclass(frozen=True, slots=True)
class LevelNest:
    """Loops of one storage level; its spatial loops sit directly inside its temporal loops."""

    keep: frozenset[str]
    """Tensors stored here; the others bypass the level."""
    temporal: Loops = ()
    spatial_x: Loops = ()
    """Factors over the columns of children; X loops lie inside Y loops."""
    spatial_y: Loops = ()
    no_multicast: frozenset[str] = frozenset()
    """Tensors for which the wires inside this level neither multicast nor add."""
    no_forwarding: frozenset[str] = frozenset()
    """Tensors that neighbours inside this level may not pass on."""

    @property
    def spatial(self) -> Loops:
        """All spatial loops, outer first: Y, then X."""
        return self.spatial_y + self.spatial_x

    @property
    def used_x(self) -> int:
        """Columns of children in use."""
        return prod(factor for _, factor in self.spatial_x)

    @property
    def used_y(self) -> int:
        """Rows of children in use."""
        return prod(factor for _, factor in self.spatial_y)


@dataclass(frozen=True, slots=True)
class Nest:
    """One mapping, innermost level first."""

    levels: tuple[LevelNest, ...]

    @property
    def compute_cycles(self) -> int:
        """Product of all temporal factors."""
        return prod(factor for level in self.levels for _, factor in level.temporal)

    @property
    def used_macs(self) -> int:
        """Product of all spatial factors."""
        return prod(level.used_x * level.used_y for level in self.levels)

    def outside(self, level: int) -> tuple[int, int]:
        """Columns and rows of instances of `level` in use; level -1 stands for the MACs."""
        outer = self.levels[level + 1 :]
        return prod(entry.used_x for entry in outer), prod(entry.used_y for entry in outer)

    def instances(self, level: int) -> int:
        """Instances of `level` in use."""
        return prod(self.outside(level))

    def home(self, tensor: str) -> int:
        """Outermost level that keeps `tensor`; nothing is counted for it further out.

        Raises:
            MappingError: no level keeps it.
        """
        kept = [i for i, level in enumerate(self.levels) if tensor in level.keep]
        if not kept:
            raise MappingError(
                f"no level keeps {tensor}",
                level="nest",
                tensor=tensor,
                needed=1,
                available=0,
                remedy="keep it at the outermost level",
            )
        return kept[-1]

    @classmethod
    def from_reference(cls, data: Sequence[Mapping[str, Any]]) -> Nest:
        """Build a nest from the JSON form of the reference set."""

        def loops(entries: Sequence[Sequence[Any]]) -> Loops:
            return tuple((str(dim), int(factor)) for dim, factor in entries if factor != 1)

        return cls(
            tuple(
                LevelNest(
                    keep=frozenset(level["keep"]),
                    temporal=loops(level["temporal"]),
                    spatial_x=loops(level["spatial_x"]),
                    spatial_y=loops(level["spatial_y"]),
                    no_multicast=frozenset(level.get("no_multicast", ())),
                    no_forwarding=frozenset(level.get("no_link_transfer", ())),
                )
                for level in data
            )
        )

    def as_reference(self, machine: Machine) -> list[dict[str, Any]]:
        """The JSON form of the reference set."""
        out = []
        for level, spec in zip(self.levels, machine.levels, strict=True):
            entry: dict[str, Any] = {
                "level": spec.name,
                "keep": sorted(level.keep),
                "temporal": [list(loop) for loop in level.temporal],
                "spatial_x": [list(loop) for loop in level.spatial_x],
                "spatial_y": [list(loop) for loop in level.spatial_y],
            }
            if level.no_multicast:
                entry["no_multicast"] = sorted(level.no_multicast)
            if level.no_forwarding:
                entry["no_link_transfer"] = sorted(level.no_forwarding)
            out.append(entry)
        return out


def tile_boxes(problem: Problem, nest: Nest) -> list[dict[str, int]]:
    """Extent of every dimension in the tile of each level, all its loops included."""
    box = dict.fromkeys(problem.dims, 1)
    boxes = []
    for level in nest.levels:
        for dim, factor in level.spatial + level.temporal:
            box[dim] *= factor
        boxes.append(dict(box))
    return boxes


def operands_per_word(
    machine: Machine, level: int, tensor: str, bits: Mapping[str, int] | None
) -> int:
    """Operands of `tensor` in one word of `level`; none straddles words.

    Raises:
        MappingError: an operand is wider than the word.
    """
    word = machine.levels[level].word_bits
    if bits is None or tensor not in bits or word <= 1:
        return 1
    if bits[tensor] > word:
        raise MappingError(
            f"{tensor} have {bits[tensor]} bits, a word has {word}",
            level=machine.levels[level].name,
            tensor=tensor,
            needed=bits[tensor],
            available=word,
            remedy="fewer bits, or a machine with wider words",
        )
    return word // bits[tensor]


def check_nest(
    problem: Problem, machine: Machine, nest: Nest, bits: Sequence[Mapping[str, int]] | None = None
) -> None:
    """Check that `nest` computes `problem` on `machine`.

    Args:
        problem: bounds and tensors.
        machine: levels and their sizes.
        nest: the mapping to check.
        bits: operand bits per level and tensor; None where an operand is a word.

    Raises:
        MappingError: factors that do not multiply to a bound, a fan-out larger than its mesh, or
            tiles larger than their level; with what was needed and what there is.
    """
    if len(nest.levels) != len(machine.levels):
        raise MappingError(
            f"a nest of {len(nest.levels)} levels on {len(machine.levels)} storage levels",
            level=machine.name,
            needed=len(nest.levels),
            available=len(machine.levels),
        )
    _check_factors(problem, machine, nest)
    _check_mesh(machine, nest)
    _check_keep(problem, machine, nest)
    for level in range(len(machine.levels)):
        _check_capacity(problem, machine, nest, level, None if bits is None else bits[level])


def _check_factors(problem: Problem, machine: Machine, nest: Nest) -> None:
    for spec, level in zip(machine.levels, nest.levels, strict=True):
        for loops in (level.temporal, level.spatial):
            names = [dim for dim, _ in loops]
            if len(set(names)) != len(names):
                twice = next(dim for dim in names if names.count(dim) > 1)
                raise MappingError(
                    f"dimension {twice} appears twice in {loops}",
                    level=spec.name,
                    needed=names.count(twice),
                    available=1,
                    remedy="merge the two loops",
                )
            for dim, factor in loops:
                if dim not in problem.dims or factor < 1:
                    raise MappingError(
                        f"loop {dim}:{factor} is over no dimension of the problem or empty",
                        level=spec.name,
                        needed=factor,
                        available=1,
                        remedy="use the dimensions " + ", ".join(problem.dims),
                    )
    total = tile_boxes(problem, nest)[-1]
    for dim, bound in problem.bounds:
        if total[dim] != bound:
            raise MappingError(
                f"factors of {dim} multiply to {total[dim]}, its bound is {bound}",
                level=machine.name,
                needed=bound,
                available=total[dim],
                remedy="pad the bound, or use factors that multiply to it",
            )


def _check_mesh(machine: Machine, nest: Nest) -> None:
    units: tuple[ComputeSpec | StorageLevel, ...] = (machine.compute, *machine.levels)
    for position, unit in enumerate(units):
        x, y = nest.outside(position - 1)
        for axis, used, size in (("X", x, unit.mesh_x), ("Y", y, unit.mesh_y)):
            if used > size:
                raise MappingError(
                    f"spatial factors ask for {used} in {axis}, the mesh has {size}",
                    level=unit.name,
                    needed=used,
                    available=size,
                    remedy=f"smaller spatial factors in {axis} outside {unit.name}",
                )


def _check_keep(problem: Problem, machine: Machine, nest: Nest) -> None:
    for tensor in problem.tensors:
        keepers = [i for i, level in enumerate(nest.levels) if tensor.name in level.keep]
        if not keepers:
            raise MappingError(
                f"no level keeps {tensor.name}",
                level=machine.name,
                tensor=tensor.name,
                needed=1,
                available=0,
                remedy="keep it at the outermost level",
            )
        if nest.instances(keepers[-1]) > 1:
            raise MappingError(
                f"{tensor.name} rest at {nest.instances(keepers[-1])} instances at once",
                level=machine.levels[keepers[-1]].name,
                tensor=tensor.name,
                needed=nest.instances(keepers[-1]),
                available=1,
                remedy="no spatial loops outside the home of a tensor",
            )


def _check_capacity(
    problem: Problem, machine: Machine, nest: Nest, level: int, bits: Mapping[str, int] | None
) -> None:
    spec = machine.levels[level]
    used, parts = 0, []
    outermost = len(machine.levels) - 1
    for tensor in problem.tensors:
        per_word = operands_per_word(machine, level, tensor.name, bits)
        if tensor.name not in nest.levels[level].keep:
            continue
        if not spec.may_keep(tensor.name):
            raise MappingError(
                f"{tensor.name} may not be stored here",
                level=spec.name,
                tensor=tensor.name,
                needed=1,
                available=0,
            )
        if level == nest.home(tensor.name) < outermost:
            continue  # a whole value at its home: its room was reserved before any mapping
        words = -(-tensor.volume(tile_boxes(problem, nest)[level]) // per_word)
        room = spec.tensor_capacity(tensor.name)
        if room is not None and words > room:
            raise MappingError(
                f"the tile of {tensor.name} takes {words} words, {room} are set aside",
                level=spec.name,
                tensor=tensor.name,
                needed=words,
                available=room,
                remedy="smaller factors at and inside this level",
            )
        if room is None:
            used += words
            parts.append(f"{tensor.name} {words}")
    if spec.capacity is not None and used > spec.capacity:
        raise MappingError(
            f"tiles take {used} words ({', '.join(parts)}), the capacity is {spec.capacity}",
            level=spec.name,
            needed=used,
            available=spec.capacity,
            remedy="smaller factors at and inside this level, or let a tensor bypass it",
        )
