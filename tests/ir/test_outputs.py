# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from enos_compiler.errors import EnosError
from enos_compiler.outputs import check_writable, staged_outputs


def _tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_success_replaces_namesakes_and_keeps_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "network").mkdir(parents=True)
    (out / "network" / "old.json").write_text("old")
    (out / "report.json").write_text("old")
    (out / "notes.txt").write_text("mine")
    with staged_outputs(out, last="report.json") as stage:
        (stage / "report.json").write_text("new")
        (stage / "network").mkdir()
        (stage / "network" / "new.json").write_text("new")
    assert _tree(out) == {"network/new.json": "new", "notes.txt": "mine", "report.json": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("old")

    def fail() -> None:
        with staged_outputs(out, last="report.json") as stage:
            (stage / "report.json").write_text("new")
            raise ValueError("a pass broke")

    with pytest.raises(ValueError, match="a pass broke"):
        fail()
    assert _tree(out) == {"report.json": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def write() -> None:
        with staged_outputs(tmp_path / "out", last="report.json"):
            raise OSError(28, "No space left on device", "model.onnx")

    with pytest.raises(EnosError) as caught:
        write()
    assert str(caught.value) == (
        "model.onnx: cannot write: No space left on device\n"
        "  try: free some space or choose another folder with -o"
    )


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(EnosError, match="is a file, not a folder"):
        check_writable(tmp_path / "out" / "deeper")
