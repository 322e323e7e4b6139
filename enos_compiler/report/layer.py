# SPDX-License-Identifier: Apache-2.0
"""One layer of a report in full: every action with its count, price and energy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from enos_compiler.errors import UsageError, nearest

_BAR = 12
_NAME = 34


def require_layer(name: str, layers: Collection[str]) -> None:
    """Refuse to explain a layer that is not there.

    Raises:
        UsageError: names the nearest.
    """
    if name not in layers:
        raise UsageError(
            f"there is no layer `{name}`", place="--explain", remedy=nearest(name, layers)
        )


def layer_text(report: Mapping[str, Any], name: str) -> str:
    """Return the actions of a layer, the dearest first, within 80 columns.

    Raises:
        UsageError: the report has no such layer; names the nearest.
    """
    rows = {row["name"]: row for row in report["layers"]}
    require_layer(name, rows)
    return "\n".join(_lines(rows[name], report["sections"]["pricing"]["prices"]))


def _lines(row: Mapping[str, Any], prices: Mapping[str, Any]) -> Iterator[str]:
    bits = "/".join(str(row["bits"][key]) for key in ("input", "weight", "output"))
    yield f"{row['name']}: {row['operator']} {bits} on {row['core']}, {row['macs']:,} MACs"
    yield ""
    yield f"{'action':{_NAME}} {'events':>14} {'pJ each':>9} {'share':>6}"
    energies = {a: n * prices[a]["energy_pj"] for a, n in row["events"].items()}
    total = sum(energies.values()) or 1.0
    for action in sorted(energies, key=lambda a: (-energies[a], a)):
        share = energies[action] / total
        shown = action if len(action) <= _NAME else f"{action[: _NAME - 3]}..."
        events, price = row["events"][action], prices[action]["energy_pj"]
        bar = "\u2588" * round(share * _BAR)
        yield f"{shown:{_NAME}} {events:14,} {price:9.4g} {share:6.1%} {bar}".rstrip()
