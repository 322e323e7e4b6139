# SPDX-License-Identifier: Apache-2.0
"""How a matrix is cut: rows into blocks, weights into slices, inputs into digits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating[Any]]
SplitRule = Literal["full", "even", "equal", "max"]


def split(extent: int, cap: int, rule: SplitRule = "full") -> tuple[slice, ...]:
    """Cut `extent` lines into ceil(extent / cap) consecutive blocks.

    full: blocks of `cap` and a rest. even: sizes differ by at most one, the longer ones first.
    equal and max are the rules of one reference tool, kept for its cases: equal blocks where the
    count divides the extent; else `max` is `full`, and under `equal` all blocks but the last have
    round(extent / blocks) lines, half to even, the last one takes the rest and can exceed `cap`.
    """
    blocks = -(-extent // cap)
    if rule == "even":
        sizes = [extent // blocks + (i < extent % blocks) for i in range(blocks)]
    else:
        size = cap
        if rule != "full" and extent % blocks == 0:
            size = extent // blocks
        elif rule == "equal":
            size = round(extent / blocks)
        sizes = [size] * (blocks - 1)
        sizes.append(extent - sum(sizes))
    edges = np.cumsum([0, *sizes])
    return tuple(slice(int(a), int(b)) for a, b in pairwise(edges))


def digit_widths(bits: int, width: int) -> tuple[int, ...]:
    """Widths of the digits of a `bits`-bit magnitude, least significant first, the last short."""
    return tuple(min(width, bits - k) for k in range(0, bits, width))


def digits(codes: IntArray, bits: int, width: int) -> list[IntArray]:
    """Digits of non-negative or signed `codes`, least significant first, the sign on every digit.

    `codes = sum_k 2**(k * width) * digits[k]`.
    """
    sign, magnitude = np.sign(codes), np.abs(codes)
    mask = (1 << width) - 1
    return [sign * ((magnitude >> (k * width)) & mask) for k in range(-(-bits // width))]
