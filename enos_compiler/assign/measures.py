# SPDX-License-Identifier: Apache-2.0
"""Names of what a budget may bind."""

from __future__ import annotations

from typing import Literal, get_args

Measure = Literal["energy", "latency", "area", "memory", "edp", "edap"]
MEASURES: tuple[str, ...] = get_args(Measure)
_FACTORS: dict[str, tuple[str, ...]] = {
    "edp": ("energy", "latency"),
    "edap": ("energy", "latency", "area"),
}


def factors(measure: str) -> tuple[str, ...]:
    """Return the figures whose product a measure is."""
    return _FACTORS.get(measure, (measure,))
