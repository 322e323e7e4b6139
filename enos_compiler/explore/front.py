# SPDX-License-Identifier: Apache-2.0
"""Points of a search, the front among them, and the files that hold it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import FormatError, UsageError
from enos_compiler.explore.objectives import ObjectiveName
from enos_compiler.explore.page import front_html
from enos_compiler.explore.plan import Genome, as_genome
from enos_compiler.outputs import replace_text

SCHEMA = "enos-front/1"
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluated setting."""

    bits: Mapping[str, tuple[int, int]]
    """(activation, weight) bits by layer."""
    objectives: Mapping[str, float]
    """Every objective that is known of it, searched or not."""
    tier: str | None
    """How its accuracy was found: proxy, qat or full; none where it was not."""
    epochs: int = 0
    """Of fine-tuning behind its accuracy."""
    origin: str = ""
    """What proposed it: uniform, greedy, gradient or nsga2."""
    chip: Mapping[str, float] | None = None
    """Fields of the target that were varied, by path."""
    target: str = ""
    """Name or file of the chip that it was priced on."""
    parts_pj: Mapping[str, float] = field(default_factory=dict)
    """Energy by memory and unit, `owner.component`, and `leakage`; their sum is the energy."""

    @property
    def genome(self) -> Genome:
        """The bits in the order of the layers."""
        return as_genome(self.bits.values())


def minimised(points: Sequence[Point], names: Sequence[ObjectiveName]) -> FloatArray:
    """Return objectives, shape (points, names), each the better the smaller."""
    return np.array([[loss(p.objectives, name) for name in names] for p in points])


def loss(objectives: Mapping[str, float], name: ObjectiveName) -> float:
    """Return one objective as a number to minimise."""
    return -objectives[name] if name == "accuracy" else objectives[name]


def pareto(values: FloatArray) -> list[int]:
    """Return the rows that no other row beats or equals everywhere; of equal rows the first."""
    kept = []
    for i, row in enumerate(values):
        no_worse = (values <= row).all(axis=1)
        better = no_worse & (values < row).any(axis=1)
        equal_before = (values[:i] == row).all(axis=1).any() if i else False
        if not better.any() and not equal_before:
            kept.append(i)
    return kept


def hypervolume(values: FloatArray, reference: FloatArray) -> float:
    """Return the volume that rows dominate below a reference point."""
    from moocore import hypervolume as volume

    inside = values[(values < reference).all(axis=1)]
    return float(volume(inside, ref=reference)) if len(inside) else 0.0


def save_front(
    folder: Path, points: Sequence[Point], objectives: Sequence[str], about: Mapping[str, Any]
) -> None:
    """Write `front.csv`, `front.html`, then `front.json`; each replaces its namesake whole."""
    rows = [{"number": i, **asdict(point)} for i, point in enumerate(points)]
    content = {"schema": SCHEMA, "objectives": list(objectives), **about, "points": rows}
    replace_text(folder / "front.csv", _csv(points))
    replace_text(folder / "front.html", front_html(content))
    replace_text(folder / "front.json", json.dumps(content, indent=1) + "\n")


def _csv(points: Sequence[Point]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    known = sorted({name for p in points for name in p.objectives})
    varied = sorted({path for p in points for path in p.chip or ()})
    layers = list(points[0].bits) if points else []
    writer.writerow(["number", *known, "tier", "epochs", "origin", *varied, *layers])
    for number, p in enumerate(points):
        values = [p.objectives.get(name, "") for name in known]
        chip = [(p.chip or {}).get(path, "") for path in varied]
        bits = [f"{a}/{w}" for a, w in p.bits.values()]
        writer.writerow([number, *values, p.tier or "", p.epochs, p.origin, *chip, *bits])
    return text.getvalue()


@dataclass(frozen=True, slots=True)
class Chosen:
    """A point of a stored front, to compile."""

    point: Point
    folder: Path
    """Of the front's file; the network that it was found with may stand in it."""
    network: str | None
    """Folder of that network, relative to `folder`."""


def split_reference(text: str) -> tuple[Path, int] | None:
    """Return file and number of `front.json#12`; None where the text has no such form.

    Raises:
        UsageError: what stands behind the # is no number.
    """
    file, mark, number = text.rpartition("#")
    if not mark or not file:
        return None
    if not number.isdecimal():
        raise UsageError(
            f"`{number}` is no number of a point", place="--bits", remedy=f"--bits {file}#0"
        )
    return Path(file), int(number)


def read_point(file: Path, number: int) -> Chosen:
    """Return a point of a stored front.

    Raises:
        FormatError: the file cannot be read, or is no front.
        UsageError: the front has no such point.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", place=str(file)) from error
    except ValueError as error:
        raise FormatError(f"is no JSON: {error}", place=str(file)) from error
    remedy = "a front.json that enos-explore wrote"
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise FormatError(f"has schema {schema!r}, not {SCHEMA}", place=str(file), remedy=remedy)
    rows = content.get("points", [])
    if not 0 <= number < len(rows):
        raise UsageError(
            f"there is no point {number}, the front has {len(rows)}: 0..{len(rows) - 1}",
            place=str(file),
            remedy=f"--bits {file}#0",
        )
    try:
        row = {k: v for k, v in rows[number].items() if k != "number"}
        bits = {str(n): (int(a), int(w)) for n, (a, w) in row.pop("bits").items()}
        point = Point(bits=bits, **row)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise FormatError(
            f"point {number} is damaged: {error}", place=str(file), remedy=remedy
        ) from error
    return Chosen(point, file.parent, content.get("network"))
