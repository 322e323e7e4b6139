# SPDX-License-Identifier: Apache-2.0
"""The report has its documented form, and its totals are the sums of its parts."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from tiny_network import TinyCore, TinyTarget, attach, layer, network

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.cores.target import Target
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Home, Vector
from enos_compiler.ir.units import energy_text, time_text
from enos_compiler.report.build import build_report, report_schema
from enos_compiler.report.csv import COLUMNS, write_csv
from enos_compiler.report.terminal import print_summary
from enos_compiler.schedule.summary import schedule_with_baseline


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    chip = TinyTarget(
        {
            "mac": TinyCore("mac", leakage=0.25),
            "xbar": TinyCore(
                "xbar", kind="crossbar", operators=("mf",), resident=True, leakage=0.125
            ),
        }
    )
    target = cast("Target", chip)
    net = network(
        [
            layer("stem_convolution_with_a_long_name", ("x",), macs=64),
            layer("b", ("stem_convolution_with_a_long_name",)),
            Vector(
                name="s",
                op="add",
                inputs=("stem_convolution_with_a_long_name", "b"),
                output="s",
                core="vec",
            ),
            Vector(name="soft", op="softmax", inputs=("s",), output="soft", core="host"),
            layer("c", ("soft",)),
        ],
        ("c",),
    )
    inner = [v for v in net.values.values() if v.kind == "internal" and v.name != "c"]
    net = net.with_values(
        {v.name: replace(v, home=Home("buffer", 16 * i, 8)) for i, v in enumerate(inner)}
    )
    net = attach(net, chip, ("mac", "mf"), [Bits(8, 8, 8), Bits(4, 4, 4)], seed=5)
    found = solve_assignment(net, target, Budget.parse("floor+0.7"), 30.0)
    net = found.network.with_section("assign", found.summary)
    program, summary = schedule_with_baseline(net, target)
    net = replace(net, program=program).with_section("schedule", summary)
    net = replace(net, provenance={"versions": {"enos-compiler": "0"}, "passes": ["assign"]})
    return build_report(
        net,
        target,
        accuracy={"reference": 0.9173, "compiled": 0.9101, "images": 10_000},
        checks={"level": "full", "onnx_max_steps": 0},
        seed=3,
        model_name="tinynet",
    )


def test_follows_its_schema(report: dict[str, Any]) -> None:
    document = json.loads(json.dumps(report, allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(report_schema())
    jsonschema.validate(document, report_schema(), jsonschema.Draft202012Validator)
    for path in (
        ("totals", "leakage_pj"),
        ("budget", "slack_pj"),
        ("sections", "pricing"),
        ("sections", "offers"),
    ):
        broken = copy.deepcopy(document)
        del broken[path[0]][path[1]]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, report_schema(), jsonschema.Draft202012Validator)


def test_totals_are_sums_of_parts(report: dict[str, Any]) -> None:
    totals = report["totals"]
    for key, rows in (
        ("layers_pj", report["layers"]),
        ("edges_pj", report["edges"]),
        ("vector_pj", report["vector"]),
        ("host_pj", report["host"]),
    ):
        assert rows, key
        assert totals[key] == sum(row["energy_pj"] for row in rows)
    assert totals["energy_pj"] == (
        totals["layers_pj"]
        + totals["edges_pj"]
        + totals["vector_pj"]
        + totals["host_pj"]
        + totals["programming_pj"]
        + totals["leakage_pj"]
    )
    pricing = report["sections"]["pricing"]
    assert totals["programming_pj"] == pricing["set_up"]["energy_pj"] / 10
    assert totals["programming_pj"] > 0
    assert totals["leakage_pj"] == 0.375 * totals["latency_ns"]
    assert totals["edp_pj_ns"] == totals["energy_pj"] * totals["latency_ns"]
    assert totals["latency_ns"] == max(row["end_ns"] for row in report["layers"])


def test_layers_are_events_times_price(report: dict[str, Any]) -> None:
    prices = report["sections"]["pricing"]["prices"]
    for row in report["layers"]:
        assert row["energy_pj"] == sum(row["components"].values())
        by_component: dict[str, float] = {}
        for action, count in row["events"].items():
            component = action.rpartition("/")[0]
            spent = count * prices[action]["energy_pj"]
            by_component[component] = by_component.get(component, 0.0) + spent
        assert row["components"] == by_component
        assert row["latency_ns"] == row["end_ns"] - row["start_ns"]
    assert all(price["source"] for price in prices.values())


def test_the_budget_holds(report: dict[str, Any]) -> None:
    budget, totals = report["budget"], report["totals"]
    assert budget["spec"] == "floor+0.7"
    assert budget["slack_pj"] == budget["energy_pj"] - totals["energy_pj"]
    assert totals["energy_pj"] <= budget["energy_pj"]
    assert budget["floor_pj"] <= budget["energy_pj"] <= report["sections"]["assign"]["baseline_pj"]
    assert report["baseline"]["name"] == "all-mac-digital-8/8"
    assert report["baseline"]["energy_pj"] <= report["sections"]["assign"]["baseline_pj"]


def test_offers_are_what_layers_could_choose(report: dict[str, Any]) -> None:
    assert report["sections"]["offers"] == {"mac": ["mac"], "xbar": ["mf"]}


def test_checks_that_did_not_run_are_null(report: dict[str, Any]) -> None:
    assert report["checks"] == {
        "level": "full",
        "onnx_max_steps": 0,
        "simulator_max_steps": None,
        "events_equal": None,
    }


def test_csv_has_units_in_its_columns(report: dict[str, Any], tmp_path: Path) -> None:
    write_csv(report, tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(report["layers"])
    for row, layer_row in zip(rows, report["layers"], strict=True):
        assert row["name"] == layer_row["name"]
        assert float(row["energy_pj"]) == layer_row["energy_pj"]
        share = layer_row["energy_pj"] / report["totals"]["energy_pj"]
        assert float(row["energy_share"]) == share


def test_terminal_summary_fits_and_tells_everything(report: dict[str, Any]) -> None:
    file = io.StringIO()
    print_summary(report, Path("build/tinynet-tiny"), file)
    text = file.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text
    assert lines[0].startswith(f"compiled tinynet for tiny: {energy_text(_total(report))}")
    assert lines[1] == "  written to build/tinynet-tiny/"
    for expected in (
        "stem_convo…_long_name ",
        "all-mac-digital-8/8",
        "91.73% before, 91.01% compiled, on 10,000 images",
        "floor+0.7 = ",
        "ONNX Runtime equals the integer reference (full)",
        "host executes 1 x softmax",
        "mf on mac; mac on xbar (why: refusals in report.json)",
        "leakage",
    ):
        assert expected in " ".join(text.split()), expected


def _total(report: dict[str, Any]) -> float:
    return float(report["totals"]["energy_pj"])


@pytest.mark.parametrize(
    ("pj", "text"),
    [
        (0.0, "0.00 pJ"),
        (0.5, "0.50 pJ"),
        (999.4, "999 pJ"),
        (999.96, "1.00 nJ"),
        (12_345.0, "12.3 nJ"),
        (1.37e6, "1.37 uJ"),
        (2.5e9, "2.50 mJ"),
        (-1500.0, "-1.50 nJ"),
    ],
)
def test_energies_adapt_their_unit(pj: float, text: str) -> None:
    assert energy_text(pj) == text


def test_times_adapt_their_unit() -> None:
    assert [time_text(ns) for ns in (5, 42_000, 3.2e9)] == ["5.00 ns", "42.0 us", "3.20 s"]
