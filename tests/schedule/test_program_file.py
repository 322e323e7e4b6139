# SPDX-License-Identifier: Apache-2.0
"""Programs on disk come back equal; damaged ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_programs import branch_inputs, branches

from enos_compiler.errors import FormatError
from enos_compiler.schedule.executable import executable
from enos_compiler.schedule.program_file import read_program, write_program
from enos_compiler.simulate.replay import replay


@pytest.mark.parametrize("target", ["hybrid", "simba"])
def test_round_trip(target: str, tmp_path: Path) -> None:
    program = executable(branches(target)[0])
    write_program(program, tmp_path)
    found = read_program(tmp_path)
    found.require_seal()
    again = found.executable
    assert again.program == program.program
    assert (again.values, again.inputs, again.outputs) == (
        program.values, program.inputs, program.outputs,
    )  # fmt: skip
    for name, kernel in program.layers.items():
        for part, array in kernel.quantized.tensors.items():
            assert np.array_equal(again.layers[name].quantized.tensors[part], array)
    first, second = (replay(p, branch_inputs()) for p in (program, again))
    assert np.array_equal(first.outputs[0], second.outputs[0])
    write_program(again, tmp_path)
    assert read_program(tmp_path / "program.json").executable.program == program.program


def test_documented_form(tmp_path: Path) -> None:
    paths = write_program(executable(branches()[0]), tmp_path)
    document = json.loads(paths[0].read_text())
    assert document["schema"] == "enos-program/1"
    row = document["instructions"][0]
    assert {
        "id", "resource", "op", "layer", "start_ns", "end_ns", "start_cycle", "cycles", "reads",
        "writes", "after", "events",
    } <= set(row)  # fmt: skip
    assert document["setup"][0]["op"] == "program-weights"
    assert {"stem", "right", "head"} <= {row["programs"] for row in document["setup"]}
    assert set(document["memories"]) == {"dram", "buffer"}


def test_tensors_take_the_narrowest_type(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    program = executable(branches()[0])
    tensors = load_file(write_program(program, tmp_path)[1])
    for name, array in tensors.items():
        assert array.dtype.kind == "i", name
        wider = [t for t in (np.int8, np.int16, np.int32) if t().itemsize < array.dtype.itemsize]
        for kind in wider:
            low, high = np.iinfo(kind).min, np.iinfo(kind).max
            assert array.min() < low or array.max() > high, name


def test_damage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is missing"):
        read_program(tmp_path)
    path, tensors = write_program(executable(branches()[0]), tmp_path)
    text, blob = path.read_text(), tensors.read_bytes()
    tensors.write_bytes(blob[:-1] + b"\x07")
    with pytest.raises(FormatError, match="does not belong"):
        read_program(tmp_path)
    tensors.unlink()
    with pytest.raises(FormatError, match="safetensors: is missing"):
        read_program(tmp_path)
    tensors.write_bytes(blob)
    for old, new, message in (
        ("enos-program/1", "enos-program/9", "has schema 'enos-program/9'"),
        ('"compute"', '"dance"', "dance"),
        ('"start_cycle": 0', '"start_cycle": "0"', "is not of type int"),
        ('"cycles"', '"circles"', "unknown"),
        ("{", "[", "cannot be read"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(FormatError, match=message):
            read_program(tmp_path)


def test_a_changed_number_breaks_the_seal(tmp_path: Path) -> None:
    path, _ = write_program(executable(branches()[0]), tmp_path)
    text = path.read_text()
    path.write_text(text.replace('"exponent": -', '"exponent": -1', 1))
    with pytest.raises(FormatError, match="does not match its seal"):
        read_program(path).require_seal()
    path.write_text(text + "\n\n")
    read_program(path).require_seal()
