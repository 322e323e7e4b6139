# SPDX-License-Identifier: Apache-2.0
"""enos-compare and enos-report: differences, thresholds, exit status, damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_report import small_report

from enos_compiler.cli.enos_compare import main as enos_compare
from enos_compiler.cli.enos_report import main as enos_report
from enos_compiler.errors import EnosError, FormatError, UsageError
from enos_compiler.report.compare import Change, Threshold, breaches, compare
from enos_compiler.report.page import page_html
from enos_compiler.report.read import check_report, read_report


def _dearer(report: dict[str, Any], layer: int, factor: float) -> dict[str, Any]:
    """Return the report with one layer's energy scaled, all sums kept true."""
    row = report["layers"][layer]
    prices = report["sections"]["pricing"]["prices"]
    action = max(row["events"], key=lambda a: row["events"][a] * prices[a]["energy_pj"])
    row["events"][action] = round(row["events"][action] * factor)
    component = action.split("/")[0]
    row["components"][component] = sum(
        n * prices[a]["energy_pj"]
        for a, n in row["events"].items()
        if a.startswith(f"{component}/")
    )
    row["energy_pj"] = sum(row["components"].values())
    totals = report["totals"]
    totals["layers_pj"] = sum(r["energy_pj"] for r in report["layers"])
    parts = ("layers_pj", "edges_pj", "vector_pj", "host_pj", "programming_pj", "leakage_pj")
    totals["energy_pj"] = sum(totals[p] for p in parts)
    check_report(report, "test")
    return report


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders: a report, and one whose second layer is dearer by half of its dearest action."""
    for name, report in (("old", small_report()), ("new", _dearer(small_report(), 1, 1.5))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    return tmp_path / "old", tmp_path / "new"


def test_a_report_equals_itself(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert enos_compare([str(files[0]), str(files[0]), "--max-energy", "+0%"]) == 0
    assert capsys.readouterr().out == "no difference in totals, accuracy and layers\n"


def test_what_changed_is_told(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert enos_compare([str(files[0]), str(files[1] / "report.json")]) == 0
    text = capsys.readouterr().out
    name = small_report()["layers"][1]["name"]
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.splitlines() if line.startswith(name)] == [name]
    assert "latency" in text
    assert next(line for line in text.splitlines() if line.startswith("latency")).endswith("=")


def test_json_has_exact_numbers(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert enos_compare([*map(str, files), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    old, new = (read_report(f) for f in files)
    energy = next(c for c in found["totals"] if c["name"] == "energy")
    assert (energy["old"], energy["new"]) == tuple(r["totals"]["energy_pj"] for r in (old, new))
    assert energy["relative"] == energy["new"] / energy["old"] - 1
    assert [layer["name"] for layer in found["layers"]] == [new["layers"][1]["name"]]
    assert found["inputs"] == {}


def test_thresholds_decide_the_exit_status(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = (read_report(f)["totals"]["energy_pj"] for f in files)
    above = 100 * (new / old - 1)
    words = [*map(str, files), "--max-energy"]
    assert enos_compare([*words, f"+{above + 0.01:.6f}%"]) == 0
    capsys.readouterr()
    assert enos_compare([*words, f"+{above - 0.01:.6f}%", "-q"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("too far: energy changed by +")
    assert enos_compare([*words, "-5%", "--json"]) == 1
    assert [b["name"] for b in json.loads(capsys.readouterr().out)["breaches"]] == ["energy"]
    assert enos_compare([*map(str, files), "--max-layer", "+10%"]) == 1
    assert "energy of " in capsys.readouterr().out
    assert enos_compare([*map(str, files), "--max-latency", "0%", "--max-area", "0%"]) == 0


def test_less_is_never_a_breach_of_growth(files: tuple[Path, Path]) -> None:
    assert enos_compare([str(files[1]), str(files[0]), "--max-energy", "0%", "-q"]) == 0


def test_accuracy_may_fall_by_points() -> None:
    reports = [small_report(), small_report()]
    for report, compiled in zip(reports, (0.9, 0.894), strict=True):
        report["accuracy"] = {"reference": 0.91, "compiled": compiled, "images": 500}
    found = compare(*reports)
    assert not breaches(found, [Threshold.parse("accuracy", "0.6")])
    assert breaches(found, [Threshold.parse("accuracy", "0.59")])
    assert not breaches(compare(*reversed(reports)), [Threshold.parse("accuracy", "0")])
    reports[1]["accuracy"] = None
    assert breaches(compare(*reports), [Threshold.parse("accuracy", "50")])


def test_choices_layers_and_inputs_are_compared() -> None:
    old, new = small_report(), small_report()
    new["layers"][0]["operator"] = "shift"
    new["layers"][0]["bits"] = {"input": 8, "weight": 4, "output": 8}
    gone = new["layers"].pop(1)
    new["layers"].append({**gone, "name": "fresh"})
    new["seed"] = 7
    new["versions"]["torch"] = "9"
    found = compare(old, new)
    assert found.layers[0].choice["operator"] == (old["layers"][0]["operator"], "shift")
    assert [(c.name, c.kind) for c in found.layers[1:]] == [
        ("fresh", "added"),
        (gone["name"], "removed"),
    ]
    assert set(found.inputs) == {"seed", "versions"}


@pytest.mark.parametrize(
    ("name", "text"), [("energy", "2"), ("energy", "two%"), ("accuracy", "2%"), ("edp", "")]
)
def test_thresholds_that_are_none(name: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Threshold.parse(name, text)
    assert "--max-" in str(caught.value)


@given(st.floats(1e-3, 1e12), st.floats(1e-3, 1e12), st.floats(-90, 900))
@settings(deadline=None)
def test_a_threshold_is_the_ratio_that_it_says(old: float, new: float, percent: float) -> None:
    report = small_report()
    other = small_report()
    report["totals"]["energy_pj"], other["totals"]["energy_pj"] = old, new
    broken = breaches(compare(report, other), [Threshold("energy", percent / 100)])
    margin = 1e-6 * max(old, new)
    if new > old * (1 + percent / 100) + margin:
        assert broken
    elif new < old * (1 + percent / 100) - margin:
        assert not broken


def test_changes_from_nothing() -> None:
    assert Change("x", "pJ", 0.0, 0.0).relative == 0.0
    assert Change("x", "pJ", 0.0, 5.0).as_dict()["relative"] is None
    assert Change("x", "pJ", None, 5.0).relative is None


# Files that are no reports


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[]", "is no report"),
        ("{}", "is no report"),
        ('{"schema": "enos-report/9"}', "has schema 'enos-report/9'; this version reads"),
        ('{"schema": "enos-report/1"}', "is a required property"),
        ('{"schema": NaN}', "NaN is no number of JSON"),
        ('{"schema": 9' + "9" * 400 + "}", "is beyond 64 bits"),
        ('{"schema": 1e999}', "1e999 is beyond double precision"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_what_is_no_report_is_refused(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    for command in ([str(file), str(file)], [str(tmp_path), str(tmp_path)]):
        assert enos_compare(command) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {file}: ")
        assert said in error
        assert len(error) < 600
    assert enos_report([str(file)]) == 1
    assert not (tmp_path / "report.html").exists()


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enos_compare([str(tmp_path / "nowhere"), str(tmp_path)]) == 1
    assert "nowhere: does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["totals"].update(energy_pj=1.0), "totals.energy_pj = 1.0, but its parts sum"),
        (lambda r: r["layers"][0].update(energy_pj=1.0), "energy_pj = 1.0, but its parts sum"),
        (lambda r: r["layers"][0].update(macs=1), "totals.macs"),
        (lambda r: r["layers"].pop(), "totals."),
        (lambda r: r["layers"][0].update(core=3), "layers.0.core: 3 is not of type 'string'"),
        (lambda r: r["sections"]["timeline"]["slots"].append([99, 0, 0, 0, 1, 1, 1]), "index 99"),
        (lambda r: r["sections"]["pricing"]["prices"].clear(), "no price for"),
    ],
)
def test_reports_that_contradict_themselves_are_refused(change: Any, said: str) -> None:
    report = small_report()
    change(report)
    with pytest.raises(FormatError) as caught:
        check_report(report, "report.json")
    assert said in str(caught.value)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_flipped_bytes_end_in_one_message_or_a_page(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    blob = bytearray(json.dumps(small_report()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("flipped") / "report.json"
    file.write_bytes(bytes(blob))
    refused: EnosError | None = None
    try:
        report = read_report(file)
    except EnosError as error:
        refused = error
    if refused is not None:
        assert refused.place == str(file)
        return
    assert compare(small_report(), report) is not None
    assert "<html" in page_html(report)


def test_the_page_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = small_report()
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert enos_report([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"residual on hybrid: {tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").read_text() == page_html(report)
    assert enos_report([str(tmp_path), "--summary"]) == 0
    assert capsys.readouterr().out.startswith("compiled residual for hybrid: ")
    assert enos_report([str(tmp_path), "-o", str(tmp_path / "no" / "where.html")]) == 1
    assert "cannot write" in capsys.readouterr().err
