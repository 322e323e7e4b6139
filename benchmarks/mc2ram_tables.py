# SPDX-License-Identifier: Apache-2.0
"""The tables of `mc2ram.py`, as they stand in docs/results.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

Row = Mapping[str, Any]


def tables(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of every table."""
    yield from _published(data["published"])
    yield from _components(data["published"][0])
    yield from _sweeps(data)
    yield from _point(data["operating_point"])
    yield from _larger(data["larger"])


def _published(rows: list[Row]) -> Iterator[str]:
    yield "| one chain, 2-D, 2 mixtures | pJ a step | cycles a step | 500 steps | power |"
    yield "| --- | --- | --- | --- | --- |"
    for row in rows:
        yield (
            f"| {row['name']} | {row['step_pj']:.1f} | {row['step_cycles']} | {row['cycles']} "
            f"cycles ({row['cycles_ratio']:.2f}x) | {row['power_uw'] / 1e3:.2f} mW "
            f"({row['power_ratio']:.0f}x) |"
        )
    yield "| published | | 4 | 2000 cycles | 0.091 mW |"
    yield ""


def _components(row: Row) -> Iterator[str]:
    parts = sorted(row["parts_pj"].items(), key=lambda item: -item[1])
    yield "| component | pJ a step | share |"
    yield "| --- | --- | --- |"
    for name, energy in parts:
        yield f"| {name} | {energy:.2f} | {energy / row['step_pj']:.0%} |"
    yield ""


def _sweeps(data: Mapping[str, Any]) -> Iterator[str]:
    floor = data["floor"]
    yield (
        f"{data['samples']} samples of 64 chains; as many exact samples: total variation "
        f"{floor['tv']:.3f}, KL {floor['kl_bits']:.4f} bits"
    )
    yield ""
    yield "| varied | value | KL (bits) | total variation | acceptance | tau (steps) | effective |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, rows in groupby(data["sweeps"], key=lambda row: row["name"]):
        for i, row in enumerate(rows):
            head = f"| {name if i == 0 else ''} | {_value(row['value'])} |"
            yield f"{head} {_quality(row)}"
    yield ""


def _value(value: float) -> str:
    return f"{value:g}"


def _quality(row: Row) -> str:
    if "refused" in row:
        return f"refused: {row['refused']} | | | | |"
    return (
        f"{row['kl_bits']:.4f} | {row['tv']:.3f} | {row['acceptance']:.0%} | "
        f"{row['tau_steps']:.0f} | {row['effective_per_chain']:.0f} |"
    )


def _point(point: Row) -> Iterator[str]:
    yield (
        f"{point['tried']} settings, {point['good']} of them with a total variation of at most "
        f"{point['limit_tv']:.3f} on a device with 5 % mismatch and random cells 1 % off"
    )
    yield ""
    lines = [
        "| setting | weight bits | step bits | columns a conversion | ADC bits | refresh | "
        "total variation | pJ a step | pJ an effective sample |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    chosen = sorted(
        (r for r in point["rows"] if r["tv"] <= point["limit_tv"]), key=lambda r: r["effective_pj"]
    )
    for i, row in enumerate(chosen[:5]):
        lines.append(
            f"| {'recommended' if i == 0 else ''} | {row['weight_bits']} | "
            f"{row['proposal_bits']} | {row['bits_per_conversion']} | {row['adc_bits']} | "
            f"{row['refresh']} | {row['tv']:.3f} | {row['step_pj']:.1f} | "
            f"{row['effective_pj']:.0f} |"
        )
    yield from lines
    yield ""


def _larger(rows: list[Row]) -> Iterator[str]:
    yield (
        "| dimensions | components | sliced Wasserstein (exact) | occupancy error (exact) | "
        "R-hat | acceptance | tau (steps) |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        head = f"| {row['dimensions']} | {row['components']} |"
        if "refused" in row:
            yield f"{head} refused: {row['refused']} | | | | |"
            continue
        yield (
            f"{head} {row['wasserstein']:.3f} ({row['wasserstein_exact']:.3f}) | "
            f"{row['occupancy_error']:.3f} ({row['occupancy_exact']:.3f}) | {row['r_hat']:.3f} | "
            f"{row['acceptance']:.0%} | {row['tau_steps']:.0f} |"
        )
    yield ""
