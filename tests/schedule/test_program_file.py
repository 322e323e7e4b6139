# SPDX-License-Identifier: Apache-2.0
"""Programs on disk come back equal; damaged ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from tiny_network import TinyCore, TinyTarget, attach, layer, network

from enos_compiler.cores.target import Target
from enos_compiler.errors import FormatError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import QuantizedLayer
from enos_compiler.ir.network import Home, Network
from enos_compiler.schedule.list_schedule import schedule_network
from enos_compiler.schedule.program_file import read_program, write_program


def _scheduled() -> Network:
    chip = TinyTarget({"xbar": TinyCore("xbar", kind="crossbar", resident=True)})
    net = network([layer("a", ("x",)), layer("b", ("a",))], ("b",))
    net = net.with_values({"a": replace(net.values["a"], home=Home("buffer", 0, 8))})
    net = attach(net, chip, ("mac",), [Bits(8, 8, 8)], seed=0)
    whole = np.arange(-3, 13, dtype=np.int64).reshape(4, 4)
    quantized = QuantizedLayer(
        tensors={"codes": whole},
        bias=np.array([70_000, 0, 0, -1]),
        unit_exponent=np.full(4, -9),
        input_formats=(),
        bound=100,
    )
    net = net.with_layers(
        {n: replace(v, choice=v.choices[0], quantized=quantized) for n, v in net.layers.items()}
    )
    program, _ = schedule_network(net, cast("Target", chip))
    return replace(net, program=program)


def test_round_trip(tmp_path: Path) -> None:
    net = _scheduled()
    write_program(net, tmp_path)
    found = read_program(tmp_path)
    assert found.program == net.program
    assert set(found.tensors) == {
        f"{n}/{t}" for n in "ab" for t in ("codes", "bias", "unit_exponent")
    }
    assert found.tensors["a/codes"].dtype == np.int8
    assert found.tensors["a/bias"].dtype == np.int32
    assert found.tensors["a/bias"].tolist() == [70_000, 0, 0, -1]


def test_documented_form(tmp_path: Path) -> None:
    write_program(_scheduled(), tmp_path)
    document = json.loads((tmp_path / "program.json").read_text())
    assert document["schema"] == "enos-program/1"
    row = document["instructions"][0]
    assert {
        "id", "resource", "op", "layer", "start_ns", "end_ns", "start_cycle", "cycles", "reads",
        "writes", "after", "events",
    } == set(row)  # fmt: skip
    assert document["setup"][0]["op"] == "program-weights"
    assert document["setup"][0]["programs"] == "a"


def test_damage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is missing"):
        read_program(tmp_path)
    write_program(_scheduled(), tmp_path)
    path, tensors = tmp_path / "program.json", tmp_path / "program.safetensors"
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
        ('"layer:a"\n', '"layer:z"\n', "waits for layer:z, which does not exist"),
        ("{", "[", "cannot be read"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(FormatError, match=message):
            read_program(tmp_path)
