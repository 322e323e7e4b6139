# SPDX-License-Identifier: Apache-2.0
"""Refusals as a person wants to hear them: what a core lacks apart from what a layer met."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MOST_GROUPS = 8
"""Groups of refusals that are listed; the others are counted."""
_MOST_NAMES = 2
"""Layers of a group that are named; more are counted."""
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.]*\w)")
"""A whole number that is no part of a name."""

Report = Mapping[str, Any]
Pair = tuple[str, str]
"""Operator and core."""


def not_offered(report: Report) -> str:
    """Return the operators that a core refuses wherever it was asked, e.g. `adder; shift on xbar`.

    An operator without a core is refused on all of them; "" where nothing is.
    """
    lacking = _lacking(report)
    cores = _cores(report)
    where: dict[str, dict[str, None]] = defaultdict(dict)
    for operator, core in sorted(lacking):
        where[operator][core] = None
    operators: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for operator, refusing in where.items():
        operators[tuple(refusing)].append(operator)
    everywhere = ", ".join(operators.pop(cores, ()))
    some = (f"{', '.join(names)} on {', '.join(on)}" for on, names in sorted(operators.items()))
    return "; ".join(filter(None, (everywhere, *some)))


def particular(report: Report) -> Iterator[str]:
    """Yield why cores did not take some layers, the reason that shut most layers out first.

    Reasons that differ in their numbers alone are one, with the range of each number.
    """
    lacking = _lacking(report)
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = defaultdict(list)
    for row in report["refusals"]:
        if (row["operator"], row["core"]) not in lacking:
            groups[row["operator"], _NUMBER.sub("#", row["reason"])].append(row)
    order = sorted(groups.items(), key=lambda item: (-len(_distinct(item[1], "layer")), item[0]))
    for (operator, _), rows in order[:_MOST_GROUPS]:
        layers, cores = _distinct(rows, "layer"), _distinct(rows, "core")
        which = ", ".join(layers) if len(layers) <= _MOST_NAMES else f"{len(layers)} layers"
        reason = _merged([row["reason"] for row in rows])
        yield f"{operator} for {which} on {', '.join(cores)}: {reason}"
    if len(order) > _MOST_GROUPS:
        yield f"and {len(order) - _MOST_GROUPS} more in report.json"


def _lacking(report: Report) -> frozenset[Pair]:
    """Return what was refused at least once and is offered to no layer."""
    refused = {(row["operator"], row["core"]) for row in report["refusals"]}
    offers = report["sections"]["offers"]
    return frozenset(pair for pair in refused if pair[0] not in offers.get(pair[1], ()))


def _cores(report: Report) -> tuple[str, ...]:
    """Return the cores that were asked; a sampler is not where no layer draws."""
    asked = {row["core"] for row in report["refusals"]}
    offering = {core for core, operators in report["sections"]["offers"].items() if operators}
    return tuple(sorted(asked | offering))


def _distinct(rows: Sequence[Mapping[str, str]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _merged(reasons: Sequence[str]) -> str:
    """Return texts that differ in their numbers alone as one, a range where a number varies."""
    columns = zip(*(map(int, _NUMBER.findall(reason)) for reason in reasons), strict=True)
    ranges = [(min(column), max(column)) for column in columns]
    texts = iter(str(low) if low == high else f"{low}..{high}" for low, high in ranges)
    return _NUMBER.sub(lambda _: next(texts), reasons[0])
