# SPDX-License-Identifier: Apache-2.0
"""What `--help` looks like in a terminal."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

import pytest

COMMANDS = [
    point
    for point in entry_points(group="console_scripts")
    if point.value.startswith("enos_compiler.cli.")
]


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        import_module(f"enos_compiler.cli.{command}").main(["--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("module", sorted(point.value.partition(":")[0] for point in COMMANDS))
def test_it_fits_80_columns(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(module.rpartition(".")[2], capsys)
    assert max(map(len, text.splitlines())) <= 80


def test_every_command_is_looked_at() -> None:
    assert {point.name for point in COMMANDS} >= {"enosc", "enos-map", "enos-sim", "enos-compare"}


def test_paragraphs_fill_the_width_and_commands_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    lines = help_of("enos_map", capsys).splitlines()
    assert "  enos-map M=64 C=64 P=56 Q=56 R=3 S=3 --target eyeriss" in lines
    paragraph = lines[next(i for i, line in enumerate(lines) if line.startswith("Dimensions:")) :]
    assert max(map(len, paragraph)) <= 50
    assert len(paragraph) >= 5
