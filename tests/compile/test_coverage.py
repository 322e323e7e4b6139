# SPDX-License-Identifier: Apache-2.0
"""Networks by chips: reference, ONNX Runtime and replay are equal, or the refusal says why."""

from __future__ import annotations

from typing import Any

import pytest
from networks import COVERAGE, REFUSED, build
from networks.real import real_inputs

import enos_compiler
from enos_compiler.compiler import Compiled
from enos_compiler.errors import FrontendError, RefusalError
from enos_compiler.export.check import compare, output_steps
from enos_compiler.schedule.executable import executable
from enos_compiler.semantics.reference import run
from enos_compiler.simulate.replay import replay

ONLY_CROSSBARS = ("cim", "isaac")
"""Chips without a core that multiplies two activations."""
ATTENTION = ("vit", "decoder")


def compiled(name: str, target: str, *, full: bool = False, **options: Any) -> Compiled:
    model, inputs = build(name, full=full)
    return enos_compiler.compile(model, inputs, target=target, search="none", **options)


def equal_three_times(result: Compiled) -> None:
    checks = result.report["checks"]
    assert checks["onnx_max_steps"] == 0
    assert checks["simulator_max_steps"] == 0
    assert checks["events_equal"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["eyeriss", "simba", "isaac"])
@pytest.mark.parametrize("name", COVERAGE)
def test_every_network_runs_on_every_chip(name: str, target: str) -> None:
    if name in ATTENTION and target in ONLY_CROSSBARS:
        with pytest.raises(RefusalError, match="both operands are activations"):
            compiled(name, target)
        return
    equal_three_times(compiled(name, target))


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v3", "vit", "decoder"])
def test_real_inputs_run_as_random_ones_do(name: str) -> None:
    """Photographs and text reach codes and ties that noise does not."""
    result = compiled(name, "hybrid", check="none")
    network = result.network
    found = real_inputs(network.example_inputs[0], COVERAGE[name].vocabulary)
    assert found is not None
    inputs = (found.numpy(),)
    assert compare(result.onnx, network, inputs).max_steps == 0
    few = (found[:2].numpy(),)
    outputs = replay(executable(network), few).outputs
    for value, real, right in zip(network.outputs, outputs, run(network, few), strict=True):
        assert output_steps(network, value, real, right) == 0


@pytest.mark.slow
def test_a_network_of_published_size_runs_bit_for_bit() -> None:
    result = compiled("squeezenet", "hybrid", full=True)
    equal_three_times(result)
    assert result.report["checks"]["level"] == "sampled"
    assert result.report["totals"]["macs"] == 211_572_416


@pytest.mark.parametrize("name", REFUSED)
def test_recurrent_networks_are_refused_with_line_and_remedy(name: str) -> None:
    with pytest.raises(FrontendError) as caught:
        compiled(name, "hybrid")
    error = caught.value
    assert error.message == (
        "recurrent layer `lstm` is not supported: its state loops through time (module lstm)"
    )
    assert error.place is not None
    assert "networks/residual.py:" in error.place
    assert error.remedy == (
        "write the steps out with nn.Linear over a fixed length, or use convolution or attention"
    )
