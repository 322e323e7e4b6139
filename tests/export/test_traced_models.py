# SPDX-License-Identifier: Apache-2.0
"""Torch models, traced, quantised at random widths and operators, exported and compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from enos_compiler.export.check import compare
from enos_compiler.export.onnx import export_onnx
from enos_compiler.frontend.calibrate import calibrate, example_batches
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Layer, Network
from enos_compiler.operators.quantize_network import quantize_network
from enos_compiler.semantics import reference


class Vision(nn.Module):
    """Residual, pre-activation, groups, joins, a gate, a transposed convolution, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.b1 = nn.BatchNorm2d(16)
        self.c2 = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.b2 = nn.BatchNorm2d(16)
        self.pre = nn.BatchNorm2d(16)
        self.c3 = nn.Conv2d(32, 24, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.norm = nn.GroupNorm(4, 16)
        self.fc = nn.Linear(16, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.2)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
                nn.init.normal_(module.bias, 0, 0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self.b1(self.c1(x)))
        y = self.b2(self.c2(x))
        z = F.relu(self.pre(F.max_pool2d(F.relu(x + y), 2)))
        z = torch.cat([z, F.avg_pool2d(F.silu(y), 2)], 1)
        a, b = F.hardswish(self.c3(z)).chunk(2, 1)
        z = torch.cat([a, b.sigmoid() * b], 1)
        u = F.interpolate(F.relu(self.norm(self.up(z))), scale_factor=2, mode="nearest")
        return self.fc(u.mean((2, 3))), u


class Speech(nn.Module):
    """1-D: strided, dilated depthwise, pointwise, a pool in ceil mode."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv1d(4, 8, 5, stride=2, padding=2)
        self.d = nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.p = nn.Conv1d(8, 16, 1)
        self.fc = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.p(F.relu(self.d(F.relu(self.c(x))))), 0.1)
        x = F.max_pool1d(x, 3, 2, ceil_mode=True)
        result: Tensor = self.fc(F.adaptive_avg_pool1d(x, 1).flatten(1))
        return result


class Decoder(nn.Module):
    """Embedding, masked attention, layer norm, gelu."""

    def __init__(self, width: int = 32, heads: int = 4, tokens: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(50, width)
        self.places = nn.Parameter(torch.randn(1, tokens, width) * 0.3)
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.back = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 50)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.places
        batch, tokens, width = x.shape
        qkv = self.qkv(self.n1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).reshape(batch, tokens, width))
        x = x + self.back(F.gelu(self.wide(self.n2(x))))
        result: Tensor = self.head(x)
        return result


CASES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "vision": (Vision, (4, 3, 16, 16)),
    "speech": (Speech, (4, 4, 40)),
    "decoder": (Decoder, (4, 12)),
}
WEIGHT_BITS = {"mac": 8, "mf": 8, "ef": 8, "shift": 4, "bw": 1, "xnor": 1}


def example(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 50, shape) if len(shape) == 2 else torch.randn(shape)


def choose(network: Network, seed: int, operators: tuple[str, ...]) -> Network:
    """Assign every layer an operator and widths at random; 8 bits for mac alone."""
    rng = np.random.default_rng(seed)

    def chosen(layer: Layer) -> Layer:
        operator = str(rng.choice(operators))
        extremes = network.values[layer.inputs[0]].range
        signed = extremes is None or extremes[0] < 0
        if layer.shape.activation_product or (signed and operator in ("mf", "xnor")):
            operator = "mac"
        widths = (8, 8) if seed == 0 else tuple(int(b) for b in rng.choice([4, 6, 8], 2))
        weight = WEIGHT_BITS[operator]
        if seed and operator == "mac" and not layer.shape.activation_product:
            weight = int(rng.integers(3, 9))
        choice = Choice("core", operator, Bits(widths[0], weight, widths[1]))
        return replace(layer, choice=choice)

    return network.with_layers({name: chosen(layer) for name, layer in network.layers.items()})


def quantised(model: nn.Module, inputs: tuple[Tensor, ...], seed: int) -> Network:
    """Trace, calibrate, assign at random (mac only for seeds 0 and 1) and quantise."""
    network = lower(trace(model, inputs))
    network = calibrate(network, example_batches(network))
    operators = ("mac",) if seed < 2 else tuple(WEIGHT_BITS)
    return quantize_network(choose(network, seed, operators))


def assert_exact(model: nn.Module, inputs: tuple[Tensor, ...], seed: int, tolerance: float) -> None:
    """Assert that no output bit differs, and that 8-bit mac stays near the float model."""
    network = quantised(model, inputs, seed)
    rows = None if network.batch_is_symbolic else network.batch
    arrays = tuple(tensor[:rows].numpy() for tensor in inputs)
    assert compare(export_onnx(network), network, arrays).steps == {"off": 0, "on": 0}
    if seed:
        return
    with torch.no_grad():
        real = model(*(tensor[:rows] for tensor in inputs))
    reals = real if isinstance(real, tuple) else (real,)
    for found, right in zip(reference.run(network, arrays), reals, strict=True):
        error = np.linalg.norm(found - right.numpy()) / np.linalg.norm(right.numpy())
        assert error < tolerance


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", CASES)
def test_traced_models_are_exact_in_onnx_runtime(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    kind, shape = CASES[name]
    assert_exact(kind().eval(), (example(shape),), seed, 0.1)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("name", sorted(networks.COVERAGE))
def test_networks_that_users_bring_are_exact_in_onnx_runtime(name: str, seed: int) -> None:
    """Tolerance: 8-bit codes with power-of-two scales through a transformer's norms."""
    model, inputs = networks.build(name)
    assert_exact(model, inputs, seed, 0.2)


def test_metadata_stand_once_per_layer_and_vector_operation() -> None:
    """A reshape that leaves its codes in place has no node to carry any."""
    network = quantised(Speech().eval(), (torch.randn(2, 4, 40),), 0)
    costs = dict.fromkeys(network.order, (1.5, 2.0))
    noted = [
        {entry.key: entry.value for entry in node.metadata_props}
        for node in export_onnx(network, costs=costs).graph.node
    ]
    layers = Counter(entry["enos.layer"] for entry in noted if "enos.layer" in entry)
    vectors = Counter(entry["enos.vector"] for entry in noted if "enos.vector" in entry)
    assert layers == dict.fromkeys(network.layers, 1)
    assert vectors == dict.fromkeys(network.vectors, 1)
    for entry in noted:
        if "enos.vector" in entry:
            vector = network.vectors[entry["enos.vector"]]
            assert entry["enos.operation"] == vector.op
            assert entry["enos.bits.output"] == str(vector.bits)
            assert (entry["enos.energy_pj"], entry["enos.latency_ns"]) == ("1.5", "2.0")
