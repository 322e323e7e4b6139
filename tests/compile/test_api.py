# SPDX-License-Identifier: Apache-2.0
"""The Python surface: what it takes, what it says of anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import enos_compiler
from enos_compiler.errors import EnosError


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, ...]:
    return (torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def compiled(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> enos_compiler.Compiled:
    return enos_compiler.compile(model, inputs, search="none", name="small")


def test_the_public_names_are_there() -> None:
    for name in enos_compiler.__all__:
        assert getattr(enos_compiler, name) is not None
    assert dir(enos_compiler) == sorted(enos_compiler.__all__)


def test_run_takes_tensors_arrays_and_lists(
    compiled: enos_compiler.Compiled, inputs: tuple[torch.Tensor, ...], model: nn.Module
) -> None:
    forms: tuple[Any, ...] = (inputs[0], inputs[0].numpy(), inputs[0].tolist())
    first, *others = (compiled.run(form)[0] for form in forms)
    assert all(np.array_equal(first, other) for other in others)
    with torch.no_grad():
        wanted = model(*inputs).numpy()
    assert np.abs(first - wanted).max() < 0.05 * np.abs(wanted).max()


def test_noise_is_measured_where_there_is_no_test_data(compiled: enos_compiler.Compiled) -> None:
    noise = compiled.report["sections"]["output-noise"]
    assert noise["inputs"] == 4
    assert 25 < noise["snr_db"] < 60
    assert compiled.report["accuracy"] is None


def test_the_report_names_the_network(compiled: enos_compiler.Compiled) -> None:
    assert compiled.report["model"] == "small"
    assert compiled.program.makespan_ns == compiled.report["totals"]["latency_ns"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, x: enos_compiler.compile(m, x, bugdet="0.5"),
            "unknown option `bugdet`\n  try: budget (known: ",
        ),
        (
            lambda m, x: enos_compiler.compile(m.forward, x),
            "model is a method, not a torch.nn.Module\n  try: compile(model, (tensor,))",
        ),
        (
            lambda m, x: enos_compiler.compile(m, x[0]),
            "example_inputs is no tuple of tensors: it holds a Tensor\n",
        ),
        (
            lambda m, x: enos_compiler.compile(m, (x[0].numpy(),)),
            "example_inputs is no tuple of tensors: it holds a ndarray\n",
        ),
        (
            lambda m, x: enos_compiler.compile(m, x, target="hybird"),
            "unknown target `hybird`\n  try: hybrid",
        ),
        (lambda m, x: enos_compiler.compile(m, x, budget="lots"), "budget: `lots` is not a budget"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    call: Callable[[nn.Module, tuple[torch.Tensor, ...]], object],
    message: str,
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
) -> None:
    with pytest.raises(EnosError) as caught:
        call(model, inputs)
    assert str(caught.value).startswith(message)


def test_saving_over_a_file_is_refused(compiled: enos_compiler.Compiled, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(EnosError, match="is a file, not a folder"):
        compiled.save(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
