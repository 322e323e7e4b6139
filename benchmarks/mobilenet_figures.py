# SPDX-License-Identifier: Apache-2.0
"""The figures of `mobilenet_bits.py`, drawn from the totals that it measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from svg_figures import plt, save

Total = Mapping[str, Any]
"""A total as in the JSON file: network, setting, reading, objective, weight_bits, energy_mj, mj."""
TARGETS = ("eyeriss", "simba")
COLOURS = {
    "MAC": "#a6a6a6",
    "weight_regs": "#d9c2e9",
    "psum_spad": "#d1495b",
    "accum_buffer": "#d1495b",
    "weights_spad": "#66a182",
    "weight_buffer": "#66a182",
    "ifmap_spad": "#edae49",
    "input_buffer": "#edae49",
    "shared_glb": "#7fb2d9",
    "global_buffer": "#7fb2d9",
    "DRAM": "#2e4057",
}
LINES = {
    "eyeriss": ("eyeriss: 16-bit words, exact sums", "#1f4e79"),
    "eyeriss_like": ("reference, 16-bit words", "#d2691e"),
    "eyeriss_like_w8": ("reference, 8-bit words", "#4c9f70"),
    "simba": ("simba: 16-bit words, exact sums", "#1f4e79"),
    "simba_like_w16": ("reference, 16-bit words", "#d2691e"),
    "simba_like": ("reference, 8-bit words", "#4c9f70"),
}

STEPS: dict[str, Any] = {"drawstyle": "steps-mid", "markersize": 3.5, "linewidth": 1.4}


def draw(totals: Sequence[Total], folder: Path) -> None:
    """Write `mobilenet_bits_levels.svg` and `mobilenet_bits_savings.svg`."""
    edp = [t for t in totals if t["objective"] == "edp"]
    for name, figure in (("levels", _levels(edp)), ("savings", _savings(edp))):
        save(figure, folder / f"mobilenet_bits_{name}.svg")


def _pick(totals: Sequence[Total], **wanted: object) -> list[Total]:
    return [t for t in totals if all(t[name] == value for name, value in wanted.items())]


def _levels(totals: Sequence[Total]) -> Any:
    """Stacked energy by level over weight width; a panel per network and shipped target."""
    names = list(dict.fromkeys(t["network"] for t in totals))
    figure, axes = plt.subplots(
        len(names), 2, figsize=(8.6, 2.8 * len(names)), squeeze=False, layout="constrained"
    )
    for line, network in zip(axes, names, strict=True):
        for axis, name in zip(line, TARGETS, strict=True):
            chosen = _pick(totals, network=network, setting=name, reading="grouped")
            _stack(axis, chosen)
            axis.set_title(f"{network} on {name}", fontsize=10)
    for axis in axes[0]:
        handles, labels = axis.get_legend_handles_labels()
        style: dict[str, Any] = {"fontsize": 8, "frameon": False, "bbox_to_anchor": (1.0, 1.0)}
        axis.legend(handles[::-1], labels[::-1], loc="upper left", **style)
    return figure


def _stack(axis: Any, chosen: Sequence[Total]) -> None:
    """Draw one panel of bars, the multiply-accumulates at the bottom."""
    bottom = [0.0] * len(chosen)
    places = range(len(chosen))
    for part in chosen[0]["energy_mj"]:
        heights = [t["energy_mj"][part] for t in chosen]
        bars = _bars(bottom, heights)
        axis.add_patch(PathPatch(bars, facecolor=COLOURS[part], linewidth=0, label=part))
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    for place, top in zip(places, bottom, strict=True):
        axis.text(place, top, f"{top:.2f}", ha="center", va="bottom", fontsize=8)
    axis.set_xticks(list(places), [str(t["weight_bits"]) for t in chosen])
    axis.set_xlim(-0.6, len(chosen) - 0.4)
    axis.set_ylim(0, 1.1 * max(bottom))
    axis.set_xlabel("weight width (bits)")
    axis.set_ylabel("energy per image (mJ)")
    axis.spines[["top", "right"]].set_visible(False)


def _bars(bottom: Sequence[float], heights: Sequence[float]) -> Outline:
    """Return one outline for all bars of a part; an outline each makes a large file."""
    outlines = []
    for place, (low, height) in enumerate(zip(bottom, heights, strict=True)):
        left, right, high = place - 0.375, place + 0.375, low + height
        corners = [(left, low), (right, low), (right, high), (left, high), (left, low)]
        outlines.append(Outline(corners, closed=True))
    return Outline.make_compound_path(*outlines)


def _savings(totals: Sequence[Total]) -> Any:
    """Energy relative to 8-bit weights; columns are families of machines, lines are readings."""
    figure, axes = plt.subplots(
        2, 2, figsize=(8.6, 5.2), sharex=True, sharey=True, layout="constrained"
    )
    network = totals[0]["network"]
    titles = {"grouped": "depthwise layers as they are", "dense": "depthwise layers read as dense"}
    for line, (reading, title) in zip(axes, titles.items(), strict=True):
        for axis, target in zip(line, TARGETS, strict=True):
            for name, (label, colour) in LINES.items():
                chosen = _pick(totals, network=network, setting=name, reading=reading)
                if chosen and name.startswith(target):
                    bits = [t["weight_bits"] for t in chosen]
                    share = [100 * t["mj"] / chosen[0]["mj"] for t in chosen]
                    axis.plot(bits, share, "o-", color=colour, label=label, **STEPS)
            axis.set_title(f"{target.capitalize()}-like: {title}", fontsize=9)
            axis.grid(axis="y", color="#dddddd", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("energy (% of 8-bit weights)")
    axes[0][0].invert_xaxis()
    for axis in axes[1]:
        axis.set_xlabel("weight width (bits)")
    for axis in axes[0]:
        axis.legend(fontsize=8, frameon=False, loc="lower left")
    figure.suptitle(network, fontsize=10)
    return figure
