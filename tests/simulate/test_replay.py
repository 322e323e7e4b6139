# SPDX-License-Identifier: Apache-2.0
"""A replayed program gives the reference's outputs, the schedule's cycles and the costs' events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import COVERAGE, build
from small_programs import branch_inputs, branches

import enos_compiler
from enos_compiler.cores.accounting import events_by_item, itemise
from enos_compiler.errors import EnosError, ReplayError
from enos_compiler.ir.executable import Executable
from enos_compiler.ir.program import Instruction
from enos_compiler.schedule.executable import executable
from enos_compiler.semantics.reference import run
from enos_compiler.simulate.replay import replay
from enos_compiler.simulate.rules import check_program

TARGETS = ("hybrid", "digital", "cim", "eyeriss", "simba")


@pytest.mark.parametrize("target", TARGETS)
def test_three_equals_of_a_network_with_copies_and_views(target: str) -> None:
    network, chip = branches(target)
    inputs = branch_inputs(3)
    done = replay(executable(network), inputs)
    for found, right in zip(done.outputs, run(network, inputs), strict=True):
        assert np.array_equal(found, right)
    assert {**done.setup_events, **done.events} == events_by_item(itemise(network, chip))
    assert network.program is not None
    assert done.cycles * chip.clock_ns == pytest.approx(network.program.makespan_ns, rel=1e-12)
    assert sum(done.busy_cycles.values()) == sum(i.cycles for i in network.program.instructions)


@pytest.mark.parametrize("name", COVERAGE)
def test_networks_replay_as_they_were_compiled(name: str) -> None:
    model, inputs = build(name)
    compiled = enos_compiler.compile(model, inputs, target="hybrid", allow_float=True)
    checks = compiled.report["checks"]
    assert (checks["simulator_max_steps"], checks["events_equal"]) == (0, True)
    arrays = tuple(x.numpy() for x in inputs)
    done = replay(executable(compiled.network), arrays)
    for found, right in zip(done.outputs, run(compiled.network, arrays), strict=True):
        assert found.dtype == right.dtype
        assert np.array_equal(found, right)
    for row in compiled.report["layers"]:
        assert done.events["layer", row["name"]] == row["events"]


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
    found = [change(one) for one in program.program.instructions]
    return _changed(program, instructions=tuple(one for one in found if one is not None))


def _edit(program: Executable, name: str, **changes: Any) -> Executable:
    return _with(program, lambda one: replace(one, **changes) if one.id == name else one)


def _move(program: Executable, name: str, **changes: Any) -> Executable:
    buffers = tuple(replace(b, **changes) if b.name == name else b for b in program.program.buffers)
    return _changed(program, buffers=buffers)


BROKEN: dict[str, tuple[Callable[[Executable], Executable], str]] = {
    "an instruction is missing": (
        lambda p: _with(p, lambda one: None if one.id == "layer:right" else one),
        "vector:add .* waits for layer:right, which does not come before it",
    ),
    "and nobody waits for it": (
        lambda p: _with(
            p,
            lambda one: (
                None
                if one.id == "layer:right"
                else replace(one, after=tuple(a for a in one.after if a != "layer:right"))
            ),
        ),
        "layer right: no instruction computes it",
    ),
    "an instruction stands twice": (
        lambda p: _changed(p, instructions=(*p.program.instructions, p.program.instructions[-1])),
        "layer:head .* its id stands twice",
    ),
    "an end is moved": (
        lambda p: _edit(p, "layer:stem", end_ns=3.0),
        "layer:stem .* its end, 3.0 ns, is not cycle",
    ),
    "a time is no number": (
        lambda p: _edit(p, "layer:stem", start_ns=float("nan")),
        "layer:stem .* its start, nan ns",
    ),
    "it starts too early": (
        lambda p: _shifted(p, "vector:add", 1),
        "vector:add .* starts before what it waits for has ended: layer:left",
    ),
    "a resource does two things": (
        lambda p: _edit(p, "layer:right", resource="xbar"),
        "starts while xbar is busy with layer:right",
    ),
    "a resource is unknown": (
        lambda p: _edit(p, "layer:right", resource="gpu"),
        "`gpu` is no resource of the program",
    ),
    "an address is moved onto another value": (
        lambda p: _move(p, "left", address=_address(p, "relu")),
        "layer:left .* touches left while layer:right .* uses bytes of it as relu",
    ),
    "an address lies outside": (
        lambda p: _move(p, "left", address=1 << 40),
        "buffer left: takes bytes .* which has",
    ),
    "a value is read before it is there": (
        lambda p: _edit(p, "vector:add", reads=("left", "pool")),
        "vector:add .* its operands are left, right",
    ),
    "the copy is never made": (
        lambda p: _edit(p, "edge:stem->left", writes=(), events={}),
        r"layer:left .* reads relu@left at .* not written yet or overwritten",
    ),
    "events are claimed": (
        lambda p: _edit(p, "vector:add", events={}),
        "vector:add .* claims 0 of .* its accesses make",
    ),
    "the result goes elsewhere": (
        lambda p: _edit(p, "layer:right", writes=("left",)),
        "layer:right .* writes left, its result is right|touches left while",
    ),
    "nothing owns it": (
        lambda p: _edit(p, "vector:add", vector=None),
        "belongs to nothing, not to one thing",
    ),
}


def _address(program: Executable, name: str) -> int:
    return next(b.address for b in program.program.buffers if b.name == name)


def _shifted(program: Executable, name: str, cycles: int) -> Executable:
    """Return the program with one instruction earlier."""
    clock = program.program.clock_ns

    def earlier(one: Instruction) -> Instruction:
        if one.id != name:
            return one
        start = one.start_cycle - cycles
        return replace(
            one, start_cycle=start, start_ns=start * clock, end_ns=(start + one.cycles) * clock
        )

    return _with(program, earlier)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_program_is_refused_with_its_instruction(case: str) -> None:
    change, message = BROKEN[case]
    program = executable(branches()[0])
    check_program(program)
    with pytest.raises(ReplayError, match=message) as caught:
        replay(change(program), branch_inputs())
    assert caught.value.place is not None


def _one_by_one(program: Executable) -> Executable:
    """Return the program with every instruction after the end of the one before it."""
    clock, now, found = program.program.clock_ns, 0, []
    for one in program.program.instructions:
        end = now + one.cycles
        times = {"start_cycle": now, "start_ns": now * clock, "end_ns": end * clock}
        found.append(replace(one, **times))
        now = end
    return _changed(program, instructions=tuple(found))


def test_an_overwritten_value_is_not_read() -> None:
    """Both branches lie at one place, one after the other: the addition misses the first."""
    program = _one_by_one(executable(branches()[0]))
    replay(program, branch_inputs())
    moved = _move(program, "left", address=_address(program, "right"))
    with pytest.raises(ReplayError, match=r"vector:add .* reads right at .* overwritten by now"):
        replay(moved, branch_inputs())
