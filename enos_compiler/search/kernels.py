# SPDX-License-Identifier: Apache-2.0
"""Loops that walk a tensor once where PyTorch's own operations would walk it several times.

Plain numpy in the subset that numba compiles; `compiled` does so and splits the rows over threads.
Activations are (rows, width) views in memory order, whose width is a whole number of times the
channels: a constant of every channel is repeated along it. An undefined number stays undefined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

BLOCK = 32
"""Rows that are summed in float32 before the sums go on in float64."""


def moments(begin: int, end: int, x: Floats, pivot: Floats, found: Doubles) -> None:
    """Find, along the rows begin..end, sums and extremes of every column.

    Args:
        begin: first row.
        end: row behind the last.
        x: (rows, width).
        pivot: (width,), taken off before anything is summed.
        found: (4, width), overwritten: sum and sum of squares of x - pivot, least and greatest x.
    """
    width = x.shape[1]
    sums = np.zeros(width, np.float32)
    squares = np.zeros(width, np.float32)
    least = x[begin].copy()
    greatest = x[begin].copy()
    found[:2] = 0.0
    for block in range(begin, end, BLOCK):
        sums[:] = 0.0
        squares[:] = 0.0
        for row in range(block, min(block + BLOCK, end)):
            for i in range(width):
                value = x[row, i]
                least[i] = value if value < least[i] else least[i]
                greatest[i] = value if value > greatest[i] else greatest[i]
                value = value - pivot[i]
                sums[i] += value
                squares[i] += value * value
        for i in range(width):
            found[0, i] += sums[i]
            found[1, i] += squares[i]
    for i in range(width):
        found[2, i] = least[i]
        found[3, i] = greatest[i]


def scale_and_round(
    begin: int, end: int, x: Floats, line: Floats, grid: Floats, out: Floats
) -> None:
    """Set out = x * slope + offset, rounded to a grid.

    Args:
        begin: first row.
        end: row behind the last.
        x: (rows, width).
        line: (2, width) slope and offset.
        grid: (3,) step, a power of two, least and greatest value.
        out: (rows, width).
    """
    width = x.shape[1]
    step, low, high = grid[0], grid[1], grid[2]
    inverse = np.float32(1.0) / step
    for row in range(begin, end):
        for i in range(width):
            value = np.rint((x[row, i] * line[0, i] + line[1, i]) * inverse) * step
            value = low if value < low else value
            out[row, i] = high if value > high else value


def gradient_sums(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    line: Floats,
    grid: Floats,
    mean: Floats,
    found: Doubles,
) -> None:
    """Find, by column, what the gradient behind `scale_and_round` adds up to.

    Args:
        begin: first row.
        end: row behind the last.
        x: (rows, width).
        gradient: (rows, width), with respect to what `scale_and_round` returned.
        line: (2, width) slope and offset.
        grid: (3,) step, least and greatest value; no gradient passes at or beyond the ends.
        mean: (width,) of x.
        found: (2, width), overwritten: sum of the gradient that passes, and of it times x - mean.
    """
    width = x.shape[1]
    low, high = grid[1], grid[2]
    zero = np.float32(0.0)
    sums = np.zeros(width, np.float32)
    products = np.zeros(width, np.float32)
    found[:] = 0.0
    for block in range(begin, end, BLOCK):
        sums[:] = 0.0
        products[:] = 0.0
        for row in range(block, min(block + BLOCK, end)):
            for i in range(width):
                value = x[row, i] * line[0, i] + line[1, i]
                passed = zero if (value <= low) | (value >= high) else gradient[row, i]
                sums[i] += passed
                products[i] += passed * (x[row, i] - mean[i])
        for i in range(width):
            found[0, i] += sums[i]
            found[1, i] += products[i]


def gradient_through(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    line: Floats,
    grid: Floats,
    factors: Floats,
    out: Floats,
) -> None:
    """Set out to the gradient with respect to x: a * what passes + b * x + c.

    Args:
        begin: first row.
        end: row behind the last.
        x: (rows, width).
        gradient: (rows, width), with respect to what `scale_and_round` returned.
        line: (2, width) slope and offset.
        grid: (3,) step, least and greatest value.
        factors: (3, width) a, b and c.
        out: (rows, width).
    """
    width = x.shape[1]
    low, high = grid[1], grid[2]
    zero = np.float32(0.0)
    for row in range(begin, end):
        for i in range(width):
            value = x[row, i] * line[0, i] + line[1, i]
            passed = zero if (value <= low) | (value >= high) else gradient[row, i]
            out[row, i] = factors[0, i] * passed + factors[1, i] * x[row, i] + factors[2, i]


def add_and_round(begin: int, end: int, x: Floats, y: Floats, grid: Floats, out: Floats) -> None:
    """Set out = x + y, rounded to a grid; all (rows, width)."""
    width = x.shape[1]
    step, low, high = grid[0], grid[1], grid[2]
    inverse = np.float32(1.0) / step
    for row in range(begin, end):
        for i in range(width):
            value = np.rint((x[row, i] + y[row, i]) * inverse) * step
            value = low if value < low else value
            out[row, i] = high if value > high else value
