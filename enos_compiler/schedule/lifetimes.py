# SPDX-License-Identifier: Apache-2.0
"""When a program's buffers hold something needed, and how full its memories are with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from enos_compiler.cores.homes import root_of
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import Buffer, Program


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Cycles of an inference in which the bytes of a buffer hold something needed."""

    buffer: Buffer
    begin: int
    """First cycle of the first access; 0 for what is there from the start."""
    end: int
    """Behind the last access; the end of the program for its outputs."""
    is_constant: bool
    """Whether nothing writes it and every inference reads the same: weights and constants."""


def lifetimes(network: Network, program: Program) -> tuple[Lifetime, ...]:
    """Return the lifetime of every buffer that an instruction touches; views count as their value.

    Inputs are there from the start and may go after the last read; outputs stay until the end.
    """
    roots = {name: root_of(network, name) for name in network.values}
    kept = {roots[name] for name in network.outputs}
    fed = {roots[name] for name in network.inputs}
    made = {roots.get(name, name) for one in program.instructions for name in one.writes}
    span: dict[str, tuple[int, int]] = {}
    for one in program.instructions:
        for name in (*one.reads, *one.writes):
            root = roots.get(name, name)
            first, last = span.get(root, (one.start_cycle, 0))
            span[root] = (first, max(last, one.start_cycle + one.cycles))
    whole = max((last for _, last in span.values()), default=0)
    return tuple(
        Lifetime(
            buffer,
            span[buffer.name][0] if buffer.name in made else 0,
            whole if buffer.name in kept else span[buffer.name][1],
            is_constant=buffer.name not in made | fed,
        )
        for buffer in program.buffers
        if buffer.name in span
    )


def peak_bytes(lives: Iterable[Lifetime], memories: Iterable[str]) -> dict[str, int]:
    """Return the most bytes of each memory that hold something needed, at any one time.

    Weights and constants count all the time. What buffers reach beyond it is lost to fragmentation:
    gaps that no value fits.
    """
    moments: dict[str, list[tuple[float, int]]] = {name: [] for name in memories}
    for life in lives:
        size, end = life.buffer.size_bytes, float("inf") if life.is_constant else life.end
        moments[life.buffer.memory] += [(life.begin, size), (end, -size)]
    return {name: _highest(changes) for name, changes in moments.items()}


def _highest(changes: list[tuple[float, int]]) -> int:
    """Return the highest sum of changes by time; what ends at a time makes room at it."""
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def reached_bytes(program: Program) -> dict[str, int]:
    """Return the highest byte that buffers reach, by memory."""
    reach: dict[str, int] = {}
    for buffer in program.buffers:
        end = buffer.address + buffer.size_bytes
        reach[buffer.memory] = max(reach.get(buffer.memory, 0), end)
    return reach


def fragmentation(peak: Mapping[str, int], reached: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each memory's used bytes that is never needed at the fullest time."""
    return {name: 1 - peak[name] / end for name, end in reached.items() if end}
