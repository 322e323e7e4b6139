# SPDX-License-Identifier: Apache-2.0
"""Long runs tell how far they are where nobody looks on: a line an epoch, a line a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from enos_compiler.cli.common import logger
from enos_compiler.cli.enosc import main

MODEL = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def example_inputs():
    return (torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)),)


def data():
    x = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    part = TensorDataset(x, torch.arange(24) % 3)
    return {"train": part, "validation": part, "test": part}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A training of three epochs, fine-tuning of two and an evaluation on two devices."""
    file = tmp_path / "net.py"
    file.write_text(MODEL)
    words = [str(file), "--target", "isaac", "-o", str(tmp_path / "out"), "--check", "none"]
    return [*words, "--epochs", "3", "--finetune", "2", "--evaluate", "--devices", "2"]


def test_a_log_file_has_a_line_for_every_epoch_and_device(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    lines = capfd.readouterr().err.splitlines()
    for phase, epochs in (("search", 3), ("finetune", 2)):
        told = [line for line in lines if line.startswith(f"{phase} epoch ")]
        assert [line.split(":")[0] for line in told] == [
            f"{phase} epoch {number}" for number in range(1, epochs + 1)
        ]
        assert all("loss" in line for line in told)
    assert [line for line in lines if "device " in line] == [
        "evaluate: device 1 of 2",
        "evaluate: device 2 of 2",
    ]
    assert not [line for line in lines if line.startswith(("export", "check"))]


def test_one_of_torchruns_processes_tells(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        logger(quiet=False)(f"from {rank}")
    assert capfd.readouterr().err == "from 0\n"


def test_quiet_runs_tell_nothing(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--quiet"]) == 0
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
