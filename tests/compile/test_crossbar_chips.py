# SPDX-License-Identifier: Apache-2.0
"""The shipped chips with crossbars compile, and compute what their crossbars compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import enos_compiler
from enos_compiler.compiler import Compiled
from enos_compiler.cores.target import load_target
from enos_compiler.errors import RefusalError, SpecError
from enos_compiler.ir.serialize import load_network, save_network
from enos_compiler.semantics.reference import run
from enos_compiler.spec import find_target

CHIPS = ("cim", "hybrid", "mfnet", "isaac", "puma", "diana")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


def inputs() -> torch.Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def compiled(target: str | Path, **options: Any) -> Compiled:
    return enos_compiler.compile(model(), (inputs(),), target=str(target), **options)


@pytest.mark.parametrize("name", CHIPS)
def test_every_chip_prices_its_crossbars_by_the_one_model(name: str) -> None:
    found = compiled(name, search="none")
    assert found.report["checks"]["onnx_max_steps"] == 0
    target = load_target(name)
    on_arrays = [row for row in found.report["layers"] if row["core"] == "xbar"]
    assert on_arrays or name in ("hybrid", "diana")
    for row in on_arrays:
        assert row["energy_pj"] == pytest.approx(sum(row["components"].values()), rel=1e-12)
        assert all(target.source(action) for action in row["events"])


def test_dianas_analog_core_refuses_weights_of_eight_bits_and_offers_ternary_ones() -> None:
    """At a low budget layers run there, on 7-bit inputs, and compute what 6 bits leave of sums."""
    found = compiled(
        "diana", budget="floor", weight_bits=(8, 2), activation_bits=(7,), check="full"
    )
    reasons = {r["reason"] for r in found.report["refusals"] if r["core"] == "xbar"}
    assert any("weights of 8 bits, the arrays take 2" in reason for reason in reasons)
    analog = [row for row in found.report["layers"] if row["core"] == "xbar"]
    assert analog
    assert {(row["bits"]["input"], row["bits"]["weight"]) for row in analog} == {(7, 2)}
    assert found.report["checks"]["onnx_max_steps"] == 0
    assert found.report["sections"]["converters"]["layers"]


def coarse(tmp_path: Path, per: str, ranges: str) -> Path:
    """The chip of crossbars alone with converters of four bits."""
    text = find_target("cim").read_text()
    old = "      range: full\n"
    assert old in text
    new = f"      range: {ranges}\n      per: {per}\n      resolutions: [4]\n"
    text = text.replace(old, new).replace("energy_pj: {5:", "energy_pj: {4: 1.775, 5:")
    file = tmp_path / "coarse.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("per", "ranges"), [("layer", "calibrated"), ("column", "calibrated"), ("layer", "full")]
)
def test_coarse_converters_change_the_integers_in_every_form_alike(
    tmp_path: Path, per: str, ranges: str
) -> None:
    """Reference, ONNX Runtime and a saved network executed without its chip agree."""
    found = compiled(coarse(tmp_path, per, ranges), search="none", check="full")
    assert found.report["checks"]["onnx_max_steps"] == 0
    arrays = found.report["sections"]["quantize"]["converters"]
    assert set(arrays) == {row["name"] for row in found.report["layers"]}
    plain = compiled("cim", search="none", check="none")
    x = inputs().numpy()
    assert not np.array_equal(found.run(x)[0], plain.run(x)[0])
    folder = tmp_path / "saved"
    folder.mkdir()
    save_network(found.network, folder)
    assert np.array_equal(run(load_network(folder), (x,))[0], found.run(x)[0])


def test_full_ranges_never_saturate_and_calibrated_ones_are_counted(tmp_path: Path) -> None:
    for ranges in ("full", "calibrated"):
        found = compiled(coarse(tmp_path, "layer", ranges), search="none", check="full")
        rows = found.report["sections"]["converters"]["layers"]
        assert {row["layer"] for row in rows} == {r["name"] for r in found.report["layers"]}
        assert all(row["conversions"] > 0 for row in rows)
        if ranges == "full":
            assert not any(row["saturated"] for row in rows)


def test_plain_files_leave_the_converters_out(tmp_path: Path) -> None:
    file = coarse(tmp_path, "layer", "full")
    hardware, plain = (
        compiled(file, search="none", onnx_fidelity=f) for f in ("hardware", "plain")
    )
    assert any(f.name.startswith("Crossbar") for f in hardware.onnx.functions)
    assert not any(f.name.startswith("Crossbar") for f in plain.onnx.functions)
    assert plain.report["checks"]["onnx_max_steps"] == 0
    assert plain.report["sections"]["converters"]["onnx"] == "plain"


def test_a_chip_without_a_digital_core_refuses_what_crossbars_cannot_hold() -> None:
    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x.transpose(-1, -2)

    with pytest.raises(RefusalError, match="both operands are activations"):
        enos_compiler.compile(Product(), (torch.rand(2, 4, 4),), target="isaac")


def test_no_energy_of_a_conversion_is_taken_from_nowhere() -> None:
    with pytest.raises(SpecError, match="no energy is known"):
        load_target("isaac").energy_pj("xbar.adc/convert_6b")
