# SPDX-License-Identifier: Apache-2.0
"""trace.json by the rules of its format, and Netron's attachment by the nodes that it names."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from small_report import compiled_small, small_report

from enos_compiler.report.netron import netron_attachment
from enos_compiler.report.trace import trace, write_trace


def _slices(document: dict[str, Any]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    threads: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append(event)
    return threads


def test_every_thread_has_a_name_and_nested_slices() -> None:
    document = trace(small_report(), compiled_small().program)
    named = {
        (e["pid"], e["tid"]): e["args"]["name"]
        for e in document["traceEvents"]
        if e["name"] == "thread_name"
    }
    threads = _slices(document)
    assert set(threads) == set(named)
    assert {e["ph"] for e in document["traceEvents"]} == {"M", "X"}
    for slices in threads.values():
        open_ends: list[float] = []
        for one in sorted(slices, key=lambda e: (e["ts"], -e["dur"])):
            while open_ends and open_ends[-1] <= one["ts"] + 1e-9:
                open_ends.pop()
            end = one["ts"] + one["dur"]
            assert not open_ends or end <= open_ends[-1] + 1e-9
            open_ends.append(end)


def test_slices_are_the_instructions_of_their_resource() -> None:
    program = compiled_small().program
    document = trace(small_report(), program)
    names = {
        (e["pid"], e["tid"]): e["args"]["name"]
        for e in document["traceEvents"]
        if e["name"] == "thread_name"
    }
    found = {
        (names[thread], e["args"]["id"]): (e["ts"], e["dur"])
        for thread, slices in _slices(document).items()
        for e in slices
        if "id" in e["args"]
    }
    everything = (*program.instructions, *program.setup)
    assert set(found) == {(i.resource, i.id) for i in everything}
    for i in everything:
        expected = (i.start_ns / 1000, (i.end_ns - i.start_ns) / 1000)
        assert found[i.resource, i.id] == pytest.approx(expected)


def test_energies_are_those_of_the_report() -> None:
    report = small_report()
    document = trace(report, compiled_small().program)
    spent = report["totals"]
    whole = [e for e in document["traceEvents"] if e["ph"] == "X" and e["cat"] == "whole"]
    per_inference = sum(spent[k] for k in ("layers_pj", "edges_pj", "vector_pj", "host_pj"))
    assert whole[0]["args"]["energy_pj"] == pytest.approx(per_inference)
    assert whole[0]["dur"] == pytest.approx(spent["latency_ns"] / 1000)
    set_up = report["sections"]["pricing"]["set_up"]["energy_pj"]
    assert [w["args"]["energy_pj"] for w in whole[1:]] == pytest.approx([set_up] if set_up else [])


def test_the_written_file_is_the_trace(tmp_path: Path) -> None:
    report, program = small_report(), compiled_small().program
    write_trace(report, program, tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text()) == trace(report, program)


def test_netron_gets_each_row_on_one_node() -> None:
    report, model = small_report(), compiled_small().onnx
    attachment = netron_attachment(report, model)
    assert attachment["signature"] == "netron:attachment"
    types = {node.name: node.op_type for node in model.graph.node}
    layers = {
        p.value: node.name
        for node in model.graph.node
        for p in node.metadata_props
        if p.key == "enos.layer"
    }
    energies = {
        e["target"]: e["value"]
        for e in attachment["metrics"]
        if e["kind"] == "node" and e["name"] == "energy_pj"
    }
    for row in report["layers"]:
        assert energies[layers[row["name"]]] == row["energy_pj"]
    for row in report["vector"]:
        assert any(target.startswith(f"{row['name']}/") for target in energies), row["name"]
    assert set(energies) <= set(types)
    (total,) = (
        e["value"]
        for e in attachment["metrics"]
        if e["kind"] == "graph" and e["name"] == "energy_pj"
    )
    assert total == report["totals"]["energy_pj"]
    entries = [*attachment["metadata"], *attachment["metrics"]]
    assert all(set(e) == {"kind", "target", "name", "value"} for e in entries)
