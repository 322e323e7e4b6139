# SPDX-License-Identifier: Apache-2.0
"""Loops that walk a tensor once where PyTorch's own operations would walk it several times.

`enos_compiler.compiled` compiles them and splits the rows over threads. Activations are (rows,
width) views in memory order, whose width is a whole number of times the channels: a constant of
every channel is repeated along it. `grids` is (grids, 4), by row step (a power of two), least and
greatest value, and share; a value is the sum of shares times its roundings, and the gradient of a
rounding passes between the ends of its grid. An undefined number stays undefined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

BLOCK = 32
"""Rows that are summed in float32 before the sums go on in float64."""


def moments(begin: int, end: int, x: Floats, pivot: Floats, extremes: bool, found: Doubles) -> None:
    """Find, along the rows begin..end, sums and extremes of every column.

    Args:
        begin: first row.
        end: row behind the last.
        x: (rows, width).
        pivot: (width,), taken off before anything is summed.
        extremes: find them, too.
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
                value = x[row, i] - pivot[i]
                sums[i] += value
                squares[i] += value * value
            if extremes:
                for i in range(width):
                    value = x[row, i]
                    least[i] = value if value < least[i] else least[i]
                    greatest[i] = value if value > greatest[i] else greatest[i]
        for i in range(width):
            found[0, i] += sums[i]
            found[1, i] += squares[i]
    for i in range(width):
        found[2, i] = least[i]
        found[3, i] = greatest[i]


def scale_and_round(
    begin: int, end: int, x: Floats, line: Floats, grids: Floats, out: Floats
) -> None:
    """Set out = x * slope + offset, rounded.

    Args:
        begin: first row.
        end: row behind the last.
        x: (rows, width).
        line: (2, width) slope and offset.
        grids: (grids, 4).
        out: (rows, width); it may be x.
    """
    width = x.shape[1]
    values = np.zeros(width, np.float32)
    for row in range(begin, end):
        for i in range(width):
            values[i] = x[row, i] * line[0, i] + line[1, i]
        for k in range(len(grids)):
            step, low, high, share = grids[k, 0], grids[k, 1], grids[k, 2], grids[k, 3]
            inverse = np.float32(1.0) / step
            for i in range(width):
                value = np.rint(values[i] * inverse) * step
                value = low if value < low else value
                value = (high if value > high else value) * share
                out[row, i] = value if k == 0 else out[row, i] + value


def gradient_sums(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    line: Floats,
    grids: Floats,
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
        grids: (grids, 4).
        mean: (width,) of x.
        found: (2 + grids, width), overwritten: sum of the gradient that passes, of it times
            x - mean, and, where there are several grids, of the gradient times each rounding.
    """
    width = x.shape[1]
    values = np.zeros(width, np.float32)
    passed = np.zeros(width, np.float32)
    sums = np.zeros((len(found), width), np.float32)
    zero = np.float32(0.0)
    found[:] = 0.0
    for block in range(begin, end, BLOCK):
        sums[:] = 0.0
        for row in range(block, min(block + BLOCK, end)):
            if len(grids) == 1:  # by far the most frequent
                low, high = grids[0, 1], grids[0, 2]
                for i in range(width):
                    value = x[row, i] * line[0, i] + line[1, i]
                    part = zero if (value <= low) | (value >= high) else gradient[row, i]
                    sums[0, i] += part
                    sums[1, i] += part * (x[row, i] - mean[i])
                continue
            for i in range(width):
                values[i] = x[row, i] * line[0, i] + line[1, i]
                passed[i] = 0.0
            for k in range(len(grids)):
                step, low, high, share = grids[k, 0], grids[k, 1], grids[k, 2], grids[k, 3]
                inverse = np.float32(1.0) / step
                for i in range(width):
                    passed[i] += zero if (values[i] <= low) | (values[i] >= high) else share
                    value = np.rint(values[i] * inverse) * step
                    value = low if value < low else value
                    sums[2 + k, i] += gradient[row, i] * (high if value > high else value)
            for i in range(width):
                part = passed[i] * gradient[row, i]
                sums[0, i] += part
                sums[1, i] += part * (x[row, i] - mean[i])
        for j in range(len(found)):
            for i in range(width):
                found[j, i] += sums[j, i]


def gradient_through(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    line: Floats,
    grids: Floats,
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
        grids: (grids, 4).
        factors: (3, width) a, b and c.
        out: (rows, width).
    """
    width = x.shape[1]
    values = np.zeros(width, np.float32)
    passed = np.zeros(width, np.float32)
    zero = np.float32(0.0)
    for row in range(begin, end):
        for i in range(width):
            values[i] = x[row, i] * line[0, i] + line[1, i]
            passed[i] = 0.0
        for k in range(len(grids)):
            low, high, share = grids[k, 1], grids[k, 2], grids[k, 3]
            for i in range(width):
                passed[i] += zero if (values[i] <= low) | (values[i] >= high) else share
        for i in range(width):
            part = passed[i] * gradient[row, i]
            out[row, i] = factors[0, i] * part + factors[1, i] * x[row, i] + factors[2, i]
