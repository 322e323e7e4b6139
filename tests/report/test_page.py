# SPDX-License-Identifier: Apache-2.0
"""report.html in a real browser: silent, offline, and with the numbers of report.json."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find_chromium
from small_report import compiled_small, small_report

from enos_compiler.ir.units import energy_text, time_text
from enos_compiler.report.page import page_html, write_page

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&amp;<b>{{data}}<!-- <script x"


def _open(page: Browser, folder: Path, report: dict[str, Any], **how: Any) -> None:
    write_page(report, folder / "report.html")
    page.open(folder / "report.html", **how)


def _as_read(text: str) -> str:
    """Return the terminal's text as the page prints it."""
    return text.replace("uJ", "µJ").replace("us", "µs")


def test_ci_has_a_browser_where_it_says_so() -> None:
    """`ENOS_CHROMIUM` is a promise: a name that is no program must not skip the tests."""
    named = os.environ.get("ENOS_CHROMIUM")
    assert named is None or os.access(named, os.X_OK)
    assert find_chromium() == named or named is None


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_silent_and_offline_at_any_size(
    page: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    _open(page, tmp_path, small_report(), width=width, scheme=scheme)
    assert page.errors == []
    assert page.requests == [(tmp_path / "report.html").resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ids = page.evaluate("[...document.querySelectorAll('main section')].map(s => s.id)")
    assert {"energy", "map", "schedule", "roofline", "layers", "inputs"} <= set(ids)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", background)[0])
    assert (red > 200) == (scheme == "light")


def test_numbers_are_those_of_the_report(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    _open(page, tmp_path, report)
    found = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-total]')]"
        ".map(d => [d.dataset.total, [Number(d.value), d.textContent]]))"
    )
    totals = report["totals"]
    for key, text in (("energy_pj", energy_text), ("latency_ns", time_text)):
        value, shown = found[key]
        assert value == totals[key]
        assert shown.replace("\u2009", " ") == _as_read(text(totals[key]))
    bars = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-row]')]"
        ".map(d => [d.dataset.row, [Number(d.value), d.textContent]]))"
    )
    expected = {row["name"]: row["energy_pj"] for row in report["layers"]}
    others = {
        "vector operations": "vector_pj",
        "edges": "edges_pj",
        "host operations": "host_pj",
        "programming weights": "programming_pj",
        "leakage": "leakage_pj",
    }
    expected |= {name: totals[key] for name, key in others.items() if totals[key]}
    assert {name: value for name, (value, _) in bars.items()} == expected
    assert {n: t for n, (_, t) in bars.items()} == {
        n: _as_read(energy_text(pj)) for n, pj in expected.items()
    }


def test_bars_are_as_long_as_their_energies(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    _open(page, tmp_path, report)
    widths = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('button.bar')].map(b => ["
        "b.querySelector('.name').title, [...b.querySelectorAll('[data-part]')]"
        ".reduce((w, s) => w + s.getBoundingClientRect().width, 0)]))"
    )
    per_pj = {row["name"]: widths[row["name"]] / row["energy_pj"] for row in report["layers"]}
    scale = max(per_pj.values())
    assert list(per_pj.values()) == pytest.approx([scale] * len(per_pj), rel=0.02)


def _column(page: Browser, index: int) -> list[str]:
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll('#layers tbody tr')].map(r => r.cells[{index}].textContent)"
    )
    return found


def test_tables_sort(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    _open(page, tmp_path, report)
    names = [row["name"] for row in report["layers"]]
    assert _column(page, 0) == names
    by_energy = sorted(report["layers"], key=lambda row: -row["energy_pj"])
    header = "document.querySelectorAll('#layers th button')[6]"
    page.evaluate(f"{header}.click()")
    assert _column(page, 0) == [row["name"] for row in by_energy]
    assert page.evaluate(f"{header}.parentNode.getAttribute('aria-sort')") == "descending"
    page.evaluate(f"{header}.click()")
    assert _column(page, 0) == [row["name"] for row in reversed(by_energy)]
    page.evaluate("document.querySelector('#layers th button').click()")
    assert _column(page, 0) == sorted(names)


def test_a_layer_opens_by_keyboard_with_its_events(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    _open(page, tmp_path, report)
    row = report["layers"][1]
    page.evaluate("document.querySelectorAll('button.bar')[1].focus()")
    page.press("Enter")
    page.settle()
    assert page.evaluate("document.querySelector('dialog').open")
    assert page.evaluate("document.querySelector('dialog h2').textContent") == row["name"]
    events = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('dialog tbody tr')].map("
        "r => [r.cells[0].textContent, Number(r.cells[1].querySelector('data').value)]))"
    )
    assert events == row["events"]
    page.press("Escape")
    page.settle()
    assert not page.evaluate("document.querySelector('dialog').open")


def test_slots_of_the_schedule_are_drawn_where_they_are(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    _open(page, tmp_path, report)
    drawn = page.evaluate(
        "[...document.querySelectorAll('.gantt .slot')].map(s => "
        "[s.x.baseVal.value, s.x.baseVal.value + s.width.baseVal.value])"
    )
    width = page.evaluate("document.querySelector('.gantt').clientWidth")
    span = report["totals"]["latency_ns"]
    slots = report["sections"]["timeline"]["slots"]
    assert 0 < len(drawn) <= len(slots)
    edges = {round(x) for pair in drawn for x in pair}
    for slot in slots:
        if slot[4] - slot[3] > span / 100:
            assert any(abs(slot[3] / span * width - x) <= 2 for x in edges)
            assert any(abs(slot[4] / span * width - x) <= 2 for x in edges)
    before = page.evaluate("document.querySelector('.gantt svg').textContent")
    page.evaluate("document.querySelector('.gantt').focus()")
    page.press("+")
    page.settle()
    assert page.evaluate("document.querySelector('.gantt svg').textContent") != before


def test_a_stream_is_told_beside_the_schedule(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    asked = "document.querySelector('#schedule').textContent"
    _open(page, tmp_path, report)
    assert "stream" not in page.evaluate(asked)
    report["sections"]["schedule"]["frames"] = {
        "frames": 1000,
        "interval_ns": 1250.0,
        "limit": "<xbar>",
    }
    _open(page, tmp_path, report)
    told = page.evaluate(asked).replace("\u2009", " ")
    assert "In a stream of 1,000 frames one follows every 1.25 µs; <xbar> allows no less." in told


def test_hostile_names_are_text(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    old = report["layers"][0]["name"]
    report["model"] = HOSTILE
    report["versions"][HOSTILE] = HOSTILE
    report["layers"][0]["name"] = HOSTILE
    report["refusals"].append(
        {"layer": HOSTILE, "core": HOSTILE, "operator": HOSTILE, "reason": HOSTILE}
    )
    graph = report["sections"]["graph"]
    for node in graph["nodes"]:
        node["name"] = HOSTILE if node["name"] == old else node["name"]
        node["reads"] = [HOSTILE if name == old else name for name in node["reads"]]
    roofs = report["sections"]["roofline"]["layers"]
    roofs[HOSTILE] = roofs.pop(old)
    for owner in report["sections"]["timeline"]["owners"]:
        owner["name"] = HOSTILE if owner["name"] == old else owner["name"]
    assert page_html(report).count("</script>") == page_html(small_report()).count("</script>")
    _open(page, tmp_path, report)
    assert page.errors == []
    assert len(page.requests) == 1
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.querySelector('h1').textContent").startswith(HOSTILE)
    assert page.evaluate("document.title") == f"{HOSTILE} on hybrid"


def test_a_report_without_sections_still_is_a_page(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    for name in ("graph", "timeline", "roofline", "schedule", "map-cim"):
        report["sections"].pop(name, None)
    report |= {"budget": None, "accuracy": None, "refusals": []}
    _open(page, tmp_path, report)
    assert page.errors == []
    ids = page.evaluate("[...document.querySelectorAll('main section')].map(s => s.id)")
    assert {"energy", "layers", "inputs"} <= set(ids)
    assert "map" not in ids


def test_every_array_of_the_crossbars_is_drawn(page: Browser, tmp_path: Path) -> None:
    report = small_report("cim")
    _open(page, tmp_path, report)
    assert page.errors == []
    section = report["sections"]["map-cim"]
    drawn = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.placed')].flatMap(p => "
        "[...p.querySelectorAll('.asLink')].map((b, i) => "
        "[b.title, p.querySelectorAll('.arrays')[i].querySelectorAll('svg').length])))"
    )
    assert drawn == {n: p["arrays"] * p["copies"] for n, p in section["layers"].items()}
    pools = page.evaluate(
        "[...document.querySelectorAll('.pool')].map(p => [p.children.length, "
        "[...p.children].filter(c => c.style.background).length])"
    )
    assert sorted(pools) == sorted([min(600, c["count"]), c["used"]] for c in section["crossbars"])


def test_arrays_have_the_width_of_the_card_where_the_window_is_narrow(
    page: Browser, tmp_path: Path
) -> None:
    """A layer's name and figures stand above its arrays there, and beside them elsewhere."""
    found = {}
    for width in (390, 1400):
        _open(page, tmp_path, small_report("cim"), width=width)
        found[width] = page.evaluate(
            "(() => { const p = document.querySelector('.placed');"
            "const [name, facts, arrays] = [...p.children].map(c => c.getBoundingClientRect());"
            "return [arrays.width / p.clientWidth, facts.top - name.top, arrays.top > name.top];"
            "})()"
        )
    share, beside, below = found[390]
    assert share > 0.99
    assert abs(beside) < 4
    assert below
    share, beside, below = found[1400]
    assert share < 0.8
    assert abs(beside) < 4
    assert not below


def test_many_layers_on_crossbars_take_the_whole_width(page: Browser, tmp_path: Path) -> None:
    report = small_report("cim")
    layers = report["sections"]["map-cim"]["layers"]
    for many in (False, True):
        if many:
            row = next(r for r in report["layers"] if r["name"] in layers)
            for number in range(8):
                name = f"more_{number}"
                report["layers"].append({**row, "name": name})
                layers[name] = layers[row["name"]]
        _open(page, tmp_path, report, width=1280)
        assert page.errors == []
        paired = page.evaluate("Boolean(document.querySelector('#crossbars').closest('.pair'))")
        assert paired != many


def test_a_front_is_drawn_where_a_search_reports_one(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    report["accuracy"] = {"reference": 0.95, "compiled": 0.94, "images": 100}
    report["sections"]["search"] = {
        "front": [
            {"energy_pj": 1e5 * i, "validation_accuracy": 0.8 + 0.02 * i, "budget": f"floor+0.{i}"}
            for i in range(1, 6)
        ],
        "posterior": [{"energy_pj": 2e5, "validation_accuracy": None}, "odd"],
    }
    _open(page, tmp_path, report)
    assert page.errors == []
    centres = page.evaluate(
        "[...document.querySelectorAll('#front circle')].map(c => "
        "[c.cx.baseVal.value, c.cy.baseVal.value])"
    )
    assert len(centres) == 6
    xs, ys = zip(*centres[:5], strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)
    assert xs[1] - xs[0] == pytest.approx(xs[4] - xs[3])


def test_devices_are_drawn_where_an_evaluation_sampled_some(page: Browser, tmp_path: Path) -> None:
    report = small_report()
    study = {
        "images": 400,
        "confidence": 0.95,
        "accuracy": 0.905,
        "low": 0.88,
        "high": 0.93,
        "ideal": 0.94,
        "devices": [0.9, 0.91, 0.905, 0.905, 0.905],
    }
    report["sections"]["devices"] = study
    _open(page, tmp_path, report, width=390)
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    dots = page.evaluate(
        "[...document.querySelectorAll('#devices .device')].map(c => "
        "[c.cx.baseVal.value, c.cy.baseVal.value])"
    )
    assert len({tuple(dot) for dot in dots}) == 5
    xs = sorted({round(x, 6) for x, _ in dots})
    assert len(xs) == 3
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    del study["ideal"]
    _open(page, tmp_path, report)
    assert page.evaluate("document.getElementById('devices')") is None
    assert page.errors == []


def _large(layers: int, instructions: int) -> dict[str, Any]:
    """Return a report of many layers in a chain and many instructions in turn on two resources."""
    report = small_report()
    row = report["layers"][0]
    sections = report["sections"]
    names = [f"block_{i}_convolution" for i in range(layers)]
    report["layers"] = [{**row, "name": name} for name in names]
    report["vector"], report["edges"], report["host"] = [], [], []
    chain = ["input_1", *names]
    nodes = [
        {"name": b, "op": "conv", "core": row["core"], "reads": [a]}
        for a, b in zip(chain, names, strict=False)
    ]
    sections["graph"] = {"inputs": ["input_1"], "outputs": names[-1:], "nodes": nodes}
    roof = sections["roofline"]["layers"][row["name"]]
    sections["roofline"]["layers"] = dict.fromkeys(names, roof)
    report["totals"]["latency_ns"] = float(instructions)
    sections["timeline"] = {
        "resources": ["mac", "dram"],
        "owners": [{"kind": "layer", "name": name} for name in names],
        "ops": ["compute", "load"],
        "instructions": instructions,
        "slots": [
            [k, i * layers // instructions, k, float(i + 0.1 * k), float(i + 0.9), 0.8, 1]
            for k in range(2)
            for i in range(k, instructions, 2)
        ],
    }
    return report


def test_large_reports_stay_small_on_screen(page: Browser, tmp_path: Path) -> None:
    """200 layers and 20,000 slots: what is drawn is bounded by the screen, not by the report."""
    _open(page, tmp_path, _large(200, 20_000))
    assert page.errors == []
    assert page.evaluate("document.querySelectorAll('.gantt .slot').length") < 4000
    assert page.evaluate("document.querySelectorAll('button.bar').length") <= 28
    assert page.evaluate("document.querySelectorAll('#map .node').length") == 201
    page.evaluate("document.querySelector('.gantt').focus()")
    for _ in range(8):
        page.press("+")
    page.settle()
    page.settle()
    assert 0 < page.evaluate("document.querySelectorAll('.gantt .slot').length") < 400


def test_the_written_page_is_the_one_that_is_shown(tmp_path: Path) -> None:
    compiled = compiled_small()
    compiled.save(tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_text() == page_html(compiled.report)
