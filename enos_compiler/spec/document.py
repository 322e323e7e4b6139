# SPDX-License-Identifier: Apache-2.0
"""YAML text to plain data, with the line of every key, so that errors can point at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from enos_compiler.errors import SpecError

Path = tuple[str | int, ...]
"""Keys and list positions from the root of a document."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file: its data and where each part of it stands."""

    file: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of the nearest enclosing part that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def has(self, path: Path) -> bool:
        """Whether the file says something at `path`."""
        return path in self.lines

    def error(self, path: Path, problem: str, remedy: str | None = None) -> SpecError:
        """Return the error `file:line: dotted.path problem`, ready to be raised."""
        subject = self.dotted(path)
        return SpecError(
            f"{subject} {problem}" if subject else problem,
            place=f"{self.file}:{self.line(path)}",
            remedy=remedy,
        )

    def dotted(self, path: Path) -> str:
        """Return `cores[xbar].adc.bits` for ("cores", 1, "adc", "bits")."""
        text, here = "", self.data
        for key in path:
            here = _child(here, key)
            if isinstance(key, int):
                name = here.get("name") if isinstance(here, dict) else None
                text += f"[{name if isinstance(name, str) else key}]"
            else:
                text += f".{key}" if text else str(key)
        return text


def _child(data: Any, key: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(key)
    if isinstance(data, list) and isinstance(key, int) and key < len(data):
        return data[key]
    return None


def read_document(file: FilePath) -> Document:
    """Read a YAML file.

    Raises:
        SpecError: it cannot be read, is no YAML, is empty, or has a key twice in one block.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            place=str(file),
            remedy="give the path of a readable YAML file",
        ) from error
    return parse_document(text, str(file))


def parse_document(text: str, file: str) -> Document:
    """Parse YAML text; `file` is the name that messages use.

    Raises:
        SpecError: it is no YAML, is empty, or has a key twice in one block.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(
            f"is not valid YAML: {problem}",
            place=where,
            remedy="check indentation, colons and brackets at this line",
        ) from error
    if root is None:
        raise SpecError("is empty", place=file, remedy="write `schema: enos-target/1` first")
    builder = _Builder(file)
    return Document(file, builder.build(root, ()), builder.lines)


@dataclass(slots=True)
class _Builder:
    """Turns YAML nodes into plain data and notes their lines."""

    file: str
    lines: dict[Path, int] = field(default_factory=dict)
    _scalars: Any = field(default_factory=lambda: yaml.SafeLoader(""))
    _open: list[yaml.Node] = field(default_factory=list)

    def build(self, node: yaml.Node, path: Path) -> Any:
        """Return the data of a node that stands at `path`."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if any(node is around for around in self._open):
            raise self._error(node, "a block contains itself", "write it out without an alias")
        self._open.append(node)
        if isinstance(node, yaml.MappingNode):
            built: Any = self._mapping(node, path)
        else:
            built = [self.build(n, (*path, i)) for i, n in enumerate(node.value)]
        self._open.pop()
        return built

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        block: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, (str, int)):
                raise self._error(key_node, "a key is no name", "write a word before the colon")
            if key in block:
                first = self.lines[(*path, key)]
                problem = f"key `{key}` stands twice, first in line {first}"
                raise self._error(key_node, problem, "keep one of the two")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            block[key] = self.build(value_node, (*path, key))
        return block

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problem = f"`{node.value}` is no plain value"
            raise self._error(node, problem, "write a word, a number or a quoted text") from error

    def _error(self, node: yaml.Node, problem: str, remedy: str) -> SpecError:
        return SpecError(problem, place=f"{self.file}:{node.start_mark.line + 1}", remedy=remedy)
