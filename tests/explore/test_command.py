# SPDX-License-Identifier: Apache-2.0
"""The command from a user's file to a front, and from a point of it to a compiled network."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from explore_model import MODEL

from enos_compiler.cli.enos_explore import main as enos_explore
from enos_compiler.cli.enosc import main as enosc


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("mappings"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "bare.py").write_text(MODEL.partition("def data")[0])
    return tmp_path


def run(cache: str, *words: str, bits: str = "2,8") -> int:
    common = ("--mapping-cache", cache, "--bits", bits, "-q")
    return enos_explore([*words, *common])


def front(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "front.json").read_text())
    return content


def test_a_point_of_the_front_compiles_to_what_the_front_says(folder: Path, cache: str) -> None:
    assert run(cache, "net.py", "--generations", "4", "--float-epochs", "4", "-o", "out") == 0
    found = front(folder / "out")
    assert found["objectives"] == ["accuracy", "edp"]
    assert len(found["hypervolumes"]) == 5
    assert found["hypervolumes"] == sorted(found["hypervolumes"])
    rows = list(csv.DictReader((folder / "out" / "front.csv").open()))
    assert [float(r["edp"]) for r in rows] == [p["objectives"]["edp"] for p in found["points"]]
    for shown in (*found["points"], *found["uniform"]):
        assert sum(shown["parts_pj"].values()) == pytest.approx(shown["objectives"]["energy"])
        assert shown["parts_pj"]["dram.device"] > 0
    text = (folder / "out" / "front.html").read_text()
    data = text.partition('<script type="application/json" id="data">')[2].partition("</script>")
    assert json.loads(data[0]) == {"front": found}
    accuracies = [p["objectives"]["accuracy"] for p in found["points"]]
    assert accuracies == sorted(accuracies, reverse=True)
    number = len(found["points"]) - 1
    point = found["points"][number]
    words = ["net.py", "--target", "eyeriss", "--bits", f"out/front.json#{number}", "-o", "made"]
    assert enosc([*words, "--mapping-cache", cache, "-q"]) == 0
    report = json.loads((folder / "made" / "report.json").read_text())
    for row in report["layers"]:
        assert [row["bits"]["input"], row["bits"]["weight"]] == point["bits"][row["name"]]
    spent = report["totals"]["energy_pj"] - report["totals"]["leakage_pj"]
    assert 0 < spent < point["objectives"]["energy"] <= report["totals"]["energy_pj"] * 1.01


def test_a_run_goes_on_from_its_journal(folder: Path, cache: str) -> None:
    """After a kill in the middle of a line, the same front; without --resume, a refusal."""
    words = ("net.py", "--generations", "5", "--float-epochs", "1")
    assert run(cache, *words, "-o", "whole") == 0
    assert run(cache, *words, "-o", "cut") == 0
    journal = folder / "cut" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) > 4
    journal.write_text("".join(lines[:3]) + lines[3][:10])
    (folder / "cut" / "front.json").unlink()
    assert run(cache, *words, "-o", "cut") == 2
    assert run(cache, *words, "-o", "cut", "--resume") == 0
    assert front(folder / "cut") == front(folder / "whole")
    assert journal.read_text() == (folder / "whole" / "journal.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("net.py", "--objectives", "edp"), "is one objective"),
        (("net.py", "--objectives", "acuracy,edp"), "accuracy (known"),
        (("net.py", "--bits", "1..8"), "1 bits is outside 2..8"),
        (("net.py", "--tier", "full"), "is no tier"),
        (("net.py", "--workers", "ray"), "names no workers"),
        (("net.py", "--vary", "cores.array.levels.glb.entries=1,2"), "levels.glb does not exist"),
        (("net.py", "--vary", "cores.array.kind=1,2"), "holds no number"),
        (("net.py", "--vary", "clock_ns=-1"), "clock_ns"),
        (("net.py", "--vary", "clock_ns"), "is not of the form"),
        (("bare.py",), "gives no data()"),
        (("bare.py", "--objectives", "noise,edp", "--method", "both"), "--method both trains"),
        (("net.py", "--population", "1"), "1 is below 2"),
    ],
)
def test_bad_input_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert enos_explore([*words, "-o", "out"]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (folder / "out" / "front.json").exists()


def test_a_journal_of_another_run_is_refused(
    folder: Path, cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("net.py", "--generations", "0", "--float-epochs", "1", "-o", "out")
    assert run(cache, *words) == 0
    before = (folder / "out" / "journal.jsonl").read_text()
    assert run(cache, *words, "--resume", "--images", "7") == 1
    assert "belongs to another run" in capsys.readouterr().err
    assert (folder / "out" / "journal.jsonl").read_text() == before


def test_gradients_find_settings_of_their_own(folder: Path, cache: str) -> None:
    """Alone they are the first generation beside the uniform networks; or NSGA-II goes on."""
    words = ["net.py", "--float-epochs", "2", "--search-epochs", "2", "--generations", "2"]
    assert run(cache, *words, "--method", "gradient", "-o", "alone", bits="2,4,8") == 0
    alone = front(folder / "alone")
    assert len(alone["hypervolumes"]) == 1
    assert alone["evaluations"] > len(alone["uniform"])
    assert {p["origin"] for p in alone["points"]} <= {"uniform", "gradient"}
    words += ["--greedy", "0"]
    assert run(cache, *words, "--method", "both", "-o", "both", bits="2,4,8") == 0
    both = front(folder / "both")
    assert both["hypervolumes"][0] == alone["hypervolumes"][0]
    assert len(both["hypervolumes"]) == 3


def test_chips_are_searched_with_bits(folder: Path, cache: str) -> None:
    words = ("--objectives", "noise,energy", "--generations", "3", "--greedy", "0")
    vary = ("--vary", "cores.array.levels.psum_spad.read_pj=0.1,9.0")
    assert run(cache, "bare.py", *words, *vary, "-o", "out") == 0
    found = front(folder / "out")
    changed = "cores.array.levels.psum_spad.read_pj"
    assert {p["chip"][changed] for p in found["points"]} == {0.1}  # dearer reads never pay
    assert {p["target"] for p in found["points"]} == {"target-0.yaml"}
    compiled = ["bare.py", "--target", "out/target-0.yaml", "--bits", "out/front.json#0"]
    assert enosc([*compiled, "-o", "made", "--mapping-cache", cache, "-q"]) == 0


def test_a_point_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "front.json").write_text('{"schema": "enos-front/1", "points": []}')
    assert enosc(["net.py", "--target", "eyeriss", "--bits", "front.json#3"]) == 2
    assert "there is no point 3" in capsys.readouterr().err
    assert enosc(["net.py", "--target", "eyeriss", "--bits", "front.json#x"]) == 2
    assert "no number of a point" in capsys.readouterr().err
    assert enosc(["net.py", "--target", "eyeriss", "--bits", "none.json#0"]) == 1
    assert "cannot be read" in capsys.readouterr().err
    words = ["net.py", "--target", "eyeriss", "--bits", "front.json#0", "--budget", "0.5"]
    assert enosc(words) == 2
    assert "excludes --budget" in capsys.readouterr().err
