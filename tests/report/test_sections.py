# SPDX-License-Identifier: Apache-2.0
"""What the report says for its pictures: graph, timeline, roofline, layout."""

from __future__ import annotations

import itertools
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_report import compiled_small, small_report

from enos_compiler.cores.base import Rated
from enos_compiler.ir.program import Instruction, Program
from enos_compiler.report.build import report_schema
from enos_compiler.report.layout import apart, lay_out
from enos_compiler.report.timeline import MOST_SLOTS, timeline


def _instruction(i: int, resource: str, start: float, end: float, **owner: str) -> Instruction:
    return Instruction(f"i{i}", resource, "compute", start, end, 0, 1, **owner)  # type: ignore[arg-type]


def test_sections_follow_the_schema_and_name_the_rows() -> None:
    report = small_report()
    jsonschema.validate(report, report_schema())
    graph = report["sections"]["graph"]
    rows = {row["name"] for kind in ("layers", "vector", "host") for row in report[kind]}
    assert {node["name"] for node in graph["nodes"]} == rows
    known = set(graph["inputs"])
    for node in graph["nodes"]:
        assert node["reads"], node
        assert set(node["reads"]) <= known
        known.add(node["name"])
    assert set(report["sections"]["roofline"]["layers"]) == {r["name"] for r in report["layers"]}


def test_the_graph_is_the_networks() -> None:
    network = compiled_small().network
    graph = small_report()["sections"]["graph"]
    edges = {(a, b) for _, a, b in network.edges() if a in network.order or a in network.inputs}
    assert {(a, n["name"]) for n in graph["nodes"] for a in n["reads"]} == edges


def test_bytes_and_speed_stay_under_the_roofs() -> None:
    report = small_report()
    roof = report["sections"]["roofline"]
    for row in report["layers"]:
        point = roof["layers"][row["name"]]
        speed = row["macs"] / row["latency_ns"]
        if point["peak_macs_per_ns"] is not None:
            assert speed <= point["peak_macs_per_ns"]
        assert point["bytes"] > 0
        bandwidth = roof["memories"][point["memory"]]["bytes_per_ns"]
        assert point["bytes"] <= row["latency_ns"] * bandwidth
        read_write = sum(
            n * 8
            for action, n in row["events"].items()
            if action.startswith(f"{point['memory']}.") and action.endswith("_64b")
        )
        assert point["bytes"] == read_write


def test_no_choice_of_any_layer_is_faster_than_its_cores_peak() -> None:
    compiled = compiled_small()
    nearest: dict[str, float] = {}
    for layer in compiled.network.layers.values():
        for choice, cost in zip(layer.choices, layer.costs, strict=True):
            core = compiled.target.cores[choice.core]
            assert isinstance(core, Rated), choice.core
            share = layer.shape.macs / cost.latency_ns / core.peak_macs_per_ns(choice)
            assert share <= 1 + 1e-12, f"{layer.name}: {choice}"
            nearest[choice.core] = max(nearest.get(choice.core, 0.0), share)
    assert set(nearest) == {"mac", "xbar"}
    assert nearest["mac"] > 0.1


def test_few_instructions_are_slots_as_they_are() -> None:
    compiled = compiled_small()
    found = timeline(compiled.program)
    slots = {
        (found["resources"][s[0]], found["owners"][s[1]]["name"], found["ops"][s[2]], s[3], s[4])
        for s in found["slots"]
    }
    owners = ("layer", "edge", "vector", "host")
    assert slots == {
        (i.resource, next(n for o in owners if (n := getattr(i, o))), i.op, i.start_ns, i.end_ns)
        for i in compiled.program.instructions
    }


@given(st.integers(MOST_SLOTS + 1, 3 * MOST_SLOTS), st.integers(1, 40), st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_many_instructions_become_few_slots(count: int, owners: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    instructions = []
    for resource, n in (("a", count // 2), ("b", count - count // 2)):
        ticks = np.cumsum(rng.integers(1, 9, 2 * n)).astype(float)
        instructions += [
            _instruction(i, resource, ticks[2 * i], ticks[2 * i + 1], layer=f"l{i * owners // n}")
            for i in range(n)
        ]
    program = Program(("a", "b"), (), tuple(instructions), memories={}, clock_ns=1.0)
    found = timeline(program)
    assert len(found["slots"]) <= MOST_SLOTS
    assert sum(s[6] for s in found["slots"]) == found["instructions"] == count
    busy = sum(i.end_ns - i.start_ns for i in instructions)
    assert sum(s[5] for s in found["slots"]) == pytest.approx(busy)
    for first, second in itertools.pairwise(found["slots"]):
        assert first[0] != second[0] or first[4] <= second[3]
    for slot in found["slots"]:
        assert slot[5] <= slot[4] - slot[3]


def _random_graph(seed: int, size: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    nodes = [
        {
            "name": f"n{i}",
            "reads": [f"n{j}" for j in sorted(set(rng.integers(max(0, i - 6), i, 2)))],
        }
        if i
        else {"name": "n0", "reads": ["x"]}
        for i in range(size)
    ]
    return {"inputs": ["x"], "outputs": [f"n{size - 1}"], "nodes": nodes}


@given(st.integers(0, 10_000), st.integers(1, 40), st.sets(st.integers(0, 39)))
@settings(deadline=None, max_examples=60)
def test_drawings_keep_order_and_distance(seed: int, size: int, free: set[int]) -> None:
    graph = _random_graph(seed, size)
    hidden = {f"n{i}" for i in free if i < size}
    drawn = lay_out(graph, hidden)
    place = {n["name"]: (n["rank"], n["lane"]) for n in drawn["nodes"]}
    assert set(place) == {"x", *(n["name"] for n in graph["nodes"])} - hidden
    assert drawn["hidden"] == len(hidden)
    points: dict[int, list[tuple[float, float]]] = {}
    for rank, lane in place.values():
        points.setdefault(rank, []).append((lane, 0.5))
    for edge in drawn["edges"]:
        (first, lane), (last, end) = place[edge["from"]], place[edge["to"]]
        assert first < last
        assert len(edge["lanes"]) == last - first + 1
        assert (edge["lanes"][0], edge["lanes"][-1]) == (lane, end)
        for rank, waypoint in enumerate(edge["lanes"][1:-1], first + 1):
            points[rank].append((waypoint, 0.2))
    for lanes in points.values():
        ordered = sorted(lanes)
        assert ordered[0][0] >= 0
        for (low, below), (high, above) in itertools.pairwise(ordered):
            assert high - low >= below + above - 2e-3


_WISHES = st.tuples(st.floats(-20, 20), st.sampled_from((1.0, 3.0)), st.sampled_from((0.4, 1.0)))


@given(st.lists(_WISHES, min_size=1, max_size=7))
@settings(deadline=None)
def test_places_apart_are_the_nearest(points: list[tuple[float, float, float]]) -> None:
    """Against the definition: no small move that keeps the distances is nearer to the wishes."""
    wishes, weights, sizes = zip(*points, strict=True)
    places = apart(wishes, weights, sizes)
    needed = [(a + b) / 2 for a, b in itertools.pairwise(sizes)]

    def far_off(there: list[float]) -> float:
        return float(sum(w * (p - x) ** 2 for p, x, w in zip(there, wishes, weights, strict=True)))

    def legal(there: list[float]) -> bool:
        gaps = [b - a for a, b in itertools.pairwise(there)]
        return all(gap >= least - 1e-9 for gap, least in zip(gaps, needed, strict=True))

    assert legal(places)
    for first in range(len(places)):
        for last in range(first, len(places)):
            for step in (-1e-3, 1e-3):
                moved = [p + step * (first <= i <= last) for i, p in enumerate(places)]
                assert not legal(moved) or far_off(moved) >= far_off(places) - 1e-9
