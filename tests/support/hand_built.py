# SPDX-License-Identifier: Apache-2.0
"""Networks built by hand from canonical nodes, with random integers and no compiler pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from enos_compiler import plugins
from enos_compiler.ir import ops
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer, Network, Value, Vector
from enos_compiler.ir.shape import LayerShape

Floats = NDArray[np.float64]


@dataclass
class Hand:
    """Adds nodes one by one; every method returns the new value's name."""

    seed: int = 0
    root: torch.nn.Module = field(default_factory=torch.nn.Module)
    graph: fx.Graph = field(default_factory=fx.Graph)
    nodes: dict[str, fx.Node] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    example: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def input(self, shape: tuple[int, ...], fmt: ValueFormat | None, top: int = 0) -> str:
        node = self.graph.placeholder(f"x{len(self.inputs)}")
        dtype = "float32" if fmt else "int64"
        value = Value(node.name, shape, "input", node.name, dtype, format=fmt)
        self._keep(node, value)
        self.inputs.append(node.name)
        tensor = torch.randint(0, top, shape) if top else torch.zeros(shape)
        self.example.append(tensor)
        return node.name

    def constant(self, real: Floats, fmt: ValueFormat) -> str:
        name = f"constant{len(self.values)}"
        self.root.register_buffer(name, torch.from_numpy(real).float())
        node = self.graph.get_attr(name)
        self._keep(node, Value(node.name, real.shape, "constant", node.name, format=fmt))
        return node.name

    def parameter(self, real: Floats) -> str:
        name = f"parameter{len(list(self.root.parameters()))}"
        self.root.register_parameter(name, torch.nn.Parameter(torch.from_numpy(real).float()))
        return name

    def conv(
        self,
        x: str,
        channels: int,
        kernel: tuple[int, ...],
        output: ValueFormat | None,
        *,
        operator: str = "mac",
        bits: int = 8,
        groups: int = 1,
        stride: int = 1,
        dilation: int = 1,
        padding: tuple[int, ...] | None = None,
        input_bits: int = 8,
        magnitude: float = 1.0,
    ) -> str:
        source = self.values[x]
        axes = len(kernel)
        padding = padding or (0,) * (2 * axes)
        weight = self.rng.normal(size=(channels, source.shape[1] // groups, *kernel)) * magnitude
        extents = tuple(
            (size + padding[i] + padding[axes + i] - dilation * (k - 1) - 1) // stride + 1
            for i, (size, k) in enumerate(zip(source.shape[2:], kernel, strict=True))
        )
        top, left, bottom, right = padding if axes == 2 else (padding[0], 0, padding[1], 0)
        shape = LayerShape(
            g=groups,
            n=source.shape[0],
            m=channels // groups,
            c=source.shape[1] // groups,
            p=extents[0],
            q=extents[1] if axes == 2 else 1,
            r=kernel[0],
            s=kernel[1] if axes == 2 else 1,
            stride=(stride, stride if axes == 2 else 1),
            dilation=(dilation, dilation if axes == 2 else 1),
            padding=(top, left, bottom, right),
        )
        arguments = {
            "stride": (stride,) * axes,
            "padding": padding,
            "dilation": (dilation,) * axes,
            "groups": groups,
        }
        return self._layer(
            "conv",
            (x,),
            weight,
            shape,
            (source.shape[0], channels, *extents),
            output,
            Bits(input_bits, bits, output.bits if output else 8),
            operator,
            arguments,
        )

    def linear(
        self,
        x: str,
        channels: int,
        output: ValueFormat | None,
        *,
        operator: str = "mac",
        bits: int = 8,
        input_bits: int = 8,
    ) -> str:
        source = self.values[x]
        weight = self.rng.normal(size=(channels, source.shape[-1]))
        shape = LayerShape(n=prod(source.shape[:-1]), m=channels, c=source.shape[-1])
        return self._layer(
            "linear",
            (x,),
            weight,
            shape,
            (*source.shape[:-1], channels),
            output,
            Bits(input_bits, bits, output.bits if output else 8),
            operator,
            {},
        )

    def matmul(self, a: str, b: str, output: ValueFormat) -> str:
        left, right = self.values[a], self.values[b]
        shape = LayerShape(
            g=prod(left.shape[:-2]),
            n=left.shape[-2],
            m=right.shape[-1],
            c=left.shape[-1],
            activation_product=True,
        )
        bits = Bits(8, 8, output.bits)
        out = (*left.shape[:-1], right.shape[-1])
        return self._layer("matmul", (a, b), None, shape, out, output, bits, "mac", {})

    def vector(
        self,
        op: str,
        inputs: tuple[str, ...],
        output: ValueFormat,
        tensors: Mapping[str, str] | None = None,
        **attributes: Any,
    ) -> str:
        given = [self.nodes[name] for name in inputs]
        extra = [self.graph.get_attr(p) for p in (tensors or {}).values()]
        node = self.graph.call_function(ops.FUNCTIONS[op], (*given, *extra), attributes)
        samples = [torch.zeros(self.values[name].shape) for name in inputs]
        rest = [getattr(self.root, p).detach() for p in (tensors or {}).values()]
        if op == "embedding":
            samples[0] = samples[0].long()
        shape = tuple(ops.FUNCTIONS[op](*samples, *rest, **attributes).shape)
        self._keep(node, Value(node.name, shape, "internal", node.name, format=output))
        self.vectors[node.name] = Vector(
            node.name,
            op,
            inputs,
            node.name,
            attributes={**(tensors or {}), **attributes},
            bits=output.bits,
        )
        return node.name

    def network(self, *outputs: str, symbolic: bool = True) -> Network:
        self.graph.output(tuple(self.nodes[name] for name in outputs))
        order = [n.name for n in self.graph.nodes if n.name in {*self.layers, *self.vectors}]
        return Network(
            "hand",
            fx.GraphModule(self.root, self.graph),
            tuple(self.example),
            self.values[self.inputs[0]].shape[0],
            symbolic,
            self.layers,
            self.vectors,
            self.values,
            tuple(self.inputs),
            outputs,
            tuple(order),
        )

    def _layer(
        self,
        op: str,
        inputs: tuple[str, ...],
        weight: Floats | None,
        shape: LayerShape,
        out: tuple[int, ...],
        output: ValueFormat | None,
        bits: Bits,
        operator: str,
        arguments: dict[str, Any],
    ) -> str:
        read = tuple(
            fmt.narrowed(bits.input) for name in inputs if (fmt := self.values[name].format)
        )
        given = [self.nodes[name] for name in inputs]
        parameter = None
        if weight is not None:
            parameter = self.parameter(weight)
            given.append(self.graph.get_attr(parameter))
        node = self.graph.call_function(ops.FUNCTIONS[op], tuple(given), arguments)
        name = node.name
        self._keep(node, Value(name, out, "internal", name, format=output))
        layer = Layer(
            name,
            op,
            inputs,
            name,
            shape=shape,
            weight=parameter,
            weight_key=name,
            choice=Choice("core", operator, bits),
        )
        self.layers[name] = self._quantized(layer, weight, read)
        return name

    def _quantized(
        self, layer: Layer, weight: Floats | None, read: tuple[ValueFormat, ...]
    ) -> Layer:
        assert layer.choice is not None
        channels = layer.shape.m * layer.shape.g
        integers: QuantizedLayer = plugins.load("operators", layer.choice.operator)().quantize(
            layer,
            np.zeros((0,)) if weight is None else weight,
            np.ones(channels),
            self.rng.normal(size=channels) * read[0].scale * 30,
            layer.choice.bits,
            read,
        )
        return replace(layer, quantized=integers)

    def _keep(self, node: fx.Node, value: Value) -> None:
        self.nodes[node.name] = node
        self.values[node.name] = value
