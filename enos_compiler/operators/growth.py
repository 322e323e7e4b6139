# SPDX-License-Identifier: Apache-2.0
"""How wide sums of many taps become."""

from __future__ import annotations


def growth_bits(taps: int) -> int:
    """Return ceil(log2 taps): the bits that a sum of `taps` terms is wider than one term."""
    return (taps - 1).bit_length()
