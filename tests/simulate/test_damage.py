# SPDX-License-Identifier: Apache-2.0
"""Damaged and hand-edited programs: refused with what and where, never a wrong answer or a hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import branch_inputs, branches

from enos_compiler.errors import EnosError
from enos_compiler.ir.executable import Executable
from enos_compiler.ir.program import Instruction
from enos_compiler.outputs import staged_outputs
from enos_compiler.schedule.executable import executable
from enos_compiler.schedule.program_file import read_program, write_program
from enos_compiler.semantics.reference import run
from enos_compiler.simulate.replay import replay
from enos_compiler.simulate.rules import check_program


@cache
def _program() -> Executable:
    return executable(branches()[0])


@cache
def _outputs() -> tuple[np.ndarray[Any, Any], ...]:
    return run(branches()[0], branch_inputs())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program")
    write_program(_program(), path)
    return path


def _refusal(call: Callable[[], object]) -> EnosError | None:
    """Return the error that a call ends with."""
    try:
        call()
    except EnosError as error:
        return error
    return None


def _check_answer(program: Executable) -> None:
    """A replay is refused with its place, or gives the right outputs."""
    found: list[Any] = []
    refused = _refusal(
        lambda: found.extend(replay(program, branch_inputs(), level="sampled").outputs)
    )
    if refused is not None:
        assert refused.place
        return
    assert all(np.array_equal(a, b) for a, b in zip(found, _outputs(), strict=True))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_flipped_bytes_are_found(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(["program.json", "program.safetensors"]))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    path.write_bytes(damaged)
    refused = _refusal(lambda: read_program(folder).require_seal())
    path.write_bytes(whole)
    if refused is None:
        assert json.loads(damaged) == json.loads(whole)  # white space, or a digit written otherwise
    else:
        assert refused.place


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_cut_files_are_found(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(["program.json", "program.safetensors"]))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    try:
        with pytest.raises(EnosError):
            read_program(folder).require_seal()
    finally:
        path.write_bytes(whole)


def _edits() -> dict[str, Callable[[Instruction, int, Executable], Instruction]]:
    """Return ways to edit an instruction by a number."""

    def moved(one: Instruction, by: int, program: Executable) -> Instruction:
        clock, start = program.program.clock_ns, one.start_cycle + by
        times: dict[str, Any] = {"start_ns": start * clock, "end_ns": (start + one.cycles) * clock}
        return replace(one, start_cycle=start, **times)

    def stretched(one: Instruction, by: int, program: Executable) -> Instruction:
        cycles = one.cycles + by
        end = (one.start_cycle + cycles) * program.program.clock_ns
        return replace(one, cycles=cycles, end_ns=end)

    def other_reads(one: Instruction, by: int, program: Executable) -> Instruction:
        names = sorted(program.values)
        return replace(one, reads=(names[by % len(names)],))

    def other_writes(one: Instruction, by: int, program: Executable) -> Instruction:
        names = sorted(program.values)
        return replace(one, writes=(names[by % len(names)],))

    def other_ranges(one: Instruction, by: int, program: Executable) -> Instruction:
        ranges = {dim: (first + by, end + by) for dim, (first, end) in one.ranges.items()}
        return replace(one, ranges=ranges)

    def other_step(one: Instruction, by: int, program: Executable) -> Instruction:
        return replace(one, step=None if one.step is None else one.step + by)

    def other_resource(one: Instruction, by: int, program: Executable) -> Instruction:
        names = program.program.resources
        return replace(one, resource=names[by % len(names)])

    return {
        f.__name__: f
        for f in (
            moved, stretched, other_reads, other_writes, other_ranges, other_step, other_resource,
        )
    }  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_edited_instructions_never_give_another_answer(data: st.DataObject) -> None:
    """The rules alone, without the seal: an edit is refused, or changes nothing in the outputs."""
    program = _program()
    listed = list(program.program.instructions)
    at = data.draw(st.integers(0, len(listed) - 1))
    what = data.draw(st.sampled_from([*_edits(), "left out", "doubled", "swapped"]))
    by = data.draw(st.integers(-40, 40))
    if what == "left out":
        del listed[at]
    elif what == "doubled":
        listed.insert(at, replace(listed[at], id="twin"))
    elif what == "swapped":
        other = (at + by) % len(listed)
        listed[at], listed[other] = listed[other], listed[at]
    else:
        listed[at] = _edits()[what](listed[at], by, program)
    if data.draw(st.booleans()):
        listed = [replace(one, after=()) for one in listed]
        listed.sort(key=lambda one: one.start_cycle)
    changed = replace(program, program=replace(program.program, instructions=tuple(listed)))
    _check_answer(changed)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_moved_addresses_never_give_another_answer(data: st.DataObject) -> None:
    program = _program()
    buffers = list(program.program.buffers)
    at = data.draw(st.integers(0, len(buffers) - 1))
    field = data.draw(st.sampled_from(["address", "size_bytes", "elements", "bits"]))
    by = data.draw(st.integers(-600, 600))
    buffers[at] = replace(buffers[at], **{field: getattr(buffers[at], field) + by})
    _check_answer(replace(program, program=replace(program.program, buffers=tuple(buffers))))


def test_a_memory_that_is_too_small_is_refused() -> None:
    program = _program()
    memories = {
        name: replace(memory, capacity_bytes=min(memory.capacity_bytes, 700))
        for name, memory in program.program.memories.items()
    }
    with pytest.raises(EnosError, match=r"takes bytes .* which has 700"):
        check_program(replace(program, program=replace(program.program, memories=memories)))


_SLOW_WRITER = """
import sys, time
from pathlib import Path
from enos_compiler.outputs import replaced_file, staged_outputs
folder = Path(sys.argv[1])
with staged_outputs(folder, last="report.json") as stage:
    (stage / "program.json").write_text("new")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills by other means")
def test_a_killed_writer_leaves_the_old_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged_outputs(out, last="report.json") as stage:
        (stage / "program.json").write_text("old")
    writer = subprocess.Popen(
        [sys.executable, "-c", _SLOW_WRITER, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(timeout=30)
    assert (out / "program.json").read_text() == "old"
    assert [p.name for p in out.iterdir()] == ["program.json"]


def test_a_replay_of_many_buffers_ends(folder: Path) -> None:
    """Twenty thousand instructions are checked in seconds, not hours."""
    program = _program()
    last = program.program.instructions[-1]
    clock, start, listed = program.program.clock_ns, last.start_cycle + last.cycles, []
    add = next(one for one in program.program.instructions if one.id == "vector:add")
    for i in range(20_000):
        begin = start + i * add.cycles
        times: dict[str, Any] = {"start_ns": begin * clock, "end_ns": (begin + add.cycles) * clock}
        listed.append(replace(add, id=f"again {i}", start_cycle=begin, **times))
    whole = (*program.program.instructions, *listed)
    started = time.process_time()
    check_program(replace(program, program=replace(program.program, instructions=whole)))
    assert time.process_time() - started < 60
