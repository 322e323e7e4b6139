# SPDX-License-Identifier: Apache-2.0
"""What a node reads: formats behind the narrowing on its edges, parameters, constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler import plugins
from enos_compiler.errors import PassError
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.semantics.base import INDEX_FORMAT, VectorOp
from enos_compiler.semantics.widths import is_coded, width_rule


def value_format_of(network: Network, name: str, reader: str) -> ValueFormat:
    """Return the stored format of a value that `reader` needs as codes.

    Raises:
        PassError: the value has no codes.
    """
    value = network.values[name]
    if value.format is not None:
        return value.format
    if not is_coded(value):
        return INDEX_FORMAT
    raise PassError(f"reads `{name}`, which has no codes", place=reader, remedy="run quantize")


def read_formats(network: Network, node: Vector) -> tuple[ValueFormat, ...]:
    """Return the formats that a vector operation reads, in operand order."""
    stored = tuple(value_format_of(network, name, node.name) for name in node.inputs)
    if width_rule(node) == "same":
        return tuple(fmt.narrowed(node.bits) for fmt in stored)
    return stored


def quantized(layer: Layer) -> QuantizedLayer:
    """Return the integers of a layer.

    Raises:
        PassError: the layer has none.
    """
    if layer.quantized is None:
        raise PassError("has no integers", place=layer.name, remedy="run quantize")
    return layer.quantized


def operator_of(layer: Layer) -> Any:
    """Return the operator (see `operators.base.Operator`) of a layer's choice.

    Raises:
        PassError: the layer has no choice.
    """
    if layer.choice is None:
        raise PassError("has no choice", place=layer.name, remedy="run assign")
    return plugins.load("operators", layer.choice.operator)()


def arithmetic_of(layer: Layer) -> Any:
    """Return what computes a layer's total: its operator, or the array that changes its sums.

    It has `accumulate` and `onnx_body` as `operators.base.Operator` describes them.

    Raises:
        PassError: the layer has no choice or no integers.
    """
    array = quantized(layer).array
    return operator_of(layer) if array is None else plugins.load("arithmetics", array.arithmetic)()


def attributes_of(network: Network, node: Vector, op: VectorOp) -> dict[str, Any]:
    """Return the attributes of a vector operation with its parameters as float64 arrays."""
    attributes = dict(node.attributes)
    for name in op.parameters:
        if isinstance(attributes.get(name), str):
            attributes[name] = _array(network, attributes[name]).astype(np.float64)
    return attributes


def constants(network: Network) -> Mapping[str, NDArray[Any]]:
    """Return the real content of every constant value."""
    targets = {n.name: n.target for n in network.graph.graph.nodes if n.op == "get_attr"}
    return {
        name: _array(network, str(targets[name]))
        for name, value in network.values.items()
        if value.kind == "constant"
    }


def _array(network: Network, qualified_name: str) -> NDArray[Any]:
    array: NDArray[Any] = network.tensor(qualified_name).detach().cpu().numpy()
    return array
