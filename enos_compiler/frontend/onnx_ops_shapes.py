# SPDX-License-Identifier: Apache-2.0
"""ONNX operations on constants and shapes: exporters compute extents and masks with them.

They run on tensors that no input reaches. On one that an input reaches, the frontend's own table
of operations refuses what has no lowering.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor

from enos_compiler.frontend.onnx_file import LARGEST_TENSOR
from enos_compiler.frontend.onnx_table import (
    OPERATIONS,
    Attributes,
    OnnxInputError,
    integers_of,
    onnx,
)


def refuse_vast(elements: float, what: str) -> None:
    """Raise where a constant would fill the memory."""
    if elements > LARGEST_TENSOR:
        raise OnnxInputError(
            f"{what} would hold {elements:,.0f} elements, more than {LARGEST_TENSOR:,}",
            "export the network again, at a smaller size if it is meant so",
        )


def torch_type(element_type: int) -> torch.dtype:
    """Return torch's type of an ONNX element type."""
    from onnx import helper

    name = str(helper.tensor_dtype_to_np_dtype(element_type))
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise OnnxInputError(f"element type {name} is not supported", "export in float32")
    return found


@onnx("Constant")
def constant(attributes: Attributes) -> Tensor:
    """A tensor, number or list of numbers that the node itself holds."""
    from enos_compiler.frontend.onnx_module import to_tensor

    name, value = next(iter(attributes.values.items()), ("nothing", None))
    if name == "value" and value is not None:
        return to_tensor(value, "")
    if name in ("value_float", "value_floats"):
        return torch.tensor(value, dtype=torch.float32)
    if name in ("value_int", "value_ints"):
        return torch.tensor(value, dtype=torch.int64)
    raise OnnxInputError(f"a constant held as {name}", "store it as a dense tensor")


@onnx("Shape")
def shape(attributes: Attributes, x: Tensor) -> Tensor:
    """Extents of some axes, all by default."""
    stop = attributes.values.get("end")
    return torch.tensor(list(x.shape)[attributes.integer("start", 0) : stop], dtype=torch.int64)


@onnx("Size")
def size(attributes: Attributes, x: Tensor) -> Tensor:
    """Number of elements."""
    del attributes
    return torch.tensor(prod(x.shape), dtype=torch.int64)


@onnx("ConstantOfShape")
def constant_of_shape(attributes: Attributes, extents: Tensor) -> Tensor:
    """A tensor of one number, zero by default."""
    from enos_compiler.frontend.onnx_module import to_tensor

    wanted = integers_of(extents, "shape") or ()
    refuse_vast(prod(wanted), "the constant")
    held = attributes.values.get("value")
    fill = torch.zeros(1) if held is None else to_tensor(held, "")
    return fill.reshape(()).expand(wanted).clone()


@onnx("Range")
def range_(attributes: Attributes, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from a start to below a limit."""
    del attributes
    first, last, step = (x.item() for x in (start, limit, delta))
    refuse_vast(abs((last - first) / step), "the range")
    return torch.arange(first, last, step, dtype=start.dtype)


@onnx("Trilu")
def trilu(attributes: Attributes, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The upper or the lower triangle."""
    diagonal = 0 if k is None else int(k.item())
    return x.triu(diagonal) if attributes.integer("upper", 1) else x.tril(diagonal)


@onnx("Mod")
def mod(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the divisor's sign, or with the dividend's."""
    return torch.fmod(a, b) if attributes.integer("fmod", 0) else torch.remainder(a, b)


@onnx("Cast")
def cast(attributes: Attributes, x: Tensor) -> Tensor:
    """Conversion; an operand that an input reaches keeps its type, or is refused later."""
    wanted = torch_type(attributes.integer("to", 1))
    return x if x.dtype == wanted else x.to(wanted)


@onnx("CastLike")
def cast_like(attributes: Attributes, x: Tensor, other: Tensor) -> Tensor:
    """Conversion to another tensor's type."""
    del attributes
    return x if x.dtype == other.dtype else x.to(other.dtype)


def _register_comparisons() -> None:
    """Register functions of one or two operands that torch has under another name."""
    two: dict[str, Callable[[Any, Any], Any]] = {
        "Equal": torch.eq,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
    }
    one: dict[str, Callable[[Any], Any]] = {
        "Not": torch.logical_not,
        "Floor": torch.floor,
        "Ceil": torch.ceil,
        "Round": torch.round,
        "IsNaN": torch.isnan,
    }
    for table in (one, two):
        for name, function in table.items():
            OPERATIONS[name] = _without_attributes(function)


def _without_attributes(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(attributes: Attributes, *operands: Tensor) -> Any:
        del attributes
        return function(*operands)

    return compute


_register_comparisons()


@onnx("Where")
def where(attributes: Attributes, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Selection by a condition."""
    del attributes
    return torch.where(condition, x, y)


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the extents that shapes broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(
        reduce(operator.mul, {n for n in extents if n != 1}, 1)
        for extents in zip(*padded, strict=True)
    )
