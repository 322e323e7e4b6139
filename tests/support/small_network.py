# SPDX-License-Identifier: Apache-2.0
"""A small canonical network, built node by node, and an invented chip that prices it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tiny_network
import torch
from torch import Tensor, fx, nn

from enos_compiler import plugins
from enos_compiler.ir import ops
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Layer, Network, Value, Vector
from enos_compiler.ir.shape import LayerShape

CONV = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}

POOL = {
    "kernel": (2, 2),
    "stride": (2, 2),
    "padding": (0, 0),
    "dilation": (1, 1),
    "ceil_mode": False,
}
MEAN = {"dims": (2, 3), "keepdim": False}


def _graph(width: int) -> fx.GraphModule:
    """conv-bn-relu, conv-bn, plus the skip, relu, max pool, conv-bn-relu, mean, linear."""
    generator = torch.Generator().manual_seed(0)
    root, graph = nn.Module(), fx.Graph()

    def parameter(name: str, *shape: int) -> fx.Node:
        taps = torch.Size(shape[1:]).numel() if len(shape) > 1 else 0
        scale = (2 / taps) ** 0.5 if taps else 0.0
        tensor = scale * torch.randn(shape, generator=generator)
        root.register_parameter(name, nn.Parameter(tensor))
        return graph.get_attr(name)

    def norm(x: fx.Node, name: str) -> fx.Node:
        root.register_buffer(f"{name}_mean", 0.1 * torch.randn(width, generator=generator))
        root.register_buffer(f"{name}_var", 0.5 + torch.rand(width, generator=generator))
        root.register_parameter(f"{name}_w", nn.Parameter(torch.ones(width)))
        root.register_parameter(f"{name}_b", nn.Parameter(torch.zeros(width)))
        args = tuple(graph.get_attr(f"{name}_{part}") for part in ("mean", "var", "w", "b"))
        return call(name, "batch_norm", (x, *args), eps=1e-5)

    def call(name: str, op: str, args: tuple[Any, ...], **attributes: Any) -> fx.Node:
        node = graph.call_function(ops.FUNCTIONS[op], args, attributes)
        node.name = name
        return node

    def relu(x: fx.Node, name: str) -> fx.Node:
        return call(name, "elementwise", (x,), function="relu")

    x = graph.placeholder("x")
    c1 = call("c1", "conv", (x, parameter("c1_weight", width, 1, 3, 3)), **CONV)
    r1 = relu(norm(c1, "n1"), "r1")
    c2 = call("c2", "conv", (r1, parameter("c2_weight", width, width, 3, 3)), **CONV)
    total = call("total", "add", (norm(c2, "n2"), r1))
    p = call("pool", "max_pool", (relu(total, "r2"),), **POOL)
    c3 = call("c3", "conv", (p, parameter("c3_weight", width, width, 3, 3)), **CONV)
    m = call("mean", "mean", (relu(norm(c3, "n3"), "r3"),), **MEAN)
    last = call("out", "linear", (m, parameter("out_weight", 10, width), parameter("out_bias", 10)))
    graph.output(last)
    return fx.GraphModule(root, graph)


def build(width: int = 16, images: int = 32) -> Network:
    """Return the network on 8x8 digits, shaped and calibrated."""
    graph = _graph(width)
    inputs = digits()[0][:images]
    found: dict[str, Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found[n.name] = super().run_node(n)
            return found[n.name]

    with torch.no_grad():
        Recorder(graph).run(inputs)
    conv: dict[str, Any] = {"m": width, "p": 8, "q": 8, "r": 3, "s": 3, "padding": (1, 1, 1, 1)}
    layers = [
        _layer("c1", "x", "r1", "n1", "r1", LayerShape(c=1, **conv), edge=True),
        _layer("c2", "r1", "n2", "n2", None, LayerShape(c=width, **conv)),
        _layer("c3", "pool", "r3", "n3", "r3", LayerShape(c=width, **{**conv, "p": 4, "q": 4})),
        _layer("out", "mean", "out", None, None, LayerShape(m=10, c=width), edge=True),
    ]
    layers[-1] = replace(layers[-1], op="linear", bias="out_bias")
    vectors = [
        Vector("total", "add", ("n2", "r1"), "r2", activation="r2", core="vec"),
        Vector("pool", "max_pool", ("r2",), "pool", core="vec", attributes=POOL),
        Vector("mean", "mean", ("r3",), "mean", core="vec", attributes=MEAN),
    ]
    nodes = {n.name: n for n in (*layers, *vectors)}
    producers = {n.output: n.name for n in nodes.values()}
    names = ("x", *producers)
    values = {
        name: Value(
            name,
            (1, *found[name].shape[1:]),
            "internal" if name in producers else "input",
            producers.get(name, name),
            range=(float(found[name].min()), float(found[name].max())),
            home=tiny_network.DRAM,
        )
        for name in names
    }
    return Network(
        name="small",
        graph=graph,
        example_inputs=(inputs,),
        layers={n.name: n for n in layers},
        vectors={n.name: n for n in vectors},
        values=values,
        inputs=("x",),
        outputs=("out",),
        order=("c1", "c2", "total", "pool", "c3", "mean", "out"),
        facts=frozenset({"shaped", "calibrated"}),
    )


def _layer(
    name: str,
    source: str,
    output: str,
    norm: str | None,
    activation: str | None,
    shape: LayerShape,
    *,
    edge: bool = False,
) -> Layer:
    return Layer(
        name,
        "conv",
        (source,),
        output,
        norm=norm,
        activation=activation,
        shape=shape,
        weight=f"{name}_weight",
        weight_key=f"{name}_weight",
        first_or_last=edge,
    )


def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits in a fixed order."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return images[order], torch.tensor(labels)[order]


def offer(network: Network, operators: tuple[str, ...], widths: tuple[int, ...]) -> Network:
    """Attach the choices of two invented cores; first and last layers stay mac at 8-bit weights."""
    target = chip()
    attached = {}
    for layer in network.layers.values():
        names = ("mac",) if layer.first_or_last else operators
        combinations = [
            Bits(i, w, o)
            for i in widths
            for w in ((8,) if layer.first_or_last else widths)
            for o in widths
        ]
        one = replace(network, layers={layer.name: layer}, order=(layer.name,))
        offered = tiny_network.attach(one, target, names, combinations, 0).layers[layer.name]
        ok = [
            i
            for i, choice in enumerate(offered.choices)
            if choice.bits.weight in plugins.load("operators", choice.operator).weight_bits
        ]
        attached[layer.name] = replace(
            offered,
            choices=tuple(offered.choices[i] for i in ok),
            costs=tuple(offered.costs[i] for i in ok),
            programming=tuple(offered.programming[i] for i in ok),
            scores=None,
        )
    return replace(network.with_layers(attached), facts=network.facts | {"choices"})


def chip() -> Any:
    """Return an invented chip: a digital core and a crossbar core at a third of its prices."""
    cores = {
        "mac": tiny_network.TinyCore("mac", operators=("mac", "shift")),
        "xbar": tiny_network.TinyCore(
            "xbar", kind="crossbar", operators=("mf", "ef"), resident=True
        ),
    }
    return tiny_network.TinyTarget(cores)
