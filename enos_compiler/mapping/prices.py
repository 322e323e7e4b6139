# SPDX-License-Identifier: Apache-2.0
"""Prices of the mapper's path: what one fill of a tile costs, for every choice of spatial factors.

A fill of level c with tensor t also reads its parent, passes the wires and makes addresses; all of
it is proportional to the fills, so one number per (choice, level, tensor) says it. What does
not depend on the temporal loops (operands read by the MACs, first reads that are elided) is one
constant per choice. Rounding to blocks and words is left out: counts are taken as reals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enos_compiler.ir.shape import DIMS, RELEVANT, TENSORS, LayerShape, Tensor
from enos_compiler.mapping.lattice import Ints, distinct_sums
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import MappingError
from enos_compiler.mapping.space import MapSpace
from enos_compiler.mapping.spatial import Layout, SpatialChoices, hop_pattern

Reals = NDArray[np.float64]
FORBIDDEN = 1e200
"""Price of what a space does not allow: above every cost, and finite however often it is paid."""
USED = np.array([[d in RELEVANT[t] for d in DIMS] for t in TENSORS])
"""Whether a tensor uses a dimension, by tensor and dimension."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Operand widths in bits; None lets an operand take one word."""

    weights: int
    inputs: int
    outputs: int
    partial_sums: int | None = None
    """Width of unfinished outputs, wherever sums are still collected; None means `outputs`."""

    def of(self, tensor: Tensor, *, finished: bool = True) -> int:
        """Width of `tensor`; of unfinished outputs where `finished` is false."""
        if tensor == "Weights":
            return self.weights
        if tensor == "Inputs":
            return self.inputs
        return self.outputs if finished or self.partial_sums is None else self.partial_sums


@dataclass(frozen=True, slots=True)
class Rates:
    """Price of one operand read, filled and updated, by level and tensor, per instance and word."""

    read: Reals
    fill: Reals
    update: Reals
    finished_update: Reals
    """Of finished outputs at their home."""
    clustered: bool
    """Whether one access serves a cluster, so that instances in use are counted in clusters."""
    wires: bool
    """Whether wires are priced."""

    def touches(self, tensor: int, child: int, parent: int) -> bool:
        """Whether anything that passes between two levels has a price."""
        inside = child >= 0 and bool(self.fill[child, tensor])
        outside = self.read[parent, tensor] or self.update[parent, tensor]
        # a parent's own fills carry the constant of outputs that never came back
        return self.wires or inside or bool(outside) or bool(self.fill[parent, tensor])


@dataclass(frozen=True, slots=True)
class PathPrices:
    """Prices of fills by choice and level, all instances together."""

    weights: Reals
    outputs: Reals
    finished: Reals
    """Of outputs that come back no more."""
    inputs: Reals
    """Per element of the tile box and move."""
    inputs_per_box: Reals
    """The same per distinct box of the children, where that depends on the tile."""
    constant: Reals
    floor: Reals
    """No mapping with this choice costs less."""
    outer_floor: Reals
    """The same without the fills of the levels up to one, by that level and choice."""


def operands_per_word(machine: Machine, widths: Widths | None, *, finished: bool) -> Ints:
    """Operands in a word, by level and tensor; none straddles words.

    One where an operand is wider than the word: it may pass the wires of such a level, a transfer
    each, but not be stored there (`check_words`).
    """
    if widths is None:
        return np.ones((len(machine.levels), len(TENSORS)), dtype=np.int64)
    return np.array(
        [
            [max(1, level.word_bits // widths.of(t, finished=finished)) for t in TENSORS]
            for level in machine.levels
        ]
    )


def check_words(machine: Machine, space: MapSpace, widths: Widths | None) -> None:
    """Refuse operands wider than the words of a level that keeps them.

    Raises:
        MappingError: names the level, the tensor and both widths.
    """
    if widths is None:
        return
    for spec, level in zip(machine.levels, space.levels, strict=True):
        for tensor in TENSORS:
            width = widths.of(tensor, finished=False)
            if tensor in level.keep and width > spec.word_bits > 1:
                raise MappingError(
                    f"{tensor} have {width} bits, a word has {spec.word_bits}",
                    level=spec.name,
                    tensor=tensor,
                    needed=width,
                    available=spec.word_bits,
                    remedy="fewer bits, or a machine with wider words",
                )


def energy_rates(machine: Machine, widths: Widths | None) -> Rates:
    """Energy of one operand in pJ."""
    partial = operands_per_word(machine, widths, finished=False)
    whole = operands_per_word(machine, widths, finished=True)

    def column(name: str) -> Reals:
        return np.array([[getattr(level, name) / level.block_size] for level in machine.levels])

    address = np.array([[level.address_pj] for level in machine.levels])
    # an address is generated for every read and fill of a read-only tensor, and for every update
    # and fill of outputs
    read = np.repeat(column("read_pj"), len(TENSORS), axis=1)
    read[:, :2] += address
    return Rates(
        read=read / partial,
        fill=(column("fill_pj") + address) / partial,
        update=(column("update_pj") + address) / partial,
        finished_update=(column("update_pj") + address) / whole,
        clustered=True,
        wires=True,
    )


def word_rates(
    machine: Machine,
    widths: Widths | None,
    level: int,
    scale: float,
    *,
    reads: bool,
    writes: bool,
) -> Rates:
    """Words of one operand at one level, times `scale`; for bandwidth and for counting accesses."""
    partial = operands_per_word(machine, widths, finished=False)
    whole = operands_per_word(machine, widths, finished=True)
    here = np.zeros((len(machine.levels), len(TENSORS)))
    here[level] = scale
    return Rates(
        read=here * reads / partial,
        fill=here * writes / partial,
        update=here * writes / partial,
        finished_update=here * writes / whole,
        clustered=False,
        wires=False,
    )


@dataclass(frozen=True, slots=True)
class Geometry:
    """What every price of one layer on one machine shares, by choice of spatial factors."""

    shape: LayerShape
    machine: Machine
    space: MapSpace
    choices: SpatialChoices
    widths: Widths | None
    temporal: Ints
    """q, by choice and dimension."""
    inner: Ints
    """Product of spatial factors up to each level, by choice, level and dimension."""
    instances: Ints
    """Instances in use, by choice and level."""
    clusters: Ints
    groups: Ints
    """Groups of children, by choice, level and tensor; factors that may coincide left out."""
    coincident: Ints
    """Whether both P and R, or both Q and S, are spread over the level, by choice and level."""
    covers: Reals
    """Elements that a tile covers in one pass, by Weights or Outputs, choice and level."""
    per_word: Ints
    """Operands in a word, by level and tensor."""
    homes: tuple[int, ...]
    """Outermost level of each tensor."""
    kept: NDArray[np.bool_]
    """Whether a level keeps a tensor."""
    input_floors: Reals
    """Input elements that one instance of a level must receive, by choice and level."""


def _input_floors(shape: LayerShape, reach: Ints) -> Reals:
    """Elements touched by the loops of one instance; rows that a stride skips are not."""
    (sp, sq), (dr, ds) = shape.stride, shape.dilation
    rows = distinct_sums(reach[:, :, 4], sp, reach[:, :, 6], dr)
    columns = distinct_sums(reach[:, :, 5], sq, reach[:, :, 7], ds)
    images = reach[:, :, 0] * reach[:, :, 1] * reach[:, :, 3]
    return np.asarray(images * rows * columns, dtype=np.float64)


def build_geometry(
    shape: LayerShape,
    machine: Machine,
    space: MapSpace,
    choices: SpatialChoices,
    widths: Widths | None,
) -> Geometry:
    """Arrays over all choices that pricing needs; choices that cannot be priced are dropped."""
    factors = choices.factors
    both = (
        ((factors[:, :, 4] > 1) & (factors[:, :, 6] > 1))
        | ((factors[:, :, 5] > 1) & (factors[:, :, 7] > 1))
    ).astype(np.int64)
    # distinct boxes depend on the tile below; only a kept tile is part of the path's state there
    blind = [
        s
        for s in range(len(space.levels))
        if s <= space.home("Inputs") and s > 0 and "Inputs" not in space.levels[s - 1].keep
    ]
    outside = np.stack(
        [factors[:, s + 1 :].prod(axis=(1, 2)) for s in range(len(machine.levels))], axis=1
    )
    keep = np.ones(len(factors), dtype=bool)
    if blind:
        keep &= both[:, blind].sum(axis=1) == 0
    for tensor in TENSORS:
        keep &= outside[:, space.home(tensor)] == 1
    at = np.nonzero(keep)[0]
    factors, both, outside = factors[at], both[at], outside[at]
    inner = np.cumprod(factors, axis=1)
    bounds = np.array([shape.bounds[d] for d in DIMS], dtype=np.int64)
    most = np.array([level.instances // level.cluster_size for level in machine.levels])
    groups = np.stack([np.where(USED[t], factors, 1).prod(axis=2) for t in range(3)], axis=2)
    reach = factors[:, :, [4, 5, 6, 7]].prod(axis=2)
    groups[:, :, 1] = np.where(both == 1, groups[:, :, 1] // reach, groups[:, :, 1])
    reach = (bounds // inner[:, -1])[:, None, :] * inner
    covers = np.stack([np.where(USED[t], reach, 1).prod(axis=2) for t in (0, 2)])
    return Geometry(
        shape,
        machine,
        space,
        SpatialChoices(factors, choices.options, choices.picks[at]),
        widths,
        bounds // inner[:, -1],
        inner,
        outside,
        np.minimum(outside, most),
        groups,
        both,
        covers.astype(np.float64),
        operands_per_word(machine, widths, finished=False),
        tuple(space.home(t) for t in TENSORS),
        np.array([[t in level.keep for t in TENSORS] for level in space.levels]),
        _input_floors(shape, reach),
    )


def path_prices(geo: Geometry, rates: Rates) -> PathPrices:
    """Prices of all choices at once; hops are added choice by choice in `add_hops`."""
    choices, levels = geo.instances.shape
    share = (geo.clusters if rates.clustered else np.ones_like(geo.instances)).astype(np.float64)
    per_fill = np.zeros((3, choices, levels))
    finished = np.zeros((choices, levels))
    per_box = np.zeros((choices, levels))
    constant = np.zeros(choices)
    steps = geo.temporal.prod(axis=1).astype(np.float64)
    for t, tensor in enumerate(TENSORS):
        keepers = [s for s, level in enumerate(geo.space.levels) if tensor in level.keep]
        home = keepers[-1]
        for child, parent in zip([-1, *keepers], keepers, strict=False):
            if not rates.touches(t, child, parent):
                continue
            groups = geo.groups[:, child + 1 : parent + 1, t].prod(axis=1).astype(np.float64)
            access = rates.read[parent, t] + (rates.update[parent, t] if t == 2 else 0.0)
            price = groups * share[:, parent] * access + _wires(geo, rates, t, child, parent)
            if child < 0:
                boxes = _first_boxes(geo) if t == 1 else 1
                constant += steps * price * boxes
                if t == 2 and parent == home:
                    whole = steps * groups == geo.covers[1, :, parent]
                    saved = rates.update[parent, t] - rates.finished_update[parent, t]
                    constant -= np.where(whole, steps * groups * share[:, parent] * saved, 0.0)
            else:
                if t == 1:
                    coincide = geo.coincident[:, child + 1] == 1
                    per_box[:, child] = np.where(coincide, price, 0.0)
                    price = np.where(coincide, 0.0, price)
                fill = rates.fill[child, t] * share[:, child]
                per_fill[t, :, child] = price + fill
                if t == 2:
                    done = price + fill
                    if parent == home:
                        saved = rates.update[parent, t] - rates.finished_update[parent, t]
                        done = done - groups * share[:, parent] * saved
                    finished[:, child] = done
            if t == 2:
                constant -= geo.covers[1, :, parent] * share[:, parent] * rates.read[parent, t]
                if parent != home:
                    constant -= geo.covers[1, :, parent] * share[:, parent] * rates.fill[parent, t]
    covers = geo.covers
    outputs = per_fill[2] * covers[1]
    if geo.space.finished_outputs:
        _forbid_spills(geo, outputs, constant, steps)
    if rates.wires:
        constant = constant + geo.machine.compute.energy_pj * geo.shape.macs
    least = per_fill[0] * covers[0] + finished * covers[1]
    for s in range(levels):
        least[:, s] += (per_fill[1, :, s] + per_box[:, s]) * geo.input_floors[:, s]
    outer = constant + np.cumsum(least[:, ::-1], axis=1)[:, ::-1].T
    outer = np.concatenate([outer, constant[None]])
    return PathPrices(
        per_fill[0] * covers[0],
        outputs,
        finished * covers[1],
        per_fill[1],
        per_box,
        constant,
        outer[0],
        outer[1:],
    )


def _forbid_spills(geo: Geometry, outputs: Reals, constant: Reals, steps: Reals) -> None:
    """Forbid partial sums at the home of Outputs, whatever is priced; in place.

    They come from the level that keeps Outputs inside the home, or, where none does, from choices
    whose elements do not finish an output in one step.
    """
    keepers = np.nonzero(geo.kept[:, 2])[0]
    home = keepers[-1]
    if len(keepers) > 1:
        outputs[:, keepers[-2]] = FORBIDDEN
    else:
        groups = geo.groups[:, : home + 1, 2].prod(axis=1).astype(np.float64)
        constant[steps * groups != geo.covers[1, :, home]] = FORBIDDEN


def _first_boxes(geo: Geometry) -> Reals:
    """Distinct inputs of the children of level 0, beyond the factors that cannot coincide."""
    f = geo.choices.factors[:, 0]
    (sp, sq), (dr, ds) = geo.shape.stride, geo.shape.dilation
    found = distinct_sums(f[:, 4], sp, f[:, 6], dr) * distinct_sums(f[:, 5], sq, f[:, 7], ds)
    return np.where(geo.coincident[:, 0] == 1, found, 1).astype(np.float64)


def _wires(geo: Geometry, rates: Rates, t: int, child: int, parent: int) -> Reals:
    """Router energy of one element sent from `parent` towards `child`, one pass per access."""
    total = np.zeros(len(geo.instances))
    if not rates.wires:
        return total
    groups = np.ones(len(geo.instances))
    for s in range(child + 1, parent + 1):
        spec = geo.machine.levels[s]
        groups = groups * geo.groups[:, s, t]
        twice = 2 if t == 2 and not spec.reduction_supported else 1
        price = spec.network.router_energy_pj * twice / geo.per_word[s, t]
        total = total + price * groups * geo.instances[:, s]
    return total


HopPatterns = tuple[tuple[float, int], ...]
"""Hops to all groups and number of groups, by tensor."""


def add_hops(
    geo: Geometry, choice: int, known: dict[tuple[int, int], HopPatterns]
) -> tuple[Reals, float]:
    """Energy of distance: hops, and router passes beyond the first.

    Args:
        geo: the choices.
        choice: one of them.
        known: patterns found before, by level and option; new ones are added.

    Returns:
        Price by tensor and level to add to that of a fill (before the relevant extents), and the
        constant to add.
    """
    more = np.zeros((3, len(geo.machine.levels)))
    constant = 0.0
    steps = float(geo.temporal[choice].prod())
    for s, spec in enumerate(geo.machine.levels):
        wires, pick = spec.network, int(geo.choices.picks[choice, s])
        layout = geo.choices.options[s].layouts[pick]
        if not (wires.energy_per_hop_pj or wires.router_energy_pj) or not any(layout):
            continue
        if (s, pick) not in known:
            known[s, pick] = _hop_patterns(layout, geo.machine.fanout(s))
        used = float(geo.instances[choice, s])
        for t, (hops, groups) in enumerate(known[s, pick]):
            if s > geo.homes[t]:
                continue
            own = hops * wires.energy_per_hop_pj * used
            if s == 0 or geo.kept[s - 1, t]:
                twice = 2 if t == 2 and not spec.reduction_supported else 1
                words = groups * twice / geo.per_word[s, t]
                own += int(hops / words) * words * wires.router_energy_pj * used
            if s == 0:
                constant += own * steps
            else:
                more[t, s - 1] += own
    return more, constant


def _hop_patterns(layout: Layout, mesh: tuple[int, int]) -> HopPatterns:
    out = []
    for t in range(3):
        x, y = (tuple((f, bool(USED[t, DIMS.index(d)])) for d, f in loops) for loops in layout)
        out.append(hop_pattern(x, y, mesh))
    return tuple(out)
