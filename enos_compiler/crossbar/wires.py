# SPDX-License-Identifier: Apache-2.0
"""Resistive wires of an array: an exact nodal solution and a first-order estimate.

Every wire is a chain of nodes fed from a source at one end: rows from their drivers, columns from
the virtual ground behind their last row. Unknowns are the node voltages and the current of each
segment, so that segments of zero resistance need no special case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from enos_compiler.crossbar.spec import WireSpec
from enos_compiler.errors import SpecError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Chains:
    """Wires as chains: `feeder[n]` is the node before n, or -1 - c for the source of chain c."""

    feeder: Ints
    resistance: Floats


def _solve(chains: _Chains, a: Ints, b: Ints, g: Floats, sources: Floats) -> tuple[Floats, Floats]:
    """Node voltages (nodes, B) and segment currents (nodes, B), positive away from the source."""
    n = chains.feeder.size
    node = np.arange(n)
    inner = chains.feeder >= 0
    one = np.ones(n)
    loss = np.zeros(n)
    np.add.at(loss, a, g)
    np.add.at(loss, b, g)
    rows = [node, n + node, n + node[inner], n + node, node, chains.feeder[inner]]
    cols = [node, node, chains.feeder[inner], n + node, n + node, n + node[inner]]
    data = [-loss, -one, one[inner], -chains.resistance, one, -one[inner]]
    rows += [a, b]
    cols += [b, a]
    data += [g, g]
    matrix = sparse.csc_matrix(
        (np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), shape=(2 * n, 2 * n)
    )
    right = np.zeros((2 * n, sources.shape[1]))
    right[n + node[~inner]] = -sources[-1 - chains.feeder[~inner]]
    solution = splu(matrix).solve(right)
    return solution[:n], solution[n:]


def _segments(wires: WireSpec, r_on_ohm: float, rows: int, columns: int) -> tuple[Floats, Floats]:
    """Row segments before each cell and column segments after each cell, in units of r_on."""
    row = np.full((rows, columns), wires.row_ohm)
    column = np.full((rows, columns), wires.column_ohm)
    if wires.terminal_on_row_zero:
        row[0] += wires.row_terminal_ohm
    else:
        row[:, 0] += wires.row_terminal_ohm
    column[-1] += wires.column_terminal_ohm
    return row / r_on_ohm, column / r_on_ohm


def effective_conductance(g: Floats, wires: WireSpec, r_on_ohm: float) -> Floats:
    """Matrix that maps driver voltages to column currents through resistive wires, exactly.

    Args:
        g: conductances in units of 1 / r_on, shape (planes, rows, columns). Two planes are the
            interleaved cells of a pair: each plane has its own row wires, the columns are shared.
        wires: segment resistances; row drivers stand before column 0, grounds after the last row.
        r_on_ohm: the unit of resistance.

    Returns:
        Shape (planes, rows, columns): current of each column per volt on each driver.
    """
    planes, rows, columns = g.shape
    row_r, column_r = _segments(wires, r_on_ohm, rows, columns)
    cells = rows * columns
    index = np.arange(cells).reshape(rows, columns)
    feeder, resistance = [], []
    for p in range(planes):
        lines = np.empty((rows, columns), np.int64)
        lines[:, 1:] = index[:, :-1] + p * cells
        lines[:, 0] = -1 - (p * rows + np.arange(rows))
        feeder.append(lines.ravel())
        resistance.append(row_r.ravel())
    below = np.empty((rows, columns), np.int64)
    below[:-1] = index[1:] + planes * cells
    below[-1] = -1 - planes * rows
    chains = _Chains(
        np.concatenate([*feeder, below.ravel()]), np.concatenate([*resistance, column_r.ravel()])
    )
    a = np.arange(planes * cells)
    b = planes * cells + np.tile(index.ravel(), planes)
    sources = np.vstack([np.eye(planes * rows), np.zeros((1, planes * rows))])
    _, current = _solve(chains, a, b, g.ravel(), sources)
    ground = -current[planes * cells + index[-1]]
    return np.asarray(ground.T.reshape(planes, rows, columns))


def supplied_currents(
    g: Floats, gates: Floats, wires: WireSpec, r_on_ohm: float, rows_max: int
) -> Floats:
    """Column currents (columns, B) where rows gate and supply wires beside the columns feed.

    Args:
        g: conductances in units of 1 / r_on, (planes, rows, columns); plane 1 is supplied with -1.
        gates: 0 or 1 for every row and vector, (rows, B); a closed gate disconnects the cell.
        wires: `row_ohm` is the supply wire's resistance per cell, from row 0.
        r_on_ohm: the unit of resistance.
        rows_max: rows of the array; the unused ones lengthen one end segment.
    """
    if not np.isin(gates, (0.0, 1.0)).all():
        raise SpecError(
            "supply lines need inputs of one bit and no sign: rows only gate",
            place="wires.supply_lines",
            remedy="dac.digit_bits: 1 and unsigned inputs, or supply_lines: false",
        )
    planes, rows, columns = g.shape
    unused = rows_max - rows
    supply = np.full(rows, wires.row_ohm) / r_on_ohm
    column = np.full(rows, wires.column_ohm) / r_on_ohm
    if wires.unused_rows == "top":
        column[-1] *= unused + 1
    else:
        supply[0] *= unused + 1
    column[-1] += wires.column_terminal_ohm / r_on_ohm
    step = np.arange(rows)
    feeder = [np.where(step > 0, step - 1 + p * rows, -1 - p) for p in range(planes)]
    below = np.where(step < rows - 1, step + 1 + planes * rows, -1 - planes)
    chains = _Chains(
        np.concatenate([*feeder, below]), np.concatenate([np.tile(supply, planes), column])
    )
    a, b = np.arange(planes * rows), planes * rows + np.tile(step, planes)
    sources = np.array([*[1.0, -1.0][:planes], 0.0])[:, None]
    out = np.empty((columns, gates.shape[1]))
    for k in range(gates.shape[1]):
        for j in range(columns):
            cells = (g[:, :, j] * gates[:, k]).ravel()
            out[j, k] = -_solve(chains, a, b, cells, sources)[1][-1, 0]
    return out


def first_order_conductance(g: Floats, wires: WireSpec, r_on_ohm: float) -> Floats:
    """First-order estimate of `effective_conductance`: drops computed from the ideal currents.

    A unit input on row i sends g[i, j] into column j. Its own row carries the current of all cells
    from each segment on, and the column carries it from row i down; the drops lower the cell it
    comes from and every cell of the same column. Relative error is of second order in
    (wire resistance x line conductance): use it where that product is well below 1.
    Source: perturbation of the nodal equations (derived here).
    """
    row_r, column_r = _segments(wires, r_on_ohm, *g.shape[1:])
    row_current = np.cumsum(g[:, :, ::-1], axis=2)[:, :, ::-1]
    row_drop = np.cumsum(row_r * row_current, axis=2)
    to_ground = np.cumsum(column_r[::-1], axis=0)[::-1]
    all_planes = g.sum(axis=0)
    above = np.cumsum(all_planes, axis=0)
    below = np.cumsum((all_planes * to_ground)[::-1], axis=0)[::-1] - all_planes * to_ground
    column_loss = above * to_ground + below
    return np.asarray(g * (1 - row_drop - column_loss[None]))
