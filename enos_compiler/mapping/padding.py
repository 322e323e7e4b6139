# SPDX-License-Identifier: Apache-2.0
"""Padded bounds: awkward bounds made larger, so that they divide well.

The padded loops run and are paid for; a mapping of the padded layer computes the layer and zeros
beside it. With factors that divide the bounds only, a prime bound cannot be tiled at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from enos_compiler.ir.shape import Dim, LayerShape
from enos_compiler.mapping.engine import Engine, solver
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.mapper import LayerSearch, MapResult
from enos_compiler.mapping.objective import Objective
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.space import MapSpace

PADDED: tuple[Dim, ...] = ("N", "M", "C", "P", "Q")
"""Dimensions that are padded; groups and kernels are left as they are."""


@dataclass(frozen=True, slots=True)
class PaddedResult:
    """The best mapping over the bounds tried."""

    result: MapResult
    """Its `shape` has the padded bounds."""
    original: LayerShape
    tried: int
    """Bounds tried, the original ones included."""

    @property
    def padded(self) -> bool:
        """Whether any bound was made larger."""
        return self.result.shape != self.original


def map_padded(
    shape: LayerShape,
    machine: Machine,
    *,
    objective: Objective = "edp",
    space: MapSpace | None = None,
    widths: Widths | None = None,
    engine: Engine | None = None,
    margin: float = 0.15,
) -> PaddedResult:
    """Map a layer with its bounds as they are, and with each bound padded.

    One dimension is padded after another, the largest first; for each, every bound up to `margin`
    above it is tried in order of work, and the best is kept. The mapping is optimal for its own
    bounds; over pairs of paddings that were not tried together nothing is claimed.

    Args:
        shape: the layer.
        machine: see `map_layer`, like the arguments that follow.
        objective: what is minimised.
        space: nests to choose from.
        widths: operand widths.
        engine: form of the kernel.
        margin: largest padding, as a fraction of the bound.

    Raises:
        InfeasibleError: no bounds that were tried have a mapping.
    """
    allowed = space or MapSpace.of_machine(machine)
    kernel = solver(engine)
    first = LayerSearch(shape, machine, allowed, widths, objective)
    best = first.run(kernel)
    tried = 1
    for dim in sorted(PADDED, key=lambda d: -shape.bounds[d]):
        bound = shape.bounds[dim]
        around = best.shape if best else shape
        for padded in range(bound + 1, int(bound * (1 + margin)) + 1):
            change: dict[str, Any] = {dim.lower(): padded}
            candidate = replace(around, **change)
            search = LayerSearch(candidate, machine, allowed, widths, objective)
            limit = (best.certificate.value, best.energy_pj) if best else None
            found = search.run(kernel, limit)
            tried += 1
            best = found or best
    if best is None:
        raise first.infeasible()
    return PaddedResult(best, shape, tried)
