# SPDX-License-Identifier: Apache-2.0
"""Writes a quantised network as an ONNX model that ONNX Runtime computes bit for bit.

Every value is one uint8 tensor of codes, every layer one compute node with its operator, core,
widths and price in `metadata_props`; the node that ends a vector operation carries its own.
Runtimes drop metadata on nodes that they fuse or inline: readers of the metadata read the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from onnx import (
    ModelProto,
    TensorProto,
    ValueInfoProto,
    checker,
    external_data_helper,
    helper,
    save_model,
)

from enos_compiler.errors import PassError
from enos_compiler.export.layers import finish_codes, finish_real, write_layer
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Layer, Network, Value, Vector
from enos_compiler.semantics.onnx_builder import DOMAIN, OPSET, OnnxBuilder
from enos_compiler.semantics.operands import (
    attributes_of,
    constants,
    quantized,
    read_formats,
    value_format_of,
)
from enos_compiler.semantics.quantizer import quantize_codes
from enos_compiler.semantics.registry import vector_op

IR_VERSION = 10
EXTERNAL_BYTES = 2_000_000_000
"""Tensors above this total go to a file beside the model: protobuf ends at 2 GiB."""
_PRODUCER = "enos-compiler"
_ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}


def export_onnx(
    network: Network,
    *,
    costs: Mapping[str, tuple[float, float]] | None = None,
    totals: Mapping[str, float] | None = None,
    target: str | None = None,
) -> ModelProto:
    """Return the network as a checked ONNX model: opset 21, IR 10.

    Args:
        network: quantised.
        costs: energy in pJ and latency in ns per layer or vector operation, for the metadata.
        totals: numbers of the whole network by name (`energy_pj`, `latency_ns`, ...).
        target: name of the chip.

    Raises:
        PassError: a layer or value without integers.
    """
    writer = _Writer(network, costs or {})
    inputs = [writer.write_input(name) for name in network.inputs]
    writer.write_constants()
    for node in network.nodes():
        writer.write_node(node)
    outputs = [writer.write_output(name) for name in network.outputs]
    builder = writer.builder
    inputs += builder.defaulted
    graph = helper.make_graph(builder.nodes, network.name, inputs, outputs, builder.initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    if builder.functions:
        opsets.append(helper.make_opsetid(DOMAIN, 1))
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=IR_VERSION,
        functions=list(builder.functions.values()),
        producer_name=_PRODUCER,
        producer_version=version(_PRODUCER),
    )
    properties = {"enos.network": network.name, "enos.batch": str(network.batch)}
    properties |= {f"enos.{name}": repr(float(value)) for name, value in (totals or {}).items()}
    if target is not None:
        properties["enos.target"] = target
    helper.set_model_props(model, properties)
    if not is_large(model):
        checker.check_model(model, full_check=True)
    return model


def is_large(model: ModelProto) -> bool:
    """Whether the tensors are too many for one file."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= EXTERNAL_BYTES


def save_onnx(model: ModelProto, path: Path) -> tuple[Path, ...]:
    """Write the model and return the files; large tensors go to `<name>.data` beside it.

    The model itself keeps its tensors.
    """
    if not is_large(model):
        save_model(model, path)
        return (path,)
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    save_model(model, path, save_as_external_data=True, location=data.name)
    external_data_helper.load_external_data_for_model(model, str(path.parent))
    checker.check_model(str(path), full_check=True)
    return (path, data)


@dataclass(slots=True)
class _Writer:
    """The code tensors written so far, by value and by the format of a copy."""

    network: Network
    costs: Mapping[str, tuple[float, float]]
    builder: OnnxBuilder = field(default_factory=OnnxBuilder)
    codes: dict[str, str] = field(default_factory=dict)
    reals: dict[str, str] = field(default_factory=dict)
    copies: dict[tuple[str, ValueFormat], str] = field(default_factory=dict)

    def write_input(self, name: str) -> ValueInfoProto:
        """Quantise a float input; integers (token ids) pass as they are."""
        value = self.network.values[name]
        label = self.builder.reserve(name)
        self.builder.scope = name
        if value.format is None:
            self._keep(name, label)
        else:
            self._keep(name, self.builder.quantize(label, value.format))
        return self._value_info(value, label)

    def write_constants(self) -> None:
        """Add the codes of every constant value."""
        for name, real in constants(self.network).items():
            self.builder.scope = name
            fmt = self.network.values[name].format
            array = real if fmt is None else quantize_codes(real, fmt).astype(np.uint8)
            self._keep(name, self.builder.constant(array, "codes"))

    def write_node(self, node: Layer | Vector) -> None:
        """Add a layer or a vector operation."""
        self.builder.scope = node.name
        if isinstance(node, Layer):
            self._write_layer(node)
            return
        op = vector_op(node.op)
        formats = read_formats(self.network, node)
        output = value_format_of(self.network, node.output, node.name)
        attributes = attributes_of(self.network, node, op)
        codes = self._copies(node.inputs, formats, node.name)
        before = len(self.builder.nodes)
        result = op.onnx(self.builder, codes, formats, output, attributes)
        self.builder.note(result, self._vector_metadata(node), since=before)
        self._keep(node.output, result)

    def _write_layer(self, layer: Layer) -> None:
        codes = self._copies(layer.inputs, quantized(layer).input_formats, layer.name)
        result = write_layer(self.builder, layer, codes, self._metadata(layer))
        fmt = self.network.values[layer.output].format
        if fmt is None:
            self.reals[layer.output] = finish_real(self.builder, layer, result)
        else:
            self._keep(layer.output, finish_codes(self.builder, layer, result, fmt))

    def write_output(self, name: str) -> ValueInfoProto:
        """Dequantise a network output, or hand on the real numbers of a layer."""
        value = self.network.values[name]
        label = self.builder.reserve(name)
        self.builder.scope = label
        if name in self.reals and self.reals[name] != name:
            self.builder.rename(self.reals[name], label)
            self.reals[name] = label
        elif name in self.reals:
            self.builder.node("Identity", [name], output=label)
        elif value.format is not None:
            self.builder.dequantize(self.codes[name], value.format, output=label)
        else:
            self.builder.node("Identity", [self.codes[name]], output=label)
        return self._value_info(value, label)

    def _keep(self, name: str, tensor: str) -> None:
        self.codes[name] = tensor
        self.builder.set_shape(tensor, self.network.values[name].shape)

    def _copies(
        self, names: tuple[str, ...], formats: tuple[ValueFormat, ...], reader: str
    ) -> tuple[str, ...]:
        """Return the code tensors that a node reads; a narrower copy is made once per width."""
        tensors = []
        for name, fmt in zip(names, formats, strict=True):
            if name not in self.codes:
                raise PassError(f"reads `{name}`, which has no codes", place=reader)
            stored = value_format_of(self.network, name, reader)
            if stored != fmt and (name, fmt) not in self.copies:
                copy = self.builder.rescale(self.codes[name], stored, fmt)
                self.copies[name, fmt] = copy
            tensors.append(self.codes[name] if stored == fmt else self.copies[name, fmt])
        return tuple(tensors)

    def _vector_metadata(self, vector: Vector) -> dict[str, str]:
        return {
            "enos.vector": vector.name,
            "enos.operation": vector.op,
            "enos.core": vector.core,
            "enos.bits.output": str(vector.bits),
            **self._price(vector.name),
        }

    def _price(self, name: str) -> dict[str, str]:
        if name not in self.costs:
            return {}
        energy_pj, latency_ns = self.costs[name]
        return {
            "enos.energy_pj": repr(float(energy_pj)),
            "enos.latency_ns": repr(float(latency_ns)),
        }

    def _metadata(self, layer: Layer) -> dict[str, str]:
        choice = layer.choice
        if choice is None:
            raise PassError("has no choice", place=layer.name, remedy="run assign")
        return {
            "enos.layer": layer.name,
            "enos.operator": choice.operator,
            "enos.core": choice.core,
            "enos.bits.input": str(choice.bits.input),
            "enos.bits.weight": str(choice.bits.weight),
            "enos.bits.output": str(choice.bits.output),
            **self._price(layer.name),
        }

    def _value_info(self, value: Value, label: str) -> ValueInfoProto:
        """Describe a graph input or output; a symbolic batch is named `batch`."""
        shape: list[int | str | None] = list(value.shape)
        if self.network.batch_is_symbolic and shape:
            shape[0] = "batch" if value.shape[0] == self.network.batch else None
        return helper.make_tensor_value_info(label, _ELEMENT_TYPES[value.dtype], shape)
