# SPDX-License-Identifier: Apache-2.0
"""One file that opens offline and asks the network for nothing: the frame of every page.

A page holds its data as JSON and draws them in the browser with its scripts, plain SVG and HTML.
What the user named enters as text only; a content security policy forbids every request and every
script but the page's own. Scripts and style that pages share stand in `assets`: `dom`, `format`,
`tip` and `frame`, in the order in which they run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

SHARED_SCRIPTS = ("dom", "format", "tip", "frame")
_PACKAGE = "enos_compiler.report"
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def single_page(
    title: str,
    data: Mapping[str, Any],
    *,
    package: str,
    scripts: Sequence[str],
    styles: Sequence[str] = (),
    without_script: str,
) -> str:
    """Return a page, complete in itself.

    Args:
        title: of the window, as text.
        data: what the scripts find as `data`; JSON-able, every number finite.
        package: whose folder `assets` has the page's own scripts and styles.
        scripts: their names, in the order in which they run, behind the shared ones; all share one
            scope.
        styles: behind the shared one.
        without_script: what stands there where scripts are off, as markup.
    """
    style = "".join([_asset(_PACKAGE, "page.css"), *(_asset(package, f"{n}.css") for n in styles)])
    script = _script(package, tuple(scripts))
    content = {
        "title": html.escape(title),
        "style": style,
        "style_hash": _csp_hash(style),
        "script": script,
        "script_hash": _csp_hash(script),
        "data": _inert(data),
        "without_script": without_script,
    }
    return _SLOT.sub(lambda found: content[found[1]], _asset(_PACKAGE, "page.html"))


def _inert(document: Mapping[str, Any]) -> str:
    """Return JSON that no HTML parser takes for markup, whatever names it holds."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _script(package: str, own: tuple[str, ...]) -> str:
    shared: Iterable[str] = (_asset(_PACKAGE, f"{name}.js") for name in SHARED_SCRIPTS)
    parts = "\n".join([*shared, *(_asset(package, f"{name}.js") for name in own)])
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


@cache
def _asset(package: str, name: str) -> str:
    return files(package).joinpath("assets", name).read_text("utf-8")


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
