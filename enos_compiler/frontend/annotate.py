# SPDX-License-Identifier: Apache-2.0
"""Reads layers, vector operations and values off a canonical graph; fuses what rounding absorbs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from torch import fx

from enos_compiler.frontend.hoist import is_clamp
from enos_compiler.ir import ops
from enos_compiler.ir.network import Layer, Network, Value, Vector
from enos_compiler.ir.shape import LayerShape


def annotate(network: Network) -> Network:
    """Fill layers, vectors, values, order, inputs and outputs from the canonical graph.

    A batch norm behind a convolution or a linear layer of rank 2, and then a relu or clip, are
    fused with it; relu and clip also behind the vector operations that round. Only chains without
    other readers fuse.
    """
    graph = network.graph.graph
    chains = {chain[0]: chain for chain in _chains(graph)}
    fused = {node for chain in chains.values() for node in chain[1:]}
    layers: dict[str, Layer] = {}
    vectors: dict[str, Vector] = {}
    values: dict[str, Value] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node.name] = _value(node, node, "input")
    for node in graph.nodes:
        if node.op != "call_function" or node in fused:
            continue
        for operand in _operands(node):
            if operand.op == "get_attr":
                values[operand.name] = _value(operand, operand, "constant")
        chain = chains[node]
        values[chain[-1].name] = _value(chain[-1], node, "internal")
        name = op_of(node)
        if name in ops.LAYER_OPS:
            layers[node.name] = _layer(node, chain, name)
        else:
            vectors[node.name] = _vector(node, chain, name)
    output = next(node for node in graph.nodes if node.op == "output")
    filled = replace(
        network,
        layers=layers,
        vectors=vectors,
        values=values,
        inputs=tuple(node.name for node in graph.nodes if node.op == "placeholder"),
        outputs=tuple(node.name for node in output.args[0]),
        order=tuple(n.name for n in graph.nodes if n.name in layers or n.name in vectors),
    )
    ends = _first_or_last(filled)
    return filled.with_layers({n: replace(layers[n], first_or_last=True) for n in ends})


def _chains(graph: fx.Graph) -> Iterator[list[fx.Node]]:
    """Yield each computing node followed by the norm and the clamp fused behind it."""
    taken: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "call_function" or node in taken:
            continue
        chain = [node]
        is_layer = node.target in (ops.conv, ops.linear, ops.matmul)
        follower = _only_user(node)
        if follower is not None and follower.target is ops.batch_norm and _takes_norm(node):
            chain.append(follower)
            follower = _only_user(follower)
        if (
            follower is not None
            and is_clamp(follower)
            and (is_layer or op_of(node) in ops.REQUANTISING)
        ):
            chain.append(follower)
        taken.update(chain)
        yield chain


def op_of(node: fx.Node) -> str:
    """Return the canonical name of what a node calls; "" for other nodes."""
    return (ops.op_name(node.target) if callable(node.target) else None) or ""


def _takes_norm(node: fx.Node) -> bool:
    """Whether the output channels of a layer are the channels that a batch norm normalises."""
    return node.target is ops.conv or (node.target is ops.linear and len(node.meta["shape"]) == 2)


def _only_user(node: fx.Node) -> fx.Node | None:
    """Return the single reader of a node, if it is a call that reads it as its input."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_function" or users[0].args[0] is not node:
        return None
    return users[0]


def _operands(node: fx.Node) -> tuple[fx.Node, ...]:
    """Return the operands of a call that are values: parameters of layers and norms are not."""
    nodes = tuple(arg for arg in node.args if isinstance(arg, fx.Node))
    op = op_of(node)
    leads = op in ("conv", "linear", "sample") or op in ops.NORM_PARAMETERS
    return nodes[:1] if leads else nodes


def _value(node: fx.Node, producer: fx.Node, kind: Any) -> Value:
    return Value(
        name=node.name,
        shape=node.meta["shape"],
        kind=kind,
        producer=producer.name,
        dtype=node.meta["dtype"],
    )


def _common(node: fx.Node, chain: list[fx.Node], op: str) -> dict[str, Any]:
    """Return the fields that layers and vector operations share."""
    norm = next((n.name for n in chain[1:] if n.target is ops.batch_norm), None)
    clamp = next((n.name for n in chain[1:] if is_clamp(n)), None)
    return {
        "name": node.name,
        "op": op,
        "inputs": tuple(operand.name for operand in _operands(node)),
        "output": chain[-1].name,
        "norm": norm,
        "activation": clamp,
        "origin": node.meta.get("origin", ""),
    }


def _layer(node: fx.Node, chain: list[fx.Node], op: str) -> Layer:
    weight = bias = None
    if op == "sample":
        weight = _target(node.args[3])
    elif op in ("conv", "linear"):
        weight = _target(node.args[1])
        bias = _target(node.args[2] if len(node.args) > 2 else None)
    return Layer(
        **_common(node, chain, op),
        shape=_layer_shape(node, op),
        weight=weight,
        bias=bias,
        weight_key=weight or "",
    )


def _layer_shape(node: fx.Node, op: str) -> LayerShape:
    """Return the loop nest of a layer from its operands' shapes.

    A sampler of K components in D dimensions multiplies, for each of N samples of each of P rows,
    a vector of C = D by the R = K precision matrices; its results have M = D coordinates.
    """
    if op in ops.SAMPLE_OPS:
        rows, count, dimensions = node.meta["shape"]
        weights: Any = node.args[1 if op == "sample" else 0]
        components = weights.meta["shape"][-1]
        return LayerShape(n=count, m=dimensions, c=dimensions, r=components, p=rows)
    x, w = (operand.meta["shape"] for operand in node.args[:2])  # type: ignore[union-attr]
    out = node.meta["shape"]
    if op == "matmul":
        return LayerShape(g=prod(out[:-2]), n=x[-2], c=x[-1], m=w[-1], activation_product=True)
    if op == "linear":
        return LayerShape(n=prod(x[:-1]), c=x[-1], m=w[0])
    axes = len(w) - 2
    groups: int = node.kwargs["groups"]  # type: ignore[assignment]  # emitted as integers
    pads: tuple[int, ...] = node.kwargs["padding"]  # type: ignore[assignment]
    stride: tuple[int, ...] = node.kwargs["stride"]  # type: ignore[assignment]
    dilation: tuple[int, ...] = node.kwargs["dilation"]  # type: ignore[assignment]
    if axes == 1:
        pads = (pads[0], 0, pads[1], 0)
    one: tuple[int, ...] = (1,) * (2 - axes)
    p, q = tuple(out[2:]) + one
    r, s = tuple(w[2:]) + one
    return LayerShape(
        g=groups,
        n=x[0],
        m=w[0] // groups,
        c=w[1],
        p=p,
        q=q,
        r=r,
        s=s,
        stride=stride + one,  # type: ignore[arg-type]  # two entries
        dilation=dilation + one,  # type: ignore[arg-type]
        padding=pads,  # type: ignore[arg-type]  # four entries
    )


def _vector(node: fx.Node, chain: list[fx.Node], op: str) -> Vector:
    from enos_compiler.semantics.registry import vector_op

    attributes: dict[str, Any] = dict(node.kwargs)
    for name, operand in zip(ops.NORM_PARAMETERS.get(op, ()), node.args[1:], strict=False):
        attributes[name] = _target(operand)
    return Vector(
        **_common(node, chain, op), attributes=attributes, is_float=vector_op(op).is_float
    )


def _target(operand: Any) -> str | None:
    return str(operand.target) if isinstance(operand, fx.Node) else None


def _first_or_last(network: Network) -> set[str]:
    """Return layers that real-valued inputs reach, or that reach outputs, past no other layer.

    Token indices reach no layer so: the embedding stands where the first layer would, and a
    residual stream that starts at it must not make every layer a first one.
    """
    from_input = {v for v in network.inputs if network.values[v].dtype == "float32"}
    to_output = set(network.outputs)
    chosen: set[str] = set()
    for node in network.nodes():
        if from_input & set(node.inputs):
            if isinstance(node, Layer) and node.op not in ops.SAMPLE_OPS:
                chosen.add(node.name)
            else:
                from_input.add(node.output)
    for node in reversed(list(network.nodes())):
        if node.output in to_output:
            if isinstance(node, Layer) and node.op not in ops.SAMPLE_OPS:
                chosen.add(node.name)
            else:
                to_output.update(node.inputs)
    return chosen


def attribute_names(network: Network) -> Mapping[str, str]:
    """Return the graph module's attribute of each constant value, by value name."""
    return {
        node.name: str(node.target)
        for node in network.graph.graph.nodes
        if node.op == "get_attr" and node.name in network.values
    }
