# SPDX-License-Identifier: Apache-2.0
"""Chips that differ in numbers of their file: the hardware side of a search.

`cores.array.levels.shared_glb.entries=13824,27648` names a field from the root of a target's YAML;
an entry of a list goes by its `name` or its number. Every combination of the values is a chip, read
and checked as if its file held them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.target import build_target, configured
from enos_compiler.errors import SpecError, UsageError, nearest
from enos_compiler.mapping.objective import Objective
from enos_compiler.spec import check_target, find_target, read_document

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.spec.document import Document

MOST_CHIPS = 256
"""Each one has tables of its own, minutes where its mappings are new."""
Number = int | float


@dataclass(frozen=True, slots=True)
class Axis:
    """A field and the values it takes."""

    path: str
    values: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class ChipRecipe:
    """A chip, small enough to send to any worker."""

    target: str
    """Name or path."""
    changes: tuple[tuple[str, Number], ...] = ()
    objective: Objective | None = None
    mapping_cache: str | None = None

    def build(self) -> Target:
        """Return the chip.

        Raises:
            SpecError: a field does not exist, holds no number, or its value breaks the file's form.
        """
        document = self.document()
        target = build_target(check_target(document))
        return configured(target, objective=self.objective, mapping_cache=self.mapping_cache)

    def document(self) -> Document:
        """Return the file with the changes in it."""
        document = read_document(find_target(self.target))
        data = copy.deepcopy(document.data)
        for path, value in self.changes:
            _set(document, data, path, value)
        return replace(document, data=data)

    def write(self, path: Path) -> None:
        """Write the changed chip as a target file."""
        import yaml

        from enos_compiler.outputs import replace_text

        text = yaml.safe_dump(self.document().data, sort_keys=False, allow_unicode=True, width=100)
        replace_text(path, f"# SPDX-License-Identifier: Apache-2.0\n{text}")


def parse_axis(text: str) -> Axis:
    """Parse `path=1,2,4`.

    Raises:
        UsageError: another form, or a value that is no number.
    """
    path, equals, values = text.partition("=")
    try:
        numbers = tuple(dict.fromkeys(_number(v) for v in values.split(",")))
    except ValueError:
        numbers = ()
    if not equals or not path or not numbers:
        raise UsageError(
            f"`{text}` is not of the form field=number,number",
            place="--vary",
            remedy="--vary cores.array.levels.shared_glb.entries=13824,27648",
        )
    return Axis(path, numbers)


def chips(base: ChipRecipe, axes: Sequence[Axis]) -> tuple[ChipRecipe, ...]:
    """Return every combination; without axes the chip itself.

    Raises:
        UsageError: a field is varied twice, or there are too many combinations.
    """
    paths = [axis.path for axis in axes]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"{path} is varied twice", place="--vary", remedy="one list of values")
    count = prod(len(axis.values) for axis in axes)
    if count > MOST_CHIPS:
        raise UsageError(
            f"{count} chips, of which each is mapped afresh; at most {MOST_CHIPS}",
            place="--vary",
            remedy="fewer values",
        )
    return tuple(
        replace(base, changes=tuple(zip(paths, values, strict=True)))
        for values in product(*(axis.values for axis in axes))
    )


def _number(text: str) -> Number:
    """Return a whole number where it is one, else a real one."""
    return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)


def _set(document: Document, data: Any, path: str, value: Number) -> None:
    """Put a number in a field, keeping its unit and source where it has them."""
    here: Any = data
    parent: Any = None
    last: str | int = ""
    done: tuple[str | int, ...] = ()
    words = path.split(".")
    for i, word in enumerate(words):
        known = _children(here)
        if word not in known:
            raise SpecError(
                f"{'.'.join(words[: i + 1])} does not exist",
                place=f"--vary, {document.file}:{document.line(done)}",
                remedy=nearest(word, known) if known else "a field above it",
            )
        last = known[word]
        done = (*done, last)
        parent, here = here, here[last]
    if isinstance(here, dict) and "value" in here:
        parent, last, here = here, "value", here["value"]
    if isinstance(here, bool) or not isinstance(here, (int, float)):
        raise SpecError(
            f"{path} holds no number",
            place=f"--vary, {document.file}:{document.line(done)}",
            remedy=nearest("", _children(here)) if isinstance(here, (dict, list)) else None,
        )
    parent[last] = value


def _children(data: Any) -> Mapping[str, str | int]:
    """Return the keys of a block, or the names and numbers of a list's entries, by their text."""
    if isinstance(data, dict):
        return {str(key): key for key in data}
    if not isinstance(data, list):
        return {}
    found: dict[str, str | int] = {str(i): i for i in range(len(data))}
    for i, entry in enumerate(data):
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            found[entry["name"]] = i
    return found
