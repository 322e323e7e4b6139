# SPDX-License-Identifier: Apache-2.0
"""The l1 distances of windows and kernels, and their surrogate gradient, as loops for numba.

A window of an image is a place in its memory, `origins`, and its taps are `offsets` from there, so
that strides, dilations, groups and memory orders are all alike. BLOCK windows at a time make a tile
(taps, BLOCK) that stays in the fastest memory. Source: AdderNet, as `adder_training` says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Places = NDArray[np.uint64]

BLOCK = 64
"""Windows of a tile."""
TOGETHER = 4
"""Taps or channels that a pass over a tile takes together."""


def distances(
    begin: int,
    end: int,
    images: Floats,
    weight: Floats,
    origins: Places,
    offsets: Places,
    out: Floats,
) -> None:
    """Set out = -sum |x - w|.

    Args:
        begin: first image.
        end: image behind the last.
        images: (N, size) padded, in any memory order.
        weight: (G, M, taps).
        origins: (windows,) where a window begins in an image.
        offsets: (G, taps) where its taps are from there.
        out: (N, windows, G * M).
    """
    groups, channels, taps = weight.shape
    tile = np.zeros((taps, BLOCK), np.float32)
    sums = np.zeros(BLOCK, np.float32)
    for n in range(begin, end):
        image = images[n]
        for first in range(0, len(origins), BLOCK):
            count = min(BLOCK, len(origins) - first)
            for g in range(groups):
                for t in range(taps):
                    for i in range(count):
                        tile[t, i] = image[offsets[g, t] + origins[first + i]]
                for m in range(channels):
                    sums[:] = 0.0
                    for t in range(0, taps - taps % TOGETHER, TOGETHER):
                        w0, w1 = weight[g, m, t], weight[g, m, t + 1]
                        w2, w3 = weight[g, m, t + 2], weight[g, m, t + 3]
                        for i in range(BLOCK):
                            one = abs(tile[t, i] - w0) + abs(tile[t + 1, i] - w1)
                            other = abs(tile[t + 2, i] - w2) + abs(tile[t + 3, i] - w3)
                            sums[i] += one + other
                    for t in range(taps - taps % TOGETHER, taps):
                        for i in range(BLOCK):
                            sums[i] += abs(tile[t, i] - weight[g, m, t])
                    for i in range(count):
                        out[n, first + i, g * channels + m] = -sums[i]


def pull_back(
    begin: int,
    end: int,
    images: Floats,
    weight: Floats,
    origins: Places,
    offsets: Places,
    upstream: Floats,
    on_images: Floats,
) -> None:
    """Add, to the gradient of every tap, the sum over channels of upstream * clip(w - x, -1, 1).

    Args:
        begin: first image.
        end: image behind the last.
        images: (N, size) padded, in any memory order.
        weight: (G, channels, taps), with channels of anything behind the M up to a whole number of
            times TOGETHER.
        origins: (windows,) where a window begins in an image.
        offsets: (G, taps) where its taps are from there.
        upstream: (N, windows, G * M).
        on_images: (N, size), added to.
    """
    groups, padded, taps = weight.shape
    channels = upstream.shape[2] // groups
    above, below = np.float32(1.0), np.float32(-1.0)
    behind = np.zeros((padded, BLOCK), np.float32)
    taken = np.zeros(BLOCK, np.float32)
    sums = np.zeros(BLOCK, np.float32)
    for n in range(begin, end):
        image = images[n]
        for first in range(0, len(origins), BLOCK):
            count = min(BLOCK, len(origins) - first)
            for g in range(groups):
                for m in range(channels):
                    for i in range(count):
                        behind[m, i] = upstream[n, first + i, g * channels + m]
                for t in range(taps):
                    place = offsets[g, t]
                    for i in range(count):
                        taken[i] = image[place + origins[first + i]]
                    sums[:] = 0.0
                    for m in range(0, padded, TOGETHER):
                        w0, w1 = weight[g, m, t], weight[g, m + 1, t]
                        w2, w3 = weight[g, m + 2, t], weight[g, m + 3, t]
                        for i in range(BLOCK):
                            x = taken[i]
                            one = behind[m, i] * max(min(w0 - x, above), below)
                            two = behind[m + 1, i] * max(min(w1 - x, above), below)
                            three = behind[m + 2, i] * max(min(w2 - x, above), below)
                            four = behind[m + 3, i] * max(min(w3 - x, above), below)
                            sums[i] += (one + two) + (three + four)
                    for i in range(count):
                        on_images[n, place + origins[first + i]] += sums[i]
