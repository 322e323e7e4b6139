# SPDX-License-Identifier: Apache-2.0
"""A picture of how each layer's choice probabilities moved over the epochs, as plain SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Shares = Mapping[str, Mapping[str, float]]
"""By layer, probability by arithmetic."""

WIDTH, HEIGHT, GAP, COLUMNS = 220, 90, 26, 4
"""Of one layer's field in pixels, and fields in a row."""
_COLOURS = {
    "mac": "#4477aa",
    "bw": "#66ccee",
    "mf": "#228833",
    "ef": "#99cc66",
    "shift": "#ccbb44",
    "xnor": "#ee6677",
    "adder": "#aa3377",
}
"""By operator: the bright scheme of P. Tol for colour-blind readers (remembered), ef added."""
_OTHER = "#bbbbbb"


def shares_svg(history: Sequence[Shares]) -> str:
    """Return stacked areas, one field per layer: an operator's share over the epochs.

    Args:
        history: one entry per epoch.
    """
    layers = list(history[-1]) if history else []
    rows = -(-len(layers) // COLUMNS)
    width = COLUMNS * (WIDTH + GAP) + GAP
    height = rows * (HEIGHT + GAP) + 2 * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        "<title>choice probabilities by layer over the epochs</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, layer in enumerate(layers):
        left = GAP + number % COLUMNS * (WIDTH + GAP)
        top = GAP + number // COLUMNS * (HEIGHT + GAP)
        parts.append(f'<g transform="translate({left},{top})">')
        parts.append(f'<text x="0" y="-4">{escape(layer)}</text>')
        parts += _field([_by_operator(epoch.get(layer, {})) for epoch in history])
        parts.append("</g>")
    parts += _legend(height - GAP // 2)
    return "\n".join([*parts, "</svg>", ""])


def _by_operator(shares: Mapping[str, float]) -> dict[str, float]:
    """Sum shares by operator; what a record left out is spread as the rest."""
    sums: dict[str, float] = {}
    for label, share in shares.items():
        operator = label.split(" ", 1)[0]
        sums[operator] = sums.get(operator, 0.0) + share
    whole = sum(sums.values()) or 1.0
    return {operator: share / whole for operator, share in sums.items()}


def _field(epochs: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the areas of one layer from the bottom up, and a frame."""
    points = list(epochs) if len(epochs) > 1 else list(epochs) * 2
    operators = sorted({o for epoch in points for o in epoch}, key=_place)
    base = [0.0] * len(points)
    step = WIDTH / (len(points) - 1)
    areas = []
    for operator in operators:
        top = [b + epoch.get(operator, 0.0) for b, epoch in zip(base, points, strict=True)]
        outline = [(i * step, HEIGHT * (1 - y)) for i, y in enumerate(top)]
        outline += [(i * step, HEIGHT * (1 - y)) for i, y in reversed(list(enumerate(base)))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
        colour = _COLOURS.get(operator, _OTHER)
        areas.append(
            f'<polygon points="{path}" fill="{colour}"><title>{escape(operator)}</title></polygon>'
        )
        base = top
    frame = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888888"/>'
    return [*areas, frame]


def _legend(y: int) -> list[str]:
    parts = []
    for number, (operator, colour) in enumerate(_COLOURS.items()):
        x = GAP + number * 90
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}">{operator}</text>')
    return parts


def _place(operator: str) -> tuple[int, str]:
    known = list(_COLOURS)
    return (known.index(operator) if operator in known else len(known), operator)
