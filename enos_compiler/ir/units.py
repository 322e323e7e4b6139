# SPDX-License-Identifier: Apache-2.0
"""Figures in the unit that a person would choose."""

from __future__ import annotations

_ENERGY = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))
_TIME = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))
_AREA = ((1e6, "mm2"), (1.0, "um2"))
_MEMORY = ((8.0 * 2**20, "MiB"), (8.0 * 2**10, "KiB"), (1.0, "bit"))
_PRODUCTS = {"edp": "pJ ns", "edap": "pJ ns um2"}


def energy_text(pj: float, *, like: float | None = None) -> str:
    """Return an energy in pJ as text with three digits and an adaptive unit, e.g. `1.37 uJ`.

    Args:
        pj: the energy.
        like: an energy whose unit to use, so that the figures of one message compare at a glance.
    """
    return _text(pj, _ENERGY, pj if like is None else like)


def time_text(ns: float) -> str:
    """Return a time in ns as text with three digits and an adaptive unit, e.g. `42.0 us`."""
    return _text(ns, _TIME, ns)


def measure_text(measure: str, value: float) -> str:
    """Return a figure that a budget may bind as text with its unit.

    Args:
        measure: `energy`, `latency`, `area`, `memory`, `edp` or `edap`.
        value: in pJ, ns, um2, bits, or their product.
    """
    if unit := _PRODUCTS.get(measure):
        return f"{value:.4g} {unit}"
    units = {"energy": _ENERGY, "latency": _TIME, "area": _AREA, "memory": _MEMORY}[measure]
    return _text(value, units, value)


def _text(value: float, units: tuple[tuple[float, str], ...], like: float) -> str:
    """Round first, so that 999.96 nJ reads 1.00 uJ and never 1e+03 nJ."""
    size = float(f"{abs(like):.3g}")
    factor, unit = next((u for u in units if size >= u[0]), units[-1])
    scaled = value / factor
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{digits}f} {unit}"
