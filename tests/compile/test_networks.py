# SPDX-License-Identifier: Apache-2.0
"""Networks of the kinds that users bring compile, and what is reported is what runs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import COVERAGE, build

import enos_compiler
from enos_compiler.errors import RefusalError
from enos_compiler.schedule.executable import executable
from enos_compiler.semantics.reference import run
from enos_compiler.simulate.replay import Replay, replay

PARTS = ("layers_pj", "edges_pj", "vector_pj", "host_pj", "programming_pj", "leakage_pj")


def _priced(report: Mapping[str, Any], done: Replay) -> dict[str, float]:
    """Return the energies of what the replay counted, pJ: each layer's, then by kind."""
    prices = report["sections"]["pricing"]["prices"]
    energies: Counter[str] = Counter()
    for (kind, name), events in done.events.items():
        spent = sum(count * prices[action]["energy_pj"] for action, count in events.items())
        energies[f"layer {name}" if kind == "layer" else kind] += spent
    return {name: energy for name, energy in energies.items() if energy}


def _spent(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the same energies as the report states them."""
    totals = report["totals"]
    stated = {f"layer {row['name']}": row["energy_pj"] for row in report["layers"]}
    stated |= {"edge": totals["edges_pj"], "vector": totals["vector_pj"], "host": totals["host_pj"]}
    return {name: energy for name, energy in stated.items() if energy}


@pytest.mark.parametrize("name", COVERAGE)
def test_compiles_for_hybrid_and_runs_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = enos_compiler.compile(model, inputs, target="hybrid", allow_float=True)
    report = compiled.report
    islands = [vector for vector in compiled.network.vectors.values() if vector.is_float]
    assert report["checks"]["onnx_max_steps"] == 0 or islands
    assert report["checks"]["simulator_max_steps"] == 0
    assert report["checks"]["events_equal"]
    totals = report["totals"]
    assert totals["energy_pj"] == pytest.approx(sum(totals[p] for p in PARTS), rel=1e-12)
    for row in report["layers"]:
        assert row["energy_pj"] == pytest.approx(sum(row["components"].values()), rel=1e-12)
    assert totals["energy_pj"] <= report["budget"]["energy_pj"] * (1 + 1e-9)
    arrays = tuple(x.numpy() for x in inputs)
    done = replay(executable(compiled.network), arrays)
    for found, right in zip(done.outputs, run(compiled.network, arrays), strict=True):
        assert found.dtype == right.dtype
        assert np.array_equal(found, right)
    assert done.cycles * compiled.target.clock_ns == pytest.approx(totals["latency_ns"], rel=1e-12)
    assert _priced(report, done) == pytest.approx(_spent(report), rel=1e-12)
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
