# SPDX-License-Identifier: Apache-2.0
"""The shortest path over tile shapes, for one choice of spatial factors.

Plain numpy, in the subset that numba compiles: `engine` runs the same source either way. No
function calls into another file or itself, because a compiled cache notices changes of this file
only.

A node is a vector of temporal extents x; a mapping is a chain 1 <= x_0 <= x_1 <= ... <= x_top = q,
one link per storage level. With fixed spatial factors the cost of filling level c with tensor t is

    Weights, Outputs:  K[t, c] * irr(q) / irr(X)         irr: product of the dims not used by t
    Inputs:            K[c] * box(x_c) * prod(q / x) over N, C, G, P, Q, R, S * q_M / X_M * slide

where X is the node at which the first loop that t uses is met. Until then t is *pending*, from
the lowest level whose cost is not yet paid; the state of the path is (level, node, pending level of
each tensor). At most one tensor stays pending across loops, as no loop is free for two tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

INF = 1e300


def advance_axis(table: Any, size: int, exponent: int, stride: int) -> None:
    """In place: every node takes the least of itself and its multiples along one prime axis."""
    view = table.reshape(size // ((exponent + 1) * stride), exponent + 1, stride)
    for k in range(exponent - 1, -1, -1):
        view[:, k, :] = np.minimum(view[:, k, :], view[:, k + 1, :])


def advance_axis_compiled(table: Any, size: int, exponent: int, stride: int) -> None:
    """The same in the form that compiles to the shorter code; takes its place when compiled."""
    for block in range(0, size, (exponent + 1) * stride):
        for i in range(block + exponent * stride - 1, block - 1, -1):
            if table[i + stride] < table[i]:
                table[i] = table[i + stride]


def advance_dim(
    table: Any, dim: int, low: int, high: int, room: Any, axes: Any, factors: Any
) -> Any:
    """Least of all nodes reached by one loop over `dim` with a factor from `low` to `high`.

    Args:
        table: values by node.
        dim: dimension that advances.
        low: least factor.
        high: largest factor.
        room: quotient q / x by node and dimension.
        axes: (dim, exponent, stride) of each prime axis of the local lattice.
        factors: (dim, factor, index step) of every factor above one.
    """
    if high == 1:
        return table
    size = table.shape[0]
    if low == 1 and high >= room[0, dim]:
        for j in range(axes.shape[0]):
            if axes[j, 0] == dim:
                advance_axis(table, size, axes[j, 1], axes[j, 2])
        return table
    out = table.copy() if low == 1 else np.full(size, INF)
    for k in range(factors.shape[0]):
        if factors[k, 0] == dim and low <= factors[k, 1] <= high:
            at = np.nonzero(room[:, dim] % factors[k, 1] == 0)[0]
            out[at] = np.minimum(out[at], table[at + factors[k, 2]])
    return out


def slid_inputs(
    at: Any, first: int, last: int, axis: int, step: Any, count: Any, local: Any
) -> Any:
    """Pending cost of inputs at nodes `at` when the first loop that moves them slides.

    Args:
        at: nodes.
        first: lowest pending level; negative where nothing is pending.
        last: level below the loop.
        axis: 0 for rows, 1 for columns.
        step: rows or columns that one iteration moves, by node of `at`.
        count: iterations, one number or by node of `at`.
        local: (fills, extent): cost without sliding by level and node; rows and columns of the
            tile by level, axis and node.
    """
    fills, extent = local
    total = np.zeros(at.shape[0])
    if first >= 0:
        for c in range(first, last + 1):
            size = extent[c, axis][at]
            kept = (size + (count - 1) * np.minimum(size, step)) / (count * size)
            total += fills[c][at] * kept
    return total


def pending_inputs(at: Any, first: int, last: int, fills: Any) -> Any:
    """Pending cost of inputs at nodes `at`, nothing sliding."""
    total = np.zeros(at.shape[0])
    if first >= 0:
        for c in range(first, last + 1):
            total += fills[c][at]
    return total


def pending_sum(first: int, last: int, prices: Any) -> float:
    """Sum of the prices from level `first` to `last`; nothing where `first` is negative."""
    total = 0.0
    if first >= 0:
        for c in range(first, last + 1):
            total += prices[c]
    return total


def pending_outputs(first: int, last: int, prices: Any, final: Any, ratio: Any) -> Any:
    """Pending cost of outputs where the sums come back `ratio` times; once means finished."""
    partial = pending_sum(first, last, prices)
    whole = pending_sum(first, last, final)
    return np.where(ratio == 1.0, whole, partial * ratio)


def local_lattice(q: Any, lattice: Any) -> Any:
    """The lattice of the divisors of `q` inside the lattice of the bounds.

    Args:
        q: temporal extents of the whole nest.
        lattice: (dim, prime, exponent, index step) by axis, then the extents by node.

    Returns:
        Prime axes (dim, exponent, step), factors (dim, factor, step), index in the outer lattice.
    """
    table, values = lattice
    count = table.shape[0]
    exponents = np.zeros(count, np.int64)
    for j in range(count):
        rest = q[table[j, 0]]
        while exponents[j] < table[j, 2] and rest % table[j, 1] == 0:
            rest //= table[j, 1]
            exponents[j] += 1
    axes = np.zeros((count, 3), np.int64)
    size = 1
    for j in range(count - 1, -1, -1):
        axes[j, 0] = table[j, 0]
        axes[j, 1] = exponents[j]
        axes[j, 2] = size
        size *= exponents[j] + 1
    index = np.zeros(size, np.int64)
    nodes = np.arange(size)
    for j in range(count):
        if exponents[j] > 0:
            index += ((nodes // axes[j, 2]) % (exponents[j] + 1)) * table[j, 3]
    # a node that differs from one in a single dimension is a factor of that dimension
    extents = values[index]
    above = np.sum((extents > 1).astype(np.int64), axis=1)
    lone = np.nonzero(above == 1)[0]
    factors = np.zeros((lone.shape[0], 3), np.int64)
    for k in range(lone.shape[0]):
        for d in range(8):
            if extents[lone[k], d] > 1:
                factors[k, 0] = d
                factors[k, 1] = extents[lone[k], d]
        factors[k, 2] = lone[k]
    return axes, factors, index


def outer_index(extents: Any, lattice: Any) -> int:
    """Index of `extents` in the lattice of the bounds."""
    table = lattice[0]
    index = 0
    for j in range(table.shape[0]):
        rest = extents[table[j, 0]]
        steps = 0
        while steps < table[j, 2] and rest % table[j, 1] == 0:
            rest //= table[j, 1]
            steps += 1
        index += steps * table[j, 3]
    return index


def coincidences(values: Any, inner: Any, across: Any, geometry: Any) -> Any:
    """Distinct input boxes of the children that P, Q, R and S spread, by node."""
    boxes = np.ones(values.shape[0])
    for k in range(2):
        p, r = across[4 + k], across[6 + k]
        a = geometry[k] * values[:, 4 + k] * inner[4 + k]
        b = geometry[2 + k] * values[:, 6 + k] * inner[6 + k]
        g = np.gcd(a, b)
        boxes *= p * r - np.maximum(0, p - b // g) * np.maximum(0, r - a // g)
    return boxes


def local_tiles(q: Any, inner: Any, index: Any, lattice: Any, tiles: Any, price: Any) -> Any:
    """What each node means at each level.

    Args:
        q: temporal extents of the whole nest.
        inner: product of the spatial factors up to each level, by level and dimension.
        index: position of each node in the outer lattice.
        lattice: see `local_lattice`.
        tiles: (whether a tile fits, by level and outer node; input box, rows and columns of outer
            nodes; stride and dilation).
        price: (price of a fill of Inputs, price of a distinct box beside it, spatial factors of
            the fan-out above), by level.

    Returns:
        extents, room, feasible, fills, extent.
    """
    fits, box, edges, geometry = tiles
    base, per_box, across = price
    levels, size = inner.shape[0], index.shape[0]
    values = lattice[1][index]
    room = q // values
    iterations = np.ones(size)
    for d in range(8):
        iterations *= room[:, d]
    feasible = np.zeros((levels, size), np.bool_)
    fills = np.zeros((levels, size))
    extent = np.zeros((levels, 2, size))
    for s in range(levels):
        at = index + outer_index(inner[s], lattice)
        feasible[s] = fits[s][at]
        extent[s, 0] = edges[0][at]
        extent[s, 1] = edges[1][at]
        if per_box[s] > 0.0:
            boxes = coincidences(values, inner[s], across[s], geometry)
            fills[s] = (base[s] + per_box[s] * boxes) * box[at] * iterations
        elif base[s] > 0.0:
            fills[s] = base[s] * box[at] * iterations
    return values, room, feasible, fills, extent


def best_slides(at: Any, first: int, top: int, moves: Any, local: Any) -> Any:
    """Pending cost of inputs where the next level's loops take all the rest.

    Args:
        at: nodes.
        first: lowest pending level; negative where nothing is pending.
        top: level below the loops.
        moves: (rows or columns that one iteration moves, iterations) by P, Q, R, S and node.
        local: (fills, extent), see `slid_inputs`.

    Returns:
        Without sliding; with P or Q first at best; with R or S first at best.
    """
    step, rest = moves
    plain = pending_inputs(at, first, top, local[0])
    by_p = plain.copy()
    by_r = plain.copy()
    if first >= 0 and step[0, 0] > 0:
        for k in range(2):
            slid = slid_inputs(at, first, top, k, step[k][at], rest[k][at], local)
            by_p = np.minimum(by_p, slid)
            slid = slid_inputs(at, first, top, k, step[2 + k][at], rest[2 + k][at], local)
            by_r = np.minimum(by_r, slid)
    return plain, by_p, by_r


def finish(at: Any, state: Any, top: int, ratios: Any, slid: Any, prices: Any) -> Any:
    """Cost from nodes `at` of the level below the outermost one, whose loops take all the rest.

    Args:
        at: nodes.
        state: pending level of each tensor.
        top: the level below the outermost.
        ratios: irr(q) / irr(x) of each tensor by node.
        slid: pending cost of inputs, see `best_slides`.
        prices: (Weights, unfinished Outputs, finished Outputs), by level.
    """
    ratio_w, ratio_i, ratio_o = ratios
    price_w, price_o, final_o = prices
    _, by_p, by_r = slid
    w_done = pending_sum(state[0], top, price_w)
    o_done = pending_sum(state[2], top, final_o)
    w = w_done * ratio_w[at]
    o = pending_outputs(state[2], top, price_o, final_o, ratio_o[at])
    run_w = w_done + o + by_p
    run_o = w + o_done + by_r
    run_i = w + o + np.minimum(by_p, by_r) / ratio_i[at]
    return np.minimum(run_w, np.minimum(run_o, run_i))


def beyond(
    tensor: int,
    first: int,
    cur: int,
    table: Any,
    automaton: Any,
    limits: Any,
    grid: Any,
    ratios: Any,
    moves: Any,
    local: Any,
    prices: Any,
) -> Any:
    """Least cost from the end of the run of `tensor`, its own payment included, by node.

    The loops of level cur + 1 begin with dimensions that `tensor` does not use; at a node X they
    are over. Either the tensor pays and the other dimensions advance, or the level ends and it
    stays pending.
    """
    free, low, high = limits
    room, axes, factors = grid
    carry, fresh = automaton
    price_w, price_o, final_o = prices
    level = cur + 1
    everything = np.arange(room.shape[0])
    start = table[level, fresh[level]].copy()
    for d in (0, 1, 2, 3):
        if not free[tensor, d]:
            start = advance_dim(start, d, low[level, d], high[level, d], room, axes, factors)
    after = start.copy()
    for d in (4, 5, 6, 7):
        if not free[tensor, d]:
            after = advance_dim(after, d, low[level, d], high[level, d], room, axes, factors)
    if tensor == 0:
        out = after + pending_sum(first, cur, price_w) * ratios[0]
    elif tensor == 2:
        out = after + pending_outputs(first, cur, price_o, final_o, ratios[2])
    else:
        out = after + pending_inputs(everything, first, cur, local[0])
        step, _ = moves
        if first >= 0 and step[0, 0] > 0:
            for k in range(4):
                # a loop over P, Q, R or S comes first: successive tiles overlap
                after = start.copy()
                for d in (4, 5, 6, 7):
                    if d != 4 + k:
                        after = advance_dim(
                            after, d, low[level, d], high[level, d], room, axes, factors
                        )
                for f in range(factors.shape[0]):
                    count = factors[f, 1]
                    if factors[f, 0] == 4 + k and low[level, 4 + k] <= count <= high[level, 4 + k]:
                        at = np.nonzero(room[:, 4 + k] % count == 0)[0]
                        slid = slid_inputs(at, first, cur, k % 2, step[k][at], count, local)
                        out[at] = np.minimum(out[at], slid + after[at + factors[f, 2]])
    stays = True
    for d in range(8):
        if not free[tensor, d] and low[level, d] > 1:
            stays = False
    if stays:
        out = np.minimum(out, table[level, carry[level, tensor, first + 1]])
    return out


def fill_level(
    tensor: int,
    first: int,
    cur: int,
    at: Any,
    table: Any,
    automaton: Any,
    limits: Any,
    grid: Any,
    ratios: Any,
    moves: Any,
    local: Any,
    prices: Any,
    slides: bool,
) -> None:
    """Lower the costs of level `cur` by nests that run `tensor`'s free dimensions innermost.

    Args:
        tensor: whose free dimensions begin the loops of level cur + 1.
        first: its lowest pending level.
        cur: level below the loops.
        at: nodes that fit there.
        table: costs by level, state and node; changed in place.
        automaton: see `solve`, like `limits` and `prices`.
        limits: see `solve`.
        grid: (room, axes, factors), see `advance_dim`.
        ratios: irr(q) / irr(x) of each tensor by node.
        moves: see `best_slides`, like `local`.
        local: see `best_slides`.
        prices: see `solve`.
        slides: whether input tiles can overlap.
    """
    states, counts, _, carry, fresh = automaton
    free, low, high = limits
    room, axes, factors = grid
    ratio_w, _, ratio_o = ratios
    price_w, price_o, final_o = prices
    step, _ = moves
    fills, _ = local
    level = cur + 1
    end_of_run = beyond(
        tensor,
        first,
        cur,
        table,
        (carry, fresh),
        limits,
        grid,
        ratios,
        moves,
        local,
        prices,
    )
    run = end_of_run.copy()
    for d in range(8):
        if free[tensor, d]:
            run = advance_dim(run, d, low[level, d], high[level, d], room, axes, factors)
    for j in range(counts[cur]):
        if states[cur, j, tensor] != first:
            continue
        others = np.zeros(at.shape[0])
        if tensor != 0:
            others += pending_sum(states[cur, j, 0], cur, price_w) * ratio_w[at]
        if tensor != 2:
            others += pending_outputs(states[cur, j, 2], cur, price_o, final_o, ratio_o[at])
        whole = others.copy()
        if tensor != 1:
            whole += pending_inputs(at, states[cur, j, 1], cur, fills)
        table[cur, j][at] = np.minimum(table[cur, j][at], whole + run[at])
    if tensor == 1 or not slides:
        return
    # a loop over P or Q (Weights free), R or S (Outputs free) first: inputs overlap
    for k in range(tensor, tensor + 2):
        dim = 4 + k
        run = end_of_run.copy()
        for d in range(8):
            if free[tensor, d] and d != dim:
                run = advance_dim(run, d, low[level, d], high[level, d], room, axes, factors)
        for f in range(factors.shape[0]):
            count = factors[f, 1]
            if factors[f, 0] != dim or count < low[level, dim] or count > high[level, dim]:
                continue
            here = at[room[at, dim] % count == 0]
            if here.shape[0] == 0:
                continue
            onward = run[here + factors[f, 2]]
            for j in range(counts[cur]):
                if states[cur, j, tensor] != first or states[cur, j, 1] < 0:
                    continue
                if tensor == 0:
                    other = pending_outputs(states[cur, j, 2], cur, price_o, final_o, ratio_o[here])
                else:
                    other = pending_sum(states[cur, j, 0], cur, price_w) * ratio_w[here]
                slid = slid_inputs(here, states[cur, j, 1], cur, k % 2, step[k][here], count, local)
                found = slid + other + onward
                table[cur, j][here] = np.minimum(table[cur, j][here], found)


def solve(
    q: Any,
    inner: Any,
    lattice: Any,
    tiles: Any,
    price_i: Any,
    prices: Any,
    limits: Any,
    automaton: Any,
    slides: bool,
) -> Any:
    """Least cost from every (level, state, node) to the end of the nest.

    Args:
        q: temporal extents of the whole nest, by dimension.
        inner: product of the spatial factors up to each level, by level and dimension.
        lattice: axes (dim, prime, exponent, step) and extents by node of the bounds' lattice.
        tiles: see `local_tiles`.
        price_i: see `local_tiles`.
        prices: price of all fills of Weights, of unfinished Outputs and of finished Outputs, by
            level.
        limits: (dimensions free for each tensor; least and largest temporal factor, by level and
            dimension).
        automaton: (pending level by level, state and tensor; number of states by level; next state
            where the next level has no loops; next state by level, tensor and pending level + 1
            where only that tensor stays pending; next state by level where everything is paid).
        slides: whether input tiles can overlap.

    Returns:
        Costs by level, state and node; those of level 0 where its tile may begin.
    """
    _, low, high = limits
    states, counts, stay, _, fresh = automaton
    price_w, _, final_o = prices
    axes, factors, index = local_lattice(q, lattice)
    values, room, feasible, fills, extent = local_tiles(q, inner, index, lattice, tiles, price_i)
    size = index.shape[0]
    top = inner.shape[0] - 1
    for d in range(8):
        feasible[0] &= (values[:, d] >= low[0, d]) & (values[:, d] <= high[0, d])
    ratio_w = (room[:, 1] * room[:, 4] * room[:, 5]).astype(np.float64)
    ratio_i = room[:, 2].astype(np.float64)
    ratio_o = (room[:, 3] * room[:, 6] * room[:, 7]).astype(np.float64)
    ratios = (ratio_w, ratio_i, ratio_o)
    local = (fills, extent)
    grid = (room, axes, factors)
    step = np.zeros((4, size))
    rest = np.ones((4, size))
    table = np.full((top + 1, states.shape[1], size), INF)
    for j in range(counts[top]):
        if feasible[top, size - 1]:
            end = np.full(1, size - 1)
            total = pending_sum(states[top, j, 0], top, price_w)
            total += pending_sum(states[top, j, 2], top, final_o)
            total += pending_inputs(end, states[top, j, 1], top, fills)[0]
            table[top, j, size - 1] = total
    for cur in range(top - 1, -1, -1):
        level = cur + 1
        at = np.nonzero(feasible[cur])[0]
        must = np.any(low[level] > 1)
        if not must:
            for j in range(counts[cur]):
                table[cur, j][at] = table[level, stay[cur, j]][at]
        if np.all(high[level] == 1) or at.shape[0] == 0:
            continue
        if slides:
            for k in range(4):
                scale = tiles[3][k] * inner[level, 4 + k]
                step[k] = (values[:, 4 + k] * scale).astype(np.float64)
                rest[k] = room[:, 4 + k].astype(np.float64)
        moves = (step, rest)
        if level == top and not must and np.all(high[level] >= room[0]):
            paid = table[top, fresh[top], size - 1]
            for first in range(-1, cur + 1):
                if not np.any(states[cur, : counts[cur], 1] == first):
                    continue
                inputs = best_slides(at, first, cur, moves, local)
                for j in range(counts[cur]):
                    if states[cur, j, 1] == first:
                        done = finish(at, states[cur, j], cur, ratios, inputs, prices)
                        table[cur, j][at] = np.minimum(table[cur, j][at], done + paid)
            continue
        for tensor in range(3):
            for first in range(-1, cur + 1):
                used = False
                for j in range(counts[cur]):
                    used = used or states[cur, j, tensor] == first
                if not used:
                    continue
                fill_level(
                    tensor,
                    first,
                    cur,
                    at,
                    table,
                    automaton,
                    limits,
                    grid,
                    ratios,
                    moves,
                    local,
                    prices,
                    slides,
                )
    return table


def first_bound(
    q: Any,
    inner: Any,
    lattice: Any,
    tiles: Any,
    price_i: Any,
    prices: Any,
    state: Any,
    last: int,
    slides: bool,
    nodes: Any,
) -> float:
    """Least that filling levels up to `last` costs, whatever the levels further out hold.

    All those levels hold one tile. The loops above it are taken as one level's: only one tensor can
    be reused by all of them, and inputs slide as far as they can.

    Args:
        q: as in `solve`, like all arguments but the following.
        inner: see `solve`.
        lattice: see `solve`.
        tiles: see `solve`.
        price_i: see `solve`.
        prices: see `solve`.
        state: pending level of each tensor once all these levels hold their tile.
        last: outermost of them.
        slides: see `solve`.
        nodes: tiles that fit, by index in the lattice of the bounds.
    """
    _, box, edges, geometry = tiles
    base, per_box, across = price_i
    extents = lattice[1][nodes]
    fits = np.ones(nodes.shape[0], np.bool_)
    for d in range(8):
        fits &= (extents[:, d] % inner[last, d] == 0) & (q[d] * inner[last, d] % extents[:, d] == 0)
    chosen = nodes[fits]
    size = chosen.shape[0]
    if size == 0:
        return INF
    values = lattice[1][chosen] // inner[last]
    room = q // values
    iterations = np.ones(size)
    for d in range(8):
        iterations *= room[:, d]
    fills = np.zeros((last + 1, size))
    extent = np.zeros((last + 1, 2, size))
    for s in range(last + 1):
        extent[s, 0] = edges[0][chosen]
        extent[s, 1] = edges[1][chosen]
        boxes = np.ones(size)
        if per_box[s] > 0.0:
            boxes = coincidences(values, inner[s], across[s], geometry)
        fills[s] = (base[s] + per_box[s] * boxes) * box[chosen] * iterations
    step = np.zeros((4, size))
    rest = np.ones((4, size))
    if slides:
        for k in range(4):
            step[k] = (values[:, 4 + k] * (geometry[k] * inner[last + 1, 4 + k])).astype(np.float64)
            rest[k] = room[:, 4 + k].astype(np.float64)
    ratios = (
        (room[:, 1] * room[:, 4] * room[:, 5]).astype(np.float64),
        room[:, 2].astype(np.float64),
        (room[:, 3] * room[:, 6] * room[:, 7]).astype(np.float64),
    )
    at = np.arange(size)
    inputs = best_slides(at, state[1], last, (step, rest), (fills, extent))
    costs = finish(at, state, last, ratios, inputs, prices)
    return float(costs.min())


FUNCTIONS = (
    "advance_axis",
    "advance_dim",
    "slid_inputs",
    "pending_inputs",
    "pending_sum",
    "pending_outputs",
    "local_lattice",
    "outer_index",
    "coincidences",
    "local_tiles",
    "best_slides",
    "finish",
    "beyond",
    "fill_level",
    "solve",
    "first_bound",
)
"""Every function here, callees before callers."""
