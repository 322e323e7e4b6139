# SPDX-License-Identifier: Apache-2.0
"""Networks at the edge of what a network is: few layers or none, odd inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import enos_compiler
from enos_compiler.compiler import Compiled
from enos_compiler.errors import FrontendError
from enos_compiler.frontend.data import Data

ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(20).reshape(4, 5) % 10
PARTS = ("layers_pj", "edges_pj", "vector_pj", "host_pj", "programming_pj", "leakage_pj")

Function = Callable[..., object]


class Net(nn.Module):
    """A function of the inputs, with two layers, a table and a constant at hand."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
            self.table = nn.Embedding(10, 6)
        self.constant = nn.Parameter(torch.ones(1, 6))
        self.function = function
        self.eval()


class OfOne(Net):
    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


class OfTwo(Net):
    def forward(self, x: Tensor, y: Tensor) -> object:
        return self.function(self, x, y)


def _twice(y: Tensor) -> tuple[Tensor, Tensor]:
    return y, y


def _also_clamped(y: Tensor) -> tuple[Tensor, Tensor]:
    return y, torch.relu(y)


NETWORKS: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "no layers": (OfOne(lambda _, x: torch.relu(x) + x), (ROWS,)),
    "a view": (OfOne(lambda _, x: x.reshape(-1, 2, 3)), (ROWS,)),
    "nothing at all": (OfOne(lambda _, x: x), (ROWS,)),
    "an input as output": (OfOne(lambda m, x: (m.layer(x), x)), (ROWS,)),
    "an unused input": (OfTwo(lambda m, x, _: m.layer(x)), (ROWS, ROWS + 1)),
    "two inputs": (OfTwo(lambda m, x, y: m.layer(x) + m.other(y)), (ROWS, ROWS + 1)),
    "one output twice": (OfOne(lambda m, x: _twice(m.layer(x))), (ROWS,)),
    "an output that is read": (OfOne(lambda m, x: _also_clamped(m.layer(x))), (ROWS,)),
    "nested outputs": (OfOne(lambda m, x: {"a": m.layer(x), "b": [x + 1, x - 1]}), (ROWS,)),
    "integer inputs": (OfOne(lambda m, x: m.layer(m.table(x))), (TOKENS,)),
    "an unread layer": (OfOne(lambda m, x: (m.layer(x), m.other(x))[0]), (ROWS,)),
    "shared weights": (OfOne(lambda m, x: m.layer(torch.relu(m.layer(x)))), (ROWS,)),
    "all zeros": (OfOne(lambda m, x: m.layer(x) * 0), (torch.zeros(4, 6),)),
}


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        found: list[Tensor] = torch.utils._pytree.tree_leaves(model(*inputs))
    return found


def _check(compiled: Compiled, folder: Path) -> None:
    report = compiled.report
    assert report["checks"]["onnx_max_steps"] == 0
    assert report["totals"]["energy_pj"] == pytest.approx(sum(report["totals"][p] for p in PARTS))
    compiled.save(folder)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiles_to_what_it_computes(name: str, batch: int, tmp_path: Path) -> None:
    model, examples = NETWORKS[name]
    compiled = enos_compiler.compile(model, examples, target="hybrid", search="none", batch=batch)
    _check(compiled, tmp_path)
    inputs = tuple(x[:batch] for x in examples)
    found = compiled.run(*(x.numpy() for x in inputs))
    for real, codes in zip(_outputs(model, inputs), found, strict=True):
        assert np.abs(real.numpy() - codes).max() < 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_compiles_at_mixed_widths(name: str, tmp_path: Path) -> None:
    model, examples = NETWORKS[name]
    _check(enos_compiler.compile(model, examples, target="hybrid", search="sensitivity"), tmp_path)


def test_an_input_that_is_an_output_keeps_eight_bits() -> None:
    model, examples = NETWORKS["an input as output"]
    compiled = enos_compiler.compile(
        model, examples, search="sensitivity", weight_bits=(4,), activation_bits=(4,), check="none"
    )
    (x,) = compiled.network.inputs
    form = compiled.network.values[x].format
    assert form is not None
    assert form.bits == 8


def test_layers_that_share_weights_are_trained_and_quantised_as_one(tmp_path: Path) -> None:
    model, _ = NETWORKS["shared weights"]
    inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    items = TensorDataset(inputs, inputs.argmax(1))
    data = Data(train=items, validation=items, test=items, batch_size=16)
    compiled = enos_compiler.compile(model, (inputs[:4],), data=data, epochs=1, finetune=1)
    _check(compiled, tmp_path)
    first, second = compiled.network.layers.values()
    assert first.choice is not None
    assert second.choice is not None
    assert first.choice.tied_fields == second.choice.tied_fields
    assert first.quantized is not None
    assert second.quantized is not None
    shared = first.quantized.tensors["weight"], second.quantized.tensors["weight"]
    assert np.array_equal(*shared)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: (m.layer(x), m.constant), "depends on no input"),
        (lambda m, _: m.constant, "depends on no input"),
        (lambda *_: None, "returns no tensor"),
        (lambda m, x: (m.layer(x), 3), "returns a int"),
    ],
)
def test_a_result_that_is_none_is_refused(function: Function, message: str) -> None:
    with pytest.raises(FrontendError, match=message):
        enos_compiler.compile(OfOne(function), (ROWS,), search="none")


def test_arithmetic_on_integers_is_refused() -> None:
    with pytest.raises(FrontendError, match="conversion from int64 to float32"):
        enos_compiler.compile(OfOne(lambda m, x: m.layer(x.float())), (ROWS.long(),))
