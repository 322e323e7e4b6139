# SPDX-License-Identifier: Apache-2.0
"""What it costs to bring a layer's weights into cells: once, or before every inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from enos_compiler.cores.crossbar_options import STAGED, reloads
from enos_compiler.cores.crossbar_spec import CellsSpec
from enos_compiler.cores.memory import Array, Chip, Traffic
from enos_compiler.crossbar.placement import LayerPlacement
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.cost import Action, Cost


class WeightCosts(NamedTuple):
    """When a layer's weights are paid for."""

    before: Cost
    """Writing them before each inference; empty for weights that stay."""
    once: Cost
    """Bringing them to where they stay, once for many inferences."""
    streamed_bits: int
    """Width of a weight that comes from DRAM in every inference, 0 for none."""


@dataclass(frozen=True, slots=True)
class WeightPath:
    """From DRAM to the cells of one core, past its weight memory where it has one."""

    core: str
    cells: CellsSpec
    chip: Chip
    memory: Array | None

    def costs(self, placement: LayerPlacement, choice: Choice, written: int) -> WeightCosts:
        """Return what a layer's weights cost.

        Args:
            placement: where they lie.
            choice: whether they stay, and where they come from.
            written: cells in use, of all copies.
        """
        writing = self._writing(written)
        if not reloads(choice):
            return WeightCosts(Cost(), self._from_dram(placement, writing), 0)
        if STAGED in choice.options and self.memory is not None:
            words = self.words(placement)
            read = _beside(writing, {self.memory.read: words}, words)
            kept = _beside(Cost(clock_ns=self.chip.clock_ns), {self.memory.write: words}, words)
            return WeightCosts(read, self._from_dram(placement, kept), 0)
        return WeightCosts(self._from_dram(placement, writing), Cost(), _stored_bits(placement))

    def words(self, placement: LayerPlacement) -> int:
        """Return the words of the weight memory that a layer's weights take, 0 without one."""
        if self.memory is None:
            return 0
        return self.memory.words(placement.shape.volume("Weights"), _stored_bits(placement))

    def _writing(self, written: int) -> Cost:
        """Return the cost of writing every cell in use."""
        writes = -(-written // self.cells.cells_per_write.value)
        busy = ceil(writes * self.cells.program_ns.value / self.chip.clock_ns)
        events = {f"{self.core}.cell/program": written}
        return Cost(events=events, cycles=busy, clock_ns=self.chip.clock_ns)

    def _from_dram(self, placement: LayerPlacement, where: Cost) -> Cost:
        """Return the cost of reading the weights from DRAM while they are written."""
        traffic = Traffic(self.chip)
        weights = placement.shape.volume("Weights")
        traffic.read(self.chip.dram, weights, _stored_bits(placement))
        return _beside(where, traffic.events, traffic.cycles)


def _beside(cost: Cost, events: Mapping[Action, int], cycles: int) -> Cost:
    """Return a cost with transfers that overlap it."""
    together = Counter(cost.events) + Counter(events)
    return replace(cost, events=dict(sorted(together.items())), cycles=max(cost.cycles, cycles))


def _stored_bits(placement: LayerPlacement) -> int:
    """Return the width of the weights as they are stored outside the arrays."""
    return placement.weight_bits if placement.operator in ("mac", "mf", "ef") else 1
