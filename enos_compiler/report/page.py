# SPDX-License-Identifier: Apache-2.0
"""`report.html`: the report as one page that opens offline and asks the network for nothing.

The page holds the report as JSON and draws it in the browser with the scripts of `assets`, plain
SVG and HTML. What the user named enters as text only; a content security policy forbids every
request and every script but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from enos_compiler.report.layout import lay_out

_SCRIPTS = (
    "dom",
    "format",
    "colours",
    "tip",
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
"""In the order in which they run; they share one scope."""
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def page_html(report: Mapping[str, Any]) -> str:
    """Return the page of a report, complete in itself."""
    style, script = _asset("page.css"), _script()
    content = {
        "title": html.escape(f"{report['model']} on {report['target']}"),
        "style": style,
        "style_hash": _csp_hash(style),
        "script": script,
        "script_hash": _csp_hash(script),
        "data": _inert({"report": report, "layout": _layout(report)}),
    }
    return _SLOT.sub(lambda found: content[found[1]], _asset("page.html"))


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


def _inert(document: Mapping[str, Any]) -> str:
    """Return JSON that no HTML parser takes for markup, whatever names it holds."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _script() -> str:
    parts = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


@cache
def _asset(name: str) -> str:
    return files("enos_compiler.report").joinpath("assets", name).read_text("utf-8")


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
