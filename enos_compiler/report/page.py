# SPDX-License-Identifier: Apache-2.0
"""`report.html`: the report as one page that opens offline and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enos_compiler.report.layout import lay_out
from enos_compiler.report.single_page import single_page

_SCRIPTS = (
    "report",
    "colours",
    "head",
    "energy",
    "map",
    "gantt",
    "roofline",
    "crossbars",
    "front",
    "devices",
    "tables",
    "sheet",
    "main",
)
"""In the order in which they run."""


def page_html(report: Mapping[str, Any]) -> str:
    """Return the page of a report, complete in itself."""
    return single_page(
        f"{report['model']} on {report['target']}",
        {"report": report, "layout": _layout(report)},
        package="enos_compiler.report",
        scripts=_SCRIPTS,
        without_script="This page draws report.json with JavaScript; the terminal summary of "
        "<code>enosc</code> and layers.csv have the same numbers.",
    )


def write_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the page of a report."""
    path.write_text(page_html(report), encoding="utf-8")


def _layout(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return where the operations stand; those that cost nothing are left out."""
    graph = report["sections"].get("graph")
    if graph is None:
        return None
    rows = (*report["vector"], *report["host"])
    free = [row["name"] for row in rows if not row["energy_pj"] and not row["latency_ns"]]
    return lay_out(graph, free)
