# SPDX-License-Identifier: Apache-2.0
"""`--objective` and `--mapping-cache` of every command, and as options of `compile`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import enos_compiler
from enos_compiler.cli.enos_map import main as enos_map
from enos_compiler.cli.enos_opt import main as enos_opt
from enos_compiler.cli.enosc import main as enosc
from enos_compiler.cores import map_cache, nest_search
from enos_compiler.ir.serialize import load_network

MODEL = """
import torch
from torch import nn


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3)).eval()


def example_inputs():
    return (torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)
"""
LAYER = ["M=12", "C=8", "P=10", "Q=10", "R=3", "S=3"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENOS_CACHE_DIR", str(tmp_path / "own"))
    (tmp_path / "net.py").write_text(MODEL)
    map_cache.forget()
    yield tmp_path
    map_cache.forget()


def compiled(*words: str) -> dict[str, Any]:
    assert enosc(["net.py", "--target", "eyeriss", "--search", "none", "-q", *words]) == 0
    report: dict[str, Any] = json.loads(Path("build/net-eyeriss/report.json").read_text())
    return report


def objectives(report: dict[str, Any]) -> set[str]:
    mapped = report["sections"]["map-digital"]["layers"].values()
    return {detail["certificate"]["objective"] for detail in mapped}


def test_each_objective_is_least_by_its_own_measure(folder: Path) -> None:
    measures: dict[str, tuple[float, float]] = {}
    for objective in ("energy", "latency", "edp"):
        report = compiled("--objective", objective)
        assert objectives(report) == {objective}
        layers = report["sections"]["map-digital"]["layers"].values()
        measures[objective] = (
            sum(detail["mapper"]["energy_pj"] for detail in layers),
            sum(detail["mapper"]["cycles"] for detail in layers),
        )
    energies, cycles = zip(*measures.values(), strict=True)
    assert measures["energy"][0] == min(energies) < measures["latency"][0]
    assert measures["latency"][1] == min(cycles) < measures["energy"][1]
    assert objectives(compiled()) == {"edp"}  # as the chip's file says


def test_mappings_are_kept_where_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled("--mapping-cache", "kept")
    assert len(list((folder / "kept").rglob("*.json"))) == 2
    assert not (folder / "own").exists()
    map_cache.forget()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("mapped again")

    monkeypatch.setattr(nest_search, "map_layer", never)
    assert compiled("--mapping-cache", "kept")["layers"] == first["layers"]


def test_options_of_compile_are_those_of_the_command(folder: Path) -> None:
    model = nn.Conv2d(3, 8, 3).eval()
    inputs = (torch.rand(1, 3, 12, 12),)
    found = enos_compiler.compile(
        model, inputs, target="eyeriss", search="none", objective="energy", mapping_cache="kept"
    )
    assert objectives(dict(found.report)) == {"energy"}
    assert len(list((folder / "kept").rglob("*.json"))) == 1
    with pytest.raises(enos_compiler.EnosError, match="--objective: `speed` is not known"):
        enos_compiler.compile(model, inputs, target="eyeriss", objective="speed")


def test_a_saved_network_keeps_its_objective(folder: Path) -> None:
    compiled("--objective", "latency", "--save-temps")
    (saved,) = Path("build/net-eyeriss/network").glob("*-quantize")
    for words, objective in (([], "latency"), (["--objective", "energy"], "energy")):
        assert enos_opt([str(saved), "--passes", "map-digital", "-o", "out", "-q", *words]) == 0
        for layer in load_network(Path("out")).layers.values():
            assert layer.mapping is not None
            assert layer.mapping["certificate"]["objective"] == objective


def test_what_cannot_be_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("")
    for words, message in (
        (["--target", "cim", "--objective", "latency"], "no core of cim chooses among mappings"),
        (["--target", "eyeriss", "--objective", "speed"], "invalid choice: 'speed'"),
        (["--target", "eyeriss", "--mapping-cache", "file"], "mappings cannot be kept in file"),
    ):
        assert enosc(["net.py", *words]) == 2
        assert message in capsys.readouterr().err
    assert enos_map([*LAYER, "--mapping-cache", "file"]) == 2
    assert "mappings cannot be kept in file" in capsys.readouterr().err


def test_processes_at_work_on_one_cache_agree(folder: Path) -> None:
    """Four at once map the same layer into one folder, which then holds one whole answer."""
    command = [sys.executable, "-m", "enos_compiler.cli.enos_map", *LAYER, "--json"]
    command += ["--mapping-cache", "kept"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert all(found == answers[0] for found in answers)
    (file,) = (path for path in (folder / "kept").rglob("*") if path.is_file())
    stored, told = json.loads(file.read_text())["answer"]["detail"], answers[0]["mapping"]
    names = [
        [one.pop("action") for part in ("loads", "stores") for one in mapping["work"][part]]
        for mapping in (stored, told)
    ]
    assert stored == told
    # the chip books its memories' accesses under its own names
    booked = {"memory/read": "dram.device/read_64b", "memory/update": "dram.device/write_64b"}
    assert [booked[name.rpartition("_")[0]] for name in names[0]] == names[1]
