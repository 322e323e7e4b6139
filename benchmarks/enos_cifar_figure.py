# SPDX-License-Identifier: Apache-2.0
"""The primary results of `enos_cifar.py`: test accuracy over energy, one panel a setting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svg_figures import plt, save

Result = dict[str, Any]
COLOURS = {"ours": "#d2691e", "mac": "#1f4e79", "uniform": "#4c9f70", "random": "#7a7a7a"}
SHOWN = 0.2
"""Networks whose accuracy is further below the best are named, not drawn."""
WORDS = {"ours": "searched", "mac": "searched, mac alone", "uniform": "uniform", "random": "random"}


def draw(results: Sequence[Result], path: Path) -> None:
    """Write the figure: a point per network, its mean over seeds and every seed's own."""
    primary = [r for r in results if r["part"] == "primary" and "test_accuracy" in r]
    settings = list(dict.fromkeys(r["setting"] for r in primary))
    figure, axes = plt.subplots(
        1, len(settings), figsize=(4.3 * len(settings), 3.4), squeeze=False, layout="constrained"
    )
    for axis, setting in zip(axes.flat, settings, strict=True):
        _panel(axis, [r for r in primary if r["setting"] == setting], setting)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    save(figure, path)


def _panel(axis: Any, rows: Sequence[Result], setting: str) -> None:
    axis.set(title=setting, xlabel="energy an inference (uJ)", ylabel="test accuracy (%)")
    axis.grid(alpha=0.3)
    axis.axvline(rows[0]["budget_pj"] / 1e6, color="black", lw=0.8, ls="--")
    named: set[str] = set()
    best = max(r["test_accuracy"] for r in rows)
    below = [r["kind"] for r in rows if r["test_accuracy"] < best - SHOWN]
    if below:
        axis.set_title(f"{setting} (far below: {', '.join(dict.fromkeys(below))})")
    for kind in dict.fromkeys(r["kind"] for r in rows if r["kind"] not in below):
        same = [r for r in rows if r["kind"] == kind]
        family = kind.split()[0]
        x = [r["energy_pj"] / 1e6 for r in same]
        y = [100 * r["test_accuracy"] for r in same]
        axis.plot(x, y, ".", ms=3, color=COLOURS[family], alpha=0.6)
        label = None if family in named else WORDS[family]
        mean = statistics.mean(x), statistics.mean(y)
        axis.plot(*mean, "o", ms=6, color=COLOURS[family], label=label)
        if family == "uniform":
            text = kind.removeprefix("uniform ")
            axis.annotate(text, mean, (4, -10), textcoords="offset points", fontsize=7)
        named.add(family)
    axis.margins(0.12)
