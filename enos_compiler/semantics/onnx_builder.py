# SPDX-License-Identifier: Apache-2.0
"""Builds an ONNX graph in forms that ONNX Runtime computes bit for bit.

Codes are uint8 tensors. Two forms of requantisation exist: QuantizeLinear, exact where every
partial sum is an integer below 2**24 times a power of two, and the double tail (Mul, Round, Add,
Clip, Cast in float64), exact below 2**53. Bounds of narrower codes are a Min or Max on the uint8
tensor, which keeps ONNX Runtime's fusion of the QuantizeLinear before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    FunctionProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.semantics.base import OnnxFunction
from enos_compiler.semantics.quantizer import CODE_COUNT

DOMAIN = "enos"
"""Domain of the local functions."""
OPSET = 21
_SHARED_BYTES = 4096
"""Equal constants up to this size are stored once."""


@dataclass(slots=True)
class OnnxBuilder:
    """Nodes, initialisers and local functions of a graph under construction.

    Names are `<scope>/<operation>`, numbered where that is taken.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    functions: dict[str, FunctionProto] = field(default_factory=dict)
    defaulted: list[ValueInfoProto] = field(default_factory=list)
    """Graph inputs that have an initialiser: a runtime takes that where nothing is fed."""
    scope: str = ""
    """Prefix of the names: the layer or vector operation that is being written."""
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    _taken: dict[str, int] = field(default_factory=dict)

    def fresh(self, hint: str) -> str:
        """Return an unused name `<scope>/<hint>`."""
        name = f"{self.scope}/{hint}" if self.scope else hint
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        return f"{name}_{count}" if count else name

    def reserve(self, name: str) -> str:
        """Take `name` itself for a graph input or output; a taken one gets a number."""
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        return f"{name}_{count}" if count else name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a code tensor that stands for a value, at the compiled batch."""
        return self._shapes[name]

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Record the shape of a code tensor."""
        self._shapes[name] = shape

    def constant(self, array: NDArray[Any] | np.generic, hint: str = "constant") -> str:
        """Add an initialiser, or return the one that already holds small equal content."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if array.nbytes <= _SHARED_BYTES and key in self._constants:
            return self._constants[key]
        name = self.fresh(hint)
        self.initializers.append(numpy_helper.from_array(array, name))
        if array.nbytes <= _SHARED_BYTES:
            self._constants[key] = name
        return name

    def defaulted_input(self, array: NDArray[np.generic], hint: str) -> str:
        """Add a graph input that takes `array` where nothing is fed."""
        name = self.fresh(hint)
        self.initializers.append(numpy_helper.from_array(array, name))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.defaulted.append(helper.make_tensor_value_info(name, kind, array.shape))
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        *,
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        output: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node of one output and return the output's name."""
        name = self.fresh(op)
        result = output or f"{name}.out"
        node = helper.make_node(op, list(inputs), [result], name, domain=domain, **attributes)
        _add_metadata(node, metadata or {})
        self.nodes.append(node)
        return result

    def note(self, tensor: str, metadata: Mapping[str, str], *, since: int) -> None:
        """Add metadata to the node that makes a tensor; nothing if it is older than `since`."""
        for node in self.nodes[since:]:
            if tensor in node.output:
                _add_metadata(node, metadata)

    def dequantize(self, codes: str, fmt: ValueFormat, *, output: str | None = None) -> str:
        """Add DequantizeLinear of uint8 codes; the zero point is always written."""
        scale = self.constant(np.float32(fmt.scale), "scale")
        zero = self.constant(np.uint8(fmt.zero_point), "zero_point")
        return self.node("DequantizeLinear", [codes, scale, zero], output=output)

    def quantize(self, real: str, fmt: ValueFormat, *, keep_apart: bool = False) -> str:
        """Add QuantizeLinear to uint8 and the bounds of `fmt`.

        Args:
            real: float32 tensor.
            fmt: format of the codes.
            keep_apart: write the upper bound even where uint8 implies it, so that no optimiser
                sees two bare pairs of QuantizeLinear and DequantizeLinear behind each other.
        """
        scale = self.constant(np.float32(fmt.scale), "scale")
        zero = self.constant(np.uint8(fmt.zero_point), "zero_point")
        codes = self.node("QuantizeLinear", [real, scale, zero])
        if fmt.low > 0:
            codes = self.node("Max", [codes, self.constant(np.uint8(fmt.low), "low")])
        if fmt.high < CODE_COUNT - 1 or keep_apart:
            codes = self.node("Min", [codes, self.constant(np.uint8(fmt.high), "high")])
        return codes

    def rescale(self, codes: str, old: ValueFormat, new: ValueFormat) -> str:
        """Return codes in another format by DequantizeLinear, QuantizeLinear and Min."""
        if old == new:
            return codes
        result = self.quantize(self.dequantize(codes, old), new, keep_apart=True)
        if codes in self._shapes:
            self._shapes[result] = self._shapes[codes]
        return result

    def rename(self, tensor: str, name: str) -> None:
        """Give a node's output another name wherever it stands."""
        for node in self.nodes:
            for field_ in (node.input, node.output):
                for index, known in enumerate(field_):
                    if known == tensor:
                        field_[index] = name

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """Add a Reshape; -1 stands where the batch is."""
        return self.node("Reshape", [tensor, self.constant(np.array(shape, np.int64), "shape")])

    def pad(self, codes: str, pads: Sequence[int], code: int) -> str:
        """Add a Pad of the axes behind the channels: elements before each, then after each."""
        axes = len(pads) // 2
        full = np.array([0, 0, *pads[:axes], 0, 0, *pads[axes:]], dtype=np.int64)
        return self.node(
            "Pad", [codes, self.constant(full, "pads"), self.constant(np.uint8(code), "fill")]
        )

    def to_int64(self, tensor: str) -> str:
        """Add a Cast to int64."""
        return self.node("Cast", [tensor], to=TensorProto.INT64)

    def to_double(self, tensor: str) -> str:
        """Add a Cast to double."""
        return self.node("Cast", [tensor], to=TensorProto.DOUBLE)

    def table(self, codes: str, tables: IntArray) -> str:
        """Add a look-up of codes, exact whatever the function.

        Args:
            codes: uint8 tensor.
            tables: (256,), or (channels, 256) for a table per channel of axis 1.
        """
        index = self.node("Cast", [codes], to=TensorProto.INT32)
        if tables.ndim == 2:
            start = np.arange(len(tables), dtype=np.int32) * np.int32(CODE_COUNT)
            start = start.reshape(1, -1, *(1,) * (len(self.shape(codes)) - 2))
            index = self.node("Add", [index, self.constant(start, "table_start")])
        table = self.constant(tables.reshape(-1).astype(np.uint8), "table")
        return self.node("Gather", [table, index], axis=0)

    def steps(self, codes: str, fmt: ValueFormat, *, double: bool = False) -> str:
        """Return code - zero point as float32, or as double."""
        if not double:
            return self.dequantize(codes, ValueFormat(0, fmt.zero_point, fmt.bits))
        real = self.to_double(codes)
        if not fmt.zero_point:
            return real
        return self.node("Sub", [real, self.constant(np.float64(fmt.zero_point), "zero_point")])

    def round_double(
        self,
        total: str,
        factor: NDArray[np.float64] | float,
        fmt: ValueFormat,
        *,
        divisor: IntArray | int = 1,
    ) -> str:
        """Add the double tail: codes of `total * factor / divisor`, in steps of `fmt`.

        Args:
            total: double tensor.
            factor: powers of two that broadcast against `total`; 1 is left out.
            fmt: format of the codes.
            divisor: the count of an average; broadcasts against `total`; 1 is left out.
        """
        if np.any(np.asarray(factor) != 1):
            factor = np.asarray(factor, dtype=np.float64)
            total = self.node("Mul", [total, self.constant(factor, "factor")])
        if np.any(np.asarray(divisor) != 1):
            count = self.constant(np.asarray(divisor, dtype=np.float64), "count")
            total = self.node("Div", [total, count])
        rounded = self.node("Round", [total])
        if fmt.zero_point:
            zero = self.constant(np.float64(fmt.zero_point), "zero_point")
            rounded = self.node("Add", [rounded, zero])
        low = self.constant(np.float64(fmt.low), "low")
        high = self.constant(np.float64(fmt.high), "high")
        clipped = self.node("Clip", [rounded, low, high])
        return self.node("Cast", [clipped], to=TensorProto.UINT8)

    def call(
        self,
        function: OnnxFunction,
        codes: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Call a local function of domain `enos`, defining it at its first use.

        A second body under the same name is defined under a numbered one.
        """
        tensors = [
            (self.defaulted_input if name in function.defaults else self.constant)(array, name)
            for name, array in function.tensors.items()
        ]
        return self.node(
            self._define(function),
            [*codes, *tensors],
            domain=DOMAIN,
            metadata=metadata,
            **function.attributes,
        )

    def _define(self, function: OnnxFunction) -> str:
        number = 1
        while True:
            name = function.name if number == 1 else f"{function.name}_{number}"
            proto = helper.make_function(
                DOMAIN,
                name,
                list(function.inputs),
                [function.output],
                list(function.nodes),
                [helper.make_opsetid("", OPSET)],
                attributes=_referenced(function.nodes),
            )
            known = self.functions.setdefault(name, proto)
            if known.SerializeToString() == proto.SerializeToString():
                return name
            number += 1


def _add_metadata(node: NodeProto, metadata: Mapping[str, str]) -> None:
    for key, value in metadata.items():
        entry = node.metadata_props.add()
        entry.key, entry.value = key, value


def _referenced(nodes: Sequence[NodeProto]) -> list[str]:
    """Return the function's attribute names that its nodes refer to, sorted."""
    attributes: list[AttributeProto] = [a for node in nodes for a in node.attribute]
    return sorted({a.ref_attr_name for a in attributes if a.ref_attr_name})
