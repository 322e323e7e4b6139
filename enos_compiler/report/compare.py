# SPDX-License-Identifier: Apache-2.0
"""What changed between two reports, and whether it may."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from enos_compiler.errors import UsageError

Report = Mapping[str, Any]
Unit = Literal["pJ", "ns", "um2", "pJ ns", "MACs", "fraction"]

_TOTALS: tuple[tuple[str, str, Unit], ...] = (
    ("energy", "energy_pj", "pJ"),
    ("latency", "latency_ns", "ns"),
    ("edp", "edp_pj_ns", "pJ ns"),
    ("area", "area_um2", "um2"),
    ("macs", "macs", "MACs"),
)
_PARTS = ("layers", "edges", "vector", "host", "programming", "leakage")
_CHOICE = ("core", "operator", "bits", "options")
_INPUTS = ("model", "target", "spec_sha256", "batch", "seed", "passes", "versions")


@dataclass(frozen=True, slots=True)
class Change:
    """One number of both reports; None where a report does not have it."""

    name: str
    unit: Unit
    old: float | None
    new: float | None

    @property
    def relative(self) -> float | None:
        """Return new / old - 1; None where there is no old value to compare with."""
        if self.old is None or self.new is None:
            return None
        if self.old == self.new:
            return 0.0
        return self.new / self.old - 1 if self.old else math.inf

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that `--json` prints; a change from zero has no relative size."""
        relative = self.relative
        finite = relative is not None and math.isfinite(relative)
        return {**asdict(self), "relative": relative if finite else None}


@dataclass(frozen=True, slots=True)
class LayerChange:
    """A layer that is new, gone, chosen differently or priced differently."""

    name: str
    kind: Literal["added", "removed", "changed"]
    choice: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Old and new by field, those that differ."""
    numbers: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that differs between two reports."""

    totals: tuple[Change, ...]
    parts: tuple[Change, ...]
    """What the energy is spent on."""
    accuracy: Change
    layers: tuple[LayerChange, ...]
    """Those that differ, in the new report's order, removed ones last."""
    inputs: Mapping[str, tuple[Any, Any]]
    """What made the numbers, where it differs."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs, inputs aside."""
        numbers = (*self.totals, *self.parts, self.accuracy)
        return not self.layers and all(c.old == c.new for c in numbers)

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "totals": [c.as_dict() for c in self.totals],
            "parts": [c.as_dict() for c in self.parts],
            "accuracy": self.accuracy.as_dict(),
            "layers": [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "choice": {k: {"old": a, "new": b} for k, (a, b) in one.choice.items()},
                    "numbers": [c.as_dict() for c in one.numbers],
                }
                for one in self.layers
            ],
            "inputs": {k: {"old": a, "new": b} for k, (a, b) in self.inputs.items()},
        }


def compare(old: Report, new: Report) -> Comparison:
    """Return what differs; layers are matched by name."""
    before, after = old["totals"], new["totals"]
    return Comparison(
        totals=tuple(Change(n, unit, before[key], after[key]) for n, key, unit in _TOTALS),
        parts=tuple(Change(n, "pJ", before[f"{n}_pj"], after[f"{n}_pj"]) for n in _PARTS),
        accuracy=Change("accuracy", "fraction", _accuracy(old), _accuracy(new)),
        layers=tuple(_layers(old, new)),
        inputs={key: (old[key], new[key]) for key in _INPUTS if old[key] != new[key]},
    )


def _accuracy(report: Report) -> float | None:
    found = report["accuracy"]
    return None if found is None else float(found["compiled"])


def _layers(old: Report, new: Report) -> Iterator[LayerChange]:
    before = {row["name"]: row for row in old["layers"]}
    after = {row["name"]: row for row in new["layers"]}
    for name, row in after.items():
        if name not in before:
            yield LayerChange(name, "added", {}, _numbers({}, row))
            continue
        was = before[name]
        choice = {key: (was[key], row[key]) for key in _CHOICE if was[key] != row[key]}
        numbers = tuple(c for c in _numbers(was, row) if c.old != c.new)
        if choice or numbers:
            yield LayerChange(name, "changed", choice, numbers)
    for name, row in before.items():
        if name not in after:
            yield LayerChange(name, "removed", {}, _numbers(row, {}))


def _numbers(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    keys: tuple[tuple[str, str, Unit], ...] = (
        ("energy", "energy_pj", "pJ"),
        ("latency", "latency_ns", "ns"),
        ("macs", "macs", "MACs"),
    )
    return tuple(Change(name, unit, old.get(key), new.get(key)) for name, key, unit in keys)


# Thresholds

_LIMIT = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(%|)")


@dataclass(frozen=True, slots=True)
class Threshold:
    """How far a number may move: at most by a fraction, or at most to points of accuracy."""

    name: str
    """`energy`, `latency`, `edp`, `area`, `layer` or `accuracy`."""
    limit: float
    """Largest relative change; for accuracy the largest loss in points of a percent."""

    @classmethod
    def parse(cls, name: str, text: str) -> Threshold:
        """Return the threshold that `+2%`, `-5%` or, for accuracy, `0.5` asks for.

        Raises:
            UsageError: the text is none of these.
        """
        found = _LIMIT.fullmatch(text.strip())
        points = name == "accuracy"
        if found is None or bool(found[2]) == points:
            example = "--max-accuracy-loss 0.5" if points else f"--max-{name} +2%"
            raise UsageError(
                f"`{text}` is no {'number of points' if points else 'percentage'}",
                place=example.split()[0],
                remedy=example,
            )
        return cls(name, float(found[1]) / (1 if points else 100))


@dataclass(frozen=True, slots=True)
class Breach:
    """A number that moved further than it may."""

    threshold: Threshold
    change: Change
    layer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        place = {} if self.layer is None else {"layer": self.layer}
        return {**asdict(self.threshold), **place, "change": self.change.as_dict()}


def breaches(found: Comparison, thresholds: Sequence[Threshold]) -> tuple[Breach, ...]:
    """Return what moved further than its threshold, in the order of the thresholds.

    An accuracy that the new report no longer has is a breach: it cannot be shown to be kept.
    """
    return tuple(breach for limit in thresholds for breach in _breaches(found, limit))


def _breaches(found: Comparison, limit: Threshold) -> Iterator[Breach]:
    if limit.name == "accuracy":
        change = found.accuracy
        if change.old is None:
            return
        if change.new is None or _exceeds(100 * (change.old - change.new), limit.limit):
            yield Breach(limit, change)
    elif limit.name == "layer":
        for layer in found.layers:
            energy = next((c for c in layer.numbers if c.name == "energy"), None)
            if layer.kind == "changed" and energy is not None and _grew(energy, limit.limit):
                yield Breach(limit, energy, layer.name)
    else:
        change = next(c for c in found.totals if c.name == limit.name)
        if _grew(change, limit.limit):
            yield Breach(limit, change)


def _grew(change: Change, limit: float) -> bool:
    return change.relative is not None and _exceeds(change.relative, limit)


def _exceeds(value: float, limit: float) -> bool:
    """Return whether a value is above its limit by more than rounding."""
    return value > limit and not math.isclose(value, limit, rel_tol=1e-9, abs_tol=1e-12)
