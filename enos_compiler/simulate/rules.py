# SPDX-License-Identifier: Apache-2.0
"""What a program must keep to before it runs: names, addresses, times, resources, order.

Nothing is computed here. Times are compared in whole cycles, so that no rounding hides an overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

from enos_compiler.errors import ReplayError
from enos_compiler.ir.executable import Executable
from enos_compiler.ir.packing import packed_bytes
from enos_compiler.ir.program import OWNERS, Buffer, Instruction, Memory, Program


def describe(instruction: Instruction) -> str:
    """Return an instruction as one line of text."""
    moved = "".join(
        f" {word} {', '.join(names)}"
        for word, names in (("reads", instruction.reads), ("writes", instruction.writes))
        if names
    )
    return (
        f"{instruction.id} ({instruction.op} on {instruction.resource}, cycles "
        f"{instruction.start_cycle}..{instruction.start_cycle + instruction.cycles}{moved})"
    )


def refuse(instruction: Instruction, message: str, remedy: str | None = None) -> ReplayError:
    """Return the error of an instruction that breaks a rule."""
    return ReplayError(message, place=describe(instruction), remedy=remedy or "compile again")


def check_program(executable: Executable) -> None:
    """Refuse a program that breaks a rule which needs no execution to be seen.

    Raises:
        ReplayError: names the buffer or the instruction, and the rule.
    """
    program = executable.program
    if not (isfinite(program.clock_ns) and program.clock_ns > 0):
        raise ReplayError(f"the clock period is {program.clock_ns} ns", place="program")
    buffers = _check_buffers(executable)
    for sequence in (program.setup, program.instructions):
        check_times(sequence, program)
    _check_accesses(program, buffers)
    _check_owners(executable)


# Places


def _check_buffers(executable: Executable) -> Mapping[str, Buffer]:
    program = executable.program
    found: dict[str, Buffer] = {}
    for name, memory in program.memories.items():
        if memory.word_bits < 1 or memory.capacity_bytes < 0:
            raise ReplayError("has no words", place=f"memory {name}")
    for buffer in program.buffers:
        place = f"buffer {buffer.name}"
        if buffer.name in found:
            raise ReplayError("is placed twice", place=place)
        memory_of = program.memories.get(buffer.memory)
        if memory_of is None:
            raise ReplayError(f"lies in `{buffer.memory}`, which is no memory", place=place)
        _check_buffer(buffer, memory_of, place)
        found[buffer.name] = buffer
    for name, value in executable.values.items():
        if name not in found:
            raise ReplayError("has no buffer", place=f"value {name}")
        if _count(value.shape) != found[name].elements:
            raise ReplayError(
                f"holds {found[name].elements} elements, the value has {value.shape}",
                place=f"buffer {name}",
            )
        if value.format is not None and value.format.bits != found[name].bits:
            raise ReplayError(
                f"has {found[name].bits} bits a code, the value {value.format.bits}",
                place=f"buffer {name}",
            )
    return found


def _check_buffer(buffer: Buffer, memory: Memory, place: str) -> None:
    if not 1 <= buffer.bits <= 64 or buffer.elements < 0:
        raise ReplayError(f"has {buffer.elements} codes of {buffer.bits} bits", place=place)
    needed = packed_bytes(buffer.elements, buffer.bits, memory.word_bits)
    if buffer.size_bytes != needed:
        raise ReplayError(
            f"has {buffer.size_bytes} bytes, its {buffer.elements} codes of {buffer.bits} bits "
            f"take {needed}",
            place=place,
        )
    end = buffer.address + buffer.size_bytes
    if buffer.address < 0 or end > memory.capacity_bytes:
        raise ReplayError(
            f"takes bytes {buffer.address}..{end} of {buffer.memory}, which has "
            f"{memory.capacity_bytes}",
            place=place,
            remedy="a smaller network, or a target with more memory",
        )


def _count(shape: Iterable[int]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


# Times


def check_times(sequence: Sequence[Instruction], program: Program) -> None:
    """Refuse instructions out of order, off the clock, too early, or two on one resource.

    Raises:
        ReplayError: names the instruction and the rule.
    """
    clock = Fraction(str(program.clock_ns))
    seen: dict[str, Instruction] = {}
    busy: dict[str, Instruction] = {}
    previous: Instruction | None = None
    for one in sequence:
        if one.id in seen:
            raise refuse(one, "its id stands twice")
        if one.resource not in program.resources:
            raise refuse(one, f"`{one.resource}` is no resource of the program")
        _check_clock(one, clock)
        if previous is not None and one.start_cycle < previous.start_cycle:
            raise refuse(one, f"stands behind {previous.id}, which starts later")
        _check_waits(one, seen)
        earlier = busy.get(one.resource)
        if earlier is not None and one.start_cycle < _end(earlier):
            raise refuse(one, f"starts while {one.resource} is busy with {describe(earlier)}")
        busy[one.resource] = seen[one.id] = previous = one


def _check_clock(one: Instruction, clock: Fraction) -> None:
    if one.start_cycle < 0 or one.cycles < 0:
        raise refuse(one, "has a negative time")
    times = (("start", one.start_ns, one.start_cycle), ("end", one.end_ns, _end(one)))
    for word, ns, cycle in times:
        if ns != float(cycle * clock):
            raise refuse(
                one, f"its {word}, {ns} ns, is not cycle {cycle} of a clock of {float(clock)} ns"
            )


def _check_waits(one: Instruction, seen: Mapping[str, Instruction]) -> None:
    for name in one.after:
        if name not in seen:
            raise refuse(one, f"waits for {name}, which does not come before it")
        if _end(seen[name]) > one.start_cycle:
            raise refuse(one, f"starts before what it waits for has ended: {describe(seen[name])}")


def _end(one: Instruction) -> int:
    return one.start_cycle + one.cycles


# Hazards


@dataclass(frozen=True, slots=True)
class _Access:
    buffer: Buffer
    writes: bool
    by: Instruction

    def conflicts(self, other: _Access) -> bool:
        """Whether the two touch a common byte and one of them writes it."""
        mine, its = self.buffer, other.buffer
        return (
            (self.writes or other.writes)
            and mine.address < its.address + its.size_bytes
            and its.address < mine.address + mine.size_bytes
        )


def _check_accesses(program: Program, buffers: Mapping[str, Buffer]) -> None:
    """Refuse accesses to common bytes at one time, unless both only read."""
    running: dict[str, list[_Access]] = {}
    for one in program.instructions:
        mine = [_Access(_buffer(one, name, buffers), False, one) for name in one.reads]
        mine += [_Access(_buffer(one, name, buffers), True, one) for name in one.writes]
        for access in mine:
            memory = access.buffer.memory
            still = [a for a in running.get(memory, ()) if _end(a.by) > one.start_cycle]
            for other in still:
                if other.by is not one and access.conflicts(other):
                    raise refuse(
                        one,
                        f"touches {access.buffer.name} while {describe(other.by)} uses bytes of "
                        f"it as {other.buffer.name}",
                    )
            running[memory] = [*still, access]


def _buffer(one: Instruction, name: str, buffers: Mapping[str, Buffer]) -> Buffer:
    if name not in buffers:
        raise refuse(one, f"names the buffer {name}, which the program does not have")
    return buffers[name]


# Whose work


def _check_owners(executable: Executable) -> None:
    """Refuse work that belongs to nobody, and computed values without the work."""
    done: dict[str, set[str]] = {owner: set() for owner in OWNERS}
    known: dict[str, Mapping[str, object]] = {
        "layer": executable.layers,
        "vector": executable.vectors,
        "host": executable.vectors,
        "programs": executable.layers,
    }
    program = executable.program
    for one in (*program.setup, *program.instructions):
        owners = [owner for owner in OWNERS if getattr(one, owner) is not None]
        if len(owners) != 1:
            raise refuse(one, f"belongs to {' and '.join(owners) or 'nothing'}, not to one thing")
        name = getattr(one, owners[0])
        if owners[0] in known and name not in known[owners[0]]:
            raise refuse(one, f"belongs to the {owners[0]} `{name}`, which does not exist")
        if any(count < 0 for count in one.events.values()):
            raise refuse(one, "counts fewer than no events")
        done[owners[0]].add(name)
    for name, kernel in executable.layers.items():
        if name not in done["layer"]:
            raise ReplayError("no instruction computes it", place=f"layer {name}")
        if kernel.programmed_by is not None and kernel.programmed_by not in done["programs"]:
            raise ReplayError("its weights are never written", place=f"layer {name}")
    for name, vector in executable.vectors.items():
        if not vector.is_view and name not in done["vector"] | done["host"]:
            raise ReplayError("no instruction computes it", place=f"operation {name}")
