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

Codes = NDArray[np.int32]

RESOLUTION = np.float32(128)
"""Codes per root mean square of a weight's channel."""
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
        out: (rows, width).
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


def look_up(
    weight: Floats,
    rms: Floats,
    mixed: Floats,
    used: tuple[bool, bool, bool],
    codes: Codes,
    a: Floats,
    b: Floats,
) -> None:
    """Find the code of every weight and its entries in tables of values.

    Args:
        weight: (M, taps).
        rms: (M, 1) root mean square of each row.
        mixed: (6, entries) values and slopes of three parts, as `tables.Bank` has them.
        used: which of the parts are there.
        codes: (M, taps), overwritten.
        a: (M, taps), overwritten where the first part is used.
        b: (M, taps), overwritten where another is.
    """
    entries = mixed.shape[1]
    middle, top = np.float32(entries // 2), np.float32(entries - 1)
    for row in range(len(weight)):
        size = rms[row, 0]
        for i in range(weight.shape[1]):
            step = np.floor(weight[row, i] / size * RESOLUTION) + middle
            # An undefined weight leaves its mark through the size of its channel.
            step = step if step > 0 else np.float32(0)
            codes[row, i] = np.int32(step if step < top else top)
        for i in range(weight.shape[1]):
            if used[0]:
                a[row, i] = mixed[0, codes[row, i]] * size
            if used[1] and used[2]:
                b[row, i] = mixed[2, codes[row, i]] * size + mixed[4, codes[row, i]] * size * size
            elif used[1]:
                b[row, i] = mixed[2, codes[row, i]] * size
            elif used[2]:
                b[row, i] = mixed[4, codes[row, i]] * size * size


def look_back(
    on_a: Floats,
    on_b: Floats,
    rms: Floats,
    mixed: Floats,
    used: tuple[bool, bool, bool],
    codes: Codes,
    on_weight: Floats,
    histograms: Floats,
) -> None:
    """Find the gradients of weights, by slopes, and of tables, by codes.

    Args:
        on_a: (M, taps) gradient of A, where the first part is used.
        on_b: (M, taps) gradient of B, where another is.
        rms: (M, 1) root mean square of each row.
        mixed: (6, entries) values and slopes of three parts.
        used: which of the parts are there.
        codes: (M, taps).
        on_weight: (M, taps), zero before.
        histograms: (6, entries), zero before; only those of values are filled.
    """
    for row in range(len(codes)):
        size = rms[row, 0]
        for i in range(codes.shape[1]):
            code = codes[row, i]
            if used[0]:
                on_weight[row, i] += on_a[row, i] * mixed[1, code]
                histograms[0, code] += on_a[row, i] * size
            if used[1]:
                on_weight[row, i] += on_b[row, i] * mixed[3, code]
                histograms[2, code] += on_b[row, i] * size
            if used[2]:
                on_weight[row, i] += on_b[row, i] * size * mixed[5, code]
                histograms[4, code] += on_b[row, i] * size * size
