# SPDX-License-Identifier: Apache-2.0
"""Formats and integers of a whole network, against the float network and its training form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import TinyTarget
from torch import fx, nn

from enos_compiler import plugins
from enos_compiler.errors import PassError
from enos_compiler.ir import ops
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Layer, Network, Value, Vector
from enos_compiler.ir.shape import LayerShape
from enos_compiler.ir.verify import verify
from enos_compiler.operators.quantize_network import quantization_summary, quantize_network
from enos_compiler.pipeline import Context
from enos_compiler.search.tune import assigned_module
from enos_compiler.semantics.reference import execute, run

CONV: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
POOL: dict[str, Any] = {
    "kernel": (2, 2),
    "stride": (2, 2),
    "padding": (0, 0),
    "dilation": (1, 1),
    "ceil_mode": False,
}


class Tensors(nn.Module):
    """Parameters of two convolutions with batch norm and of a classifier."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        self.w1 = nn.Parameter(normal(6, 3, 3, 3) * 0.9)
        self.w2 = nn.Parameter(normal(6, 6, 3, 3) * 0.1)
        self.w3 = nn.Parameter(normal(4, 6 * 16) * 0.1)
        self.b3 = nn.Parameter(normal(4))
        for i in (1, 2):
            self.register_buffer(f"mean{i}", normal(6) * 0.1)
            self.register_buffer(f"var{i}", normal(6).square() + 0.5)
            self.register_parameter(f"gamma{i}", nn.Parameter(normal(6)))
            self.register_parameter(f"beta{i}", nn.Parameter(normal(6)))


def _graph() -> fx.GraphModule:
    graph = fx.Graph()
    call = graph.call_function
    x = graph.placeholder("x")

    def block(source: fx.Node, i: int, function: str, parameters: tuple[float, ...]) -> fx.Node:
        conv = call(ops.conv, (source, graph.get_attr(f"w{i}")), CONV)
        operands = [graph.get_attr(f"{part}{i}") for part in ("mean", "var", "gamma", "beta")]
        norm = call(ops.batch_norm, (conv, *operands), {"eps": 1e-5})
        return call(ops.elementwise, (norm,), {"function": function, "parameters": parameters})

    first = block(x, 1, "clip", (0.0, 6.0))
    second = block(first, 2, "relu", ())
    total = call(ops.add, (first, second))
    pooled = call(ops.max_pool, (total,), POOL)
    flat = call(ops.reshape, (pooled,), {"shape": (-1, 96)})
    logits = call(ops.linear, (flat, graph.get_attr("w3"), graph.get_attr("b3")))
    graph.output(logits)
    return fx.GraphModule(Tensors(), graph)


def _layer(name: str, op: str, source: str, output: str, weight: str, **rest: Any) -> Layer:
    return Layer(name, op, (source,), output, weight=weight, weight_key=weight, **rest)


def network(operator: str, bits: Bits, add_bits: int = 8) -> Network:
    """A calibrated network whose second convolution has the given operator and widths."""
    graph = _graph()
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen: dict[str, torch.Tensor] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    with torch.no_grad():
        Watch(graph).run(images)
    conv = LayerShape(n=1, m=6, c=3, p=8, q=8, r=3, s=3, padding=(1, 1, 1, 1))
    linear = LayerShape(m=4, c=96)
    mac = Choice("core", "mac", Bits(8, 8, 8))
    layers = (
        _layer("conv", "conv", "x", "elementwise", "w1", shape=conv, choice=mac),
        _layer(
            "conv_1",
            "conv",
            "elementwise",
            "elementwise_1",
            "w2",
            shape=replace(conv, c=6),
            choice=Choice("core", operator, bits),
        ),
        _layer("linear", "linear", "reshape", "linear", "w3", shape=linear, choice=mac, bias="b3"),
    )
    fused = {
        "conv": ("batch_norm", "elementwise"),
        "conv_1": ("batch_norm_1", "elementwise_1"),
        "linear": (None, None),
    }
    fuse = [replace(x, norm=fused[x.name][0], activation=fused[x.name][1]) for x in layers]
    vectors = (
        Vector("add", "add", ("elementwise", "elementwise_1"), "add", bits=add_bits),
        Vector(
            "max_pool",
            "max_pool",
            ("add",),
            "max_pool",
            attributes=POOL,
            bits=add_bits,
        ),
        Vector(
            "reshape",
            "reshape",
            ("max_pool",),
            "reshape",
            attributes={"shape": (-1, 96)},
            bits=add_bits,
        ),
    )
    producers = {node.output: node.name for node in (*fuse, *vectors)}
    values = {
        name: Value(
            name,
            (1, *seen[name].shape[1:]),
            "input" if name == "x" else "internal",
            producers.get(name, name),
            range=(float(seen[name].min()), float(seen[name].max())),
        )
        for name in ("x", *producers)
    }
    return Network(
        "small",
        graph,
        (images,),
        layers={x.name: x for x in fuse},
        vectors={x.name: x for x in vectors},
        values=values,
        inputs=("x",),
        outputs=("linear",),
        order=("conv", "conv_1", "add", "max_pool", "reshape", "linear"),
        facts=frozenset({"shaped", "calibrated"}),
    )


EIGHT = Bits(8, 8, 8)


def test_formats_follow_producers() -> None:
    quantized = quantize_network(network("mac", Bits(4, 4, 6), add_bits=5))
    formats = {name: value.format for name, value in quantized.values.items()}
    assert formats["linear"] is None
    assert [formats[n].bits for n in ("x", "elementwise", "elementwise_1", "add")] == [8, 8, 6, 5]  # type: ignore[union-attr]
    assert formats["x"].zero_point == 128  # type: ignore[union-attr]
    assert formats["elementwise"].zero_point == 0  # type: ignore[union-attr]
    clip = formats["elementwise"]
    assert clip is not None
    assert clip.high * clip.scale <= 6.0 < (clip.high + 1) * clip.scale
    assert formats["add"] == formats["max_pool"] == formats["reshape"]
    assert quantized.layers["conv_1"].quantized.input_formats == (clip.narrowed(4),)  # type: ignore[union-attr]
    verify(replace(quantized, facts=frozenset({"shaped", "quantized"})), "quantize")


def test_a_second_reader_or_a_clamp_gives_an_output_codes() -> None:
    net = network("mac", EIGHT)
    outputs = ("linear", "elementwise_1")
    quantized = quantize_network(replace(net, outputs=outputs))
    assert quantized.values["elementwise_1"].format is not None
    assert quantized.values["linear"].format is None


def test_a_clamped_output_has_codes() -> None:
    """relu behind the last layer is a bound of codes, which a plain sum does not have."""
    net = network("mac", EIGHT)
    layers = {name: net.layers[name] for name in ("conv", "conv_1")}
    cut = replace(net, layers=layers, vectors={}, order=tuple(layers), outputs=("elementwise_1",))
    assert quantize_network(cut).values["elementwise_1"].format is not None
    plain = replace(layers["conv_1"], activation=None)
    bare = cut.with_layers({"conv_1": plain})
    assert quantize_network(bare).values["elementwise_1"].format is None


def test_eight_bits_are_close_to_the_float_network() -> None:
    """Signal to noise of the logits above 35 dB: one bit below what 8-bit rounding alone leaves."""
    net = network("mac", EIGHT)
    (images,) = net.example_inputs
    with torch.no_grad():
        expected = net.graph(images).numpy()
    (actual,) = run(quantize_network(net), (images.numpy(),))
    noise = np.square(actual - expected).mean() / np.square(expected).mean()
    assert -10 * np.log10(noise) > 35


@pytest.mark.parametrize(
    ("operator", "bits"),
    [
        ("mac", EIGHT),
        ("mac", Bits(4, 4, 4)),
        ("bw", Bits(8, 1, 8)),
        ("mf", Bits(6, 4, 8)),
        ("ef", Bits(8, 8, 8)),
        ("shift", Bits(8, 4, 8)),
        ("xnor", Bits(2, 1, 8)),
    ],
)
def test_the_module_that_fine_tunes_computes_the_integers(operator: str, bits: Bits) -> None:
    """Codes behind the chosen layer differ only by the rounding of scales.

    That is by one step in under 2 % where multipliers have 8 bits; shift's sums leave them 6 of
    the 24 bits of float32, an error of up to 2**-6.
    """
    net = network(operator, bits)
    module = assigned_module(net).eval()
    (images,) = net.example_inputs
    quantized = quantize_network(net)
    codes = execute(quantized, (images.numpy(),))["elementwise_1"]
    fmt = quantized.values["elementwise_1"].format
    assert fmt is not None
    found: dict[str, torch.Tensor] = {}
    settle = module._settle

    def watch(name: str, tensor: torch.Tensor) -> torch.Tensor:
        found[name] = settle(name, tensor)
        return found[name]

    module._settle = watch  # type: ignore[method-assign]
    with torch.no_grad():
        module(images)
    trained = np.rint(found["elementwise_1"].numpy() / fmt.scale).astype(np.int64) + fmt.zero_point
    assert np.all(np.abs(trained - codes) <= 1 + (codes >> 6) * (operator == "shift"))
    assert np.mean(trained != codes) < (0.1 if operator == "shift" else 0.02)


def test_shared_weights_have_one_set_of_codes() -> None:
    net = network("mac", EIGHT)
    twin = replace(net.layers["conv_1"], weight_key="w1")
    conv = replace(net.layers["conv"], weight_key="w1")
    graph_tensor = net.tensor("w1")
    shared = net.with_layers({"conv": conv, "conv_1": replace(twin, weight="w1")})
    assert graph_tensor.shape[0] == 6
    quantized = quantize_network(shared)
    first, second = (quantized.layers[n].quantized for n in ("conv", "conv_1"))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.tensors["weight"], second.tensors["weight"])
    assert not np.array_equal(first.tensors["multiplier"], second.tensors["multiplier"])


def test_the_pass_says_what_leaves_float32() -> None:
    net = network("shift", Bits(8, 4, 8))
    step = plugins.load("passes", "quantize")()
    quantized = step.run(net, Context(target=TinyTarget({})))  # type: ignore[arg-type]
    section = quantized.sections["quantize"]
    assert section == {**quantization_summary(quantized), "converters": {}}
    assert section["layers"] == 3
    assert section["values_by_bits"] == {"8": 6}


def test_errors_name_the_layer() -> None:
    net = network("mac", EIGHT)
    bare = net.with_layers({"conv": replace(net.layers["conv"], choice=None)})
    with pytest.raises(PassError, match="conv: is not assigned a choice"):
        quantize_network(bare)
    net.tensor("var2").fill_(-1.0)
    with pytest.raises(PassError, match="conv_1: gain holds NaN or infinity"):
        quantize_network(net)
