# SPDX-License-Identifier: Apache-2.0
"""Accuracy on samples of a chip's crossbars: intervals, seeds, what is refused."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import enos_compiler
from enos_compiler.assign.array_noise import ArrayNoise
from enos_compiler.cli.enosc import main
from enos_compiler.compiler import Compiled
from enos_compiler.cores.base import HasArrays
from enos_compiler.cores.target import load_target
from enos_compiler.crossbar.nonideal import NonIdealities
from enos_compiler.errors import EnosError, SpecError, UsageError
from enos_compiler.evaluate.study import wilson
from enos_compiler.frontend.data import Data
from enos_compiler.report.build import report_schema
from enos_compiler.report.terminal import print_summary
from enos_compiler.semantics.reference import run
from enos_compiler.spec import find_target

NOISY = """\
    nonidealities:
      source: "invented for a test"
      programming: {sigma: 0.15, kind: proportional}
      on_off_ratio: 20
      stuck: {at_on: 0.001, at_off: 0.01}
      read_noise: {sigma: 0.02, kind: independent}
      adc: {offset_lsb: 0.5, inl_lsb: 0.3}
"""


def model() -> nn.Module:
    """A network whose answers differ from image to image: its logits have no mean."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    with torch.no_grad():
        network[-1].bias -= network(images()).mean(0)
    return network


def images(count: int = 60) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def answered(count: int = 60) -> Data:
    """Test data whose targets are the float network's own answers."""
    x = images(count)
    with torch.no_grad():
        y = model()(x).argmax(1)
    return Data(test=[(a, int(b)) for a, b in zip(x, y, strict=True)])


def chip(folder: Path, block: str = NOISY, name: str = "isaac") -> str:
    """A shipped chip with other errors of its crossbars."""
    text = find_target(name).read_text()
    marker = "    input_buffer:\n"
    assert marker in text
    start = text.find("    nonidealities:\n")
    if start >= 0:
        text = text[:start] + text[text.index(marker, start) :]
    file = folder / "noisy.yaml"
    file.write_text(text.replace(marker, block + marker, 1))
    return str(file)


def errors_of(target: str) -> NonIdealities:
    """Return what is wrong with the crossbars of a chip."""
    core = load_target(target).cores["xbar"]
    assert isinstance(core, HasArrays)
    return core.errors


def evaluated(target: str, **options: Any) -> Compiled:
    given = {"search": "none", "check": "none", "evaluate": True, "devices": 4, **options}
    return enos_compiler.compile(model(), (images(8),), target=target, data=answered(), **given)


def test_the_section_is_what_the_devices_answered(tmp_path: Path) -> None:
    """Schema, mean, the two intervals, and the same devices for one seed, however many."""
    report = evaluated(chip(tmp_path)).report
    jsonschema.validate(report, report_schema())
    found = report["sections"]["devices"]
    assert found["images"] == 60
    assert len(found["devices"]) == 4
    assert len(set(found["devices"])) > 1
    assert found["accuracy"] == pytest.approx(np.mean(found["devices"]))
    low, high = found["between_devices"]
    assert found["low"] < low < found["accuracy"] < high < found["high"] <= 1
    names = ["programming", "on_off_ratio", "stuck", "read_noise", "adc"]
    assert sorted(found["nonidealities"]["xbar"]) == sorted(names)
    clipped = found["saturation"]["layers"]
    assert set(clipped) == {row["name"] for row in report["layers"]}
    assert all(0 <= c["clipped"] < c["conversions"] for c in clipped.values())
    more = evaluated(chip(tmp_path), devices=6).report["sections"]["devices"]
    assert more["devices"][:4] == found["devices"]
    other = evaluated(chip(tmp_path), seed=1).report["sections"]["devices"]
    assert other["devices"] != found["devices"]
    some = evaluated(chip(tmp_path), evaluate_images=20).report["sections"]["devices"]
    assert some["images"] == 20
    assert some["high"] - some["low"] > found["high"] - found["low"]


def test_without_errors_the_devices_are_the_compiled_network(tmp_path: Path) -> None:
    """Nothing is drawn, and the accuracy is that of the integer reference."""
    compiled = evaluated(chip(tmp_path, ""))
    found = compiled.report["sections"]["devices"]
    assert found["devices"] == []
    assert found["between_devices"] is None
    x = images()
    answers = run(compiled.network, (x.numpy(),))[0].argmax(1)
    with torch.no_grad():
        right = float((torch.from_numpy(answers) == model()(x).argmax(1)).float().mean())
    assert found["accuracy"] == found["ideal"] == pytest.approx(right)


def test_the_summary_tells_the_interval_and_every_component(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluated(chip(tmp_path)).report
    print_summary(report)
    text = " ".join(capsys.readouterr().out.split())
    found = report["sections"]["devices"]
    assert f"{found['accuracy']:.2%}, 95% interval {found['low']:.2%}" in text
    assert "on 60 images and 4 devices" in text
    assert "of conversions clip" in text
    for name in {n for row in report["layers"] for n in row["components"]}:
        assert name in text


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no test data to measure accuracy on"):
        enos_compiler.compile(model(), (images(8),), target="isaac", evaluate=True)
    with pytest.raises(UsageError, match="digital has no crossbars"):
        evaluated("digital")
    with pytest.raises(UsageError, match="1 is below 2"):
        evaluated("isaac", devices=1)
    reals = Data(test=[(x, torch.zeros(4)) for x in images(3)], loss=nn.functional.mse_loss)
    with pytest.raises(EnosError, match="no class indices"):
        enos_compiler.compile(
            model(),
            (images(8),),
            target="isaac",
            data=reals,
            search="none",
            check="none",
            evaluate=True,
        )


def test_the_command_refuses_a_model_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nmodel = lambda: torch.nn.Linear(4, 2)\n"
        "example_inputs = lambda: (torch.rand(2, 4),)\n"
    )
    assert main([str(file), "--target", "isaac", "--evaluate", "-o", str(tmp_path / "out")]) == 2
    assert "there are no test data to measure accuracy on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("      on_off_ratio: 0.5\n", r"on_off_ratio = 0.5 is not accepted\n  try: greater than 1"),
        ("      stuck: {at_on: 0.6, at_off: 0.7}\n", "1.3 of all cells stuck"),
        ("      programming: {sigma: -1, kind: proportional}\n", "greater than or equal to 0"),
        ("      programming: {sigma: 0.1, kind: loud}\n", "'independent' or 'proportional'"),
        ("      wobble: 3\n", "wobble is an unknown key"),
        (
            "      drift: {seconds: 1, first_read_s: 20, exponent: 0.05, exponent_sigma: 0.01}\n",
            "use after 1 s, before the first read at 20 s",
        ),
    ],
)
def test_impossible_errors_of_devices_are_refused(tmp_path: Path, block: str, message: str) -> None:
    text = '    nonidealities:\n      source: "invented"\n' + block
    with pytest.raises(SpecError, match=message):
        load_target(chip(tmp_path, text))


def test_every_error_can_be_named(tmp_path: Path) -> None:
    block = (
        '    nonidealities:\n      source: "invented"\n'
        "      programming: {sigma: 0.1, kind: independent}\n"
        "      phase_change: {seconds: 3600}\n"
        "      on_off_ratio: 10\n"
        "      stuck: {at_on: 0.1, at_off: 0.2}\n"
        "      drift: {seconds: 30, first_read_s: 20, exponent: 0.05, exponent_sigma: 0.01}\n"
        "      capacitors: {capacitance_ff: 1.0, coefficient: 0.01}\n"
        "      wires: {row_ohm: 1, column_ohm: 1, row_terminal_ohm: 0, column_terminal_ohm: 10,"
        " r_on_ohm: 1.0e+4, solution: nodal}\n"
        "      read_noise: {sigma: 0.1, kind: proportional}\n"
        "      adc: {offset_lsb: 1, inl_lsb: 1}\n"
    )
    errors = errors_of(chip(tmp_path, block))
    assert len(errors.names) == 9
    assert errors.wires is not None
    assert errors.wires.exact
    assert errors.wires.r_on_ohm == 1e4
    assert errors_of("cim").names == ()
    with pytest.raises(SpecError, match="has no source"):
        load_target(chip(tmp_path, block.replace('      source: "invented"\n', "")))


def test_candidates_carry_the_noise_of_their_arrays(tmp_path: Path) -> None:
    """The measured power grows with the error, and is zero where nothing is lost."""
    options: dict[str, Any] = {"search": "none", "check": "none"}
    ideal = enos_compiler.compile(model(), (images(8),), target="cim", **options)
    layer = list(ideal.network.layers.values())[1]
    assert layer.choice is not None
    inputs = torch.relu(torch.randn(4, 8, 8, 8, generator=torch.Generator().manual_seed(2)))
    assert ArrayNoise(ideal.network, ideal.target.cores).of(layer, layer.choice, inputs) == 0
    found = []
    for sigma in (0.05, 0.2):
        text = NOISY.replace("sigma: 0.15", f"sigma: {sigma}")
        compiled = enos_compiler.compile(
            model(), (images(8),), target=chip(tmp_path, text, "cim"), **options
        )
        noise = ArrayNoise(compiled.network, compiled.target.cores)
        found.append(noise.of(layer, layer.choice, inputs))
        assert noise.of(layer, layer.choice, inputs * 0) == found[-1]
    assert 0 < found[0] < found[1] < 1
    digital = replace(layer.choice, core="nowhere")
    assert ArrayNoise(ideal.network, ideal.target.cores).of(layer, digital, inputs) == 0


def test_a_layers_resolutions_are_candidates_with_the_noise_of_each(tmp_path: Path) -> None:
    """More bits never add noise, all that the sums need add none; the assignment has the choice."""
    text = find_target("cim").read_text()
    given = ", ".join(f'{{value: {bits}, source: "swept"}}' for bits in range(3, 9))
    assert "      range: full\n" in text
    file = tmp_path / "chip.yaml"
    offer = f"range: least-error\n      resolutions: [{given}]\n"
    file.write_text(text.replace("range: full\n", offer))
    compiled = enos_compiler.compile(
        model(),
        (images(8),),
        target=str(file),
        search="sensitivity",
        budget="floor+0.1",
        check="none",
        operators=("mac",),
        weight_bits=(8,),
        activation_bits=(8,),
    )
    layer = list(compiled.network.layers.values())[1]  # 72 rows: 7 bits lose nothing
    inputs = torch.relu(torch.randn(4, 8, 8, 8, generator=torch.Generator().manual_seed(2)))
    noise = ArrayNoise(compiled.network, compiled.target.cores)
    of_bits = {
        dict(c.options)["adc_bits"]: noise.of(layer, c, inputs)
        for c in layer.choices
        if ("rows", 128) in c.options
    }
    found = [of_bits[bits] for bits in range(3, 9)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[1] > found[4] == 0
    taken = {row["options"]["adc_bits"] for row in compiled.report["layers"]}
    assert min(taken) < 7  # coarse converters save energy where they cost little accuracy


def test_array_noise_enters_the_score(tmp_path: Path) -> None:
    options: dict[str, Any] = {"search": "sensitivity", "check": "none", "weight_bits": (8,)}
    scores = []
    for block in ("", NOISY):
        compiled = enos_compiler.compile(
            model(), (images(8),), target=chip(tmp_path, block, "cim"), **options
        )
        scores.append([row["score"] for row in compiled.report["layers"]])
    assert all(noisy > clean for clean, noisy in zip(*scores, strict=True))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(5, 5000), share=st.floats(0, 1))
def test_wilsons_interval_solves_its_own_equation(count: int, share: float) -> None:
    """At both ends the observed fraction lies 1.96 standard errors of that end away."""
    fraction = round(share * count) / count
    for end in wilson(fraction, count, 0.95):
        assert -1e-12 <= end <= 1 + 1e-12
        error = sqrt(max(0.0, end * (1 - end)) / count)
        assert abs(fraction - end) == pytest.approx(1.959964 * error, abs=1e-7)


@pytest.mark.parametrize("exact", [True, False])
def test_arrays_that_change_no_sum_are_not_measured(
    exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if they were, there would be no noise."""
    target = "hybrid" if exact else chip(tmp_path)
    options: dict[str, Any] = {"search": "none", "check": "none"}
    compiled = enos_compiler.compile(model(), (images(8),), target=target, **options)
    network, core = compiled.network, compiled.target.cores["xbar"]
    assert isinstance(core, HasArrays)
    measured = []
    for layer in network.layers.values():
        shape = network.values[layer.inputs[0]].shape
        inputs = torch.rand(4, *shape[1:], generator=torch.Generator().manual_seed(2))
        for choice in [c for c in layer.choices if c.core == "xbar" and c.operator == "mac"][:2]:
            assert core.is_exact(layer.shape, choice) == exact
            with monkeypatch.context() as patch:
                patch.setattr(type(core), "is_exact", lambda *_: False)
                noise = ArrayNoise(network, compiled.target.cores)
                measured.append(noise.of(layer, choice, inputs))
    assert measured
    assert all(noise == 0.0 for noise in measured) if exact else max(measured) > 0.0
