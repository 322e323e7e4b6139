# SPDX-License-Identifier: Apache-2.0
"""Networks of the kinds that users bring compile, and what is reported is what runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import COVERAGE, build

import enos_compiler
from enos_compiler.errors import RefusalError

PARTS = ("layers_pj", "edges_pj", "vector_pj", "host_pj", "programming_pj", "leakage_pj")


@pytest.mark.parametrize("name", COVERAGE)
def test_compiles_for_hybrid_and_runs_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = enos_compiler.compile(model, inputs, target="hybrid", allow_float=True)
    report = compiled.report
    islands = [vector for vector in compiled.network.vectors.values() if vector.is_float]
    assert report["checks"]["onnx_max_steps"] == 0 or islands
    totals = report["totals"]
    assert totals["energy_pj"] == pytest.approx(sum(totals[p] for p in PARTS), rel=1e-12)
    for row in report["layers"]:
        assert row["energy_pj"] == pytest.approx(sum(row["components"].values()), rel=1e-12)
    assert totals["energy_pj"] <= report["budget"]["energy_pj"] * (1 + 1e-9)
    outputs = compiled.run(*(x.numpy() for x in inputs))
    assert all(np.isfinite(y).all() for y in outputs)
    compiled.save(tmp_path)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert json.loads((tmp_path / "report.json").read_text()) == report


@pytest.mark.parametrize("target", ["digital", "cim"])
def test_compiles_for_the_other_chips(target: str) -> None:
    model, inputs = build("resnet18")
    compiled = enos_compiler.compile(model, inputs, target=target, search="none")
    assert compiled.report["checks"]["onnx_max_steps"] == 0
    baseline = compiled.report["baseline"]
    assert compiled.report["totals"]["energy_pj"] == pytest.approx(baseline["energy_pj"])


def test_a_chip_without_a_core_for_activation_products_says_so() -> None:
    model, inputs = build("vit")
    with pytest.raises(RefusalError, match="both operands are activations"):
        enos_compiler.compile(model, inputs, target="cim", allow_float=True)


def test_the_same_seed_gives_the_same_report() -> None:
    model, inputs = build("squeezenet")
    first, second = (
        enos_compiler.compile(model, inputs, target="hybrid", check="none").report for _ in range(2)
    )
    assert first == second


def test_twice_the_batch_is_twice_the_work() -> None:
    model, inputs = build("resnet18")
    one, two = (
        enos_compiler.compile(model, inputs, search="none", check="none", batch=b).report
        for b in (1, 2)
    )
    assert two["totals"]["macs"] == 2 * one["totals"]["macs"]
    assert math.isclose(two["totals"]["host_pj"], 2 * one["totals"]["host_pj"])
