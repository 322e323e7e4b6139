# SPDX-License-Identifier: Apache-2.0
"""The network as text: one line a node, what is known of it behind."""

from __future__ import annotations

from enos_compiler.ir.network import FACTS, Layer, Network, Value, Vector


def format_network(network: Network) -> str:
    """Return the network's text form; equal networks print equally."""
    facts = ", ".join(f for f in FACTS if f in network.facts) or "none"
    lines = [f"network {network.name} batch={network.batch} facts: {facts}"]
    lines += [f"  input  {_value(network.values[name])}" for name in network.inputs]
    lines += [f"  const  {_value(v)}" for v in network.values.values() if v.kind == "constant"]
    for node in network.nodes():
        text = _layer(node) if isinstance(node, Layer) else _vector(node)
        reads = ", ".join(node.inputs)
        lines.append(f"  {text}({reads}) -> {_value(network.values[node.output])}")
    lines.append(f"  output {', '.join(network.outputs)}")
    return "\n".join(lines) + "\n"


def _value(value: Value) -> str:
    parts = [value.name, "x".join(map(str, value.shape)) or "scalar"]
    if value.dtype != "float32":
        parts.append(value.dtype)
    if value.format is not None:
        form = value.format
        parts.append(f"u{form.bits} 2^{form.exponent} z{form.zero_point}")
    elif value.range is not None:
        parts.append(f"[{value.range[0]:.4g}, {value.range[1]:.4g}]")
    if value.home is not None:
        at = "" if value.home.address is None else f"+{value.home.address}"
        parts.append(f"in {value.home.memory}{at}")
    return " ".join(parts)


def _layer(layer: Layer) -> str:
    fused = "".join(f"+{n}" for n in (layer.norm, layer.activation) if n)
    text = f"layer  {layer.name}: {layer.op}{fused} {{{layer.shape}}}"
    if layer.choice is not None:
        text += f" {layer.choice}"
    elif layer.choices:
        text += f" {len(layer.choices)} choices, {len(layer.refusals)} refusals"
    return text


def _vector(vector: Vector) -> str:
    fused = f"+{vector.activation}" if vector.activation else ""
    attributes = " ".join(f"{k}={v}" for k, v in vector.attributes.items())
    return f"vector {vector.name}: {vector.op}{fused}" + (
        f" {{{attributes}}}" if attributes else ""
    )
