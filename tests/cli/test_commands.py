# SPDX-License-Identifier: Apache-2.0
"""What the commands print and leave behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from enos_compiler import plugins
from enos_compiler.cli.enos_opt import main as enos_opt
from enos_compiler.cli.enosc import main as enosc
from enos_compiler.ir.serialize import load_network

MODEL = """
import torch
from torch import nn


def model(width: int = 8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5),
    ).eval()


def example_inputs():
    return (torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "net.py").write_text(MODEL)
    return tmp_path


def test_results_go_to_the_default_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enosc(["net.py", "--target", "hybrid"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("compiled net for hybrid: ")
    assert max(map(len, text.splitlines())) <= 80
    out = folder / "build" / "net-hybrid"
    assert {p.name for p in out.iterdir() if p.name != ".enos"} == {
        "layers.csv",
        "model.netron.json",
        "model.onnx",
        "program.json",
        "program.safetensors",
        "report.html",
        "report.json",
        "trace.json",
    }
    report = json.loads((out / "report.json").read_text())
    rows = list(csv.DictReader((out / "layers.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [layer["name"] for layer in report["layers"]]
    session = ort.InferenceSession(str(out / "model.onnx"))
    (logits,) = session.run(None, {session.get_inputs()[0].name: np.zeros((3, 3, 8, 8), "f4")})
    assert logits.shape == (3, 5)


def test_json_is_the_report_and_nothing_else(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert enosc(["net.py", "-o", "out", "--json", "--model-arg", "width=16"]) == 0
    printed = capfd.readouterr().out
    assert json.loads(printed) == json.loads((folder / "out" / "report.json").read_text())


def test_quiet_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert enosc(["net.py", "-o", "out", "-q"]) == 0
    assert capfd.readouterr() == ("", "")
    assert (folder / "out" / "report.json").is_file()


def test_a_saved_step_goes_on_to_the_same_result(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enosc(["net.py", "-o", "out", "--save-temps", "-q"]) == 0
    steps = sorted(p.name for p in (folder / "out" / "network").iterdir())
    assert steps[0] == "01-canonicalize"
    assert steps[-1].endswith("schedule")
    passes = [step.partition("-")[2] for step in steps]
    rest = ",".join(passes[passes.index("assign") :])
    start = folder / "out" / "network" / steps[passes.index("assign") - 1]
    assert enos_opt([str(start), "--passes", rest, "-o", "again"]) == 0
    assert capsys.readouterr().out == "network with 9 facts written to again/\n"
    again = load_network(folder / "again")
    final = load_network(folder / "out" / "network" / steps[-1])
    assert again.program == final.program
    assert again.layers["conv2d_3"].choice == final.layers["conv2d_3"].choice
    for kept, made in zip(final.layers.values(), again.layers.values(), strict=True):
        assert kept.quantized is not None
        assert made.quantized is not None
        for name, array in kept.quantized.tensors.items():
            np.testing.assert_array_equal(array, made.quantized.tensors[name])


def test_the_network_is_printed_after_a_pass(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["net.py", "-o", "out", "-q", "--print-after", "canonicalize", "--time-passes"]
    assert enosc(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "network net batch=1 facts: shaped\n"
        "  input  input_1 1x3x8x8\n"
        "  layer  conv2d_0: conv+batchnorm2d_1+relu_2 {M8 C3 P8 Q8 R3 S3}(input_1)"
        " -> relu_2 1x8x8x8\n"
        "  layer  conv2d_3: conv+relu_4 {M8 C8 P8 Q8 R3 S3}(relu_2) -> relu_4 1x8x8x8\n"
        "  vector adaptiveavgpool2d_5: mean {dims=(2, 3) keepdim=True}(relu_4)"
        " -> adaptiveavgpool2d_5 1x8x1x1\n"
        "  vector flatten_6: reshape {shape=(-1, 8)}(adaptiveavgpool2d_5) -> flatten_6 1x8\n"
        "  layer  linear_7: linear {M5 C8}(flatten_6) -> linear_7 1x5\n"
        "  output linear_7\n"
    )
    steps = [line.split(" s  ")[1] for line in printed.err.splitlines()]
    names = [step.partition("{")[0] for step in steps]
    assert names[:2] == ["trace", "canonicalize"]
    assert names[-5:] == ["schedule", "export", "check", "accuracy", "total"]


def test_passes_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert enosc(["--list-passes"]) == 0
    listing = capsys.readouterr().out.splitlines()
    assert "assign           Give each layer the choice with the least total score" in listing[0]
    names = [line.split()[0] for line in listing[: listing.index("")]]
    assert names == list(plugins.names("passes"))
    assert listing[-1].startswith("  canonicalize,calibrate,attach-choices{operators=mac ")
    assert enosc(["--help-pass", "assign"]) == 0
    described = capsys.readouterr().out
    assert "requires: choices\nensures:  assigned\n" in described
    assert "budget=" in described


def test_a_pipeline_that_ends_early_is_refused_before_it_runs(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert enosc(["net.py", "--passes", "canonicalize,calibrate"]) == 2
    assert capfd.readouterr().err.startswith(
        "error: --passes: the pipeline ends without quantized and scheduled: there would be "
        "nothing to write\n  try: end it with quantize,map-digital,map-cim,schedule"
    )


def test_a_seed_makes_a_run_repeatable(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where the user's file draws weights and inputs without seeding."""
    text = MODEL.replace("    torch.manual_seed(0)\n", "").replace(
        ", generator=torch.Generator().manual_seed(0)", ""
    )
    (folder / "net.py").write_text(text)
    reports = []
    for seed, name in (("3", "a"), ("3", "b"), ("4", "c")):
        assert enosc(["net.py", "-o", name, "-q", "--seed", seed]) == 0
        reports.append((folder / name / "report.json").read_text())
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


def test_steps_of_an_earlier_run_do_not_stay_beside_a_new_report(folder: Path) -> None:
    assert enosc(["net.py", "-o", "out", "-q", "--save-temps"]) == 0
    (folder / "out" / "notes.txt").write_text("mine")
    assert enosc(["net.py", "-o", "out", "-q"]) == 0
    assert not (folder / "out" / "network").exists()
    assert (folder / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("hybrid", ["events", "pJ each", "buffer.array/read_64b"]),
        ("eyeriss", ["over columns:", "ifmap_spad", "no nest of the mapspace is below"]),
    ],
)
def test_a_layer_is_explained(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str, expected: list[str]
) -> None:
    assert enosc(["net.py", "--target", target, "-o", "out", "--explain", "conv2d_3"]) == 0
    text = capsys.readouterr().out.partition("\nconv2d_3: ")[2]
    for part in expected:
        assert part in text
    assert max(map(len, text.splitlines())) <= 80
    report = json.loads((folder / "out" / "report.json").read_text())
    row = next(row for row in report["layers"] if row["name"] == "conv2d_3")
    for action, events in row["events"].items():
        assert f"{events:,}" in text, action


def test_an_unknown_layer_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enosc(["net.py", "-o", "out", "--explain", "conv2d_4"]) == 2
    assert capsys.readouterr().err == (
        "error: --explain: there is no layer `conv2d_4`\n"
        "  try: conv2d_3 (known: conv2d_0, conv2d_3, linear_7)\n"
    )
    assert not (folder / "out").exists()  # before anything was compiled
