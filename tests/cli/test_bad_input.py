# SPDX-License-Identifier: Apache-2.0
"""Every wrong input: one message with place and remedy, the exit status, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal

import pytest
import yaml

from enos_compiler.cli.common import wrapped
from enos_compiler.cli.enos_opt import main as enos_opt
from enos_compiler.cli.enosc import main as enosc
from enos_compiler.errors import UsageError
from enos_compiler.options import Options

GOOD = """
import torch
from torch import nn


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def example_inputs():
    return (torch.rand(2, 3, 8, 8),)
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def compile_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Compile a model file in an empty folder that holds an earlier result."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("precious")

    def run(source: str | None, *arguments: str) -> tuple[int, str]:
        if source is not None:
            (tmp_path / "net.py").write_text(source)
        status = enosc(["net.py", "-o", "out", *arguments])
        error = capfd.readouterr().err
        assert (tmp_path / "out" / "report.json").read_text() == "precious"
        assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != ".enos") == [
            "report.json"
        ]
        assert "Traceback" not in error
        return status, error

    return run


def _model(body: str, example: str = "torch.rand(2, 3, 8, 8)") -> str:
    """Return a model file whose forward is `body`."""
    return (
        "import torch\nfrom torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n\n"
        "    def forward(self, x):\n"
        f"        {body}\n\n\n"
        "def model():\n    return Net()\n\n\n"
        f"def example_inputs():\n    return ({example},)\n"
    )


MODEL_ERRORS = {
    "missing file": (None, ["net.py", "try:"]),
    "no model()": ("def example_inputs():\n    return ()\n", ["net.py", "model", "try:"]),
    "no module": (
        "def model():\n    return None\n\n\ndef example_inputs():\n    return ()\n",
        ["net.py:1", "NoneType", "try:"],
    ),
    "no example_inputs()": (GOOD.replace("def example_inputs", "def inputs"), ["example_inputs"]),
    "syntax": ("def model(:\n", ["net.py:1"]),
    "model raises": (
        "def model():\n    raise ValueError('no weights')\n\n\n"
        "def example_inputs():\n    return ()\n",
        ["net.py:2", "ValueError", "no weights"],
    ),
    "NaN weights": (
        GOOD.replace("    return nn.Seq", "    n = nn.Seq")
        .replace("Linear(4 * 36, 5))", "Linear(4 * 36, 5))\n    n[0].weight.data[0] = float('nan')")
        .replace("data[0] = float('nan')", "data[0] = float('nan')\n    return n"),
        ["0.weight", "NaN"],
    ),
    "example does not fit": (_model("return self.conv(x)", "torch.rand(2, 5, 8, 8)"), ["net.py:"]),
    "control flow on data": (
        _model("return self.conv(x) if x.sum() > 0 else x"),
        ["net.py:11", "try:"],
    ),
    "unknown operation": (_model("return torch.fft.fft(self.conv(x)).real"), ["net.py:11", "fft"]),
}


@pytest.mark.parametrize("case", MODEL_ERRORS)
def test_model_errors(case: str, compile_file: Run) -> None:
    source, expected = MODEL_ERRORS[case]
    status, error = compile_file(source)
    assert status == 1, error
    for text in expected:
        assert text in error


USAGE_ERRORS = {
    ("--target", "hybird"): ["unknown target `hybird`", "try: hybrid"],
    ("--passes", "canonicalise"): ["unknown pass `canonicalise`", "try: canonicalize"],
    ("--passes", "assign{budgte=1}"): ["pass assign: unknown option `budgte`", "budget"],
    ("--passes", "canonicalize", "--budget", "0.5"): ["--passes excludes --budget"],
    ("--budget", "lots"): ["`lots` is not a budget", "floor+0.5"],
    ("--budget", "12.5"): ["for an energy give its unit: 12.5uJ"],
    ("--bits", "9"): ["--bits: 9 bits is outside 2..8"],
    ("--bits", "many"): ["--bits: `many` is not a list of numbers"],
    ("--search", "genetic"): ["--search: `genetic` is not known"],
    ("--batch", "0"): ["--batch: 0 is below 1"],
    ("--frames", "0"): ["--frames: 0 is below 1"],
    ("--passes", "canonicalize", "--frames", "8"): ["--passes excludes --frames"],
    ("--operators", "max"): ["unknown operator `max`", "mac"],
    ("--print-after", "assing"): ["assign"],
    ("--serach", "none"): ["try: --search"],
    ("--model-arg", "width"): ["--model-arg: `width` is not of the form KEY=VALUE"],
}


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_usage_errors_are_found_before_the_model_is_loaded(
    arguments: tuple[str, ...], compile_file: Run
) -> None:
    status, error = compile_file("raise SystemExit('the model file was run')\n", *arguments)
    assert status == 2, error
    for text in USAGE_ERRORS[arguments]:
        assert text in error


@pytest.mark.parametrize(
    "words", ["--search single", "--epochs 3", "--finetune 2", "--evaluate"], ids=str
)
def test_what_needs_data_is_refused_before_an_onnx_file_is_read(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enosc(["there_is_none.onnx", *words.split()]) == 2
    assert capsys.readouterr().err == (
        f"error: {words} needs data, and an ONNX file holds none\n"
        "  try: leave it out, or give the network as a Python file with a data() function\n"
    )


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("--search", "single", "--search sensitivity"),
        ("--epochs", "3", "leave --epochs out"),
        ("--finetune", "2", "leave --finetune out"),
    ],
)
def test_what_trains_needs_data(compile_file: Run, option: str, value: str, way_out: str) -> None:
    status, error = compile_file(GOOD, option, value)
    assert status == 2
    assert error == (
        f"error: {option} {value} trains, but the model file has no data()\n"
        f"  try: {way_out}, or give the file a data() function\n"
    )


@pytest.mark.parametrize("search", ["sensitivity", "none"])
def test_epochs_need_a_search_that_trains(search: Literal["sensitivity", "none"]) -> None:
    with pytest.raises(UsageError) as raised:
        Options(search=search, epochs=3).pipeline(can_train=True)
    assert str(raised.value) == (
        f"--epochs 3 is for a search that trains, --search {search} does not\n"
        "  try: --search single, or leave --epochs out"
    )
    assert "search{epochs=3}" in Options(epochs=3).pipeline(can_train=True)
    assert Options(frames=8).pipeline(can_train=True).endswith(",schedule{frames=8}")
    assert Options().pipeline(can_train=True).endswith(",schedule")


def test_an_unknown_model_argument_is_named(compile_file: Run) -> None:
    status, error = compile_file(GOOD, "--model-arg", "width=3")
    assert status in (1, 2)
    assert "width" in error


def _chip(change: Callable[[dict[str, object]], object]) -> str:
    chip = yaml.safe_load(files("enos_compiler.targets").joinpath("hybrid.yaml").read_text())
    change(chip)
    return yaml.safe_dump(chip, sort_keys=False)


SPEC_ERRORS: dict[str, tuple[str, list[str]]] = {
    "broken YAML": ("cores: [", ["chip.yaml:1"]),
    "unknown key": (_chip(lambda c: c.update(clokc_ns=1)), ["chip.yaml:", "clokc_ns", "clock_ns"]),
    "no cores": (_chip(lambda c: c.update(cores=[])), ["chip.yaml", "cores"]),
    "no host": (_chip(lambda c: c.pop("host")), ["chip.yaml", "host"]),
    "not a mapping": ("just text", ["chip.yaml"]),
}


@pytest.mark.parametrize("case", SPEC_ERRORS)
def test_spec_errors(case: str, compile_file: Run, tmp_path: Path) -> None:
    text, expected = SPEC_ERRORS[case]
    (tmp_path / "chip.yaml").write_text(text)
    status, error = compile_file("raise SystemExit('run')\n", "--target", "chip.yaml")
    assert status == 1, error
    for part in expected:
        assert part in error


def test_a_missing_chip_file(compile_file: Run) -> None:
    status, error = compile_file(GOOD, "--target", "my_chip.yaml")
    assert status in (1, 2)
    assert "my_chip.yaml" in error


def test_an_unwritable_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_options: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("enos_compiler.outputs.tempfile.mkdtemp", refuse)
    assert enosc(["net.py", "-o", str(tmp_path / "out")]) == 1
    assert capfd.readouterr().err == (
        f"error: {tmp_path}: cannot be written: Permission denied\n  try: another -o DIR\n"
    )


def test_a_file_in_place_of_the_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert enosc(["net.py", "-o", str(tmp_path / "out")]) == 1
    assert "is a file, not a folder" in capfd.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_leaves_the_old_result(
    compile_file: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "program.json")

    monkeypatch.setattr("enos_compiler.schedule.program_file.write_program", full)
    status, error = compile_file(GOOD, "--search", "none", "--check", "none")
    assert status == 1
    assert "No space left on device" in error
    assert "try:" in error


def test_an_infeasible_budget_names_the_floor(compile_file: Run) -> None:
    status, error = compile_file(GOOD, "--budget", "1pJ")
    assert status == 1
    assert "floor" in error


def test_errors_as_json(compile_file: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert enosc(["net.py", "--target", "hybird", "--json"]) == 2
    answer = json.loads(capfd.readouterr().out)
    assert answer["error"] == "UsageError"
    assert answer["remedy"].startswith("hybrid")


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda _folder: None, "network.json: is missing"),
        (lambda f: (f / "network.json").write_text("{"), "network.json: cannot be read"),
        (lambda f: (f / "network.json").write_text("{}"), "has schema None"),
    ],
)
def test_damaged_saved_networks(
    prepare: Callable[[Path], object],
    expected: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prepare(tmp_path)
    assert enos_opt([str(tmp_path), "--passes", "assign"]) == 1
    assert expected in capfd.readouterr().err


LONG = (
    "error: /home/user/models/a-long-folder/a-network-of-mine.py:17: the model raises a ValueError "
    "on inputs of shape (2, 3, 8, 8): got a tensor of another size\n"
    "  try: check that example_inputs() fits forward() in number, shape and dtype, and run it once"
)


def test_long_errors_wrap_on_a_terminal_and_stay_whole_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = wrapped(LONG)
    assert text == (
        "error: /home/user/models/a-long-folder/a-network-of-mine.py:17: the model raises\n"
        "  a ValueError on inputs of shape (2, 3, 8, 8): got a tensor of another size\n"
        "  try: check that example_inputs() fits forward() in number, shape and dtype,\n"
        "    and run it once"
    )
    arguments = ["missing.py", "--target", "hybrid", "--budget", "x" * 100]
    assert enosc(arguments) == 2
    plain = capfd.readouterr().err
    assert max(map(len, plain.splitlines())) > 100
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert enosc(arguments) == 2
    shown = capfd.readouterr().err
    assert shown.split() == plain.split()
    assert shown.count("\n") > plain.count("\n")
