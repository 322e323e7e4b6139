# SPDX-License-Identifier: Apache-2.0
"""The figure of `quant_mapping.py`: noise against energy saved, a panel per network and chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svg_figures import plt, save

AIM = 37.0


def draw(studies: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write `quant_mapping_fronts.svg`."""
    targets = list(studies[0]["fronts"])
    size = (8.6, 2.9 * len(studies))
    figure, axes = plt.subplots(
        len(studies), len(targets), figsize=size, squeeze=False, layout="constrained"
    )
    for line, study in zip(axes, studies, strict=True):
        for axis, target in zip(line, targets, strict=True):
            _panel(axis, study, target)
    axes[0][0].legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, folder / "quant_mapping_fronts.svg")


def _panel(axis: Any, study: Mapping[str, Any], target: str) -> None:
    for front, label, colour in (
        (study["fronts"][target], "bits chosen with mappings", "#1f4e79"),
        (study["by_size"][target], "bits chosen by size", "#d1495b"),
    ):
        ordered = sorted((100 * saved, noise) for noise, saved, _ in front)
        axis.plot(*zip(*ordered, strict=True), "-", color=colour, label=label, linewidth=1.2)
    uniform = [r for r in study["rows"] if r["tier"] == "proxy"]
    axis.plot(
        [100 * r["saved"][target] for r in uniform],
        [r["noise"] for r in uniform],
        "o",
        color="#2e4057",
        markerfacecolor="white",
        label="uniform",
    )
    axis.axvline(AIM, color="#a6a6a6", linewidth=1, linestyle=":")
    axis.set_yscale("log")
    axis.set_xlabel("energy saved against uniform 8 bits (%)")
    axis.set_ylabel("noise to signal at the output")
    axis.set_title(f"{study['network']} on {target}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
