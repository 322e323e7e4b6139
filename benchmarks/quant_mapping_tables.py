# SPDX-License-Identifier: Apache-2.0
"""The figures of `quant_mapping.py` as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def tables(found: Row) -> Iterator[str]:
    """Yield a caption and a table in turn; `found` is what the JSON file holds."""
    for study in found["accuracy"]:
        yield f"\n{study['network']}: settings, their accuracy on validation images, and energy\n"
        head = ["setting", "measured", "accuracy", "noise", "weights, KiB"]
        head += [f"{t}, uJ (saved)" for t in study["fronts"]]
        yield table(head, map(_setting, study["rows"]))
        yield f"\n{study['network']}: saved at equal noise, bits by mapping and bits by size\n"
        bits = [r for r in study["rows"] if r["tier"] == "proxy"]
        yield table(["noise of", *_columns(study)], (_alike(study, r) for r in bits))
        yield f"\n{study['network']}: energy by memory and unit, uJ\n"
        yield from _parts(study["parts_mj"])
    if found["cost"]:
        yield "\n224x224, energy in mJ: uniform, and the cheapest mixed setting of no more noise\n"
        head = ["network", "target", "bits", "uniform", "saved", "mixed", "saved"]
        yield table(head, (line for study in found["cost"] for line in _cost(study)))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _setting(row: Row) -> list[str]:
    tier = row["tier"] + (f":{row['epochs']}" if row["epochs"] else "")
    energies = [f"{row['energy_uj'][t]:.2f} ({s:.1%})" for t, s in row["saved"].items()]
    noise, accuracy = f"{row['noise']:.2g}", f"{row['accuracy']:.2%}"
    return [row["label"], tier, accuracy, noise, f"{row['weights_kib']:.1f}", *energies]


def _columns(study: Row) -> list[str]:
    return [f"{t}, {how}" for t in study["fronts"] for how in ("mapping", "size")]


def _alike(study: Row, uniform: Row) -> list[str]:
    """Return what either front saves at no more noise than a uniform network."""
    cells = [uniform["label"]]
    for target in study["fronts"]:
        for front in (study["fronts"][target], study["by_size"][target]):
            allowed = [saved for noise, saved, _ in front if noise <= uniform["noise"] * (1 + 1e-9)]
            cells.append(f"{max(allowed):.1%}" if allowed else "-")
    return cells


def _parts(parts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    for target, settings in parts.items():
        names = list(next(iter(settings.values())))
        rows = (
            [label, *(f"{1e3 * values[n]:.3f}" for n in names)]
            for label, values in settings.items()
        )
        yield table([target, *names], rows)
        yield ""


def _cost(study: Row) -> Iterator[list[str]]:
    for row in study["rows"]:
        mates = [r for r in study["rows"] if r["target"] == row["target"]]
        whole = next(r["uniform_mj"] for r in mates if r["bits"] == 8)
        values = (row["uniform_mj"], row["mixed_mj"])
        cells = [cell for mj in values for cell in (f"{mj:.3f}", f"{1 - mj / whole:.1%}")]
        yield [study["network"], row["target"], str(row["bits"]), *cells]
