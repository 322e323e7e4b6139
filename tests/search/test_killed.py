# SPDX-License-Identifier: Apache-2.0
"""A search that is killed outright goes on where it stopped and ends bit for bit the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 200.0


def command(output: Path) -> list[str]:
    model = str(ROOT / "examples" / "digits.py")
    options = ["--target", "digital", "--model-arg", "width=6", "--epochs", "3", "--finetune", "2"]
    rest = ["--check", "none", "-o", str(output)]
    return [sys.executable, "-m", "enos_compiler.cli.enosc", model, *options, *rest]


def start(output: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(output), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def compiled(output: Path) -> dict[str, Any]:
    process = start(output)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


def kill_in(process: subprocess.Popen[str], log: Path, epochs: int) -> None:
    """Kill the process as soon as its log has so many epochs."""
    until = time.monotonic() + PATIENCE_S
    while not log.is_file() or len(log.read_text().splitlines()) < epochs:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "the search did not get that far"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_search_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = compiled(tmp_path / "whole")
    output = tmp_path / "killed"
    kill_in(start(output), output / ".enos" / "search.jsonl", 2)
    assert not (output / "report.json").exists()
    resumed = compiled(output)
    assert resumed["sections"]["search"]["resumed"] is True
    assert whole["sections"]["search"]["resumed"] is False
    for part in ("search", "finetune"):
        assert resumed["sections"][part]["epochs"] == whole["sections"][part]["epochs"]
    assert resumed["totals"] == whole["totals"]
    assert resumed["accuracy"] == whole["accuracy"]
    for name in ("model.onnx", "program.safetensors"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
