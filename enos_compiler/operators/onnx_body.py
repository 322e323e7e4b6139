# SPDX-License-Identifier: Apache-2.0
"""ONNX local functions (domain `enos`) of operators, in standard operators only.

Codes are cast to float32 and summed by Conv or MatMul: every partial sum is an integer below
2**24, so the result does not depend on the order of summation, nor on whether ONNX Runtime folds
a multiplier into the weights. Float bodies run several times faster than ConvInteger ones.

Where the total may reach 2**24 each sum is exact in float32 still (weights are split into digits
until it is) and multipliers and bias are applied in float64, which no optimiser folds into a Conv.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import EnosError
from enos_compiler.ir.formats import IntArray, QuantizedLayer
from enos_compiler.ir.network import Layer
from enos_compiler.operators.terms import Term, along_channels, largest_input, largest_sums
from enos_compiler.semantics.base import OnnxFunction
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

if TYPE_CHECKING:
    from onnx import NodeProto

_INTEGER_TYPES: tuple[type[np.signedinteger[Any]], ...] = (np.int8, np.int16, np.int32)
_DIGIT_BITS = 4
"""Weights whose sums leave float32 are split into digits of this many bits."""


@dataclass(slots=True)
class FunctionBody:
    """A function under construction: nodes, formal tensors, and names that do not clash."""

    nodes: list[NodeProto] = field(default_factory=list)
    tensors: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    count: int = 0

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        from onnx import helper

        self.count += 1
        result = output or f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [result], name=result, **attributes))
        return result

    def cast(self, name: str, *, double: bool = False, output: str | None = None) -> str:
        """Add a Cast to float32 or double."""
        from onnx import TensorProto

        to = TensorProto.DOUBLE if double else TensorProto.FLOAT
        return self.node("Cast", name, to=to, output=output)

    def tensor(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a formal input that takes `value` at the call."""
        self.tensors[name] = value
        return name


def terms_function(
    name: str, layer: Layer, quantized: QuantizedLayer, terms: Sequence[Term]
) -> OnnxFunction:
    """Return the local function of a layer that is a sum of integer convolutions.

    Its name is `name`, the kind of layer, and what changes the body: `Signed` where a zero point
    is subtracted, `Double` where the total is float64, `Split` where weights are split.

    Raises:
        EnosError: a sum of one digit of the weights may reach 2**24 (above 65,000 taps).
    """
    fmt = quantized.input_formats[0]
    double = quantized.bound >= EXACT_FLOAT32
    parts = [part for term in terms for part in (_split(term, quantized) if double else (term,))]
    body = FunctionBody()
    steps = body.cast("codes")
    if fmt.zero_point:
        zero = body.tensor("zero_point", np.array(fmt.zero_point, dtype=np.float32))
        steps = body.node("Sub", steps, zero)
    sign = body.node("Sign", steps) if any(part.reads == "sign" for part in parts) else ""
    total = ""
    for index, part in enumerate(parts):
        suffix = f"_{index}" if len(parts) > 1 else ""
        operand = sign if part.reads == "sign" else steps
        product = weighted_product(body, layer, operand, packed(part.weight), suffix)
        scaled = _scaled(body, layer, product, part, suffix, double=double)
        total = body.node("Add", total, scaled) if total else scaled
    bias = along_channels(quantized.bias, layer, output_rank(layer, terms[0].weight))
    body.node("Add", total, body.tensor("bias", real_tensor(bias, double=double)), output="total")
    variant = ("Signed" if fmt.zero_point else "") + ("Double" if double else "")
    if len(parts) > len(terms):
        variant += "Split" + "".join(part.reads[0].upper() for part in parts)
    return OnnxFunction(
        name=f"{name}{'Conv' if layer.op == 'conv' else 'Linear'}{variant}",
        nodes=tuple(body.nodes),
        inputs=("codes", *body.tensors),
        output="total",
        tensors=body.tensors,
        attributes=conv_attributes(layer, terms[0].weight) if layer.op == "conv" else {},
    )


def product_function(name: str, quantized: QuantizedLayer) -> OnnxFunction:
    """Return the local function of an activation product: MatMul of codes less zero points."""
    double = quantized.bound >= EXACT_FLOAT32
    body = FunctionBody()
    operands = []
    for side, fmt in zip(("left", "right"), quantized.input_formats, strict=True):
        steps = body.cast(f"{side}_codes", double=double)
        if fmt.zero_point:
            zero = real_tensor(np.array(fmt.zero_point, dtype=np.int64), double=double)
            steps = body.node("Sub", steps, body.tensor(f"{side}_zero_point", zero))
        operands.append(steps)
    body.node("MatMul", *operands, output="total")
    marks = "".join("S" if fmt.zero_point else "U" for fmt in quantized.input_formats)
    return OnnxFunction(
        name=f"{name}Product{marks}{'Double' if double else ''}",
        nodes=tuple(body.nodes),
        inputs=("left_codes", "right_codes", *body.tensors),
        output="total",
        tensors=body.tensors,
    )


def weighted_product(
    body: FunctionBody, layer: Layer, operand: str, weight: NDArray[np.generic], suffix: str
) -> str:
    """Add the convolution or matrix product of a layer; return its float32 sums.

    Args:
        body: the function under construction.
        layer: for its kind.
        operand: name of the float32 input.
        weight: (M, C, ...) in a packed integer type.
        suffix: of the weight's name.
    """
    if layer.op != "conv":
        name = body.tensor(f"weight{suffix}", np.ascontiguousarray(weight.T))
        return body.node("MatMul", operand, body.cast(name))
    from onnx import AttributeProto

    product = body.node("Conv", operand, body.cast(body.tensor(f"weight{suffix}", weight)))
    kinds = {"group": AttributeProto.INT}
    kinds |= dict.fromkeys(("strides", "pads", "dilations"), AttributeProto.INTS)
    for attribute, kind in kinds.items():
        body.nodes[-1].attribute.append(
            AttributeProto(name=attribute, ref_attr_name=attribute, type=kind)
        )
    return product


def _scaled(
    body: FunctionBody, layer: Layer, product: str, part: Term, suffix: str, *, double: bool
) -> str:
    """Add the multiplication by one part's multiplier, in float64 where the total needs it."""
    factor = along_channels(part.multiplier, layer, output_rank(layer, part.weight))
    name = body.tensor(f"multiplier{suffix}", real_tensor(factor, double=double))
    return body.node("Mul", body.cast(product, double=True) if double else product, name)


def _split(term: Term, quantized: QuantizedLayer) -> tuple[Term, ...]:
    """Return terms of equal total whose sums are exact in float32, by digits of the weights."""
    fmt = quantized.input_formats[0]
    if int(largest_sums(term.reads, term.weight, fmt).max()) < EXACT_FLOAT32:
        return (term,)
    base = 2**_DIGIT_BITS
    parts = []
    rest, factor = term.weight, 1
    while np.any(rest):
        digit = (rest + base // 2) % base - base // 2
        rest = (rest - digit) // base
        if int(largest_sums(term.reads, digit, fmt).max()) >= EXACT_FLOAT32:
            taps = term.weight[0].size
            raise EnosError(
                f"sums of {taps} taps of inputs up to {largest_input(term.reads, fmt)} leave 2**24"
                " even for one digit of the weights",
                remedy="read the layer's input at fewer bits",
            )
        parts.append(Term(term.reads, digit, term.multiplier * factor))
        factor *= base
    return tuple(parts)


def packed(weight: IntArray) -> NDArray[np.generic]:
    """Return the weights in the narrowest signed integer type that holds them."""
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    for kind in _INTEGER_TYPES:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(weight.astype(kind))
    raise EnosError(f"weight codes {low}..{high} do not fit 32 bits")


def real_tensor(values: IntArray, *, double: bool) -> NDArray[np.generic]:
    """Return whole numbers as float32 or float64."""
    return values.astype(np.float64 if double else np.float32)


def output_rank(layer: Layer, weight: IntArray) -> int:
    """Return the rank of a convolution's output; a linear layer's does not matter."""
    return weight.ndim if layer.op == "conv" else 2


def conv_attributes(layer: Layer, weight: IntArray) -> dict[str, Any]:
    """Return the attributes of a Conv of the layer, for as many axes as its weight has."""
    axes = weight.ndim - 2
    top, left, bottom, right = layer.shape.padding
    return {
        "group": layer.shape.g,
        "strides": list(layer.shape.stride[:axes]),
        "pads": [top, left, bottom, right] if axes == 2 else [top, bottom],
        "dilations": list(layer.shape.dilation[:axes]),
    }
