# SPDX-License-Identifier: Apache-2.0
"""A user without PyTorch source: a float ONNX file in, a quantised one out, equal bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import networks
import networks.real
import numpy as np
import onnx
import onnx_files
import pytest

from enos_compiler.cli.enosc import main as enosc
from enos_compiler.compiler import Compiled, compile_model
from enos_compiler.cores.target import load_target
from enos_compiler.frontend.user import load_user_model
from enos_compiler.options import Options

ROOT = Path(__file__).parents[2]


def compiled_from(path: Path, target: str = "hybrid") -> Compiled:
    options = Options(search="none")
    return compile_model(load_user_model(str(path)), load_target(target), options)


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet_v3", "vit", "decoder", "unet"])
def test_exported_networks_compile_and_run_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, inputs = networks.build(name)
    path = onnx_files.export(model, inputs, tmp_path / f"{name}.onnx")
    checks = compiled_from(path).report["checks"]
    assert (checks["onnx_max_steps"], checks["simulator_max_steps"]) == (0, 0)
    assert checks["events_equal"]


def test_the_command_compiles_a_file_and_says_where_ranges_come_from(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, inputs = networks.build("resnet20")
    path = onnx_files.export(model, inputs, tmp_path / "resnet20.onnx")
    images = networks.real.real_inputs(inputs[0])
    assert images is not None
    np.savez(tmp_path / "images.npz", x0=images.numpy())
    arguments = [str(path), "--search", "none", "-o", str(tmp_path / "out")]
    assert enosc(arguments) == 0
    assert "ranges come from 8 random entries (seed 0)" in " ".join(capfd.readouterr().out.split())
    assert enosc([*arguments, "--calibration", str(tmp_path / "images.npz"), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["sections"]["onnx"]["notes"] == ["calibrated on 8 inputs of images.npz"]
    assert report["sections"]["onnx"]["opset"] == 17
    written = onnx.load(tmp_path / "out" / "model.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert [i.name for i in written.graph.input] == ["x0"]


def test_a_compiled_file_is_refused_as_quantised(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, inputs = networks.build("keyword")
    path = onnx_files.export(model, inputs, tmp_path / "keyword.onnx")
    compiled_from(path).save(tmp_path / "out")
    assert enosc([str(tmp_path / "out" / "model.onnx"), "-o", str(tmp_path / "again")]) == 1
    assert "the network is quantised already" in capfd.readouterr().err
    assert not (tmp_path / "again").exists()


def test_compiled_files_speak_of_no_path_and_no_source(tmp_path: Path) -> None:
    """Names of nodes come from modules; neither folders nor lines of code may ride along."""
    model, inputs = networks.build("shufflenet_v2")
    path = onnx_files.export(model, inputs, tmp_path / "net.onnx")
    compiled_from(path).save(tmp_path / "out")
    folders = {str(tmp_path), str(ROOT), str(Path.home()), str(Path(onnx.__file__).parents[2])}
    for name in ("model.onnx", "report.json", "program.json"):
        content = (tmp_path / "out" / name).read_bytes()
        for text in (*folders, ".py", "Traceback", "site-packages"):
            assert text.encode() not in content, f"{name} holds {text}"


def test_a_large_network_compiles_checks_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above protobuf's limit tensors lie beside the model; the limit is lowered here."""
    monkeypatch.setattr("enos_compiler.export.onnx.EXTERNAL_BYTES", 1000)
    model, inputs = networks.build("resnet20")
    path = onnx_files.export(model, inputs, tmp_path / "net.onnx")
    compiled = compiled_from(path)
    assert compiled.report["checks"]["onnx_max_steps"] == 0
    out = tmp_path / "out"
    compiled.save(out)
    assert (out / "model.onnx.data").stat().st_size > 1000
    found = onnx_files.run(out / "model.onnx", [inputs[0].numpy()])
    monkeypatch.undo()
    compiled.save(out)
    assert not (out / "model.onnx.data").exists()
    np.testing.assert_array_equal(
        onnx_files.run(out / "model.onnx", [inputs[0].numpy()])[0], found[0]
    )
