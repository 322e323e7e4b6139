# SPDX-License-Identifier: Apache-2.0
"""What instructions compute: the integers of layers, operations and narrowing, from kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import ReplayError
from enos_compiler.ir.executable import LayerKernel, StoredValue, VectorKernel
from enos_compiler.ir.formats import IntArray, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.semantics.quantizer import quantize_codes, requantize
from enos_compiler.semantics.reference import channel_axis
from enos_compiler.semantics.registry import vector_op

Array = NDArray[Any]
_INT32 = np.iinfo(np.int32)


def as_layer(kernel: LayerKernel) -> Layer:
    """Return the layer that operators are asked with."""
    return Layer(
        name=kernel.name,
        op=kernel.op,
        inputs=kernel.inputs,
        output=kernel.output,
        shape=kernel.shape,
        choice=kernel.choice,
        quantized=kernel.quantized,
    )


def stored_total(layer: Layer, total: IntArray, output: StoredValue) -> IntArray:
    """Return the codes of a total, or itself where it leaves the network as 32-bit sums.

    Raises:
        ReplayError: a sum leaves 32 bits.
    """
    return stored_sums(total, units(layer, total.ndim), output)


def stored_sums(total: IntArray, unit: IntArray, output: StoredValue) -> IntArray:
    """Return the codes of sums in units of 2**unit; arguments and errors as `stored_total`."""
    if output.format is not None:
        return requantize(total, unit, output.format)
    if total.size and not _INT32.min <= total.min() <= total.max() <= _INT32.max:
        raise ReplayError("a sum that leaves the network does not fit 32 bits")
    return total


def real_sums(layer: Layer, total: IntArray) -> Array:
    """Return the real numbers of sums that leave the network, float32."""
    unit = units(layer, total.ndim).astype(np.int32)
    return (total * np.ldexp(1.0, unit)).astype(np.float32)


def units(layer: Layer, rank: int) -> IntArray:
    """Return the unit exponents of a layer's sums, to broadcast against a total of that rank."""
    quantized = layer.quantized
    if quantized is None:
        raise ReplayError("has no integers", place=f"layer {layer.name}")
    unit: IntArray = channel_axis(layer, quantized.unit_exponent, rank)
    return unit


def vector_codes(kernel: VectorKernel, operands: tuple[IntArray, ...]) -> IntArray:
    """Return the codes of an operation on operands in its formats."""
    attributes = {**kernel.attributes, **kernel.parameters}
    return vector_op(kernel.op).integers(operands, kernel.reads, kernel.writes, attributes)


def in_format(codes: IntArray, stored: ValueFormat | None, read: ValueFormat) -> IntArray:
    """Return codes as a reader takes them; plain integers stay as they are."""
    if stored is None or stored == read:
        return codes
    return requantize(codes - stored.zero_point, stored.exponent, read)


def input_codes(real: Array, value: StoredValue) -> IntArray:
    """Return the codes of a network input; indices as they are."""
    if value.format is None:
        return real.astype(np.int64)
    return quantize_codes(real.astype(np.float32), value.format)
