# SPDX-License-Identifier: Apache-2.0
"""Which width a value is stored at and which one each reader asks of it.

A value has one width, its producer's. A layer asks the input width of its choice (the second
operand of an activation product, which stands in the place of the weights, the weight width).
Vector operations read by one of three rules:

* `keeps`: moves or selects codes; reads the stored width and hands it on.
* `same`: combines values in one width; asks of every input the width that it produces.
* `free`: a function of one value's codes; reads whatever width is stored, and its parameters
  (of a normalisation, an embedding) as well.

Network inputs and constants have no producer: they are stored at the widest width that is asked,
and where the network hands one on as its output, at the default width at least.
"""

from __future__ import annotations

from typing import Literal

from enos_compiler.ir.network import Layer, Network, Value, Vector

WidthRule = Literal["keeps", "same", "free"]

DEFAULT_BITS = 8
"""Width of an input or constant that only `free` readers see."""

SUM_BITS = 32
"""Width of a network output that comes straight from a layer: its sum, dequantised."""


def is_coded(value: Value) -> bool:
    """Return whether the value is stored as codes; token indices and masks are not."""
    return value.dtype == "float32"


def leaves_as_sums(network: Network, value: str) -> bool:
    """Return whether a value is a network output straight from a layer, never stored as codes.

    A fused clamp or another reader needs codes.
    """
    producer = network.producer(value)
    is_sum = isinstance(producer, Layer) and producer.activation is None
    return is_sum and value in network.outputs and not network.consumers(value)


def coded_inputs(network: Network, node: Layer | Vector) -> tuple[str, ...]:
    """Return the distinct coded values that a node reads, in operand order."""
    return tuple(v for v in dict.fromkeys(node.inputs) if is_coded(network.values[v]))


def width_rule(vector: Vector) -> WidthRule:
    """Return how a vector operation reads its inputs."""
    from enos_compiler.semantics.registry import vector_op

    op = vector_op(vector.op)
    if op.keeps_format:
        return "keeps"
    return "same" if op.asks_output_width else "free"


def layer_asks(layer: Layer, value: str, input_bits: int, weight_bits: int) -> int:
    """Return the width that a layer asks of `value` under a choice with these widths."""
    if not layer.shape.activation_product:
        return input_bits
    left, right = layer.inputs
    asked = [bits for name, bits in ((left, input_bits), (right, weight_bits)) if name == value]
    return max(asked)


def asked_bits(node: Layer | Vector, value: str) -> int | None:
    """Return the width that an assigned node asks of `value`; None where it reads any."""
    if isinstance(node, Layer):
        if node.choice is None:
            raise ValueError(f"layer {node.name} is not assigned")
        return layer_asks(node, value, node.choice.bits.input, node.choice.bits.weight)
    return None if width_rule(node) == "free" else node.bits


def stored_bits(network: Network, value: str) -> int:
    """Return the width that an assigned network stores `value` at."""
    producer = network.producer(value)
    if isinstance(producer, Layer):
        if producer.choice is None:
            raise ValueError(f"layer {producer.name} is not assigned")
        return producer.choice.bits.output
    if producer is not None:
        return producer.bits
    asked = [asked_bits(reader, value) for reader in network.consumers(value)]
    if value in network.outputs:
        asked.append(None)
    return max((DEFAULT_BITS if bits is None else bits for bits in asked), default=DEFAULT_BITS)


def read_bits(network: Network, node: Layer | Vector, value: str) -> int:
    """Return the width at which an assigned node reads `value`, after any narrowing."""
    asked = asked_bits(node, value)
    return stored_bits(network, value) if asked is None else asked
