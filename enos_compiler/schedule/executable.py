# SPDX-License-Identifier: Apache-2.0
"""From a scheduled network to a program that runs on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enos_compiler.cores.accounting import layer_of_programming
from enos_compiler.cores.homes import is_view
from enos_compiler.ir.executable import Executable, LayerKernel, StoredValue, VectorKernel
from enos_compiler.ir.network import Layer, Network, Value, Vector
from enos_compiler.ir.program import copy_name
from enos_compiler.schedule.buffers import weights_name
from enos_compiler.semantics.operands import (
    attributes_of,
    constants,
    quantized,
    read_formats,
    value_format_of,
)
from enos_compiler.semantics.quantizer import quantize_codes
from enos_compiler.semantics.registry import vector_op
from enos_compiler.semantics.widths import DEFAULT_BITS, coded_inputs, read_bits

if TYPE_CHECKING:
    from enos_compiler.ir.executable import Source
    from enos_compiler.ir.program import Program


def executable(network: Network) -> Executable:
    """Return the program of a network with everything that its instructions need.

    Args:
        network: quantised and scheduled.

    Raises:
        ValueError: the network is not scheduled.
        PassError: a layer or value without its integers.
    """
    program = network.program
    if program is None:
        raise ValueError(f"network {network.name} is not scheduled")
    nodes = tuple(network.nodes())
    return Executable(
        name=network.name,
        program=program,
        batch=network.batch,
        batch_is_symbolic=network.batch_is_symbolic,
        inputs=network.inputs,
        outputs=network.outputs,
        values={**_values(network), **_copies(network, program)},
        layers={n.name: _layer(network, n) for n in nodes if isinstance(n, Layer)},
        vectors={n.name: _vector(network, n) for n in nodes if isinstance(n, Vector)},
        constants={name: _codes(network, name, real) for name, real in constants(network).items()},
    )


def _codes(network: Network, name: str, real: Any) -> Any:
    fmt = network.values[name].format
    return real if fmt is None else quantize_codes(real, fmt)


def _values(network: Network) -> dict[str, StoredValue]:
    return {name: _value(value) for name, value in network.values.items()}


def _value(value: Value) -> StoredValue:
    source: Source = "computed" if value.kind == "internal" else value.kind
    return StoredValue(value.shape, source, value.format, value.format is None)


def _copies(network: Network, program: Program) -> dict[str, StoredValue]:
    """Return the narrower copies that the program has buffers for."""
    placed = {buffer.name for buffer in program.buffers}
    found = {}
    for node in network.nodes():
        for name in coded_inputs(network, node):
            copy, value = copy_name(name, node.name), network.values[name]
            if copy in placed and value.format is not None:
                fmt = value.format.narrowed(read_bits(network, node, name))
                found[copy] = StoredValue(value.shape, "copy", fmt, signed=False)
    return found


def _layer(network: Network, layer: Layer) -> LayerKernel:
    if layer.choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    return LayerKernel(
        name=layer.name,
        op=layer.op,
        inputs=layer.inputs,
        output=layer.output,
        shape=layer.shape,
        choice=layer.choice,
        quantized=quantized(layer),
        programmed_by=layer_of_programming(network, layer),
        weights=weights_name(network, layer),
    )


def _vector(network: Network, node: Vector) -> VectorKernel:
    op = vector_op(node.op)
    attributes = attributes_of(network, node, op)
    names = [name for name in op.parameters if isinstance(node.attributes.get(name), str)]
    widths = (read_bits(network, node, value) for value in coded_inputs(network, node))
    return VectorKernel(
        name=node.name,
        op=node.op,
        inputs=node.inputs,
        output=node.output,
        reads=read_formats(network, node),
        writes=value_format_of(network, node.output, node.name),
        fetch_bits=max(widths, default=DEFAULT_BITS),
        attributes={k: v for k, v in attributes.items() if k not in names},
        parameters={name: attributes[name] for name in names},
        is_view=is_view(network, node),
    )
