# SPDX-License-Identifier: Apache-2.0
"""`enos-sim` on what `enosc` wrote, and on damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_programs import branch_inputs, branches

from enos_compiler.cli.enos_sim import main
from enos_compiler.schedule.executable import executable
from enos_compiler.schedule.program_file import write_program
from enos_compiler.semantics.reference import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_program(executable(branches()[0]), tmp_path)
    np.savez(tmp_path / "inputs.npz", x=branch_inputs(2)[0])
    return tmp_path


def test_outputs_cycles_and_events(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, chip = branches()
    assert main([str(folder / "program.json"), str(folder / "inputs.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert network.program is not None
    assert found["latency_ns"] == network.program.makespan_ns
    assert found["cycles"] == found["latency_ns"] / chip.clock_ns
    assert found["outputs"] == {"head": [2, 5]}
    assert all(isinstance(count, int) for count in found["events"].values())
    out = folder / "sub" / "outputs.npz"
    assert main([str(folder), str(folder / "inputs.npz"), "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("replayed branches: ")
    assert f"outputs written to {out}" in text
    assert np.array_equal(np.load(out)["head"], run(network, branch_inputs(2))[0])
    assert [p.name for p in out.parent.iterdir()] == ["outputs.npz"]


def test_errors_name_the_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, inputs = folder / "program.json", folder / "inputs.npz"
    text = program.read_text()
    first = text.index('"end_ns": ')
    late = text[:first] + '"end_ns": 1e9,' + text[text.index("\n", first) :]
    for content, message in (
        (late, "layer:stem/0/load (load on mac.port, cycles 0..3 reads x): its end, 1000000"),
        (text.replace("post/multiply_", "post/multiplied_", 1), "does not match its seal"),
        ("{}", "has schema None"),
        ("", "cannot be read"),
    ):
        program.write_text(content)
        assert main([str(program), str(inputs)]) == 1
        assert message in capsys.readouterr().err
    program.write_text(text)
    for name, data in (("bad.npz", b"PK\x03\x04 no"), ("bad.npy", b"\x80\x04K\x01.")):
        (folder / name).write_bytes(data)
        assert main([str(program), str(folder / name)]) == 1
        assert f"{name}: cannot be read as arrays" in capsys.readouterr().err
    assert main([str(program), str(inputs), "-o", str(program / "out.npz")]) == 1
    assert "is a file, not a folder" in capsys.readouterr().err
