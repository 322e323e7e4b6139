# SPDX-License-Identifier: Apache-2.0
"""What a person reads of crossbars: how full they are, and what their converters do to sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def crossbar_lines(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and text of the facts about crossbars; none where no layer lies on any."""
    sizes = report["sections"].get("map-cim", {}).get("crossbars", ())
    if sizes:
        yield "crossbars", "\n".join(_filling(size) for size in sizes)
    found = report["sections"].get("converters")
    if found is not None:
        yield "converters", _converters(found)


def _filling(size: Mapping[str, Any]) -> str:
    over = ", more than there are" if size["used"] > size["count"] else ""
    return (
        f"{size['core']} {size['rows']}x{size['columns']}: {size['used']:,} of "
        f"{size['count']:,} arrays{over}, {size['utilisation']:.0%} full"
    )


def _converters(found: Mapping[str, Any]) -> str:
    left_out = "; model.onnx leaves them out" if found["onnx"] == "plain" else ""
    rows = found["layers"]
    if not rows:
        return f"change sums of some layers; what they clip was not counted{left_out}"
    clipped = sum(row["saturated"] for row in rows)
    total = sum(row["conversions"] for row in rows)
    layers = f"{len(rows)} layer{'' if len(rows) == 1 else 's'}"
    return (
        f"change the sums of {layers}; {clipped:,} of {total:,} conversions clipped, on "
        f"{found['inputs']:,} input{'' if found['inputs'] == 1 else 's'}{left_out}"
    )
