# SPDX-License-Identifier: Apache-2.0
"""The figures of `mobilenet_bits.py` as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def tables(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield a caption and a table in turn; `data` is what the JSON file holds."""
    totals = data["totals"]
    for objective in dict.fromkeys(t["objective"] for t in totals):
        chosen = [t for t in totals if t["objective"] == objective]
        bits = sorted({t["weight_bits"] for t in chosen}, reverse=True)
        head = ["network", "machine", "depthwise", *(f"{b} bits" for b in bits)]
        head += [f"saved {bits[0]} to {bits[-1]}", "Mcycles", "optimal"]
        yield f"\nEnergy in mJ by weight width, mappings of least {objective}\n"
        yield _table(head, _by_width(chosen))
    for name in ("eyeriss", "simba"):
        for network in data["networks"]:
            title = f"{network} on {name}, mappings of least edp"
            chosen = [
                t
                for t in totals
                if (t["network"], t["setting"]) == (network, name)
                and (t["reading"], t["objective"]) == ("grouped", "edp")
            ]
            yield f"\n{title}: mJ by level and by kind of layer\n"
            columns = [*chosen[0]["energy_mj"], *chosen[0]["kinds_mj"]]
            yield _table(["weights", *columns], _by_part(chosen))
            yield f"\n{title}: each distinct layer\n"
            layers = [
                row for row in data["layers"] if (row["network"], row["setting"]) == (network, name)
            ]
            widths = list(layers[0]["uj"])
            head = ["layer", "times", *(f"uJ, {b} bits" for b in widths)]
            head += [f"dense: uJ, {b} bits" for b in widths]
            yield _table([*head, *(f"kcycles, {b} bits" for b in widths)], _by_layer(layers))
    yield "\nWhere the saving comes from, mJ (Mcycles)\n"
    wide, narrow = data["remapping"][0]["weight_bits"]
    head = ["least", "network", "machine", f"{wide} bits", f"{narrow} bits in the nests of {wide}"]
    head += [f"{narrow} bits in their own", "layers remapped"]
    yield _table(head, _remapped(data["remapping"]))
    yield "\nValid mappings on eyeriss by bits of inputs/weights/outputs, and relative to 8/8/8\n"
    head = ["layer", "bits", "sums as outputs", "", "exact sums", ""]
    yield _table(head, _counted(data["valid_mappings"]))


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join([_row(head), _row("---" for _ in head), *map(_row, rows)])


def _by_width(totals: Sequence[Row]) -> Iterator[list[object]]:
    """One line per network, machine and reading: mJ at each width, saving, cycles, certified."""
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for t in totals:
        rows.setdefault((t["network"], t["setting"], t["reading"]), []).append(t)
    for (network, setting, reading), row in rows.items():
        saved = 100 * (1 - row[-1]["mj"] / row[0]["mj"])
        first, last = (f"{t['cycles'] / 1e6:.2f}" for t in (row[0], row[-1]))
        span = first if first == last else f"{first} to {last}"
        proven = f"{sum(t['optimal'] for t in row)}/{sum(t['layers'] for t in row)}"
        values = [f"{t['mj']:.3f}" for t in row]
        yield [network, setting, reading, *values, f"{saved:.1f} %", span, proven]


def _by_part(totals: Sequence[Row]) -> Iterator[list[str]]:
    """One line per distinct energy; the widths that share it stand together."""
    merged: dict[tuple[float, ...], list[str]] = {}
    for t in totals:
        parts = (*t["energy_mj"].values(), *t["kinds_mj"].values())
        merged.setdefault(parts, []).append(str(t["weight_bits"]))
    for parts, bits in merged.items():
        yield [" = ".join(bits), *(f"{part:.3f}" for part in parts)]


def _by_layer(layers: Sequence[Row]) -> Iterator[list[object]]:
    """One line per distinct layer; the dense reading where it differs."""
    for row in layers:
        read = row["dense_uj"]
        yield [
            row["layer"],
            row["times"],
            *(f"{uj:.2f}" for uj in row["uj"].values()),
            *(["", ""] if read is None else [f"{uj:,.1f}" for uj in read.values()]),
            *(f"{cycles / 1e3:.1f}" for cycles in row["cycles"].values()),
        ]


def _remapped(rows: Sequence[Row]) -> Iterator[list[object]]:
    """One line per objective, network and machine: narrow operands alone, then nests for them."""
    for row in rows:
        cases = (
            f"{mj:.3f} ({cycles / 1e6:.2f})"
            for mj, cycles in zip(row["mj"].values(), row["cycles"].values(), strict=True)
        )
        moved = f"{row['remapped']} of {row['layers']}"
        yield [row["objective"], row["network"], row["setting"], *cases, moved]


def _counted(counted: Sequence[Row]) -> Iterator[list[str]]:
    """One line per layer and distinct pair of counts; a sum wider than its word has none."""
    sums = ("sums_as_outputs", "exact")
    merged: dict[tuple[object, ...], list[str]] = {}
    base = {row["layer"]: row for row in counted if row["bits"] == [8, 8, 8]}
    for row in counted:
        key = (row["layer"], *(row[kind] for kind in sums))
        merged.setdefault(key, []).append("/".join(map(str, row["bits"])))
    for (layer, *counts), bits in merged.items():
        cells = []
        for kind, n in zip(sums, counts, strict=True):
            cells += ["-", ""] if n is None else [f"{n:,}", f"{n / base[layer][kind]:.3f}"]
        yield [str(layer), " = ".join(bits), *cells]
