# SPDX-License-Identifier: Apache-2.0
"""Passes as text: `assign{budget=floor+0.5 time_limit_s=30},quantize` and back."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import MISSING, fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from enos_compiler import plugins
from enos_compiler.errors import UsageError, nearest

if TYPE_CHECKING:
    from enos_compiler.pipeline import Pass

_STEP = re.compile(r"\s*([A-Za-z][\w.-]*)\s*(?:\{([^{}]*)\})?\s*(,|$)")


def parse_passes(text: str) -> tuple[Pass, ...]:
    """Parse a comma-separated list of passes with options in braces.

    Options are `name=value`, separated by spaces; values of a tuple are separated by `|`.

    Raises:
        UsageError: the grammar, a pass, an option or a value is wrong; names what is known.
    """
    steps: list[Pass] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if not match:
            raise UsageError(
                f"cannot read `{text[position:]}`",
                place=f"pass list, character {position + 1}",
                remedy="name{option=value option=value},name,...",
            )
        steps.append(make_pass(match[1], _options(match[1], match[2] or "")))
        position = match.end()
    if not steps:
        raise UsageError("the pass list is empty", remedy="--passes 'canonicalize,...'")
    return tuple(steps)


def _options(name: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in text.split():
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"option `{item}` is not of the form name=value", place=f"pass {name}")
        if key in options:
            raise UsageError(f"option `{key}` is given twice", place=f"pass {name}")
        options[key] = value
    return options


def make_pass(name: str, options: dict[str, str] | None = None) -> Pass:
    """Return the pass `name` with options given as text, parsed by each field's type.

    Raises:
        UsageError: unknown pass, unknown option, or a value that the type does not take.
    """
    cls = plugins.load("passes", name)
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for key, text in (options or {}).items():
        if key not in hints:
            raise UsageError(
                f"unknown option `{key}`", place=f"pass {name}", remedy=nearest(key, hints)
            )
        values[key] = _parse(text, hints[key], place=f"pass {name}, option {key}")
    built: Pass = cls(**values)
    return built


@cache
def _hints(cls: type[Pass]) -> dict[str, Any]:
    resolved = get_type_hints(cls)
    return {f.name: resolved[f.name] for f in fields(cls)}


def _parse(text: str, hint: Any, *, place: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    given: Any = text
    if get_origin(hint) is tuple:
        given = tuple(text.split("|"))
    elif text == "none" and type(None) in get_args(hint):
        given = None
    try:
        return TypeAdapter(hint).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"`{text}` is not valid: {first['msg']}", place=place, remedy=f"a {_type_name(hint)}"
        ) from error


def _type_name(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"list of {_type_name(get_args(hint)[0])} separated by |"
    return getattr(hint, "__name__", str(hint))


def format_pass(step: Pass) -> str:
    """Return the text that parses back to the pass; options at their default are left out."""
    options = []
    for f in fields(step):
        value = getattr(step, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value != default:
            options.append(f"{f.name}={_format(value)}")
    return step.name + (f"{{{' '.join(options)}}}" if options else "")


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return "|".join(map(str, value))
    return "none" if value is None else str(value)


def help_text(name: str) -> str:
    """Return a pass's help: its docstring, what it requires and ensures, its options."""
    cls = plugins.load("passes", name)
    documents = _field_docs(cls)
    lines = [f"{name}: {inspect.getdoc(cls) or ''}", ""]
    lines.append(f"requires: {', '.join(sorted(cls.requires)) or 'nothing'}")
    lines.append(f"ensures:  {', '.join(sorted(cls.ensures)) or 'nothing'}")
    hints = _hints(cls)
    if hints:
        lines += ["", "options:"]
    for f in fields(cls):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        lines.append(f"  {f.name}={_format(default)}  ({_type_name(hints[f.name])})")
        if f.name in documents:
            lines.append(textwrap.indent(textwrap.fill(documents[f.name], 72), "      "))
    return "\n".join(lines)


def _field_docs(cls: type[Pass]) -> dict[str, str]:
    """Read the docstrings that stand under the fields of a pass."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    found: dict[str, str] = {}
    if isinstance(tree, ast.ClassDef):
        for item, following in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
                and isinstance(following.value.value, str)
            ):
                found[item.target.id] = inspect.cleandoc(following.value.value)
    return found
