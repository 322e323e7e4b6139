# SPDX-License-Identifier: Apache-2.0
"""Memories: how many words a tensor is, and what moving them costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from enos_compiler.errors import SpecError
from enos_compiler.ir.cost import Action
from enos_compiler.ir.packing import words
from enos_compiler.spec import ArithmeticSpec, BufferSpec, MemorySpec


@dataclass(frozen=True, slots=True)
class Array:
    """A memory as an owner's component: its actions, prices and packing."""

    owner: str
    component: str
    spec: BufferSpec

    def words(self, elements: int, bits: int) -> int:
        """Return the words that hold `elements` codes of `bits` bits."""
        return words(elements, bits, self.word_bits)

    @property
    def word_bits(self) -> int:
        """Width of one access."""
        return int(self.spec.word_bits.value)

    @property
    def capacity_bits(self) -> int:
        """Bits that it holds."""
        return int(self.spec.capacity_bits.value)

    def holds(self, elements: int, bits: int) -> bool:
        """Tell whether packed codes fit."""
        return self.words(elements, bits) * self.word_bits <= self.capacity_bits

    @property
    def read(self) -> Action:
        """Action of one word read."""
        return f"{self.owner}.{self.component}/read_{self.word_bits}b"

    @property
    def write(self) -> Action:
        """Action of one word written."""
        return f"{self.owner}.{self.component}/write_{self.word_bits}b"

    @property
    def prices(self) -> dict[Action, tuple[float, str]]:
        """Energy in pJ and source by action."""
        spec = self.spec
        return {
            self.read: (spec.read_pj.value, str(spec.read_pj.source)),
            self.write: (spec.write_pj.value, str(spec.write_pj.source)),
        }


@dataclass(frozen=True, slots=True)
class Chip:
    """What cores share: the clock, the arithmetic and the memories that values rest in."""

    clock_ns: float
    arithmetic: ArithmeticSpec
    leakage_pw_per_um2: float
    memories: dict[str, Array]
    bits_per_cycle: dict[str, int]
    dram: str
    shared: str | None

    @classmethod
    def of(
        cls,
        clock_ns: float,
        arithmetic: ArithmeticSpec,
        leakage_pw_per_um2: float,
        memories: tuple[MemorySpec, ...],
    ) -> Chip:
        """Build from the parts of a target file."""
        roles = {m.role: m.name for m in memories}
        return cls(
            clock_ns=clock_ns,
            arithmetic=arithmetic,
            leakage_pw_per_um2=leakage_pw_per_um2,
            memories={
                m.name: Array(m.name, "device" if m.role == "dram" else "array", m)
                for m in memories
            },
            bits_per_cycle={m.name: m.bits_per_cycle.value for m in memories},
            dram=roles["dram"],
            shared=roles.get("shared"),
        )

    def leakage_mw(self, area_um2: float) -> float:
        """Return the leakage power of a block in mW, from its area."""
        return area_um2 * self.leakage_pw_per_um2 * 1e-9


@dataclass(slots=True)
class Traffic:
    """Words moved between a core and the chip's memories, booked as events."""

    chip: Chip
    events: Counter[Action] = field(default_factory=Counter)
    moved_bits: Counter[str] = field(default_factory=Counter)

    def read(self, memory: str, elements: int, bits: int, times: int = 1) -> None:
        """Book the reading of packed codes, several times over."""
        self._move(memory, elements, bits, self._array(memory).read, times)

    def write(self, memory: str, elements: int, bits: int) -> None:
        """Book the writing of packed codes."""
        self._move(memory, elements, bits, self._array(memory).write, 1)

    def _move(self, memory: str, elements: int, bits: int, action: Action, times: int) -> None:
        array = self._array(memory)
        count = times * array.words(elements, bits)
        if count:
            self.events[action] += count
            self.moved_bits[memory] += count * array.word_bits

    def _array(self, memory: str) -> Array:
        if memory not in self.chip.memories:
            raise SpecError(f"a home names the memory `{memory}`, which the target does not have")
        return self.chip.memories[memory]

    @property
    def cycles(self) -> int:
        """Cycles of the busiest memory; memories work side by side."""
        return max(
            (-(-bits // self.chip.bits_per_cycle[m]) for m, bits in self.moved_bits.items()),
            default=0,
        )
