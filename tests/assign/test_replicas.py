# SPDX-License-Identifier: Apache-2.0
"""Copies that balance a pipeline: the least interval of all, within arrays and budget."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import enos_compiler
from enos_compiler.assign.replicas import Replica, balance


@st.composite
def stages(draw: st.DrawFn) -> dict[str, list[Replica]]:
    found = {}
    for index in range(draw(st.integers(1, 4))):
        positions, each, cycles = (draw(st.integers(1, 9)) for _ in range(3))
        size = f"arrays_{draw(st.sampled_from([64, 128]))}"
        found[f"stage{index}"] = [
            Replica(n, -(-positions // n) * cycles, {size: n * each}) for n in (1, 2, 4)
        ]
    return found


@settings(deadline=None, max_examples=150)
@given(stages(), st.integers(0, 40), st.integers(0, 40), st.integers(0, 20), st.booleans())
def test_the_interval_is_the_least_of_all_combinations(
    rows: dict[str, list[Replica]], small: int, large: int, shared: int, picky: bool
) -> None:
    capacities = {"arrays_64": small, "arrays_128": large}

    def accepts(copies: Any) -> bool:
        return not picky or sum(copies.values()) <= 6

    intervals = []
    for combination in product(*rows.values()):
        used = dict.fromkeys(capacities, 0)
        for replica in combination:
            for size, count in replica.arrays.items():
                used[size] += count
        copies = [replica.copies for replica in combination]
        if all(used[s] <= capacities[s] for s in used) and (not picky or sum(copies) <= 6):
            intervals.append(max(shared, *(r.latency_ns for r in combination)))
    found = balance(rows, capacities, least_ns=shared, accepts=accepts)
    if found is None:
        assert not intervals
        return
    taken = [next(r for r in rows[name] if r.copies == n) for name, n in found.items()]
    assert max(shared, *(r.latency_ns for r in taken)) == min(intervals)


def _compiled(passes: str, target: str = "isaac") -> enos_compiler.Compiled:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 4),
    ).eval()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    # Written for each inference, cells are dear: energy asks for few copies.
    return enos_compiler.compile(net, (images,), target=target, passes=passes, inferences=1)


BEFORE = "canonicalize,calibrate,attach-choices{operators=mac weight_bits=8 activation_bits=8},"
AFTER = "quantize,map-digital,map-cim,schedule"


def test_a_network_gets_copies_for_its_slowest_layers_and_keeps_its_budget() -> None:
    """One energy-bound run leaves all as it was; unlimited, the first layer is copied most."""
    assign = "sensitivity,assign{budget=unlimited}"
    free = _compiled(f"{BEFORE}{assign},replicate,{AFTER}")
    section = free.report["sections"]["replicate"]
    copies = list(section["copies"].values())
    latency = {row["name"]: row["latency_ns"] for row in free.report["layers"]}
    assert section["balanced"]
    assert section["interval_ns"]["after"] < section["interval_ns"]["before"]
    assert copies[0] == max(copies) > copies[2]
    assert max(latency.values()) <= section["interval_ns"]["after"]
    assert {row["name"]: row["options"].get("copies", 1) for row in free.report["layers"]} == (
        section["copies"]
    )
    assert free.report["checks"]["simulator_max_steps"] == 0
    assert free.report["checks"]["events_equal"] is True
    area = _compiled(f"{BEFORE}sensitivity,assign{{budget=area:floor+0}},replicate,{AFTER}")
    assert set(area.report["sections"]["replicate"]["copies"].values()) == {1}
    bound = _compiled(f"{BEFORE}sensitivity,assign{{budget=floor+0}},replicate,{AFTER}")
    assigned, kept = (bound.report["sections"][name] for name in ("assign", "replicate"))
    assert kept["price_pj"] <= assigned["budget_pj"]
    assert kept["interval_ns"]["after"] == kept["interval_ns"]["before"]


def test_a_chip_without_arrays_has_nothing_to_copy() -> None:
    found = _compiled(f"{BEFORE}assign{{budget=baseline}},replicate,{AFTER}", "digital")
    section = found.report["sections"]["replicate"]
    assert section["copies"] == {}
    busy = sum(row["latency_ns"] for row in found.report["layers"])
    assert section["interval_ns"] == {"before": busy, "after": busy}
