# SPDX-License-Identifier: Apache-2.0
"""A compilation that was interrupted goes on; one that was finished starts afresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enos_compiler.cli.enosc import main as enosc
from enos_compiler.search.train import Trainer

MODEL = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def example_inputs():
    return (torch.rand(2, 4),)


def data():
    x = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
    y = x[:, :3].argmax(1)
    return {"train": TensorDataset(x, y), "validation": TensorDataset(x, y), "batch_size": 32}
"""


def test_only_an_interrupted_run_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "net.py", tmp_path / "out"
    words = [str(file), "-o", str(out), "-q", "--epochs", "1", "--finetune", "1", "--check", "none"]

    def sections() -> dict[str, Any]:
        assert enosc(words) == 0
        assert sorted(p.name for p in (out / ".enos").iterdir()) == [
            "search.jsonl",
            "search.svg",
        ]  # nothing to go on from
        found: dict[str, Any] = json.loads((out / "report.json").read_text())["sections"]
        return found

    def interrupted(self: Trainer, *rest: object) -> object:
        if self.settings.name == "finetune":
            raise KeyboardInterrupt
        return epoch(self, *rest)  # type: ignore[arg-type]

    def resumed(found: dict[str, Any]) -> list[bool]:
        search = found["search"]
        return [part["resumed"] for part in (search["float"], search, found["finetune"])]

    file.write_text(MODEL)
    first = sections()
    assert resumed(first) == [False, False, False]
    epoch = Trainer._epoch
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", interrupted)
        assert enosc(words) == 130
        assert (out / ".enos" / "search.safetensors").is_file()
    again = sections()
    assert resumed(again) == [bool(first["search"]["float"]["epochs"]), True, False]
    assert again["search"]["epochs"] == first["search"]["epochs"]
    assert resumed(sections()) == [False, False, False]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", interrupted)
        assert enosc(words) == 130
    file.write_text(MODEL.replace(".argmax(1)", ".argmin(1)"))
    assert resumed(sections()) == [False, False, False]
