# SPDX-License-Identifier: Apache-2.0
"""An assigned network to integers: a format for every value, codes for every layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from enos_compiler import plugins
from enos_compiler.errors import EnosError, PassError
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.ir.ops import SAMPLE_OPS
from enos_compiler.operators.base import FloatArray, Operator
from enos_compiler.operators.mac import Mac
from enos_compiler.operators.sample import SamplerProgram, quantize_sampler
from enos_compiler.semantics.formats import format_at
from enos_compiler.semantics.quantizer import EXACT_FLOAT32
from enos_compiler.semantics.registry import vector_op
from enos_compiler.semantics.widths import is_coded, layer_asks, leaves_as_sums, stored_bits


@dataclass(frozen=True, slots=True, eq=False)
class LayerParameters:
    """A layer's float weights and what is applied per output channel behind its sum."""

    weight: FloatArray
    """(M, ...) as stored in the network."""
    gain: FloatArray
    """(M,): gamma / sigma of the fused batch norm; 1 without."""
    shift: FloatArray
    """(M,): gain * (bias - mean) + beta."""


def quantize_network(
    network: Network, samplers: Mapping[str, SamplerProgram] | None = None
) -> Network:
    """Return the network with a format on every value and integers on every layer.

    Args:
        network: calibrated and assigned.
        samplers: how each layer that draws is run, by name.

    Raises:
        PassError: a layer is not assigned, or a range or a parameter is not finite.
        EnosError: a mixture that its sampler's words do not hold.
    """
    for layer in network.layers.values():
        if layer.choice is None:
            raise PassError("is not assigned a choice", place=layer.name, remedy="run assign")
    formats = value_formats(network)
    values = {
        name: replace(value, format=formats.get(name)) for name, value in network.values.items()
    }
    network = network.with_values(values)
    readers = Counter(layer.tie for layer in network.layers.values())
    layers = {}
    for layer in network.layers.values():
        if layer.op in SAMPLE_OPS:
            integers = _quantize_sampler(layer, formats, (samplers or {}).get(layer.name))
        else:
            integers = quantize_layer(network, layer, formats, shared=readers[layer.tie] > 1)
        layers[layer.name] = replace(layer, quantized=integers)
    return network.with_layers(layers)


def _quantize_sampler(
    layer: Layer, formats: Mapping[str, ValueFormat], program: SamplerProgram | None
) -> QuantizedLayer:
    if program is None or layer.choice is None:
        raise PassError("draws, and nothing says how", place=layer.name, remedy="run quantize")
    bits = layer.choice.bits.input
    try:
        return quantize_sampler(
            layer, tuple(formats[value].narrowed(bits) for value in layer.inputs), program
        )
    except EnosError as error:
        place = f"layer {layer.name}: {error.place}"
        raise type(error)(error.message, place=place, remedy=error.remedy) from error


def value_formats(network: Network) -> dict[str, ValueFormat]:
    """Return the format of every value that is stored as codes.

    A producer sets its output's format at the width it is assigned; inputs and constants take the
    widest width that is asked of them; an operation that only moves codes hands its input's
    format on. A network output that comes straight from a layer, without a clamp and without
    another reader, has none: it is the dequantised sum.
    """
    formats: dict[str, ValueFormat] = {}
    for name, value in network.values.items():
        if value.kind != "internal" and is_coded(value):
            formats[name] = format_at(network, name, stored_bits(network, name))
    for node in network.nodes():
        if not is_coded(network.values[node.output]) or is_plain_sum(network, node):
            continue
        moved = isinstance(node, Vector) and vector_op(node.op).keeps_format
        if moved and node.inputs[0] in formats:
            formats[node.output] = formats[node.inputs[0]]
        else:
            bits = stored_bits(network, node.output)
            formats[node.output] = format_at(network, node.output, bits)
    return formats


def is_plain_sum(network: Network, node: Layer | Vector) -> bool:
    """Return whether a node's output leaves the network as a layer's dequantised sum."""
    return leaves_as_sums(network, node.output)


def quantize_layer(
    network: Network, layer: Layer, formats: Mapping[str, ValueFormat], *, shared: bool = False
) -> QuantizedLayer:
    """Return the integers of one assigned layer.

    Args:
        network: calibrated and assigned.
        layer: one of its layers.
        formats: of the values that the layer reads, as they are stored.
        shared: other layers read the same weights: mac codes then leave batch norm out.

    Raises:
        PassError: a parameter is not finite, or a batch norm stands behind an activation product.
    """
    if layer.choice is None:
        raise PassError("is not assigned a choice", place=layer.name, remedy="run assign")
    operator = cast("Operator", plugins.load("operators", layer.choice.operator)())
    bits = layer.choice.bits
    read = tuple(
        formats[value].narrowed(layer_asks(layer, value, bits.input, bits.weight))
        for value in layer.inputs
    )
    parameters = layer_parameters(network, layer)
    options: dict[str, Any] = {"fold": False} if shared and isinstance(operator, Mac) else {}
    return operator.quantize(
        layer, parameters.weight, parameters.gain, parameters.shift, bits, read, **options
    )


def layer_parameters(network: Network, layer: Layer) -> LayerParameters:
    """Return weights, gain and shift of a layer with its bias and its fused batch norm.

    Raises:
        PassError: a number is not finite, or a batch norm stands behind an activation product.
    """
    if layer.weight is None:
        if layer.norm is not None:
            raise PassError(
                f"batch norm {layer.norm} cannot belong to an activation product",
                place=layer.name,
                remedy="this is a defect of canonicalize; report it",
            )
        nothing = np.zeros(0)
        return LayerParameters(nothing, nothing, nothing)
    weight = _array(network, layer.weight)
    channels = weight.shape[0]
    bias = _array(network, layer.bias) if layer.bias else np.zeros(channels)
    gain, shift = np.ones(channels), bias
    if layer.norm is not None:
        mean, var, gamma, beta, eps = _norm(network, layer.norm, channels)
        with np.errstate(invalid="ignore", divide="ignore"):
            gain = gamma / np.sqrt(var + eps)
        shift = gain * (bias - mean) + beta
    for name, numbers in (("weight", weight), ("gain", gain), ("shift", shift)):
        if not np.isfinite(numbers).all():
            raise PassError(
                f"{name} holds NaN or infinity",
                place=layer.name,
                remedy="check the trained parameters and the batch-norm statistics",
            )
    return LayerParameters(weight, gain, shift)


def quantization_summary(network: Network) -> dict[str, Any]:
    """Return what the report says: layers, those beyond float32, and formats by width."""
    beyond = [
        layer.name
        for layer in network.layers.values()
        if layer.quantized is not None and layer.quantized.bound >= EXACT_FLOAT32
    ]
    widths = Counter(v.format.bits for v in network.values.values() if v.format is not None)
    return {
        "layers": len(network.layers),
        "beyond_float32": beyond,
        "values_by_bits": {str(bits): widths[bits] for bits in sorted(widths)},
    }


def _norm(
    network: Network, name: str, channels: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, float]:
    """Return mean, variance, gamma, beta (M,) and eps of a batch_norm node."""
    node = next(n for n in network.graph.graph.nodes if n.name == name)
    operands = [None if a is None else _array(network, str(a.target)) for a in node.args[1:]]
    mean, var, gamma, beta = (*operands, None, None)[:4]
    if mean is None or var is None:
        raise PassError("has no running statistics", place=name, remedy="run canonicalize")
    return (
        mean,
        var,
        np.ones(channels) if gamma is None else gamma,
        np.zeros(channels) if beta is None else beta,
        float(node.kwargs["eps"]),
    )


def _array(network: Network, name: str) -> FloatArray:
    array: FloatArray = network.tensor(name).detach().cpu().double().numpy()
    return array
