# SPDX-License-Identifier: Apache-2.0
"""A quantised network in torch: the same codes as `semantics.reference`, many times as fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enos_compiler.crossbar.layer import form_spec
from enos_compiler.evaluate.arrays import device_steps, terms_on_arrays
from enos_compiler.evaluate.codes import as_codes, narrowed, vector_codes
from enos_compiler.evaluate.layers import ExactSums, layer_step, layer_terms
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.semantics.operands import (
    attributes_of,
    constants,
    quantized,
    read_formats,
    value_format_of,
)
from enos_compiler.semantics.quantizer import quantize_codes
from enos_compiler.semantics.reference import input_codes, layer_output, layer_total
from enos_compiler.semantics.registry import vector_op

Step = Callable[[tuple[Tensor, ...]], Tensor]
"""A node: what it reads, in the formats that it reads, to its output."""


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    inputs: tuple[str, ...]
    output: str
    stored: tuple[ValueFormat, ...]
    read: tuple[ValueFormat, ...]
    step: Step


class CodeNetwork:
    """A network that takes real inputs and gives the real numbers of its first output.

    Args:
        network: quantised.
        steps: how some layers compute, by name; all others compute their integers, on arrays
            as the converters there give them.
    """

    def __init__(self, network: Network, steps: Mapping[str, Step] | None = None) -> None:
        self._network = network
        given = steps or {}
        self._nodes = [self._node(node, given.get(node.name)) for node in network.nodes()]
        self._constants = {
            name: _stored(network, name, real) for name, real in constants(network).items()
        }
        reads = Counter(name for node in self._nodes for name in set(node.inputs))
        reads.update(network.outputs)
        self._reads = reads

    def _node(self, node: Layer | Vector, step: Step | None) -> _Node:
        network = self._network
        stored = tuple(value_format_of(network, name, node.name) for name in node.inputs)
        if isinstance(node, Layer):
            read = quantized(node).input_formats
            step = step or _exact_step(network, node)
        else:
            read = read_formats(network, node)
            step = _vector_step(network, node, read)
        return _Node(node.name, node.inputs, node.output, stored, read, step)

    def __call__(
        self, *inputs: Tensor, watch: Callable[[str, tuple[Tensor, ...]], None] | None = None
    ) -> Tensor:
        """Return the first output's real numbers.

        Args:
            inputs: real numbers in the order of the network's inputs.
            watch: called with each node's name and what it reads.
        """
        with torch.inference_mode():
            arrays = tuple(np.asarray(x) for x in inputs)
            values = {
                name: _bytes(torch.from_numpy(codes))
                for name, codes in input_codes(self._network, arrays).items()
            }
            values |= self._constants
            unread = self._reads.copy()
            for node in self._nodes:
                operands = tuple(
                    narrowed(values[name], old, new)
                    for name, old, new in zip(node.inputs, node.stored, node.read, strict=True)
                )
                if watch is not None:
                    watch(node.name, operands)
                values[node.output] = node.step(operands)
                for name in set(node.inputs):
                    unread[name] -= 1
                    if not unread[name]:
                        del values[name]
            name = self._network.outputs[0]
            fmt = self._network.values[name].format
            if fmt is None:
                return values[name]
            codes = values[name].to(torch.float32)
            return codes.sub_(fmt.zero_point).mul_(fmt.scale)


def _bytes(codes: Tensor) -> Tensor:
    """Return codes as bytes; token indices stay as they are."""
    return as_codes(codes) if codes.dtype == torch.int64 and int(codes.max()) < 256 else codes


def _stored(network: Network, name: str, real: np.ndarray[Any, Any]) -> Tensor:
    fmt = network.values[name].format
    if fmt is None:
        return torch.from_numpy(np.array(real))
    return as_codes(torch.from_numpy(quantize_codes(real, fmt)))


def _exact_step(network: Network, layer: Layer) -> Step:
    """Return the step of a layer that computes its integers, converters included, exactly."""
    output = network.values[layer.output].format
    terms, array = layer_terms(layer), quantized(layer).array
    if terms is None:
        return _plain_step(network, layer)
    if array is not None:
        stored = terms_on_arrays(layer, form_spec(array))
        return device_steps(network, {layer.name: stored})[layer.name]
    fmt = quantized(layer).input_formats[0]
    sums = [ExactSums(term, layer.shape, fmt) for term in terms]
    step = layer_step(layer, terms, sums, output)
    return lambda operands: step(operands[0])


def _plain_step(network: Network, layer: Layer) -> Step:
    """Return the step of a layer that is no sum of products: the definition itself."""

    def step(operands: tuple[Tensor, ...]) -> Tensor:
        arrays = tuple(x.to(torch.int64).numpy() for x in operands)
        output = layer_output(network, layer, layer_total(layer, arrays))
        result = torch.from_numpy(np.ascontiguousarray(output))
        return result if result.is_floating_point() else as_codes(result)

    return step


def _vector_step(network: Network, node: Vector, read: tuple[ValueFormat, ...]) -> Step:
    op = vector_op(node.op)
    output = value_format_of(network, node.output, node.name)
    attributes = attributes_of(network, node, op)
    return lambda operands: vector_codes(op, operands, read, output, attributes)
