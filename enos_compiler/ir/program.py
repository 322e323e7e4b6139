# SPDX-License-Identifier: Apache-2.0
"""The program: instructions per resource with start and end, and the buffers they address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from enos_compiler.ir.cost import Action
from enos_compiler.ir.shape import Dim

SCHEMA = "enos-program/1"

OpCode = Literal[
    "load", "compute", "store", "transfer", "program-weights", "vector", "sample", "host"
]

OWNERS = ("layer", "edge", "vector", "host", "programs")
"""Fields of an instruction of which exactly one says whose work it is."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory that instructions address."""

    capacity_bytes: int
    word_bits: int
    """Width of one access; codes are packed into words, see `ir.packing`."""
    read: Action
    """Event of one word read."""
    write: Action
    """Event of one word written."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """One value's place, or that of a narrower copy (`value@reader`): a range of addresses."""

    name: str
    memory: str
    address: int
    """First byte."""
    size_bytes: int
    """Whole words that hold `elements` codes of `bits` bits."""
    elements: int
    bits: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """One piece of work of one resource.

    Its events belong to exactly one of `layer`, `edge`, `vector`, `host` and `programs`.
    """

    id: str
    resource: str
    op: OpCode
    start_ns: float
    end_ns: float
    start_cycle: int
    cycles: int
    layer: str | None = None
    edge: str | None = None
    """`producer->consumer` of a transfer or narrowing."""
    vector: str | None = None
    host: str | None = None
    """The vector operation that the host executes."""
    programs: str | None = None
    """The layer whose weights a `program-weights` instruction writes."""
    step: int | None = None
    """Which part of its layer it loads, computes or stores; None where it does all of it."""
    ranges: Mapping[Dim, tuple[int, int]] = field(default_factory=dict)
    """What its step covers of the layer's dimensions, first and end; all of those left out."""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    events: Mapping[Action, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """What the simulator replays: one inference, and the set-up that runs once per N of them."""

    resources: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    instructions: tuple[Instruction, ...]
    """By start."""
    memories: Mapping[str, Memory]
    clock_ns: float
    """Period of the clock that all times are multiples of."""
    setup: tuple[Instruction, ...] = ()
    lower_bound_ns: float = 0.0
    """The larger of the critical path and the busiest resource's work."""

    @property
    def makespan_ns(self) -> float:
        """End of the last instruction of one inference."""
        return max((i.end_ns for i in self.instructions), default=0.0)


def copy_name(value: str, reader: str) -> str:
    """Return the name of the narrower copy of a value that an edge writes for its reader."""
    return f"{value}@{reader}"
