# SPDX-License-Identifier: Apache-2.0
"""A comparison of two reports as a person reads it in a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from enos_compiler.ir.units import energy_text, time_text
from enos_compiler.report.compare import Breach, Change, Comparison, LayerChange
from enos_compiler.report.names import short_names

_NAME = 21
_MOST_LAYERS = 20
"""Layers that are listed, those of the largest change in energy; the others are counted."""


def comparison_text(found: Comparison, broken: Sequence[Breach]) -> str:
    """Return totals, accuracy, layers, inputs and breaches, within 80 columns."""
    return "\n".join(line.rstrip() for line in _lines(found, broken))


def _lines(found: Comparison, broken: Sequence[Breach]) -> Iterator[str]:
    if found.is_empty:
        yield "no difference in totals, accuracy and layers"
    else:
        yield f"{'':12} {'old':>12} {'new':>12} {'change':>9}"
        yield from (_row(change) for change in found.totals)
        for change in found.parts:
            if change.old != change.new:
                yield _row(change, indent="  ")
        yield _row(found.accuracy)
        yield from _layers(found.layers)
    for name, (old, new) in found.inputs.items():
        yield from _input(name, old, new)
    if broken:
        yield ""
    for breach in broken:
        yield breach_text(breach)


def _row(change: Change, indent: str = "") -> str:
    return (
        f"{indent + change.name:12} {_value(change, change.old):>12} "
        f"{_value(change, change.new):>12} {_moved(change):>9}"
    )


def _value(change: Change, value: float | None) -> str:
    if value is None:
        return "-"
    match change.unit:
        case "pJ":
            return energy_text(value)
        case "ns":
            return time_text(value)
        case "um2":
            return f"{value / 1e6:.4g} mm2"
        case "fraction":
            return f"{value:.2%}"
        case "MACs":
            return f"{value:,.0f}"
        case "pJ ns":
            return f"{value * 1e-21:.3g} J s"


def _moved(change: Change) -> str:
    if change.old is None or change.new is None:
        return ""
    if change.unit == "fraction":
        points = 100 * (change.new - change.old)
        return f"{points:+.2f} pt" if points else "="
    relative = change.relative
    if relative is None or relative == 0:
        return "="
    return f"{relative:+.1%}" if math.isfinite(relative) else "from 0"


def _layers(layers: Sequence[LayerChange]) -> Iterator[str]:
    if not layers:
        return
    yield ""
    ranked = sorted(layers, key=lambda one: -_size(one))
    shown = {one.name for one in ranked[:_MOST_LAYERS]}
    labels = short_names(shown, _NAME, "..")
    yield f"{'layer':{_NAME}} {'old':>9} {'new':>9} {'change':>8}  choice"
    for one in layers:
        if one.name in shown:
            yield _layer(one, labels[one.name])
    if len(layers) > len(shown):
        rest = len(layers) - len(shown)
        yield f"and {rest} more with smaller changes (--json lists all)"


def _size(layer: LayerChange) -> float:
    return sum(abs((c.new or 0) - (c.old or 0)) for c in layer.numbers if c.name == "energy")


def _layer(one: LayerChange, label: str) -> str:
    energy = next((c for c in one.numbers if c.name == "energy"), None)
    if energy is None:
        cells = ("=", "=", "")
    else:
        cells = (_value(energy, energy.old), _value(energy, energy.new), _moved(energy))
    said = one.kind if one.kind != "changed" else _choice(one.choice)
    return f"{label:{_NAME}} {cells[0]:>9} {cells[1]:>9} {cells[2]:>8}  {said}"[:80]


def _choice(choice: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{_plain(old)} -> {_plain(new)}" for old, new in choice.values())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping) and set(value) == {"input", "weight", "output"}:
        return "/".join(str(value[key]) for key in ("input", "weight", "output"))
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v}" for k, v in value.items()) or "none"
    return str(value)


def _input(name: str, old: Any, new: Any) -> Iterator[str]:
    """Yield how an input differs, entry by entry where it has entries."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            if old.get(key) != new.get(key):
                yield f"{name}: {key} {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
    elif isinstance(old, list) and isinstance(new, list):
        yield f"{name}:"
        yield f"  old {','.join(map(str, old))}"
        yield f"  new {','.join(map(str, new))}"
    elif name == "spec_sha256":
        yield f"target file: {old[:12]} -> {new[:12]}"
    else:
        yield f"{name}: {old} -> {new}"


def breach_text(breach: Breach) -> str:
    """Return what moved too far, in one line."""
    change = breach.change
    place = "" if breach.layer is None else f" of {breach.layer}"
    if breach.threshold.name == "accuracy":
        allowed = f"may fall by {breach.threshold.limit:g} points"
        moved = "is no longer measured" if change.new is None else f"changed by {_moved(change)}"
    else:
        allowed = f"may change by at most {100 * breach.threshold.limit:+g}%"
        moved = f"changed by {_moved(change)}"
    values = f"{_value(change, change.old)} -> {_value(change, change.new)}"
    return f"too far: {change.name}{place} {moved} ({values}), {allowed}"
