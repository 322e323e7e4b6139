# SPDX-License-Identifier: Apache-2.0
"""Exact minimisation over zero-one columns by way of a small core problem.

The linear relaxation gives a bound L and a reduced cost d_j >= 0 for every column j: a solution
that uses j costs at least L + d_j. So once some solution of value U is known, columns with
d_j > U - L are in no better one. The integer program is therefore solved over the columns of small
reduced cost first, and again over those with d_j <= U - L where the first cut was too deep; what
comes out is optimal over all columns.

Source: reduced-cost fixing and core problems, textbook integer programming (Martello and Toth,
Knapsack Problems, 1990), remembered.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import coo_array, csr_array

FloatArray = NDArray[np.float64]
Row = Mapping[int, float]

_OPTIMAL, _LIMIT = 0, 1
_FIRST_CUT = 0.005
"""Reduced cost, as a share of the bound, up to which columns enter the first core problem."""
_WIDEN = 4.0
_SPENT = 0.95
"""Share of a time limit after which it counts as reached."""
_LEAST_LONGER, _MOST_LONGER = 1.25, 8.0
"""Factors on the wall time of a solver that starts again."""
_ROUNDING = 1e-5
"""Room for the solver's tolerances, in the unit of a scaled objective."""
SCALE = 1e3
"""Largest coefficient of a scaled objective or budget row: HiGHS' tolerance of 1e-6 is 1e-9."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Equalities and upper bounds over nonnegative columns."""

    equal: csr_array
    equal_to: FloatArray
    below: csr_array
    below_to: FloatArray


@dataclass(frozen=True, slots=True)
class Solution:
    """A zero-one solution and its proven relative gap; 0 is optimal."""

    x: FloatArray
    gap: float


def assemble(rows: Sequence[tuple[Row, float, float]], columns: int) -> Rows:
    """Return rows as sparse matrices; each is an equality or has no lower limit."""
    equal = [(row, high) for row, low, high in rows if low == high]
    below = [(row, high) for row, low, high in rows if low != high]
    return Rows(*_matrix(equal, columns), *_matrix(below, columns))


def minimise(
    objective: FloatArray, rows: Rows, binaries: int, time_limit_s: float
) -> Solution | None:
    """Return a solution of least objective; None where no solution exists.

    Args:
        objective: coefficient of each column.
        rows: what a solution fulfils; they must bound every column by one.
        binaries: number of leading columns that are zero or one; the others then are, too.
        time_limit_s: processor time; on expiry the best found is returned with its gap.

    Raises:
        TimeoutError: nothing was found within the time limit.
    """
    end = time.process_time() + time_limit_s
    size = float(np.abs(objective).max(initial=0.0)) or 1.0
    scaled = objective * (SCALE / size)
    relaxed = linprog(  # type: ignore[call-overload]  # the stubs know no sparse rows
        scaled, rows.below, rows.below_to, rows.equal, rows.equal_to, (0, None), method="highs"
    )
    if relaxed.x is None:
        return None
    bound, reduced = float(relaxed.fun), np.maximum(relaxed.lower.marginals, 0.0)
    cut = max(_FIRST_CUT * abs(bound), _ROUNDING)
    while True:
        kept = np.flatnonzero(reduced <= cut)
        found = _solve_over(kept, scaled, rows, binaries, max(1e-3, end - time.process_time()))
        if found is None:
            if kept.size == scaled.size:
                return None
            cut *= _WIDEN
            continue
        above = float(scaled @ found.x) - bound
        if found.gap or above <= cut or kept.size == scaled.size:
            gap = max(0.0, above) / max(abs(bound), _ROUNDING) if found.gap else 0.0
            return Solution(found.x, gap)
        cut = above + _ROUNDING


def _solve_over(
    kept: NDArray[np.intp], objective: FloatArray, rows: Rows, binaries: int, time_limit_s: float
) -> Solution | None:
    """Solve over some columns, all others zero.

    The solver's own limit is wall time. Where it expires before the processor time is spent, since
    the machine had other work, the solver starts again with as much more wall time as that takes:
    what comes out does not depend on what else runs.
    """
    integrality = (kept < binaries).astype(np.int64)
    wall_s = time_limit_s
    while True:
        began, began_wall = time.process_time(), time.monotonic()
        with _silent_solver():
            result = milp(
                objective[kept],
                constraints=[
                    LinearConstraint(rows.equal[:, kept], rows.equal_to, rows.equal_to),
                    LinearConstraint(rows.below[:, kept], -np.inf, rows.below_to),
                ],
                integrality=integrality,
                bounds=Bounds(0, 1),
                options={"time_limit": wall_s, "mip_rel_gap": 0.0},
            )
        spent = time.process_time() - began
        expired = result.status == _LIMIT and time.monotonic() - began_wall >= _SPENT * wall_s
        if not expired or spent >= _SPENT * time_limit_s:
            break
        wall_s *= min(_MOST_LONGER, max(_LEAST_LONGER, time_limit_s / max(spent, 1e-9)))
    if result.x is None:
        if result.status == _LIMIT:
            raise TimeoutError(
                f"no assignment was found within {time_limit_s:.3g} s of processor time"
            )
        return None
    x = np.zeros(objective.size)
    x[kept] = result.x
    return Solution(x, 0.0 if result.status == _OPTIMAL else max(float(result.mip_gap), 1e-12))


@contextmanager
def _silent_solver() -> Iterator[None]:
    """Drop what HiGHS prints past its own switch: stdout is the command's result."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _matrix(rows: Sequence[tuple[Row, float]], columns: int) -> tuple[csr_array, FloatArray]:
    row_of = [i for i, (row, _) in enumerate(rows) for _ in row]
    column_of = [column for row, _ in rows for column in row]
    values = [value for row, _ in rows for value in row.values()]
    matrix = coo_array((values, (row_of, column_of)), shape=(len(rows), columns))
    return matrix.tocsr(), np.array([limit for _, limit in rows], dtype=np.float64)
