# SPDX-License-Identifier: Apache-2.0
"""`layers.csv`: the report's layers as a table, units in the column names."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    "name",
    "kind",
    "core",
    "operator",
    "input_bits",
    "weight_bits",
    "output_bits",
    "options",
    "macs",
    "energy_pj",
    "energy_share",
    "latency_ns",
    "start_ns",
    "end_ns",
    "score",
)


def layer_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a layer; `energy_share` is its fraction of the total energy."""
    total_pj = report["totals"]["energy_pj"]
    return [
        {
            **{column: layer[column] for column in COLUMNS if column in layer},
            "input_bits": layer["bits"]["input"],
            "weight_bits": layer["bits"]["weight"],
            "output_bits": layer["bits"]["output"],
            "options": " ".join(f"{k}={v}" for k, v in layer["options"].items()),
            "energy_share": layer["energy_pj"] / total_pj if total_pj else 0.0,
        }
        for layer in report["layers"]
    ]


def write_csv(report: Mapping[str, Any], path: Path) -> None:
    """Write the layers of a report as comma-separated values with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(layer_rows(report))
