# SPDX-License-Identifier: Apache-2.0
"""A replayed program gives the reference's outputs, the schedule's cycles and the costs' events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_programs import branch_inputs, branches

from enos_compiler.cores.accounting import events_by_item, itemise
from enos_compiler.errors import EnosError, ReplayError
from enos_compiler.ir.executable import Executable
from enos_compiler.ir.program import Instruction
from enos_compiler.schedule.executable import executable
from enos_compiler.semantics.reference import run
from enos_compiler.simulate.layers import Level
from enos_compiler.simulate.parts import Part
from enos_compiler.simulate.replay import replay

TARGETS = ("hybrid", "digital", "cim", "eyeriss", "simba")
LEVELS: tuple[Level, ...] = ("full", "sampled")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("target", TARGETS)
def test_three_equals_of_a_network_with_copies_and_views(target: str, level: Level) -> None:
    network, chip = branches(target)
    inputs = branch_inputs(3)
    done = replay(executable(network), inputs, level=level)
    for found, right in zip(done.outputs, run(network, inputs), strict=True):
        assert np.array_equal(found, right)
    assert {**done.setup_events, **done.events} == events_by_item(itemise(network, chip))
    assert network.program is not None
    assert done.cycles * chip.clock_ns == pytest.approx(network.program.makespan_ns, rel=1e-12)
    assert sum(done.busy_cycles.values()) == sum(i.cycles for i in network.program.instructions)


def test_wrong_inputs_are_refused() -> None:
    program = executable(branches()[0])
    (good,) = branch_inputs()
    for inputs, message in (
        ((), "got 0 inputs, the program takes 1"),
        ((good[0],), r"has shape \(3, 8, 8\), the program was compiled for \(1, 3, 8, 8\)"),
        ((good * np.nan,), "no finite number"),
        ((good[:0],), "0"),
        ((np.full(good.shape, "a"),), "no finite number"),
    ):
        with pytest.raises(EnosError, match=message):
            replay(program, inputs)


# Programs that break a rule


def _changed(program: Executable, **changes: Any) -> Executable:
    return replace(program, program=replace(program.program, **changes))


def _with(program: Executable, change: Callable[[Instruction], Instruction | None]) -> Executable:
    """Return the program with instructions changed or left out, in the order of their starts."""
    found = [new for one in program.program.instructions if (new := change(one)) is not None]
    return _changed(program, instructions=tuple(sorted(found, key=lambda one: one.start_cycle)))


def _edit(program: Executable, name: str, **changes: Any) -> Executable:
    return _with(program, lambda one: replace(one, **changes) if one.id == name else one)


def _without(program: Executable, *names: str) -> Executable:
    """Return the program without some instructions, and with nobody waiting for them."""
    return _with(
        program,
        lambda one: (
            None
            if one.id in names
            else replace(one, after=tuple(a for a in one.after if a not in names))
        ),
    )


def _twice(program: Executable, name: str, **changes: Any) -> Executable:
    """Return the program with a changed copy of an instruction behind all others."""
    last = program.program.instructions[-1]
    late = _at(next(one for one in program.program.instructions if one.id == name), last, program)
    return _changed(program, instructions=(*program.program.instructions, replace(late, **changes)))


def _at(one: Instruction, last: Instruction, program: Executable) -> Instruction:
    clock, start = program.program.clock_ns, last.start_cycle + last.cycles
    end = (start + one.cycles) * clock
    return replace(one, start_cycle=start, start_ns=start * clock, end_ns=end)


def _move(program: Executable, name: str, **changes: Any) -> Executable:
    buffers = tuple(replace(b, **changes) if b.name == name else b for b in program.program.buffers)
    return _changed(program, buffers=buffers)


def _address(program: Executable, name: str) -> int:
    return next(b.address for b in program.program.buffers if b.name == name)


def _earlier(program: Executable, name: str, cycles: int) -> Executable:
    """Return the program with one instruction earlier, waiting for nobody."""
    clock = program.program.clock_ns

    def change(one: Instruction) -> Instruction:
        if one.id != name:
            return one
        start = one.start_cycle - cycles
        end_ns = (start + one.cycles) * clock
        return replace(one, start_cycle=start, after=(), start_ns=start * clock, end_ns=end_ns)

    return _with(program, change)


BROKEN: dict[str, tuple[Callable[[Executable], Executable], str]] = {
    "an instruction is missing": (
        lambda p: _with(p, lambda one: None if one.id == "layer:right/3/store" else one),
        "waits for layer:right/3/store, which does not come before it",
    ),
    "a compute is missing": (
        lambda p: _without(p, "layer:right/3/compute"),
        "layer:right/3/store .* stores step 3 before it is computed",
    ),
    "a load is missing": (
        lambda p: _without(p, "layer:right/3/load"),
        "layer:right/3/compute .* computes step 3 before its operands are there",
    ),
    "a store is missing": (
        lambda p: _without(p, "layer:right/3/store"),
        "layer:right/5/compute .* finds no place for its results: those of right/3 and right/4",
    ),
    "a step is missing": (
        lambda p: _without(p, *(f"layer:right/15/{w}" for w in ("load", "compute", "store"))),
        "vector:add .* reads right at .* of which 32 of 512 elements are not written yet",
    ),
    "a step of a sum is missing": (
        lambda p: _without(p, *(f"layer:stem/4/{w}" for w in ("load", "compute", "store"))),
        "reads relu at .* which is not written yet",
    ),
    "a layer is missing": (
        lambda p: _with(p, lambda one: None if one.layer == "head" else one),
        "layer head: no instruction computes it",
    ),
    "an instruction stands twice": (
        lambda p: _twice(p, "layer:head/0/load"),
        "layer:head/0/load .* its id stands twice",
    ),
    "a step is computed twice": (
        lambda p: _twice(p, "layer:head/0/compute", id="again", after=()),
        "again .* computes step 0 again",
    ),
    "an end is moved": (
        lambda p: _edit(p, "layer:stem/0/compute", end_ns=3.0),
        "layer:stem/0/compute .* its end, 3.0 ns, is not cycle",
    ),
    "a time is no number": (
        lambda p: _edit(p, "layer:stem/0/load", start_ns=float("nan")),
        "layer:stem/0/load .* its start, nan ns",
    ),
    "it starts before what it waits for": (
        lambda p: _edit(_earlier(p, "vector:add", 1), "vector:add", after=("layer:left/15/store",)),
        "vector:add .* starts before what it waits for has ended: layer:left/15/store",
    ),
    "operands come too early": (
        lambda p: _earlier(p, "layer:right/4/load", 6),
        "layer:right/4/load .* finds no place for its operands: those of right/2 and right/3",
    ),
    "it computes before its operands are there": (
        lambda p: _earlier(p, "layer:head/0/compute", 1),
        "layer:head/0/compute .* computes step 0 before its operands are there",
    ),
    "it stores before it has computed": (
        lambda p: _earlier(p, "layer:right/15/store", 1),
        "layer:right/15/store .* stores step 15 before it is computed",
    ),
    "it computes another part": (
        lambda p: _edit(p, "layer:right/3/compute", ranges={"P": (0, 4), "Q": (1, 2)}),
        "layer:right/3/compute .* covers something else than what was loaded for it",
    ),
    "a part stands twice": (
        lambda p: _with(
            p,
            lambda one: (
                replace(one, ranges={"P": (0, 4), "Q": (1, 2)})
                if one.layer == "right" and one.step == 3
                else one
            ),
        ),
        "layer:right/3/compute .* adds products to sums that have them already",
    ),
    "a part lies outside": (
        lambda p: _edit(p, "layer:right/3/load", ranges={"P": (4, 9), "Q": (1, 2)}),
        "layer:right/3/load .* covers P 4..9 of a layer with P = 8",
    ),
    "a resource does two things": (
        lambda p: _edit(p, "layer:right/8/compute", resource="xbar"),
        "starts while xbar is busy with layer:left/0/compute",
    ),
    "a resource is unknown": (
        lambda p: _edit(p, "layer:right/8/compute", resource="gpu"),
        "`gpu` is no resource of the program",
    ),
    "an address is moved onto an operand": (
        lambda p: _move(p, "left", address=_address(p, "relu@left")),
        "layer:left/2/load .* reads relu@left at .* overwritten by now",
    ),
    "an address lies outside": (
        lambda p: _move(p, "left", address=1 << 40),
        "buffer left: takes bytes .* which has",
    ),
    "a buffer shrinks": (
        lambda p: _move(p, "left", size_bytes=8),
        "buffer left: has 8 bytes, its 512 codes of 8 bits take 512",
    ),
    "other operands are read": (
        lambda p: _edit(p, "vector:add", reads=("left", "pool")),
        "vector:add .* its operands are left, right",
    ),
    "the copy is never made": (
        lambda p: _edit(p, "edge:stem->left", writes=(), events={}),
        r"layer:left/0/load .* reads relu@left at .* not written yet or overwritten",
    ),
    "a load claims no words": (
        lambda p: _edit(p, "layer:right/0/load", events={}),
        r"layer:right/15/load .* claims \d+ of buffer.array/read_64b, the operands .* need 64",
    ),
    "a store claims no words": (
        lambda p: _edit(p, "layer:right/0/store", events={}),
        r"layer:right/0/store .* claims 0 of buffer.array/write_64b, the operands .* need",
    ),
    "an operation claims no words": (
        lambda p: _edit(p, "vector:add", events={}),
        "vector:add .* claims 0 of .* its accesses make",
    ),
    "the result goes elsewhere": (
        lambda p: _edit(p, "layer:stem/0/store", writes=("pool",)),
        "layer:stem/0/store .* writes pool, its result is relu",
    ),
    "nothing owns it": (
        lambda p: _edit(p, "vector:add", vector=None),
        "belongs to nothing, not to one thing",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_program_is_refused_with_its_instruction(case: str) -> None:
    change, message = BROKEN[case]
    program = executable(branches()[0])
    broken = change(program)
    for level in LEVELS:
        with pytest.raises(ReplayError, match=message) as caught:
            replay(broken, branch_inputs(), level=level)
        assert caught.value.place is not None


def test_two_accesses_at_a_time_are_refused() -> None:
    """Both branches of one place run side by side."""
    program = executable(branches()[0])
    moved = _move(program, "right", address=_address(program, "relu@left"))
    with pytest.raises(ReplayError, match=r"(touches|reads) r.* (while|which)"):
        replay(moved, branch_inputs())


def test_wrong_sums_of_a_step_are_found_by_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step computes something else than the whole layer does."""
    program = executable(branches()[0])
    right = Part.sums

    def wrong(self: Part, operands: Any, stored: Any) -> Any:
        return right(self, operands, stored) + (self.kernel.name == "right")

    monkeypatch.setattr(Part, "sums", wrong)
    with pytest.raises(ReplayError, match=r"right/0/store .* differ from those of the whole"):
        replay(program, branch_inputs(), level="sampled")
