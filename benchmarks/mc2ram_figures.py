# SPDX-License-Identifier: Apache-2.0
"""The figures of `mc2ram.py`, drawn from what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svg_figures import plt, save

COLOURS = ("#1f4e79", "#d2691e", "#4c9f70", "#8f5ea8", "#7a7a7a")
PANELS = (
    ("bits", ("weight bits", "proposal bits", "ADC bits", "ADC bits, 4 columns merged")),
    ("steps between refreshes (0: never)", ("refresh interval",)),
    ("mismatch of cells", ("mismatch",)),
    ("bias of random cells", ("RNG bias",)),
)


def draw(data: Mapping[str, Any], folder: Path) -> None:
    """Write `mc2ram_quality.svg` and `mc2ram_energy.svg`."""
    for name, figure in (("quality", _quality(data)), ("energy", _energy(data))):
        save(figure, folder / f"mc2ram_{name}.svg")


def _quality(data: Mapping[str, Any]) -> Any:
    """Total variation over what is varied, the exact sampler's as a line."""
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 5.6), sharey=True, layout="constrained")
    for axis, (title, prefixes) in zip(axes.flat, PANELS, strict=True):
        names = dict.fromkeys(
            row["name"]
            for row in data["sweeps"]
            if row["name"] in prefixes or row["name"].startswith(tuple(f"{p}," for p in prefixes))
        )
        for name, colour in zip(names, COLOURS, strict=False):
            rows = [r for r in data["sweeps"] if r["name"] == name and "tv" in r]
            places = range(len(rows)) if "refresh interval" in name else [r["value"] for r in rows]
            label = name.removeprefix("refresh interval, ").removeprefix("RNG bias, ")
            axis.plot(places, [r["tv"] for r in rows], "o-", color=colour, label=label, ms=3.5)
            if "refresh interval" in name:
                axis.set_xticks(list(places), [f"{r['value']}" for r in rows])
        axis.axhline(data["floor"]["tv"], color="#999999", linestyle="--", linewidth=1)
        axis.set_yscale("log")
        axis.set_xlabel(title)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    for axis in axes[:, 0]:
        axis.set_ylabel("total variation")
    figure.suptitle("dashed: as many exact samples", fontsize=9, color="#777777")
    return figure


def _energy(data: Mapping[str, Any]) -> Any:
    """Energy of a step by component at the published point."""
    figure, axis = plt.subplots(figsize=(8.6, 2.2), layout="constrained")
    rows = data["published"][:2]
    parts = sorted(rows[0]["parts_pj"], key=lambda part: -rows[0]["parts_pj"][part])
    shades = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]  # a listed colour map
    for place, row in enumerate(rows):
        left = 0.0
        for part, shade in zip(parts, shades, strict=False):
            width = row["parts_pj"].get(part, 0.0)
            label = part if place == 0 else None
            axis.barh(place, width, left=left, color=shade, label=label, linewidth=0)
            left += width
        axis.text(left, place, f" {left:.1f} pJ", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("energy of one step of one chain (pJ), 2 dimensions, 2 components")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, ncols=6, loc="upper center", bbox_to_anchor=(0.45, -0.4))
    return figure
