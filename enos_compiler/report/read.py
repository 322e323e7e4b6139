# SPDX-License-Identifier: Apache-2.0
"""Read a `report.json` that somebody else may have touched: whole and consistent, or refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from enos_compiler.errors import FormatError
from enos_compiler.report.build import SCHEMA, report_schema

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_TOLERANCE = 1e-9
"""Relative; sums are exact when written, another tool may have printed fewer digits."""
_PARTS = ("layers_pj", "edges_pj", "vector_pj", "host_pj", "programming_pj", "leakage_pj")
_SHOWN = 60
_MOST_DIGITS = 19
"""Of a whole number, its sign included: what larger ones sum to would leave double precision."""


def read_report(path: Path) -> dict[str, Any]:
    """Return the report in a file, or in a folder that holds a `report.json`.

    Raises:
        FormatError: there is none; it is no report, of another schema, damaged, or its sums do
            not equal their parts.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        document = json.loads(
            file.read_text("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except FileNotFoundError:
        raise FormatError(
            "does not exist", place=str(file), remedy="the report.json that enosc wrote"
        ) from None
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", place=str(file)) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"is no JSON: {error}", place=str(file), remedy="compile again"
        ) from error
    check_report(document, str(file))
    return document  # type: ignore[no-any-return]  # an object, or the check would have refused it


def check_report(document: object, place: str) -> None:
    """Refuse what does not follow the schema, or whose sums do not equal their parts.

    Raises:
        FormatError: names the dotted path, the value and what was expected.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or schema is None:
        raise FormatError(
            "is no report: it has no `schema`", place=place, remedy="the report.json of enosc"
        )
    if schema != SCHEMA:
        raise FormatError(
            f"has schema {_short(schema)}; this version reads {SCHEMA}",
            place=place,
            remedy="compile again with this version",
        )
    error = next(_validator().iter_errors(document), None)
    if error is not None:
        dotted = ".".join(str(part) for part in error.absolute_path) or "the report"
        raise FormatError(
            f"{dotted}: {_shortened(error.message)}", place=place, remedy="compile again"
        )
    for where, found, expected in _sums(document, place):
        if not math.isclose(found, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise FormatError(
                f"{where} = {found!r}, but its parts sum to {expected!r}",
                place=place,
                remedy="compile again; the file was changed or damaged",
            )
    _check_slots(document, place)


def _sums(report: Mapping[str, Any], file: str) -> Iterator[tuple[str, float, float]]:
    """Yield (what, its value, the sum of its parts), from the events up."""
    totals = report["totals"]
    prices = report["sections"]["pricing"]["prices"]
    for row in report["layers"]:
        place = f"layers.{row['name']}"
        events = {action: prices.get(action) for action in row["events"]}
        unpriced = next((action for action, price in events.items() if price is None), None)
        if unpriced is not None:
            raise FormatError(
                f"{place}.events: sections.pricing.prices has no price for {_short(unpriced)}",
                place=file,
                remedy="compile again; the file was changed or damaged",
            )
        spent = sum(n * prices[action]["energy_pj"] for action, n in row["events"].items())
        components = sum(row["components"].values())
        yield f"{place}.components", float(components), float(spent)
        yield f"{place}.energy_pj", row["energy_pj"], float(components)
    for key, rows in (
        ("layers_pj", "layers"),
        ("edges_pj", "edges"),
        ("vector_pj", "vector"),
        ("host_pj", "host"),
    ):
        yield f"totals.{key}", totals[key], sum(row["energy_pj"] for row in report[rows])
    yield "totals.energy_pj", totals["energy_pj"], sum(totals[part] for part in _PARTS)
    yield "totals.macs", totals["macs"], sum(row["macs"] for row in report["layers"])


def _check_slots(report: Mapping[str, Any], place: str) -> None:
    """Refuse slots of a timeline that point at nothing."""
    timeline = report["sections"].get("timeline")
    if timeline is None:
        return
    limits = [len(timeline[name]) for name in ("resources", "owners", "ops")]
    for i, slot in enumerate(timeline["slots"]):
        for index, limit in zip(slot, limits, strict=False):
            if index >= limit:
                raise FormatError(
                    f"sections.timeline.slots.{i}: index {index}, the list has {limit}",
                    place=place,
                    remedy="compile again; the file was changed or damaged",
                )


@cache
def _validator() -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(report_schema())


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{_shortened(text)} is beyond double precision")
    return number


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{_shortened(text)} is beyond 64 bits")
    return int(text)


def _short(value: object) -> str:
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"
