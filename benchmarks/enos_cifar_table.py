# SPDX-License-Identifier: Apache-2.0
"""Tables of the results of `enos_cifar.py`, in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from enos_compiler.ir.units import energy_text

Result = dict[str, Any]
_T95 = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for a two-sided 95 % interval, by number of pairs. Source: standard tables."""


def tables(results: Sequence[Result]) -> str:
    """Return one table per part, setting and budget, and paired differences where seeds allow."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result["part"], result["setting"], result["budget"]), []).append(result)
    parts = []
    for (part, setting, budget), rows in groups.items():
        first = rows[0]
        parts.append(
            f"### {part}: {setting}, {budget} = {energy_text(first['budget_pj'])} "
            f"(floor {energy_text(first['floor_pj'])}, all-mac {energy_text(first['baseline_pj'])})"
        )
        parts.append(_table(rows))
        parts.append(_differences(rows))
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(rows: Sequence[Result]) -> str:
    lines = [
        "| network | seeds | energy | validation | test |",
        "| --- | --- | --- | --- | --- |",
    ]
    by_kind: dict[str, list[Result]] = {}
    for row in rows:
        by_kind.setdefault(_kind(row), []).append(row)
    ordered = sorted(by_kind.items(), key=lambda item: -_mean(item[1], "validation_accuracy"))
    for kind, same in ordered:
        one = same[0]
        if one.get("infeasible"):
            lines.append(f"| {kind} | {len(same)} | none meets the budget | | |")
            continue
        energy = energy_text(statistics.mean(r["energy_pj"] for r in same))
        if one.get("over_budget"):
            lines.append(f"| {kind} | {len(same)} | {energy}, over the budget | | |")
            continue
        accuracies = [f"{_mean(same, f'{s}_accuracy'):.1%}" for s in ("validation", "test")]
        lines.append(f"| {kind} | {len(same)} | {energy} | {' | '.join(accuracies)} |")
    return "\n".join(lines)


def _differences(rows: Sequence[Result]) -> str:
    """Return the mean difference of ours to each rival over common seeds, with its interval."""
    mine = {r["seed"]: r for r in rows if r["kind"] == "ours" and r["method"] == "single"}
    lines = []
    for kind in dict.fromkeys(_kind(r) for r in rows if r["kind"] != "ours"):
        pairs = [
            mine[r["seed"]]["test_accuracy"] - r["test_accuracy"]
            for r in rows
            if _kind(r) == kind and r["seed"] in mine and r.get("test_accuracy") is not None
        ]
        if len(pairs) in _T95:
            half = _T95[len(pairs)] * statistics.stdev(pairs) / math.sqrt(len(pairs))
            mean = statistics.mean(pairs)
            lines.append(f"- ours less {kind}: {mean:+.1%} +- {half:.1%} ({len(pairs)} seeds)")
    return "\n".join(lines)


def _kind(row: Result) -> str:
    if row["kind"] == "ours":
        return f"**searched, {row['method']}**"
    return "searched, mac alone" if row["kind"] == "mac" else row["kind"]


def _mean(rows: Sequence[Result], key: str) -> float:
    found = [r[key] for r in rows if r.get(key) is not None]
    return statistics.mean(found) if found else -1.0
