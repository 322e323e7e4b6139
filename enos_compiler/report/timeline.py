# SPDX-License-Identifier: Apache-2.0
"""When each resource works on what: the program's instructions as few slots as a picture needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from enos_compiler.ir.program import OWNERS, Instruction, Program

MOST_SLOTS = 4000
"""Above this many instructions, neighbours of one owner on one resource share a slot."""
_FINEST = 4096
"""First gap that is closed, as a fraction of the makespan: below a pixel of a wide screen."""


@dataclass(slots=True)
class _Slot:
    resource: str
    owner: tuple[str, str]
    start_ns: float
    end_ns: float
    busy_ns: float
    instructions: int
    busy_by_op: dict[str, float] = field(default_factory=dict)


def owner_of(instruction: Instruction) -> tuple[str, str]:
    """Return whose work an instruction is: `("layer", name)`, `("edge", "a->b")`, ..."""
    for kind in OWNERS:
        name = getattr(instruction, kind)
        if name is not None:
            return kind, name
    return "", instruction.id


def timeline(program: Program) -> dict[str, Any]:
    """Return the slots of one inference, by resource and start.

    A slot is `[resource, owner, op, start_ns, end_ns, busy_ns, instructions]`, the first three as
    indices into the lists beside it; `busy_ns` is less than the span where the slot stands for
    instructions with gaps between them, `op` is what it was longest busy with.
    """
    slots = _merged([_slot(i) for i in program.instructions], program.makespan_ns)
    resources = list(dict.fromkeys(slot.resource for slot in slots))
    owners = list(dict.fromkeys(slot.owner for slot in slots))
    ops = list(dict.fromkeys(_longest(slot) for slot in slots))
    where = {name: i for i, name in enumerate(resources)}
    whose = {owner: i for i, owner in enumerate(owners)}
    what = {op: i for i, op in enumerate(ops)}
    return {
        "resources": resources,
        "owners": [{"kind": kind, "name": name} for kind, name in owners],
        "ops": ops,
        "instructions": len(program.instructions),
        "slots": [
            [
                where[slot.resource],
                whose[slot.owner],
                what[_longest(slot)],
                slot.start_ns,
                slot.end_ns,
                slot.busy_ns,
                slot.instructions,
            ]
            for slot in sorted(slots, key=lambda s: (where[s.resource], s.start_ns))
        ],
    }


def _slot(instruction: Instruction) -> _Slot:
    busy = instruction.end_ns - instruction.start_ns
    return _Slot(
        instruction.resource,
        owner_of(instruction),
        instruction.start_ns,
        instruction.end_ns,
        busy,
        1,
        {instruction.op: busy},
    )


def _longest(slot: _Slot) -> str:
    """Return the operation that a slot is longest busy with; the first of equals."""
    return max(slot.busy_by_op, key=lambda op: slot.busy_by_op[op])


def _merged(slots: Sequence[_Slot], makespan_ns: float) -> list[_Slot]:
    """Close gaps between neighbours of one owner, ever wider ones, until few slots are left."""
    found = list(slots)
    gap_ns = makespan_ns / _FINEST
    while len(found) > MOST_SLOTS and gap_ns <= 2 * makespan_ns:
        by_resource: dict[str, list[_Slot]] = defaultdict(list)
        for slot in found:
            by_resource[slot.resource].append(slot)
        found = [one for row in by_resource.values() for one in _joined(row, gap_ns)]
        gap_ns *= 2
    return found


def _joined(slots: Iterable[_Slot], gap_ns: float) -> list[_Slot]:
    row: list[_Slot] = []
    for slot in sorted(slots, key=lambda s: s.start_ns):
        last = row[-1] if row else None
        if last is None or last.owner != slot.owner or slot.start_ns - last.end_ns > gap_ns:
            row.append(slot)
            continue
        last.end_ns = max(last.end_ns, slot.end_ns)
        last.busy_ns += slot.busy_ns
        last.instructions += slot.instructions
        for op, busy in slot.busy_by_op.items():
            last.busy_by_op[op] = last.busy_by_op.get(op, 0.0) + busy
    return row
