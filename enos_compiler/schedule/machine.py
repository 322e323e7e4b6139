# SPDX-License-Identifier: Apache-2.0
"""What a chip is busy with while tasks are placed one after another, in cycles.

A core has engines (load, compute, store) and places for the operands and results of two steps. A
task begins as early as both allow behind the tasks that were placed before it on the same core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from enos_compiler.cores.steps import PLACES
from enos_compiler.schedule.blocks import Block

_NONE: tuple[int, ...] = ()


@dataclass(slots=True)
class Machine:
    """The cycle from which each engine, and each place of a core's last steps, is free."""

    _engines: dict[str, int] = field(default_factory=dict)
    _operands: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _results: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def earliest(self, core: str, block: Block, ready: int) -> int:
        """Return the first cycle, from `ready` on, at which a block can begin."""
        return max((ready, *self._limits(core, block)))

    def place(self, core: str, block: Block, begin: int) -> None:
        """Note what a block that begins then occupies."""
        for engine, last in block.last_uses.items():
            self._engines[engine] = max(self._engines.get(engine, 0), begin + last)
        if block.steps:
            behind = block.steps[-PLACES:]
            operands = tuple(begin + compute.end for _, compute, _ in behind)
            results = tuple(begin + store.end for _, _, store in behind)
            self._operands[core] = (*self._operands.get(core, _NONE), *operands)[-PLACES:]
            self._results[core] = (*self._results.get(core, _NONE), *results)[-PLACES:]

    def copy(self) -> Machine:
        """Return a machine that is busy with the same and goes on by itself."""
        return Machine(dict(self._engines), dict(self._operands), dict(self._results))

    def _limits(self, core: str, block: Block) -> Iterator[int]:
        """Yield cycles before which a block would need an engine or a place that is taken."""
        for engine, first in block.first_uses.items():
            yield self._engines.get(engine, 0) - first
        operands, results = self._operands.get(core, _NONE), self._results.get(core, _NONE)
        taken = len(operands)
        for (load, compute, _), operand, result in zip(
            block.steps[PLACES - taken : PLACES], operands, results, strict=False
        ):
            yield operand - load.begin
            yield result - compute.begin
