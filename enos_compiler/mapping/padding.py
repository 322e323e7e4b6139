# SPDX-License-Identifier: Apache-2.0
"""Padded bounds: awkward bounds made larger, so that they divide well.

The padded loops run and are paid for; a mapping of the padded layer computes the layer and zeros
beside it. With factors that divide the bounds only, a prime bound cannot be tiled at all.

Which bounds are tried is a list, not a search: the next multiples of the spatial factors that a
fan-out has room for and the bound does not divide by, and of small powers of two for loops in time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from enos_compiler.ir.shape import Dim, LayerShape
from enos_compiler.mapping.engine import Engine, Solver, solver
from enos_compiler.mapping.lattice import divisors
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.mapper import LayerSearch, MapResult
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.objective import Objective
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.space import MapSpace

PADDED: tuple[Dim, ...] = ("N", "M", "C", "P", "Q")
"""Dimensions that are padded; groups and kernels are left as they are."""
_TILES = (1, 2, 3, 4, 6)
"""Iterations in time that a padded spatial factor is given beside it."""
_BLOCKS = (2, 4, 8, 16)
"""Factors of loops in time that every bound is given."""


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


def listed_bounds(
    bound: int, dim: Dim, machine: Machine, space: MapSpace, margin: float
) -> list[int]:
    """Return the larger bounds that are tried in place of `bound`, ascending.

    Args:
        bound: of the layer.
        dim: dimension that it bounds.
        machine: its fan-outs say which factors are wanted.
        space: dimensions that each fan-out may spread.
        margin: largest padding, as a fraction of the bound.
    """
    wanted = set(_BLOCKS)
    for s, level in enumerate(space.levels):
        for ranges, size in zip((level.spatial_x, level.spatial_y), machine.fanout(s), strict=True):
            if dim in ranges and size > 1:
                now = max(f for f in divisors(bound) if f <= size)
                wanted |= {f * tiles for f in range(now + 1, size + 1) for tiles in _TILES}
    multiples = {-(-bound // factor) * factor for factor in wanted}
    return sorted(m for m in multiples if bound < m <= bound * (1 + margin))


def padded_shape(shape: LayerShape, nest: Nest, margin: float) -> LayerShape:
    """Return the layer with the bounds of a nest, where they are paddings of its own; else as is.

    Args:
        shape: the layer.
        nest: a mapping of it, or of it with larger bounds.
        margin: largest padding, as a fraction of the bound.
    """
    bounds: dict[str, int] = {}
    for level in nest.levels:
        for dim, factor in level.spatial + level.temporal:
            bounds[dim] = bounds.get(dim, 1) * factor
    pads = {}
    for dim in PADDED:
        own, found = shape.bounds[dim], bounds.get(dim, 1)
        if own < found <= own * (1 + margin):
            pads[dim] = found
    change: dict[str, Any] = {dim.lower(): bound for dim, bound in pads.items()}
    return replace(shape, **change)


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

    One dimension is padded after another, the largest first, by the bounds of `listed_bounds`; the
    best is kept. Where time counts and every element is busy in every cycle, nothing is padded.
    The mapping is optimal for its own bounds; over other paddings nothing is claimed.

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
    kernel: Solver = solver(engine)
    first = LayerSearch(shape, machine, allowed, widths, objective)
    best = first.run(kernel)
    tried = 1
    for dim in sorted(PADDED, key=lambda d: -shape.bounds[d]):
        if best is not None and objective in ("edp", "latency") and _is_busy(best, machine):
            break
        for padded in listed_bounds(shape.bounds[dim], dim, machine, allowed, margin):
            change: dict[str, Any] = {dim.lower(): padded}
            candidate = replace(best.shape if best else shape, **change)
            search = LayerSearch(candidate, machine, allowed, widths, objective)
            limit = (best.certificate.value, best.energy_pj) if best else None
            best = search.run(kernel, limit) or best
            tried += 1
    if best is None:
        raise first.infeasible()
    return PaddedResult(best, shape, tried)


def _is_busy(found: MapResult, machine: Machine) -> bool:
    """Whether every element works in every cycle, up to rounding."""
    return found.cycles * machine.compute.instances <= found.shape.macs * (1 + 1e-9)
