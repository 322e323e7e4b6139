# SPDX-License-Identifier: Apache-2.0
"""The form of a loop-nest core in a target file, and the levels of its own that it states."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import Dim, Tensor
from enos_compiler.mapping.machine import ComputeSpec, Machine, NetworkSpec, StorageLevel
from enos_compiler.mapping.objective import Objective
from enos_compiler.mapping.space import FREE, Range
from enos_compiler.spec import (
    BufferSpec,
    Count,
    NonNegative,
    Positive,
    Quantity,
    Strict,
    rule_error,
)
from enos_compiler.spec.target import Name

OUTERMOST = "memory"
"""Name of the chip's DRAM in nests."""
SHARED = "shared"
"""Name of the chip's shared buffer in nests."""
WEIGHT_MEMORY = "weight_memory"
"""Name of the core's own weight memory in nests."""
RESERVED = ("element", "post", OUTERMOST, SHARED, WEIGHT_MEMORY)
"""Components of a core that are no storage level of its own."""


def _as_ranges(data: Any) -> Any:
    """Read `[M, C]`, `{M: 4}` and `{M: [1, 4]}` as a range of factors for each dimension."""
    if isinstance(data, list):
        return {dim if isinstance(dim, str) else str(dim): FREE for dim in data}
    if not isinstance(data, dict):
        return data
    return {dim: _as_range(dim, limits) for dim, limits in data.items()}


def _as_range(dim: Any, limits: Any) -> Range:
    ends = limits if isinstance(limits, list) else [limits, limits]
    whole = all(type(end) is int for end in ends)
    if len(ends) != 2 or not whole or not 1 <= ends[0] <= ends[1]:
        raise rule_error(f"factors {limits!r} of {dim}", f"{dim}: 4, or {dim}: [1, 4]")
    return ends[0], ends[1]


Ranges = Annotated[
    dict[Dim, Annotated[tuple[int, int | None], Field(strict=False)]], BeforeValidator(_as_ranges)
]
"""Dimensions and the factors that they may have; a plain list leaves the factors free."""
WordsPerCycle = Positive


class WiresSpec(Strict):
    """The mesh inside a level; one price of distance for every operand, whatever its width."""

    hop_pj: NonNegative
    """Energy of one operand over one hop."""
    router_pj: NonNegative | None = None
    """Energy of one word through one router; none where the wires have no routers."""


class ConstraintsSpec(Strict):
    """What the nests may do at one level."""

    loops: Ranges | None = None
    """Dimensions with temporal loops at this level; all where absent."""
    spread_x: Ranges | None = None
    """Dimensions spread over the columns inside this level; all where absent."""
    spread_y: Ranges | None = None


class LevelSpec(ConstraintsSpec):
    """One storage level of the core; quantities are per instance and in words."""

    name: Name
    keeps: Annotated[list[Tensor], Field(min_length=1)]
    instances: Count
    columns: Count
    """Columns in which the instances lie; rows = instances / columns."""
    word_bits: Count
    entries: Count
    """Capacity in words."""
    block_words: Count
    """Words that one access moves."""
    cluster_size: Count | None = None
    """Instances that share one access; 1 where absent."""
    multiple_buffering: Count | None = None
    """Copies of a tile that the capacity must hold; 1 where absent."""
    read_words_per_cycle: WordsPerCycle | None = None
    write_words_per_cycle: WordsPerCycle | None = None
    words_per_cycle: WordsPerCycle | None = None
    """Limit of reads and writes together."""
    read_pj: NonNegative
    """Energy of reading one block."""
    fill_pj: NonNegative
    """Energy of writing one block that comes from outside."""
    update_pj: NonNegative
    """Energy of writing one block that comes from inside."""
    address_pj: NonNegative | None = None
    """Energy of generating one address; free where absent."""
    area_um2: NonNegative
    """Area of one instance."""
    adds_sums: bool = True
    """Whether arriving partial sums are added here; if not, each is sent back to be added."""
    wires: WiresSpec | None = None


class ElementSpec(Strict):
    """The multiply-accumulate elements."""

    instances: Count
    columns: Count
    operand_bits: Count
    """Widest input or weight that an element takes."""
    operator_pj: dict[str, Positive] = Field(default_factory=dict)
    """Energy of one tap by operator, whatever the widths of its operands."""
    by_formula: list[Name] = Field(default_factory=list)
    """Operators whose taps are priced by the formulas of `arithmetic:`, at their own widths. The
    core takes the operators that stand here or have an energy above."""
    sum_bits: Count | None = None
    """Width of the adders; wider sums are refused. The words that keep sums decide where absent."""
    area_um2: NonNegative
    """Area of one element."""

    @model_validator(mode="after")
    def _takes_something_once(self) -> ElementSpec:
        twice = sorted(set(self.operator_pj) & set(self.by_formula))
        if twice:
            raise rule_error(
                f"operator_pj.{twice[0]} beside by_formula: {twice[0]}", "one price for each"
            )
        if not self.operator_pj and not self.by_formula:
            raise rule_error(
                "neither operator_pj nor by_formula", "by_formula: [mac], or the energy of a tap"
            )
        return self


class OutermostSpec(ConstraintsSpec):
    """How nests see the chip's memories; prices and access widths stand in `memories:`."""

    word_bits: Count
    read_words_per_cycle: WordsPerCycle | None = None
    """Where a direction of the DRAM has a limit of its own; else its bandwidth is shared."""
    write_words_per_cycle: WordsPerCycle | None = None


class LoopNestSpec(Strict):
    """A digital core described by its storage hierarchy; the mapper finds each layer's nest."""

    objective: Objective = "energy"
    """What mappings minimise."""
    padding_percent: Count | None = None
    """How far bounds may be padded so that they divide well; not at all where absent."""
    counting: Literal["reference", "plain", "exact"] = "reference"
    """The rule that events are counted by; see `enos_compiler.mapping.count`."""
    partial_sums: Literal["exact", "output"] = "exact"
    """Width of unfinished outputs: their own, or that of output codes as in public tables."""
    packing_bits: Count | None = None
    """Codes are packed in units of this width and straddle none; a wider one takes several. Where
    absent, every word is such a unit, and no code is wider than a word."""
    sum_packing_bits: Count | None = None
    """The same for partial sums, where they are packed otherwise than codes."""
    element: ElementSpec
    levels: Annotated[list[LevelSpec], Field(min_length=1)]
    """Innermost first."""
    weight_memory: BufferSpec | None = None
    """Holds the weights of some layers for good; those of the others are reloaded from DRAM."""
    outermost: OutermostSpec

    @model_validator(mode="after")
    def _is_a_machine(self) -> LoopNestSpec:
        names = [level.name for level in self.levels]
        for name in names:
            if names.count(name) > 1 or name in RESERVED:
                raise rule_error(
                    f"a level named {name}, which is taken",
                    f"a name of its own for each level, none of {', '.join(RESERVED)}",
                )
        self._check_packing()
        try:
            inner_machine("core", self)
        except SpecError as error:
            place = f" at {error.place}" if error.place not in (None, "core") else ""
            raise rule_error(error.message + place, error.remedy or "whole fan-outs") from error
        return self

    @property
    def code_unit(self) -> int | None:
        """Bits of the units that codes are packed in; None where every word is one."""
        return int(self.packing_bits.value) if self.packing_bits else None

    @property
    def sum_unit(self) -> int | None:
        """Bits of the units that partial sums are packed in; None where every word is one."""
        return int(self.sum_packing_bits.value) if self.sum_packing_bits else self.code_unit

    def _check_packing(self) -> None:
        """Refuse words that hold other codes than their units do."""
        unit = self.code_unit
        if unit is None:
            return
        words = [level.word_bits.value for level in self.levels]
        words.append(self.outermost.word_bits.value)
        if self.weight_memory:
            words.append(self.weight_memory.word_bits.value)
        for word in words:
            if not packs_evenly(word, unit):
                raise rule_error(
                    f"word_bits = {word}, which hold other codes than units of "
                    f"packing_bits = {unit}",
                    f"words of {unit} or {2 * unit} bits",
                )


def packed_bits(bits: int, unit: int | None) -> int:
    """Return the width that a code takes when packed in units of `unit` bits, its own without one.

    floor(unit / bits) codes share a unit, none straddles it; a code wider than a unit takes whole
    units.
    """
    if unit is None:
        return bits
    if bits > unit:
        return -(-bits // unit) * unit
    return unit // (unit // bits)


def packs_evenly(word: int, unit: int) -> bool:
    """Tell whether a word holds as many packed codes as its units do, at every width."""
    return word % unit == 0 and all(
        word // packed_bits(bits, unit) == (word // unit) * (unit // bits)
        for bits in range(1, unit + 1)
    )


def inner_machine(name: str, spec: LoopNestSpec) -> Machine:
    """Return the elements and the core's own levels.

    Raises:
        SpecError: a mesh that is no rectangle, or that does not divide the one inside it.
    """
    compute = ComputeSpec(
        instances=int(spec.element.instances.value),
        mesh_x=int(spec.element.columns.value),
        energy_pj=0.0,
        name="element",
        area_um2=float(spec.element.area_um2.value),
    )
    return Machine(name, compute, tuple(_level(level) for level in spec.levels))


def _level(level: LevelSpec) -> StorageLevel:
    wires = level.wires
    return StorageLevel(
        name=level.name,
        instances=int(level.instances.value),
        mesh_x=int(level.columns.value),
        word_bits=int(level.word_bits.value),
        entries=int(level.entries.value),
        block_size=int(level.block_words.value),
        cluster_size=int(level.cluster_size.value) if level.cluster_size else 1,
        read_bandwidth=_limit(level.read_words_per_cycle),
        write_bandwidth=_limit(level.write_words_per_cycle),
        shared_bandwidth=_limit(level.words_per_cycle),
        multiple_buffering=float(level.multiple_buffering.value) if level.multiple_buffering else 1,
        reduction_supported=level.adds_sums,
        keeps=frozenset(map(str, level.keeps)),
        read_pj=float(level.read_pj.value),
        fill_pj=float(level.fill_pj.value),
        update_pj=float(level.update_pj.value),
        address_pj=_real(level.address_pj),
        area_um2=float(level.area_um2.value),
        network=NetworkSpec(
            energy_per_hop_pj=float(wires.hop_pj.value) if wires else 0.0,
            router_energy_pj=_real(wires.router_pj) if wires else 0.0,
        ),
    )


def _limit(quantity: Quantity[Any] | None) -> float | None:
    return None if quantity is None else float(quantity.value)


def _real(quantity: Quantity[Any] | None) -> float:
    return 0.0 if quantity is None else float(quantity.value)
