# SPDX-License-Identifier: Apache-2.0
"""Where a nest ends: the homes of its tensors, and the machine and mapspace that they leave.

Around a core's own levels stand up to three homes, of which a nest sees those it uses: the weight
memory where its weights are resident, the chip's shared buffer where a value rests there, the DRAM.
A tensor skips every level between the core's own and its home, and nothing is counted for it
further out. All homes hold whole tensors, so loops at one of them cost what they cost at the next:
only the outermost has loops. The room of a value in the shared buffer was reserved for its codes;
outputs reach it finished, and sums are collected inside the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

from enos_compiler.cores.base import Homes
from enos_compiler.cores.loopnest_spec import (
    OUTERMOST,
    SHARED,
    WEIGHT_MEMORY,
    ConstraintsSpec,
    LoopNestSpec,
    Ranges,
    inner_machine,
)
from enos_compiler.cores.memory import Chip
from enos_compiler.errors import SpecError
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Home
from enos_compiler.ir.shape import DIMS, TENSORS, LayerShape, Tensor
from enos_compiler.mapping.machine import Machine, StorageLevel
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.space import FREE, LevelSpace, MapSpace, Range
from enos_compiler.spec import BufferSpec, Quantity

RESIDENT = (("resident", 1),)
"""The option of a choice whose weights stay in the weight memory."""


@dataclass(frozen=True, slots=True)
class NestHomes:
    """The level that each tensor of a nest comes from or goes to."""

    weights: str = OUTERMOST
    inputs: str = OUTERMOST
    outputs: str = OUTERMOST

    def of(self, tensor: Tensor) -> str:
        """Return the home of a tensor."""
        return cast("str", getattr(self, tensor.lower()))

    @property
    def used(self) -> frozenset[str]:
        """Homes that some tensor has."""
        return frozenset(asdict(self).values())


IN_DRAM = NestHomes()


@dataclass(frozen=True, slots=True)
class NestTask:
    """What a nest is searched for: all that its events depend on."""

    shape: LayerShape
    widths: Widths
    tap_pj: float = 0.0
    """Energy of one tap in an element."""
    homes: NestHomes = IN_DRAM


def nest_homes(choice: Choice, homes: Homes | None, chip: Chip) -> NestHomes:
    """Return where a layer's nest ends; without homes, all values rest in DRAM.

    The right operand of an activation product takes the place of weights and comes from its home.
    """

    def level(home: Home) -> str:
        return SHARED if home.memory == chip.shared else OUTERMOST

    weights = WEIGHT_MEMORY if choice.options == RESIDENT else OUTERMOST
    if homes is None:
        return NestHomes(weights)
    if len(homes.inputs) > 1:
        weights = level(homes.inputs[1])
    return NestHomes(weights, level(homes.inputs[0]), level(homes.output))


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A core as the nests with certain homes see it."""

    machine: Machine
    """Its elements have no energy: each operator has its own, see `priced`."""
    space: MapSpace

    def priced(self, tap_pj: float) -> Machine:
        """Return the machine with the energy that one tap takes in an element."""
        compute = replace(self.machine.compute, energy_pj=tap_pj)
        return replace(self.machine, compute=compute)


@dataclass(frozen=True, slots=True)
class HierarchyPlan:
    """Builds the hierarchies of one core."""

    name: str
    spec: LoopNestSpec
    chip: Chip

    def build(self, homes: NestHomes) -> Hierarchy:
        """Return the machine and the mapspace of nests with the given homes.

        Raises:
            SpecError: words or bandwidths that a memory of the chip does not have.
        """
        inner = inner_machine(self.name, self.spec)
        around = tuple(level for level in self._around() if level.name in homes.used)
        machine = Machine(self.name, inner.compute, (*inner.levels, *around))
        return Hierarchy(machine, self._space(machine, homes))

    def _around(self) -> list[StorageLevel]:
        """Return the levels of every home that there can be, innermost first."""
        found = []
        if self.spec.weight_memory:
            found.append(_weight_memory(self.spec.weight_memory))
        if self.chip.shared:
            found.append(self._memory(SHARED, self.chip.shared))
        return [*found, self._memory(OUTERMOST, self.chip.dram)]

    def _memory(self, level: str, memory: str) -> StorageLevel:
        """Return one of the chip's memories as a level that holds whatever rests there."""
        array, bits_per_cycle = self.chip.memories[memory], self.chip.bits_per_cycle[memory]
        outer = self.spec.outermost
        word = int(outer.word_bits.value)
        if array.word_bits % word:
            raise SpecError(
                f"= {word} does not divide the {array.word_bits} bits of an access of "
                f"{array.owner}",
                place="outermost.word_bits",
                remedy=f"words of {array.word_bits} bits",
            )
        apart = level == OUTERMOST and bool(outer.read_words_per_cycle)
        apart = apart and bool(outer.write_words_per_cycle)
        return StorageLevel(
            name=level,
            word_bits=word,
            block_size=array.word_bits // word,
            read_bandwidth=_real(outer.read_words_per_cycle) if apart else None,
            write_bandwidth=_real(outer.write_words_per_cycle) if apart else None,
            shared_bandwidth=None if apart else bits_per_cycle / word,
            reduction_supported=False,
            read_pj=float(array.spec.read_pj.value),
            fill_pj=float(array.spec.write_pj.value),
            update_pj=float(array.spec.write_pj.value),
        )

    def check_bandwidth(self) -> None:
        """Refuse limits beyond those of the chip's DRAM.

        Raises:
            SpecError: one direction only, or more than the memory moves.
        """
        outer, bits_per_cycle = self.spec.outermost, self.chip.bits_per_cycle[self.chip.dram]
        read, write = outer.read_words_per_cycle, outer.write_words_per_cycle
        asked = outer.word_bits.value * (_real(read) + _real(write))
        if (read is None) != (write is None) or asked > bits_per_cycle:
            raise SpecError(
                f"asks for {asked:g} bits per cycle, {self.chip.dram} moves {bits_per_cycle}, "
                "reads and writes together",
                place="outermost",
                remedy="both directions within the memory's bandwidth, or neither",
            )

    def _space(self, machine: Machine, homes: NestHomes) -> MapSpace:
        """Return the nests that the core may use."""
        own = len(self.spec.levels)
        levels = []
        for i, level in enumerate(machine.levels):
            constraints: ConstraintsSpec = self.spec.levels[i] if i < own else self.spec.outermost
            kept: Sequence[Tensor] = (
                self.spec.levels[i].keeps
                if i < own
                else [t for t in TENSORS if homes.of(t) == level.name]
            )
            inside = own <= i < len(machine.levels) - 1
            loops = {} if inside else constraints.loops
            columns, rows = machine.fanout(i)
            levels.append(
                LevelSpace(
                    keep=frozenset(map(str, kept)),
                    temporal=_ranges(loops),
                    spatial_x=_spread(constraints.spread_x, columns),
                    spatial_y=_spread(constraints.spread_y, rows),
                )
            )
        return MapSpace(tuple(levels), finished_outputs=homes.outputs == SHARED)


def _weight_memory(spec: BufferSpec) -> StorageLevel:
    """Return the weight memory as a level; its one port moves a word per cycle."""
    return StorageLevel(
        name=WEIGHT_MEMORY,
        word_bits=int(spec.word_bits.value),
        shared_bandwidth=1,
        read_pj=float(spec.read_pj.value),
        fill_pj=float(spec.write_pj.value),
        update_pj=float(spec.write_pj.value),
    )


def _ranges(loops: Ranges | None) -> dict[str, Range]:
    """Return the factors of temporal loops; a dimension that is not named has none."""
    allowed: Ranges = dict.fromkeys(DIMS, FREE) if loops is None else loops
    return {dim: allowed.get(dim, (1, 1)) for dim in DIMS}


def _spread(ranges: Ranges | None, children: int) -> dict[str, Range]:
    if children == 1:
        return {}
    allowed: Ranges = dict.fromkeys(DIMS, FREE) if ranges is None else ranges
    return {str(dim): limits for dim, limits in allowed.items()}


def _real(quantity: Quantity[float] | None) -> float:
    return 0.0 if quantity is None else float(quantity.value)
