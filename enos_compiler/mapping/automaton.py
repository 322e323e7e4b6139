# SPDX-License-Identifier: Apache-2.0
"""Which costs can be pending together: the states of the mapper's path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from enos_compiler.ir.shape import DIMS, TENSORS
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.space import MapSpace

State = tuple[int, int, int]
"""Lowest level whose filling is not yet paid, by tensor; -1 where nothing is pending."""


@dataclass(frozen=True, slots=True)
class Automaton:
    """States by level, and where each leads."""

    states: tuple[tuple[State, ...], ...]
    stay: tuple[tuple[int, ...], ...]
    """Next state where the next level has no loops, by level and state."""
    carry: tuple[tuple[tuple[int, ...], ...], ...]
    """Next state where only one tensor stays pending, by next level, tensor, pending level + 1."""
    fresh: tuple[int, ...]
    """Next state where all pending costs are paid, by next level."""

    def arrays(self) -> tuple[Any, Any, Any, Any, Any]:
        """States, their number, stay, carry and fresh as the kernel takes them."""
        levels, most = len(self.states), max(len(level) for level in self.states)
        states = np.full((levels, most, 3), -1, dtype=np.int64)
        stay = np.zeros((levels, most), dtype=np.int64)
        carry = np.zeros((levels, 3, levels + 1), dtype=np.int64)
        for s, level in enumerate(self.states):
            states[s, : len(level)] = level
            stay[s, : len(self.stay[s])] = self.stay[s]
            for t in range(3):
                carry[s, t, : len(self.carry[s][t])] = self.carry[s][t]
        counts = np.array([len(level) for level in self.states], dtype=np.int64)
        return states, counts, stay, carry, np.array(self.fresh, dtype=np.int64)


def build_automaton(machine: Machine, space: MapSpace) -> Automaton:
    """All states that a nest of `space` can be in, level by level."""
    active = [_active(machine, space, t) for t in range(3)]

    def extend(state: State, level: int) -> State:
        w, i, o = (
            p if p >= 0 else (level if active[t][level] else -1) for t, p in enumerate(state)
        )
        return w, i, o

    def alone(tensor: int, pending: int, level: int) -> State:
        bare = [-1, -1, -1]
        bare[tensor] = pending
        return extend((bare[0], bare[1], bare[2]), level)

    def closed(level: int) -> bool:
        return all(space.levels[level].range(dim) == (1, 1) for dim in DIMS)

    nothing: State = (-1, -1, -1)
    states: list[list[State]] = [[extend(nothing, 0)]]
    stay: list[list[int]] = []
    carry: list[list[list[int]]] = [[[0], [0], [0]]]
    fresh = [0]
    for level in range(1, len(machine.levels)):
        now: list[State] = []

        def number(state: State, now: list[State] = now) -> int:
            if state not in now:
                now.append(state)
            return now.index(state)

        before = states[-1]
        stay.append([number(extend(state, level)) for state in before])
        fresh.append(0 if closed(level) else number(extend(nothing, level)))
        row = []
        for tensor in range(3):
            # without loops of its own a level is passed as it was reached
            pending = set() if closed(level) else {state[tensor] for state in before}
            row.append(
                [
                    number(alone(tensor, p, level)) if p in pending else fresh[-1]
                    for p in range(-1, level)
                ]
            )
        carry.append(row)
        states.append(now)
    stay.append([])
    return Automaton(
        tuple(map(tuple, states)),
        tuple(map(tuple, stay)),
        tuple(tuple(map(tuple, row)) for row in carry),
        tuple(fresh),
    )


def _active(machine: Machine, space: MapSpace, tensor: int) -> list[bool]:
    """Levels whose filling with `tensor` costs something."""
    name = TENSORS[tensor]
    home = space.home(name)
    out = []
    for s, level in enumerate(space.levels):
        if s >= home:
            out.append(False)
            continue
        wires = machine.levels[s + 1].network
        outer = space.levels[s + 1]
        spread = bool(outer.spatial_x or outer.spatial_y) and machine.fanout(s + 1) != (1, 1)
        priced = bool(wires.energy_per_hop_pj or wires.router_energy_pj) and spread
        out.append(name in level.keep or priced)
    return out
