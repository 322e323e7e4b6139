# SPDX-License-Identifier: Apache-2.0
"""Every nest of a full-size layer on a row-stationary array, priced one by one by the plain rule.

Written from the rule for one hierarchy: three scratchpads with loops of their own, a buffer that
weights bypass, a memory. All factors are listed; of all orders of a level's loops, those are priced
once that no tensor can tell apart: it sees which loops lie inside the first one that moves it, and
which one that is. numba compiles the pricing, nothing of the mapper takes part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import factorial, prod
from typing import Any

import numba
import numpy as np
from nest_brute import divide

from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.space import FREE, LevelSpace, MapSpace

DIMS = "GNMCPQRS"
USED = ("GMCRS", "GNCPQRS", "GNMPQ")
"""Dimensions that index Weights, Inputs and Outputs."""
W, I, O = range(3)  # noqa: E741
SUMS, WEIGHTS, INPUTS, BUFFER, MEMORY = range(5)
MESH_X, MESH_Y = 14, 12


def machine() -> Machine:
    """14 x 12 elements with a scratchpad for each tensor; bandwidths that bind some nests."""

    def pad(name: str, entries: int, keeps: str, pj: float) -> StorageLevel:
        tensors = frozenset({keeps})
        return StorageLevel(
            name, 168, 14, entries=entries, keeps=tensors, read_pj=pj, fill_pj=pj, update_pj=pj
        )

    both = frozenset({"Inputs", "Outputs"})
    levels = (
        pad("sums", 16, "Outputs", 0.9),
        pad("weights", 192, "Weights", 1.1),
        pad("inputs", 12, "Inputs", 0.7),
        StorageLevel(
            "buffer",
            entries=55296,
            keeps=both,
            read_bandwidth=16.0,
            write_bandwidth=16.0,
            read_pj=6.0,
            fill_pj=5.5,
            update_pj=6.5,
        ),
        StorageLevel("memory", shared_bandwidth=4.0, read_pj=190.0, fill_pj=200.0, update_pj=210.0),
    )
    return Machine("row-stationary", ComputeSpec(168, 14, 1.0), levels)


def space() -> MapSpace:
    """Filter rows and channels in the scratchpads, columns and filters in X, the rest in Y."""

    def only(*dims: str) -> dict[str, tuple[int, int | None]]:
        return {dim: FREE if dim in dims else (1, 1) for dim in DIMS}

    o, w, i = (frozenset({t}) for t in ("Outputs", "Weights", "Inputs"))
    return MapSpace(
        (
            LevelSpace(o, only("M")),
            LevelSpace(w, only("C", "R")),
            LevelSpace(i, only()),
            LevelSpace(i | o, spatial_x={"Q": FREE, "M": FREE}, spatial_y={"S": FREE, "C": FREE}),
            LevelSpace(i | o | w),
        )
    )


@dataclass(frozen=True)
class Best:
    """Least values over all nests, and how many there are."""

    energy: float
    cycles: float
    edp: float
    accesses: float
    nests: int
    priced: int


def exhaust(shape: LayerShape) -> Best:
    """Price every nest of a layer with G = N = 1 on `machine` under `space`."""
    factors = np.array(list(_factorisations(shape)), dtype=np.int64)
    stride = np.array([*shape.stride, *shape.dilation], dtype=np.int64)
    bounds = np.array([shape.bounds[d] for d in DIMS], dtype=np.int64)  # type: ignore[index]
    buffer_sets, memory_sets = (
        (factors[:, 8 * k : 8 * k + 8] > 1) @ (1 << np.arange(8)) for k in (1, 2)
    )
    least = np.full(4, np.inf)
    nests = priced = 0
    for mask in np.unique(np.stack([buffer_sets, memory_sets], axis=1), axis=0):
        rows = factors[(buffer_sets == mask[0]) & (memory_sets == mask[1])]
        inside, outside = (_orders(int(m)) for m in mask)
        _price_all(rows, inside, outside, bounds, stride, least)
        pads = int(np.where((rows[:, 3] > 1) & (rows[:, 6] > 1), 2, 1).sum())
        nests += pads * prod(factorial(int(m).bit_count()) for m in mask)
        priced += pads * len(inside) * len(outside)
    energy, cycles, edp, accesses = map(float, least)
    return Best(energy, cycles, edp, accesses, nests, priced)


def _factorisations(shape: LayerShape) -> Iterator[list[int]]:
    """Temporal factors of scratchpads, buffer and memory by dimension, then spatial ones."""
    b = shape.bounds
    filters = [f for f in divide(b["M"], 4) if f[0] <= 16 and f[1] <= MESH_X]
    channels = [f for f in divide(b["C"], 4) if f[0] <= 12 and f[1] <= MESH_Y]
    rows, heights = list(divide(b["R"], 3)), list(divide(b["P"], 2))
    columns = [f for f in divide(b["Q"], 3) if f[0] <= MESH_X]
    taps = [f for f in divide(b["S"], 3) if f[0] <= MESH_Y]
    for m, c, r in itertools.product(filters, channels, rows):
        if c[0] * r[0] > 12 or m[0] * c[0] * r[0] > 192:
            continue
        for p, q, s in itertools.product(heights, columns, taps):
            if q[0] * m[1] > MESH_X or s[0] * c[1] > MESH_Y:
                continue
            tile = {"M": m[0] * m[1] * m[2], "C": c[0] * c[1] * c[2], "P": p[0]}
            tile |= {"Q": q[0] * q[1], "R": r[0] * r[1], "S": s[0] * s[1]}
            height = (tile["P"] - 1) * shape.stride[0] + (tile["R"] - 1) * shape.dilation[0] + 1
            width = (tile["Q"] - 1) * shape.stride[1] + (tile["S"] - 1) * shape.dilation[1] + 1
            if tile["C"] * height * width + tile["M"] * tile["P"] * tile["Q"] > 55296:
                continue
            pads = [1, 1, m[0], c[0], 1, 1, r[0], 1]
            buffer = [1, 1, m[2], c[2], p[0], q[1], r[1], s[1]]
            memory = [1, 1, m[3], c[3], p[1], q[2], r[2], s[2]]
            yield [*pads, *buffer, *memory, 1, 1, m[1], c[1], 1, q[0], 1, s[0]]


@cache
def _orders(mask: int) -> Any:
    """One order, inner loop first, for all that no tensor can tell apart; padded with -1."""
    dims = [d for d in range(8) if mask >> d & 1]
    seen: dict[Any, tuple[int, ...]] = {}
    for order in itertools.permutations(dims):
        sight = []
        for used in USED:
            moving = [k for k, d in enumerate(order) if DIMS[d] in used]
            first = moving[0] if moving else len(order)
            sight.append((frozenset(order[:first]), order[first] if moving else -1))
        seen.setdefault(tuple(sight), order)
    return np.array([[*order, *[-1] * (8 - len(order))] for order in seen.values()], dtype=np.int64)


_USES = np.array([[d in used for d in DIMS] for used in USED])


@numba.njit
def _deliveries(
    tensor: int, size: float, edges: Any, steps: Any, loops: Any, extents: Any
) -> float:
    """Elements that one child receives in all; `loops` are (dim, factor), inner first.

    size: of its tile; edges: its rows and columns; steps: rows or columns by iteration of P, Q, R,
    S in units of the tile at that loop; extents: of every dimension inside the loops, changed.
    """
    total, moved = size, False
    for k in range(loops.shape[0]):
        dim, factor = loops[k, 0], loops[k, 1]
        if moved:
            total *= factor
        elif _USES[tensor, dim]:
            moved = True
            if tensor == 1 and dim >= 4:
                edge = edges[dim % 2]
                step = min(edge, extents[dim] * steps[dim - 4])
                total *= (edge + (factor - 1) * step) / edge
            else:
                total *= factor
        extents[dim] *= factor
    return total


@numba.njit
def _price_all(
    factors: Any, inside: Any, outside: Any, bounds: Any, stride: Any, least: Any
) -> None:
    for row in range(factors.shape[0]):
        both = factors[row, 3] > 1 and factors[row, 6] > 1
        for swapped in range(2 if both else 1):
            for a in range(inside.shape[0]):
                for b in range(outside.shape[0]):
                    _price(factors[row], swapped, inside[a], outside[b], bounds, stride, least)


@numba.njit
def _price(
    f: Any, swapped: int, inside: Any, outside: Any, bounds: Any, stride: Any, least: Any
) -> None:
    """Energy, cycles, their product and memory accesses of one nest, kept where least."""
    pads, buffer, memory, across = f[0:8], f[8:16], f[16:24], f[24:32]
    loops = np.ones((18, 2), np.int64)
    count = 0
    own = (3, 6) if swapped == 0 else (6, 3)  # loops of the weights' scratchpad, inner first
    for d in own:
        loops[count, 0], loops[count, 1] = d, pads[d]
        count += 1
    begin = np.zeros(2, np.int64)  # where the loops of buffer and memory begin
    for level in range(2):
        begin[level] = count
        order = inside if level == 0 else outside
        for k in range(8):
            if order[k] >= 0:
                loops[count, 0] = order[k]
                loops[count, 1] = buffer[order[k]] if level == 0 else memory[order[k]]
                count += 1
    loops = loops[:count]
    macs, cycles, elements, spread_o = 1.0, 1.0, 1.0, 1.0
    whole = across * pads * buffer
    in_pe = pads.copy()
    under = across * pads  # what lies inside the loops of the buffer
    for d in range(8):
        macs *= bounds[d]
        cycles *= pads[d] * buffer[d] * memory[d]
        elements *= across[d]
        if _USES[2, d]:
            spread_o *= across[d]
    outputs = float(bounds[2] * bounds[4] * bounds[5])
    # sums: filled by the buffer, updated by the element in every cycle
    sums = np.ones(8, np.int64)
    sums[2] = pads[2]
    no_edges = np.ones(2)
    moved_o = _deliveries(2, float(pads[2]), no_edges, stride, loops, sums * across)
    # weights: filled by the memory
    tile_w = float(in_pe[2] * in_pe[3] * in_pe[6])
    moved_w = _deliveries(0, tile_w, no_edges, stride, loops[begin[0] :], under.copy())
    # inputs: one column of in_pe[6] filter rows, filled by the buffer
    edges = np.array([(in_pe[6] - 1.0) * stride[2] + 1.0, 1.0])
    moved_i = _deliveries(1, in_pe[3] * edges[0], edges, stride, loops[begin[0] :], under.copy())
    # buffer: inputs and sums, filled by the memory
    tall = (whole[4] - 1.0) * stride[0] + (whole[6] - 1.0) * stride[2] + 1.0
    wide = (whole[5] - 1.0) * stride[1] + (whole[7] - 1.0) * stride[3] + 1.0
    edges = np.array([tall, wide])
    far = loops[begin[1] :]
    tile_o = float(whole[2] * whole[4] * whole[5])
    buffer_o = _deliveries(2, tile_o, no_edges, stride, far, whole.copy())
    buffer_i = _deliveries(1, whole[3] * tall * wide, edges, stride, far, whole.copy())
    # children that want the same box share an access: columns at q * stride + s * dilation
    reach = np.zeros((across[5] - 1) * stride[1] + (across[7] - 1) * stride[3] + 1, np.int64)
    for q in range(across[5]):
        for s in range(across[7]):
            reach[q * stride[1] + s * stride[3]] = 1
    groups_i = float(across[3]) * reach.sum()
    groups_w = float(across[2] * across[3] * across[7])
    groups_o = float(across[2] * across[5])
    energy = macs * 1.0
    energy += elements * cycles * (1.1 + 0.7)  # weights and inputs read by the MAC
    part = outputs / spread_o
    energy += elements * (cycles * 0.9 + (cycles - part) * 0.9 + (moved_o - part) * 0.9)
    energy += elements * (moved_w * 1.1 + moved_i * 0.7)
    read_b = moved_i * groups_i + moved_o * groups_o - outputs
    update_b = moved_o * groups_o
    fill_b = buffer_i + buffer_o - outputs
    energy += 6.0 * read_b + 6.5 * update_b + 5.5 * fill_b
    read_m = moved_w * groups_w + buffer_i + buffer_o - outputs
    update_m = buffer_o
    energy += 190.0 * read_m + 210.0 * update_m
    time = max(cycles, read_b / 16, (update_b + fill_b) / 16, (read_m + update_m) / 4)
    least[0] = min(least[0], energy)
    least[1] = min(least[1], time)
    least[2] = min(least[2], energy * time)
    least[3] = min(least[3], read_m + update_m)
