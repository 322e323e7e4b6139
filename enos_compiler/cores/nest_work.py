# SPDX-License-Identifier: Apache-2.0
"""What a nest does step by step: its outermost loops in time, and what its homes hand over."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import ceil

from enos_compiler.cores.stepping import SteppedLoop, Stepping
from enos_compiler.cores.steps import STEP_LIMIT, LayerWork, Transfer
from enos_compiler.ir.shape import DIMS, TENSORS, Dim
from enos_compiler.mapping.events import LevelEvents, NestEvents
from enos_compiler.mapping.machine import Machine, StorageLevel
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.prices import Widths


def nest_work(
    nest: Nest,
    events: NestEvents,
    machine: Machine,
    widths: Widths,
    homes: Collection[str],
) -> LayerWork:
    """Return the work of a counted nest; its transfers are named `LEVEL/read_tensor` and so on.

    Args:
        nest: of the layer, its bounds perhaps padded.
        events: its counts.
        machine: levels and their bandwidths.
        widths: of operands.
        homes: levels that are memories of the chip; the others belong to the core.
    """
    loads: list[Transfer] = []
    stores: list[Transfer] = []
    inside = [events.compute_cycles]
    one_port = False
    for spec, level in zip(machine.levels, events.levels, strict=True):
        if spec.name not in homes:
            inside.append(level.cycles)
            continue
        one_port |= spec.shared_bandwidth is not None
        loads += _transfers(spec, level, widths, stores=False)
        stores += _transfers(spec, level, widths, stores=True)
    return LayerWork(
        stepping=Stepping.of(_stepped_loops(nest), STEP_LIMIT),
        loads=tuple(loads),
        stores=tuple(stores),
        compute_cycles=max(inside) + events.cycles - events.busy_cycles,
        one_port=one_port,
    )


def _transfers(
    spec: StorageLevel,
    level: LevelEvents,
    widths: Widths,
    *,
    stores: bool,
) -> Iterator[Transfer]:
    """Yield what a home hands out, or takes."""
    limit = spec.write_bandwidth if stores else spec.read_bandwidth
    limit = spec.shared_bandwidth if limit is None else limit
    kind = "update" if stores else "read"
    for tensor in TENSORS:
        counts = level.tensors[tensor]
        words = counts.fills + counts.updates if stores else counts.reads
        moved = counts.vector_fills + counts.vector_updates if stores else counts.vector_reads
        if not moved:
            continue
        bits = widths.of(tensor, finished=not level.tensors["Outputs"].reads)
        yield Transfer(
            tensor=tensor,
            action=f"{spec.name}/{kind}_{tensor.lower()}",
            count=moved * level.clusters,
            elements=words * max(1, spec.word_bits // bits) * level.clusters,
            cycles=ceil(words / limit) if limit else 0,
        )


def _stepped_loops(nest: Nest) -> Iterator[SteppedLoop]:
    """Yield the loops in time that lie outside every fan-out, outer first."""
    inside: dict[str, int] = dict.fromkeys(DIMS, 1)
    found: list[SteppedLoop] = []
    for entry in nest.levels:
        for name, factor in reversed(entry.spatial):
            inside[name] *= factor
        if entry.used_x * entry.used_y > 1:
            found.clear()
        for name, factor in reversed(entry.temporal):
            if factor > 1:
                dim: Dim = next(d for d in DIMS if d == name)
                found.append(SteppedLoop(dim, factor, inside[name]))
            inside[name] *= factor
    yield from reversed(found)
