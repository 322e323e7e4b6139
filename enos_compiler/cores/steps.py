# SPDX-License-Identifier: Apache-2.0
"""A layer in steps: what is loaded, computed and stored part by part, and how long that takes.

A core works on a step while the operands of the next one arrive and the results of the one before
leave; it has two places for each. So a step is loaded when the step before the last one has been
computed, computed when it is loaded and the step before the last one is stored, and stored when it
is computed. The first load and the last store stand alone: they are the fill and the drain that a
layer's latency includes.

A core tells its work in `CoreCost.detail["work"]`, the JSON form of `LayerWork`; a layer of a core
that does not is one step. Words that cross a memory's port go to the steps that touch operands for
the first time, or anew, as their number tells; all that happens inside the core goes evenly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from enos_compiler.cores.stepping import (
    Ranges,
    SteppedLoop,
    Stepping,
    fresh,
    growth,
    last_visits,
    operand_box,
    returns,
    volume,
)
from enos_compiler.ir.cost import Action
from enos_compiler.ir.shape import LayerShape, Tensor

PLACES = 2
"""Places that a core has for the operands of steps, and as many for their results."""
STEP_LIMIT = 16
"""Most steps of a layer; with more, fill and drain would be less than a sixteenth shorter."""


class StepCycles(NamedTuple):
    """Cycles of one step's three parts, or those at which they start."""

    load: int
    compute: int
    store: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """What moves of one tensor, over all steps, between a memory of the chip and a core."""

    tensor: Tensor
    action: Action
    """The memory's event."""
    count: int
    """Events of all steps."""
    elements: int
    """Operands that move, or at most as many as fit the words."""
    cycles: int
    """That the memory takes."""

    @property
    def memory(self) -> str:
        """Owner of the event."""
        return self.action.partition(".")[0]


@dataclass(frozen=True, slots=True)
class LayerWork:
    """What a core does for a layer: enough to tell its steps and how long they take."""

    stepping: Stepping
    loads: tuple[Transfer, ...]
    stores: tuple[Transfer, ...]
    compute_cycles: int
    """Of the core, operands at hand."""
    first_cycles: int = 0
    """That the core needs once before it computes: writing cells."""
    one_port: bool = False
    """Whether loads and stores share a port; else each has its own."""

    def booked(self, name: Callable[[str], Action]) -> LayerWork:
        """Return the same work, its events under the names that the chip books them by."""
        loads, stores = (
            tuple(replace(one, action=name(one.action)) for one in transfers)
            for transfers in (self.loads, self.stores)
        )
        return replace(self, loads=loads, stores=stores)

    def as_detail(self) -> dict[str, Any]:
        """Return the JSON form that `CoreCost.detail["work"]` holds."""
        loops = [_named(loop) for loop in self.stepping.loops]
        return {
            **_named(self),
            "stepping": {**_named(self.stepping), "loops": loops},
            "loads": [_named(one) for one in self.loads],
            "stores": [_named(one) for one in self.stores],
        }

    @classmethod
    def from_detail(cls, data: Mapping[str, Any]) -> LayerWork:
        """Return the work that `as_detail` wrote."""
        loops = tuple(SteppedLoop(**loop) for loop in data["stepping"]["loops"])
        return cls(
            stepping=Stepping(loops, data["stepping"]["group"]),
            loads=tuple(Transfer(**one) for one in data["loads"]),
            stores=tuple(Transfer(**one) for one in data["stores"]),
            compute_cycles=data["compute_cycles"],
            first_cycles=data["first_cycles"],
            one_port=data["one_port"],
        )


def _named(one: LayerWork | Stepping | SteppedLoop | Transfer) -> dict[str, Any]:
    """Return the fields by name, as they are; `asdict` would copy all that they hold."""
    return {field.name: getattr(one, field.name) for field in fields(one)}


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a layer on a core."""

    ranges: Ranges
    load: Mapping[Action, int]
    """Events of its load, and so on."""
    compute: Mapping[Action, int]
    store: Mapping[Action, int]
    cycles: StepCycles


def work_cycles(shape: LayerShape, work: LayerWork) -> int:
    """Return the cycles that a layer takes alone, fill and drain included."""
    return pipeline(_cycles(shape, work), one_port=work.one_port)[1]


def layer_steps(
    shape: LayerShape, work: LayerWork, events: Mapping[Action, int]
) -> tuple[Step, ...]:
    """Return a layer's steps; their events sum to the layer's.

    Args:
        shape: of the layer, its bounds not padded.
        work: what its core told.
        events: of the layer's cost.
    """
    ranges = work.stepping.ranges(shape)
    loads = _moved(shape, ranges, work.loads, stores=False)
    stores = _moved(shape, ranges, work.stores, stores=True)
    inside = Counter(events)
    for transfer in (*work.loads, *work.stores):
        inside[transfer.action] -= transfer.count
    inner = evenly({a: n for a, n in inside.items() if n}, work.stepping.sizes())
    parts = zip(ranges, loads, inner, stores, _cycles(shape, work), strict=True)
    return tuple(Step(*part) for part in parts)


def pipeline(cycles: Sequence[StepCycles], *, one_port: bool) -> tuple[tuple[StepCycles, ...], int]:
    """Return when each part starts if a layer runs alone, and the cycles until its end."""
    ends: list[StepCycles] = []
    starts: list[StepCycles] = []
    loads: list[int] = []
    loaded = stored = computed = 0
    for i, step in enumerate(cycles):
        for j in range(len(loads), min(i + PLACES, len(cycles))):  # the next load goes first
            begin = max(loaded, ends[j - PLACES].compute if j >= PLACES else 0)
            begin = max(begin, stored) if one_port else begin
            loads.append(begin)
            loaded = begin + cycles[j].load
        ready = loads[i] + step.load
        compute = max(ready, computed, ends[i - PLACES].store if i >= PLACES else 0)
        computed = compute + step.compute
        store = max(computed, stored, loaded if one_port else 0)
        stored = store + step.store
        starts.append(StepCycles(loads[i], compute, store))
        ends.append(StepCycles(ready, computed, stored))
    return tuple(starts), max(computed, stored)


def evenly(total: Mapping[Action, int], shares: Iterable[int]) -> list[dict[Action, int]]:
    """Split integer events in proportion to `shares`: the parts sum to the whole.

    Each part and those before it together get their share rounded up, so that an operand that is
    first needed in a step is never paid for later.
    """
    parts = list(shares)
    whole = sum(parts)
    if not whole:
        parts, whole = [1, *(0 for _ in parts[1:])], 1
    found, done = [], 0
    for share in parts:
        before, done = done, done + share
        part = {a: -(-n * done // whole) + (-n * before // whole) for a, n in total.items()}
        found.append({a: n for a, n in part.items() if n})
    return found


def _cycles(shape: LayerShape, work: LayerWork) -> list[StepCycles]:
    ranges = work.stepping.ranges(shape)
    load = _port_cycles(shape, ranges, work.loads, stores=False)
    store = _port_cycles(shape, ranges, work.stores, stores=True)
    split = evenly({"": work.compute_cycles}, work.stepping.sizes())
    compute = [part.get("", 0) for part in split]
    compute[0] += work.first_cycles
    return [StepCycles(*parts) for parts in zip(load, compute, store, strict=True)]


def _port_cycles(
    shape: LayerShape, ranges: Sequence[Ranges], transfers: Iterable[Transfer], *, stores: bool
) -> list[int]:
    """Return the cycles of every step's transfers; memories work side by side."""
    by_memory: dict[str, list[int]] = {}
    for one in transfers:
        parts = evenly({"": one.cycles}, _shares(shape, ranges, one, stores=stores))
        sums = by_memory.setdefault(one.memory, [0] * len(ranges))
        for i, part in enumerate(parts):
            sums[i] += part.get("", 0)
    return [max(each) for each in zip(*by_memory.values(), strict=True)] or [0] * len(ranges)


def _moved(
    shape: LayerShape, ranges: Sequence[Ranges], transfers: Iterable[Transfer], *, stores: bool
) -> list[dict[Action, int]]:
    """Return the events of every step's transfers."""
    found: list[Counter[Action]] = [Counter() for _ in ranges]
    for one in transfers:
        parts = evenly({one.action: one.count}, _shares(shape, ranges, one, stores=stores))
        for events, part in zip(found, parts, strict=True):
            events.update(part)
    return [dict(events) for events in found]


def _shares(
    shape: LayerShape, ranges: Sequence[Ranges], transfer: Transfer, *, stores: bool
) -> list[int]:
    """Return what share of a transfer each step has.

    As many operands move as the steps' boxes have together: every step brings its own. Fewer: what
    a step shares with the one before stays. Fewer still: what was ever there stays. Outputs leave
    when no later step adds to them, unless their number says that every step hands them out.
    """
    boxes = [operand_box(shape, transfer.tensor, one) for one in ranges]
    whole = [volume(box) for box in boxes]
    if transfer.elements >= sum(whole):
        return whole
    if stores:
        return last_visits(boxes)
    if transfer.tensor == "Outputs":
        return returns(boxes)
    new = fresh(boxes)
    return new if transfer.elements >= sum(new) else growth(boxes)
