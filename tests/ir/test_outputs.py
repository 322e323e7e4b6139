# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
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


WRITER = """
import sys, time
from pathlib import Path
from enos_compiler import outputs

pause, folder = sys.argv[1], Path(sys.argv[2])


def wait(where):
    if where == pause:
        print("waiting", flush=True)
        time.sleep(60)


replace = outputs._replace
outputs._replace = lambda new, old: (replace(new, old), wait(old.name))
with outputs.staged_outputs(folder, last="report.json", stale=("network",)) as stage:
    wait("before")
    for name in ("model.onnx", "program.json", "report.json"):
        (stage / name).write_text("new" * 1000)
        wait(f"written {name}")
    (stage / "network").mkdir()
    (stage / "network" / "new.json").write_text("new" * 1000)
    wait("all written")
"""


def _killed(pause: str, out: Path) -> None:
    """Write in a process of its own and kill it, as nothing can catch, where it pauses."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, pause, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with the results of an earlier run."""
    out = tmp_path / "out"
    (out / "network").mkdir(parents=True)
    (out / "network" / "old.json").write_text("old")
    for name in ("model.onnx", "program.json", "report.json", "notes.txt"):
        (out / name).write_text("old")
    return out


@pytest.mark.parametrize(
    "pause", ["before", "written model.onnx", "written report.json", "all written"]
)
def test_a_killed_writer_leaves_the_old_output_whole(pause: str, old: Path) -> None:
    before = _tree(old)
    _killed(pause, old)
    assert _tree(old) == before
    assert len(list(old.parent.iterdir())) == 2
    with staged_outputs(old, last="report.json") as stage:
        (stage / "report.json").write_text("newer")
    assert [p.name for p in old.parent.iterdir()] == ["out"]
    assert _tree(old) == {**before, "report.json": "newer"}


@pytest.mark.parametrize("pause", ["model.onnx", "network", "program.json"])
def test_killed_between_renames_each_file_is_whole_and_the_report_is_the_last(
    pause: str, old: Path
) -> None:
    _killed(pause, old)
    found = _tree(old)
    assert found["report.json"] == found["notes.txt"] == "old"
    assert set(found.values()) == {"old", "new" * 1000}


def test_what_a_running_process_writes_is_not_swept_away(old: Path) -> None:
    with staged_outputs(old, last="report.json") as first:
        (first / "report.json").write_text("first")
        with staged_outputs(old, last="report.json") as second:
            (second / "report.json").write_text("second")
    assert (old / "report.json").read_text() == "first"
