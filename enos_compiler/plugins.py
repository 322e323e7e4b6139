# SPDX-License-Identifier: Apache-2.0
"""Finds passes, targets, cores, operators, arithmetics and vector operations by entry point.

The shipped ones are registered in this project's own metadata, through the same door that a
stranger's package uses. Names come from metadata alone; nothing is imported until it is asked for.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from enos_compiler.errors import EnosError, UsageError, nearest

Group = Literal["passes", "targets", "cores", "operators", "arithmetics", "vector_ops"]

_ONE_OF: dict[Group, str] = {
    "passes": "pass",
    "targets": "target",
    "cores": "core kind",
    "operators": "operator",
    "arithmetics": "arithmetic of a core",
    "vector_ops": "vector operation",
}


@cache
def _points(group: Group) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"enos_compiler.{group}"):
        if point.name in found and found[point.name].value != point.value:
            raise EnosError(
                f"two packages register `{point.name}`: {found[point.name].value}, {point.value}",
                place=f"entry points enos_compiler.{group}",
                remedy="uninstall one of them or rename its entry point",
            )
        found[point.name] = point
    return found


def names(group: Group) -> tuple[str, ...]:
    """Return the registered names of a group, sorted, without importing anything."""
    return tuple(sorted(_points(group)))


def entry(group: Group, name: str) -> EntryPoint:
    """Return the entry point of `name`.

    Raises:
        UsageError: nothing of that name is registered; names the nearest.
    """
    points = _points(group)
    if name not in points:
        raise UsageError(f"unknown {_ONE_OF[group]} `{name}`", remedy=nearest(name, points))
    return points[name]


@cache
def load(group: Group, name: str) -> Any:
    """Import and return what `name` registers.

    Raises:
        UsageError: nothing of that name is registered.
        EnosError: its import fails; names the package and the cause.
    """
    point = entry(group, name)
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else "an unnamed package"
        raise EnosError(
            f"`{name}` of package {package} cannot be imported: {type(error).__name__}: {error}",
            place=f"entry point enos_compiler.{group}: {point.value}",
            remedy=f"repair or uninstall {package}",
        ) from error
