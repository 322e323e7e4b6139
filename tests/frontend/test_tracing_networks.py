# SPDX-License-Identifier: Apache-2.0
"""Every network of the zoo: the canonical graph computes what the user's model computes."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import networks
import pytest
import torch
from networks.modern import MODERN
from torch import Tensor

from enos_compiler.frontend.calibrate import calibrate, example_batches
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.ir import ops
from enos_compiler.ir.network import Network
from enos_compiler.ir.verify import verify

NAMES = [*sorted(networks.COVERAGE), *sorted(MODERN)]
CONVOLUTIONAL = [name for name in networks.COVERAGE if name not in ("vit", "decoder")]


def canonical(name: str, batch: int = 1) -> tuple[torch.nn.Module, tuple[Tensor, ...], Network]:
    model, inputs = networks.build(name)
    return model, inputs, lower(trace(model, inputs, batch))


def close(network: Network, model: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Outputs agree to 1e-5 of the largest magnitude."""
    with torch.no_grad():
        expected = model(*inputs)
        (result,) = network.graph(*inputs)
    assert result.shape == expected.shape
    assert float((result - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_canonical_graph_equals_the_model_at_any_batch(name: str) -> None:
    model, inputs, network = canonical(name)
    assert network.batch == 1
    assert network.batch_is_symbolic == (name != "encoder_second")
    close(network, model, tuple(x[:1] for x in inputs))
    close(network, model, inputs)
    close(network, model, tuple(torch.cat([x, x.flip(0)]) for x in inputs))


@pytest.mark.parametrize("name", NAMES)
def test_every_node_is_canonical_with_plain_attributes(name: str) -> None:
    _, _, network = canonical(name)
    for node in network.graph.graph.nodes:
        assert node.op in ("placeholder", "get_attr", "call_function", "output")
        if node.op != "call_function":
            continue
        assert ops.op_name(node.target) in ops.FUNCTIONS
        for value in node.kwargs.values():
            entries = value if isinstance(value, tuple) else (value,)
            assert all(type(entry) in (int, float, str, bool) for entry in entries)


@pytest.mark.parametrize("name", NAMES)
def test_annotations_keep_every_rule_and_match_the_graph(name: str) -> None:
    _, inputs, network = canonical(name, batch=2)
    network = calibrate(network, example_batches(network))
    verify(replace(network, facts=frozenset({"shaped", "calibrated"})), "calibrate")
    shapes = _shapes(network, tuple(x[:2] for x in inputs))
    for value in network.values.values():
        assert value.shape == shapes[value.name]
    for layer in network.layers.values():
        assert layer.shape.volume("Outputs") == prod(network.values[layer.output].shape)


def _shapes(network: Network, inputs: tuple[Tensor, ...]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}

    class Shapes(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                found[n.name] = tuple(result.shape)
            return result

    with torch.no_grad():
        Shapes(network.graph).run(*inputs)
    return found


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_networks_have_no_norm_left_beside_a_layer(name: str) -> None:
    """Norms and clamps behind layers are fused; DenseNet's norms stand before convolutions."""
    _, _, network = canonical(name)
    for vector in network.vectors.values():
        producer = network.producer(vector.inputs[0])
        if vector.op == "batch_norm" and producer is not None:
            assert producer.op != "conv" or len(network.consumers(vector.inputs[0])) > 1
        is_relu = vector.op == "elementwise" and vector.attributes["function"] in ops.CLAMPS
        assert not (is_relu and producer is not None and producer.op == "conv")


def test_macs_are_those_of_the_published_networks() -> None:
    """Counts at full size, in millions, as torch's own hooks count them on the user's modules."""
    model = networks.mobile.MobileNetV2(1.0, 4, 1000).eval()
    network = lower(trace(model, (torch.zeros(1, 3, 224, 224),)))
    assert network.macs == 300_774_272
    assert len(network.layers) == 53
