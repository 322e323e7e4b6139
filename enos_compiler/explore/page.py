# SPDX-License-Identifier: Apache-2.0
"""`front.html`: the front as one page that opens offline, drawn from `front.json` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enos_compiler.report.single_page import single_page

_SCRIPTS = ("found", "scatter", "bits", "parts", "progress", "points", "start")
"""In the order in which they run."""


def front_html(front: Mapping[str, Any]) -> str:
    """Return the page of a front, complete in itself.

    Args:
        front: what `front.json` holds.
    """
    return single_page(
        f"Front of {front['model']} on {front['target']}",
        {"front": front},
        package="enos_compiler.explore",
        scripts=_SCRIPTS,
        styles=("front",),
        without_script="This page draws front.json with JavaScript; front.csv has its numbers too.",
    )
