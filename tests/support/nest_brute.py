# SPDX-License-Identifier: Apache-2.0
"""Every nest of a small mapspace, each priced on its own by the plain rule.

Written from the rule, not from the mapper: loops in a list, tiles as extents, no tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from enos_compiler.ir.shape import DIMS as LAYER_DIMS
from enos_compiler.ir.shape import RELEVANT, TENSORS, LayerShape
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import LevelNest, Loops, Nest
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.space import MapSpace

DIMS: tuple[str, ...] = LAYER_DIMS
USES: dict[str, tuple[str, ...]] = {t: tuple(RELEVANT[t]) for t in TENSORS}
AXIS = {"P": 0, "R": 0, "Q": 1, "S": 1}


def divide(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ordered factorisations of `number` into `parts` factors."""
    if parts == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in divide(number // first, parts - 1):
                yield (first, *rest)


@dataclass(frozen=True)
class Priced:
    energy: float
    cycles: float
    accesses: float


class Brute:
    """Enumeration of one layer on one machine."""

    def __init__(
        self, shape: LayerShape, machine: Machine, space: MapSpace, widths: Widths | None = None
    ) -> None:
        self.shape, self.machine, self.space, self.widths = shape, machine, space, widths
        self.levels = len(machine.levels)
        self.coefficient = {
            "P": shape.stride[0],
            "Q": shape.stride[1],
            "R": shape.dilation[0],
            "S": shape.dilation[1],
        }

    def factorisations(self) -> Iterator[tuple[list[dict[str, int]], list[tuple[Loops, Loops]]]]:
        """Temporal factors by level and spatial loops by level, before capacity and order."""
        slots = []
        for dim, bound in self.shape.bounds.items():
            ways = []
            for factors in divide(bound, 3 * self.levels):
                fine = True
                for s, level in enumerate(self.space.levels):
                    for k, ranges in enumerate((None, level.spatial_x, level.spatial_y)):
                        f = factors[3 * s + k]
                        low, high = level.range(dim) if ranges is None else ranges.get(dim, (1, 1))
                        fine &= low <= f and (high is None or f <= high)
                    fine &= factors[3 * s + 1] == 1 or factors[3 * s + 2] == 1
                if fine:
                    ways.append(factors)
            slots.append(ways)
        for picked in itertools.product(*slots):
            spatial = []
            for s in range(self.levels):
                x = tuple(
                    (d, p[3 * s + 1]) for d, p in zip(DIMS, picked, strict=True) if p[3 * s + 1] > 1
                )
                y = tuple(
                    (d, p[3 * s + 2]) for d, p in zip(DIMS, picked, strict=True) if p[3 * s + 2] > 1
                )
                mesh = self.machine.fanout(s)
                if prod(f for _, f in x) > mesh[0] or prod(f for _, f in y) > mesh[1]:
                    break
                spatial.append((x, y))
            else:
                temporal = [
                    {d: p[3 * s] for d, p in zip(DIMS, picked, strict=True)}
                    for s in range(self.levels)
                ]
                yield temporal, spatial

    def nests(self) -> Iterator[Nest]:
        """All nests that fit, unit loops left out."""
        for temporal, spatial in self.factorisations():
            if not self.fits(temporal, spatial):
                continue
            orders = [
                list(itertools.permutations([(d, f) for d, f in level.items() if f > 1]))
                for level in temporal
            ]
            for order in itertools.product(*orders):
                yield Nest(
                    tuple(
                        LevelNest(level.keep, loops, x, y)
                        for level, loops, (x, y) in zip(
                            self.space.levels, order, spatial, strict=True
                        )
                    )
                )

    def per_word(self, level: int, tensor: str, finished: bool) -> int:
        word = self.machine.levels[level].word_bits
        if self.widths is None or word == 1:
            return 1
        return word // self.widths.of(tensor, finished=finished)  # type: ignore[arg-type]

    def extents(self, box: dict[str, int]) -> tuple[int, int]:
        """Rows and columns of an input tile."""
        c = self.coefficient
        return (
            (box["P"] - 1) * c["P"] + (box["R"] - 1) * c["R"] + 1,
            (box["Q"] - 1) * c["Q"] + (box["S"] - 1) * c["S"] + 1,
        )

    def volume(self, box: dict[str, int], tensor: str) -> int:
        if tensor == "Inputs":
            rows, columns = self.extents(box)
            return box["G"] * box["N"] * box["C"] * rows * columns
        return prod(box[d] for d in USES[tensor])

    def fits(self, temporal: list[dict[str, int]], spatial: list[tuple[Loops, Loops]]) -> bool:
        box = dict.fromkeys(DIMS, 1)
        for s, spec in enumerate(self.machine.levels):
            for d in DIMS:
                box[d] *= temporal[s][d]
            for d, f in (*spatial[s][0], *spatial[s][1]):
                box[d] *= f
            used = 0
            for tensor in self.space.levels[s].keep:
                if s == self.space.home(tensor) < self.levels - 1:
                    continue
                words = -(-self.volume(box, tensor) // self.per_word(s, tensor, False))
                room = spec.tensor_capacity(tensor)
                if room is None:
                    used += words
                elif words > room:
                    return False
            if spec.capacity is not None and used > spec.capacity:
                return False
        for s in range(1, self.space.home("Inputs") + 1):
            # outside the mapper's space: coinciding boxes over a tile that is not kept
            dims = {d for loops in spatial[s] for d, _ in loops}
            both = {"P", "R"} <= dims or {"Q", "S"} <= dims
            if both and "Inputs" not in self.space.levels[s - 1].keep:
                return False
        for tensor in TENSORS:
            home = self.space.home(tensor)
            if any(x or y for x, y in spatial[home + 1 :]):
                return False
        return True

    def price(self, nest: Nest) -> Priced:
        """Energy, cycles and outermost accesses, as real numbers, wires left out."""
        loops = []
        stride = dict.fromkeys(DIMS, 1)
        boxes = []
        for s, level in enumerate(nest.levels):
            for kind, group in (("s", level.spatial), ("t", level.temporal)):
                for d, f in reversed(group):
                    loops.append((s, kind, d, f, stride[d]))
                    stride[d] *= f
            boxes.append(dict(stride))
        words = [[0.0, 0.0, 0.0] for _ in range(self.levels)]  # read, fill, update
        energy = self.machine.compute.energy_pj * self.shape.macs
        for tensor in TENSORS:
            keepers = [s for s, level in enumerate(nest.levels) if tensor in level.keep]
            for child, parent in itertools.pairwise([-1, *keepers]):
                energy += self.boundary(nest, tensor, child, parent, loops, boxes, words)
        cycles = float(nest.compute_cycles)
        for spec, (read, fill, update) in zip(self.machine.levels, words, strict=True):
            if spec.read_bandwidth is not None:
                cycles = max(cycles, read / spec.read_bandwidth)
            if spec.write_bandwidth is not None:
                cycles = max(cycles, (fill + update) / spec.write_bandwidth)
            if spec.shared_bandwidth is not None:
                cycles = max(cycles, (read + fill + update) / spec.shared_bandwidth)
        for s, spec in enumerate(self.machine.levels):
            energy += spec.leak_pj_per_cycle * nest.instances(s) * cycles
        return Priced(energy, cycles, sum(words[-1]))

    def boundary(
        self,
        nest: Nest,
        tensor: str,
        child: int,
        parent: int,
        loops: list[tuple[int, str, str, int, int]],
        boxes: list[dict[str, int]],
        words: list[list[float]],
    ) -> float:
        """Energy of what passes between two levels; its words are added per instance."""
        relevant: tuple[str, ...] = USES[tensor]
        box = boxes[child] if child >= 0 else dict.fromkeys(DIMS, 1)
        above = [(d, f, st) for s, kind, d, f, st in loops if kind == "t" and s > child]
        if child < 0:
            fills = float(prod(f for _, f, _ in above))
        else:
            fills = float(self.volume(box, tensor))
            moved = False
            for d, f, st in above:
                if moved:
                    fills *= f
                elif d in relevant:
                    moved = True
                    if tensor == "Inputs" and d in AXIS:
                        size = self.extents(box)[AXIS[d]]
                        step = min(size, st * self.coefficient[d])
                        fills *= (size + (f - 1) * step) / size
                    else:
                        fills *= f
        groups = 1
        for s in range(child + 1, parent + 1):
            offsets: set[tuple[int, ...]] = {(0,) * 10}
            for level, kind, d, f, st in loops:
                if level == s and kind == "s" and d in relevant:
                    at = DIMS.index(d)
                    move = st
                    if tensor == "Inputs" and d in AXIS:
                        at, move = 8 + AXIS[d], st * self.coefficient[d]
                    offsets = {
                        (*o[:at], o[at] + i * move, *o[at + 1 :]) for o in offsets for i in range(f)
                    }
            groups *= len(offsets)
        sent = fills * groups
        spec = self.machine.levels[parent]
        share = self.clusters(nest, parent)
        home = self.space.home(tensor)
        finished = False
        reads, updates = sent, 0.0
        if tensor == "Outputs":
            part = self.distinct(nest, parent)
            updates, reads = sent, sent - part
            finished = parent == home and abs(reads) < 1e-9
            if self.space.finished_outputs and parent == home and not finished:
                return float("inf")
        n = self.per_word(parent, tensor, finished)
        partial = self.per_word(parent, tensor, False)
        words[parent][0] += reads / partial
        words[parent][2] += updates / n
        energy = reads / partial * spec.read_pj / spec.block_size * share
        energy += updates / n * spec.update_pj / spec.block_size * share
        energy += spec.address_pj * share * (updates / n if tensor == "Outputs" else reads / n)
        if child >= 0:
            below = self.machine.levels[child]
            back = fills - (self.distinct(nest, child) if tensor == "Outputs" else 0)
            n = self.per_word(child, tensor, False)
            words[child][1] += back / n
            price = below.fill_pj / below.block_size + below.address_pj
            energy += back / n * price * self.clusters(nest, child)
        return energy

    def clusters(self, nest: Nest, level: int) -> int:
        spec = self.machine.levels[level]
        return min(nest.instances(level), spec.instances // spec.cluster_size)

    def distinct(self, nest: Nest, level: int) -> float:
        """Distinct outputs that one instance of `level` sees."""
        outside = prod(
            f for entry in nest.levels[level + 1 :] for d, f in entry.spatial if d in "GNMPQ"
        )
        return self.shape.volume("Outputs") / outside

    def best(self) -> tuple[dict[str, float], int]:
        """Least value of every objective, and the number of nests."""
        least = dict.fromkeys(("energy", "latency", "edp", "accesses"), float("inf"))
        count = 0
        for nest in self.nests():
            p = self.price(nest)
            if p.energy == float("inf"):
                continue  # a partial sum at the home of finished outputs
            count += 1
            for name, value in (
                ("energy", p.energy),
                ("latency", p.cycles),
                ("edp", p.energy * p.cycles),
                ("accesses", p.accesses),
            ):
                least[name] = min(least[name], value)
        return least, count
