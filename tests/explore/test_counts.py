# SPDX-License-Identifier: Apache-2.0
"""Counts of mappings are the mapper's, and never fall as bits do."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from explore_model import MODEL

from enos_compiler.cli.enos_explore import main as enos_explore
from enos_compiler.cli.enos_map import main as enos_map


def test_counts_are_those_of_one_layer_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    assert enos_explore(["net.py", "--count", "8/8/8,7/7/7,2/2/2", "-o", "out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["bits"] for row in found] == [[8] * 3, [7] * 3, [2] * 3] * 2
    for layer in (found[:3], found[3:]):
        assert layer[0]["mappings"] <= layer[2]["mappings"]
        assert layer[0]["mappings"] == layer[1]["mappings"]  # two codes a word in both
    rows = list(csv.DictReader((tmp_path / "out" / "mappings.csv").open()))
    assert [int(r["mappings"]) for r in rows] == [row["mappings"] for row in found]
    assert (tmp_path / "out" / "mappings.svg").read_text().count("<rect") == 6
    words = ["M=2", "C=32", "--bits", "2/2/2", "--count", "--padding", "0", "--json"]
    assert enos_map([*words, "--target", "eyeriss", "--mapping-cache", "cache"]) == 0
    assert json.loads(capsys.readouterr().out)["nests"] == found[5]["mappings"]


@pytest.mark.parametrize("text", ["8/8", "8/8/x", "9/8/8", "1/2/2"])
def test_bits_that_cannot_be_counted(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    assert enos_explore([str(tmp_path / "net.py"), "--count", text]) == 2
    assert "is not input/weight/output bits of 2..8" in capsys.readouterr().err
