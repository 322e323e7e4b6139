# SPDX-License-Identifier: Apache-2.0
"""The format that a value of a network has at a width: range, fused clamp and where codes move."""

from __future__ import annotations

from math import inf

from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.semantics.quantizer import value_format
from enos_compiler.semantics.widths import width_rule


def activation_clip(network: Network, node: Layer | Vector) -> tuple[float, float] | None:
    """Return the bounds of the clamp fused behind a node: (0, inf) for relu; None without one."""
    if node.activation is None:
        return None
    found = next(n for n in network.graph.graph.nodes if n.name == node.activation)
    if found.kwargs["function"] == "relu":
        return (0.0, inf)
    low, high = found.kwargs["parameters"]
    return (float(low), float(high))


def grid_source(network: Network, value: str) -> str:
    """Return the value whose format `value` has: itself unless an operation only moved codes."""
    producer = network.producer(value)
    while isinstance(producer, Vector) and width_rule(producer) == "keeps":
        value = producer.inputs[0]
        producer = network.producer(value)
    return value


def format_at(
    network: Network, value: str, bits: int, real_range: tuple[float, float] | None = None
) -> ValueFormat:
    """Return the format of `value` at `bits`.

    Args:
        network: calibrated.
        value: name of a value.
        bits: width.
        real_range: instead of the calibrated one.

    Raises:
        ValueError: the value has no range.
    """
    source = grid_source(network, value)
    extremes = real_range or network.values[source].range
    if extremes is None:
        raise ValueError(f"value {source} is not calibrated")
    producer = network.producer(source)
    clip = None if producer is None else activation_clip(network, producer)
    return value_format(extremes, bits, clip)
