# SPDX-License-Identifier: Apache-2.0
"""How the benchmarks' figures look and are written: small files, equal for equal figures."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small files, words that can be searched
    "svg.hashsalt": "enos",  # equal figures are equal files
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 9,
    "axes.axisbelow": True,
}

plt.style.use(STYLE)


def save(figure: Any, file: Path) -> None:
    """Write a figure as SVG, its folder if there is none, and close it."""
    text = StringIO()
    figure.savefig(text, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    short = re.sub(r"(\.\d\d)\d+", r"\1", text.getvalue())  # hundredths of a point are enough
    file.write_text(short, encoding="utf-8")
