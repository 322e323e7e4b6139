# SPDX-License-Identifier: Apache-2.0
"""Executes a quantised network on integers: the definition of a right result.

Every value is an array of codes; a network output straight from a layer is the real number of its
total, float32. Operators and vector operations are asked for their integers by name.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import EnosError
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.semantics.operands import (
    arithmetic_of,
    attributes_of,
    constants,
    quantized,
    read_formats,
    value_format_of,
)
from enos_compiler.semantics.quantizer import dequantize, quantize_codes, requantize
from enos_compiler.semantics.registry import vector_op

Array = NDArray[Any]


def execute(network: Network, inputs: tuple[Array, ...]) -> dict[str, Array]:
    """Return every value by name: codes (int64), or float32 for an output without codes.

    Args:
        network: quantised.
        inputs: real numbers (or int64 indices) in the order of `network.inputs`; another batch
            than the compiled one is allowed where the batch is symbolic.

    Raises:
        EnosError: inputs that do not fit, or that hold NaN or infinity.
        PassError: a layer or value without its integers.
    """
    return _walk(network, inputs, keep_all=True)


def run(network: Network, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return the network's outputs as real numbers; arguments and errors as `execute`.

    Inner values are freed after their last reader.
    """
    values = _walk(network, inputs, keep_all=False)
    return tuple(real_value(network, name, values[name]) for name in network.outputs)


def real_value(network: Network, name: str, array: Array) -> Array:
    """Return one executed value as real numbers, float32; integers without a format as they are."""
    fmt = network.values[name].format
    return array if fmt is None else dequantize(array, fmt).astype(np.float32)


def input_codes(network: Network, inputs: tuple[Array, ...]) -> dict[str, Array]:
    """Return the codes of the network's inputs by value name; real numbers are taken as float32.

    Raises:
        EnosError: a wrong number of inputs, a shape that does not fit, NaN or infinity.
    """
    if len(inputs) != len(network.inputs):
        raise EnosError(
            f"got {len(inputs)} inputs, the network takes {len(network.inputs)}",
            place=network.name,
            remedy=f"give {', '.join(network.inputs)}",
        )
    codes: dict[str, Array] = {}
    for name, array in zip(network.inputs, inputs, strict=True):
        _check_input(network, name, array)
        fmt = network.values[name].format
        codes[name] = array if fmt is None else quantize_codes(array.astype(np.float32), fmt)
    return codes


def _check_input(network: Network, name: str, array: Array) -> None:
    expected, found = network.values[name].shape, array.shape
    free = 1 if network.batch_is_symbolic else 0
    if len(found) != len(expected) or found[free:] != expected[free:]:
        raise EnosError(
            f"has shape {found}, the network was compiled for {expected}",
            place=f"input {name}",
            remedy="give another batch only" if free else "give exactly this shape",
        )
    if not np.isfinite(array).all():
        raise EnosError(
            "holds NaN or infinity, which no code stands for",
            place=f"input {name}",
            remedy="clean the input",
        )


def layer_total(layer: Layer, codes: tuple[IntArray, ...]) -> IntArray:
    """Return a layer's integer sums in its output's shape (see QuantizedLayer).

    Args:
        layer: quantised.
        codes: what it reads, in its `input_formats`.
    """
    total: IntArray = arithmetic_of(layer).accumulate(codes, layer, quantized(layer))
    return total


def channel_axis(layer: Layer, per_channel: Array, rank: int) -> Array:
    """Return a per-channel vector shaped to broadcast against a total of that rank."""
    behind = rank - 2 if layer.op == "conv" else 0
    return per_channel.reshape(-1, *(1,) * behind)


def layer_output(network: Network, layer: Layer, total: IntArray) -> Array:
    """Return the codes of a layer's total, or its real numbers where the output has no codes."""
    unit = channel_axis(layer, quantized(layer).unit_exponent, total.ndim)
    fmt = network.values[layer.output].format
    if fmt is None:
        return (total * np.ldexp(1.0, unit.astype(np.int32))).astype(np.float32)
    return requantize(total, unit, fmt)


def _walk(network: Network, inputs: tuple[Array, ...], *, keep_all: bool) -> dict[str, Array]:
    values = input_codes(network, inputs)
    for name, real in constants(network).items():
        fmt = network.values[name].format
        values[name] = real if fmt is None else quantize_codes(real, fmt)
    unread = Counter(name for node in network.nodes() for name in set(node.inputs))
    for node in network.nodes():
        values[node.output] = _node_output(network, node, values)
        for name in set(node.inputs):
            unread[name] -= 1
            if not (keep_all or unread[name] or name in network.outputs):
                del values[name]
    return values


def _node_output(network: Network, node: Layer | Vector, values: dict[str, Array]) -> Array:
    arrays = tuple(values[name] for name in node.inputs)
    stored = tuple(value_format_of(network, name, node.name) for name in node.inputs)
    if isinstance(node, Layer):
        read = quantized(node).input_formats
        return layer_output(network, node, layer_total(node, _reformat(arrays, stored, read)))
    op = vector_op(node.op)
    read = read_formats(network, node)
    output = value_format_of(network, node.output, node.name)
    codes = _reformat(arrays, stored, read)
    return op.integers(codes, read, output, attributes_of(network, node, op))


def _reformat(
    codes: tuple[Array, ...], stored: tuple[ValueFormat, ...], read: tuple[ValueFormat, ...]
) -> tuple[Array, ...]:
    """Return the copies that the edges make: narrowed where the reader is narrower."""
    return tuple(
        array if old == new else requantize(array - old.zero_point, old.exponent, new)
        for array, old, new in zip(codes, stored, read, strict=True)
    )
