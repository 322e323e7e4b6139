# SPDX-License-Identifier: Apache-2.0
"""Written-out functions become the named ones, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.ir.network import Network

HALF = 0.5**0.5


class Form(nn.Module):
    """A function of one tensor, with a scale, a shift and a matrix at hand."""

    def __init__(self, function: Callable[[Form, Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.scale = nn.Parameter(torch.rand(6, generator=generator) + 0.5)
        self.shift = nn.Parameter(torch.randn(6, generator=generator))
        self.matrix = nn.Parameter(torch.randn(6, 6, generator=generator))
        self.kernel = nn.Parameter(torch.randn(6, 4, 1, generator=generator))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def written_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)


def lowered(function: Callable[[Form, Tensor], Tensor]) -> Network:
    """Lower it; the canonical graph computes the same."""
    model, x = Form(function).eval(), torch.randn(3, 4, 6, generator=torch.manual_seed(1))
    network = lower(trace(model, (x,)))
    with torch.no_grad():
        torch.testing.assert_close(network.graph(x)[0], model(x), rtol=1e-5, atol=1e-5)
    return network


RECOGNISED: dict[str, tuple[Callable[[Form, Tensor], Tensor], str]] = {
    "silu": (lambda _, x: x * x.sigmoid(), "silu"),
    "silu, turned": (lambda _, x: x.sigmoid() * x, "silu"),
    "hardswish": (lambda _, x: x * torch.nn.functional.hardsigmoid(x), "hardswish"),
    "gelu": (lambda _, x: x * (1 + torch.erf(x * HALF)) * 0.5, "gelu"),
    "gelu, half first": (lambda _, x: 0.5 * x * (torch.erf(x / 2**0.5) + 1), "gelu"),
    "gelu, half inside": (lambda _, x: (torch.erf(x * HALF) * 0.5 + 0.5) * x, "gelu"),
    "layer norm": (lambda _, x: written_norm(x), "layer_norm"),
    "layer norm, scaled": (lambda m, x: written_norm(x) * m.scale + m.shift, "layer_norm"),
    "layer norm, shifted": (lambda m, x: m.shift + written_norm(x, 1e-3), "layer_norm"),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_written_out_forms_are_one_operation(name: str) -> None:
    function, wanted = RECOGNISED[name]
    (vector,) = lowered(function).vectors.values()
    assert wanted in (vector.op, vector.attributes.get("function"))
    if vector.op == "layer_norm":
        assert vector.attributes["eps"] == pytest.approx(1e-3 if "shifted" in name else 1e-5)


KEPT: dict[str, Callable[[Form, Tensor], Tensor]] = {
    "gate of another tensor": lambda m, x: x * (x + m.shift).sigmoid(),
    "another slope": lambda _, x: x * (1 + torch.erf(x * 0.7)) * 0.5,
    "without the half": lambda _, x: x * (1 + torch.erf(x * HALF)),
    "mean over another axis": lambda _, x: (
        (x - x.mean(1, keepdim=True))
        / torch.sqrt(((x - x.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True) + 1e-5)
    ),
    "deviation of another tensor": lambda _, x: (
        (x - x.mean(-1, keepdim=True)) / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5)
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_other_forms_are_left_as_they_are(name: str) -> None:
    vectors = lowered(KEPT[name]).vectors.values()
    found = {v.op for v in vectors} | {v.attributes.get("function") for v in vectors}
    assert not found & {"silu", "gelu", "layer_norm"}


def test_a_scale_that_another_node_bypasses_stays_outside_the_norm() -> None:
    def twice(m: Form, x: Tensor) -> Tensor:
        norm = written_norm(x)
        return norm * m.scale + norm

    network = lowered(twice)
    assert [v.op for v in network.vectors.values()] == ["layer_norm", "mul", "add"]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x @ m.matrix + m.shift,
        lambda m, x: m.shift + x @ m.matrix,
        lambda m, x: torch.nn.functional.conv1d(x, m.kernel) + m.scale.view(6, 1),
    ],
)
def test_constants_behind_a_layer_are_its_bias(function: Callable[[Form, Tensor], Tensor]) -> None:
    network = lowered(function)
    assert not network.vectors
    (layer,) = network.layers.values()
    assert layer.bias is not None


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (x @ m.matrix + m.shift) * (x @ m.matrix),
        lambda m, x: torch.nn.functional.conv1d(x, m.kernel) + m.scale,
        lambda m, x: (lambda y: (y + m.shift) * y)(x @ m.matrix),
    ],
)
def test_other_sums_stay_sums(function: Callable[[Form, Tensor], Tensor]) -> None:
    network = lowered(function)
    biased = [layer for layer in network.layers.values() if layer.bias is not None]
    sums = [v for v in network.vectors.values() if v.op == "add"]
    assert len(biased) + len(sums) == 1


def test_norms_that_share_parameters_and_stand_before_their_first_reader_load() -> None:
    """A derived bias serves both layers, whichever of them comes first."""

    def shared(m: Form, x: Tensor) -> Tensor:
        first = x @ m.matrix + m.shift
        return written_norm(first) * m.scale + m.shift

    network = lowered(shared)
    assert [v.op for v in network.vectors.values()] == ["layer_norm"]
    (layer,) = network.layers.values()
    assert layer.bias == next(iter(network.vectors.values())).attributes["bias"]
