# SPDX-License-Identifier: Apache-2.0
"""Frames of one program follow each other as closely as nothing is wanted twice at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from enos_compiler.passes.schedule import Schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import branches

from enos_compiler.cores.accounting import itemise, totals
from enos_compiler.errors import UsageError
from enos_compiler.ir.program import Buffer, Instruction, Program
from enos_compiler.pipeline import Context
from enos_compiler.schedule.frames import frame_interval
from enos_compiler.schedule.lifetimes import Lifetime, lifetimes, peak_bytes
from enos_compiler.simulate.rules import check_times


def _one(name: str, resource: str, start: int, cycles: int) -> Instruction:
    end = float(start + cycles)
    return Instruction(name, resource, "compute", float(start), end, start, cycles, layer=name)


def _collides(program: Program, lives: list[Lifetime], interval: int, frames: int) -> bool:
    """Whether two frames want a resource or a byte in the same cycle, cycle by cycle."""
    taken: dict[tuple[object, ...], int] = {}
    for frame in range(frames):
        shift = frame * interval
        wanted: list[tuple[object, ...]] = [
            (one.resource, cycle)
            for one in program.instructions
            for cycle in range(shift + one.start_cycle, shift + one.start_cycle + one.cycles)
        ]
        wanted += [
            (life.buffer.memory, byte, cycle)
            for life in lives
            if not life.is_constant
            for byte in range(life.buffer.address, life.buffer.address + life.buffer.size_bytes)
            for cycle in range(shift + life.begin, shift + life.end)
        ]
        if any(taken.setdefault(what, frame) != frame for what in wanted):
            return True
    return False


@st.composite
def _programs(draw: st.DrawFn) -> tuple[Program, list[Lifetime]]:
    listed = [
        _one(f"i{i}", draw(st.sampled_from("pq")), draw(st.integers(0, 8)), draw(st.integers(0, 4)))
        for i in range(draw(st.integers(1, 4)))
    ]
    lives = []
    for i in range(draw(st.integers(0, 3))):
        buffer = Buffer(f"b{i}", "m", draw(st.integers(0, 3)), draw(st.integers(1, 2)), 1, 8)
        begin = draw(st.integers(0, 8))
        end = begin + draw(st.integers(1, 4))
        lives.append(Lifetime(buffer, begin, end, is_constant=draw(st.booleans())))
    return Program(("p", "q"), (), tuple(listed), {}, 1.0), lives


@settings(deadline=None)
@given(made=_programs())
def test_the_interval_is_the_shortest_at_which_nothing_collides(
    made: tuple[Program, list[Lifetime]],
) -> None:
    program, lives = made
    found = frame_interval(program, lives)
    assert not _collides(program, lives, found.cycles, frames=14)
    assert all(_collides(program, lives, i, frames=14) for i in range(1, found.cycles))


@pytest.mark.parametrize("target", ["hybrid", "simba"])
def test_frames_of_a_network_keep_the_rules_of_the_machine(target: str) -> None:
    """Five frames as one program: no resource does two things, no value's bytes are taken early."""
    network = branches(target)[0]
    program = network.program
    assert program is not None
    lives = lifetimes(network, program)
    found = frame_interval(program, lives)
    whole = max(one.start_cycle + one.cycles for one in program.instructions)
    assert max(_busiest(program).values()) <= found.cycles <= whole
    shifts = [frame * found.cycles for frame in range(5)]
    listed = [
        replace(
            one,
            id=f"{shift}:{one.id}",
            after=tuple(f"{shift}:{name}" for name in one.after),
            start_cycle=one.start_cycle + shift,
            start_ns=(one.start_cycle + shift) * program.clock_ns,
            end_ns=(one.start_cycle + shift + one.cycles) * program.clock_ns,
        )
        for shift in shifts
        for one in program.instructions
    ]
    listed.sort(key=lambda one: one.start_cycle)
    check_times(listed, program)
    held = [
        (life.buffer, life.begin + shift, life.end + shift, shift)
        for shift in shifts
        for life in lives
        if not life.is_constant
    ]
    for one, begin, end, frame in held:
        for other, first, last, later in held:
            share = (
                one.memory == other.memory
                and one.address < other.address + other.size_bytes
                and other.address < one.address + one.size_bytes
            )
            assert frame == later or not share or end <= first or last <= begin


def _busiest(program: Program) -> dict[str, int]:
    busy: dict[str, int] = {}
    for one in program.instructions:
        busy[one.resource] = busy.get(one.resource, 0) + one.cycles
    return busy


def test_the_report_has_the_rate_and_what_sets_it() -> None:
    network, chip = branches("hybrid")
    told = _section(Schedule(frames=10).run(network, Context(chip)))
    frames = told["frames"]
    assert frames["total_ns"] == pytest.approx(told["makespan_ns"] + 9 * frames["interval_ns"])
    assert frames["per_second"] == pytest.approx(1e9 / frames["interval_ns"])
    assert frames["limit"] in {*_busiest_names(network), *network.values}
    alone = totals(itemise(network, chip), chip, told["makespan_ns"])
    leakage = alone.leakage_pj * frames["total_ns"] / 10 / told["makespan_ns"]
    assert frames["energy_pj"] == pytest.approx(alone.energy_pj - alone.leakage_pj + leakage)
    assert "frames" not in _section(Schedule().run(network, Context(chip)))
    with pytest.raises(UsageError, match="0 is below 1"):
        Schedule(frames=0).run(network, Context(chip))


def _section(network: Any) -> dict[str, Any]:
    return dict(network.sections["schedule"])


def _busiest_names(network: Any) -> set[str]:
    return {one.resource.partition(".")[0] for one in network.program.instructions}


def test_the_peak_counts_what_is_needed_and_constants_always() -> None:
    def life(size: int, begin: int, end: int, *, constant: bool = False) -> Lifetime:
        return Lifetime(Buffer("b", "m", 0, size, 1, 8), begin, end, is_constant=constant)

    lives = [life(4, 0, 3), life(8, 3, 5), life(2, 4, 6), life(1, 0, 1, constant=True)]
    assert peak_bytes(lives, ["m", "other"]) == {"m": 11, "other": 0}
