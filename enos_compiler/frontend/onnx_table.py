# SPDX-License-Identifier: Apache-2.0
"""The table of ONNX operations: what a node's operation is in torch calls.

A function takes the node's attributes and its operands (None where one is absent) and returns the
results. It runs on constants when the file is read and on traced tensors when it is recorded; an
operand that ONNX gives as a tensor but that shapes a call (axes, pads, bounds) must be a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from onnx import NodeProto

Operation = Callable[..., Any]
F = TypeVar("F", bound=Operation)

OPERATIONS: dict[str, Operation] = {}
"""Operations by ONNX's name; filled by the files `onnx_ops_*`."""


READS_SHAPE = ("Shape", "Size")
"""Operations whose result depends on no contents of their operand."""


class OnnxInputError(ValueError):
    """A node asks for what no network of ours can hold; the caller adds the node's name."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def onnx(*names: str) -> Callable[[F], F]:
    """Register a function under the names of ONNX operations."""

    def register(function: F) -> F:
        for name in names:
            OPERATIONS[name] = function
        return function

    return register


@dataclass(frozen=True, slots=True)
class Attributes:
    """A node's attributes by name, and what is known of its operands and results."""

    values: Mapping[str, Any]
    operation: str
    results: int
    """How many results the node names; later ones may be absent."""
    constant: tuple[bool, ...]
    """For each operand, whether no input reaches its contents."""

    @classmethod
    def of(cls, node: NodeProto, constant: tuple[bool, ...]) -> Attributes:
        """Read a node's attributes; texts are decoded, tensors stay as they are stored."""
        from onnx import helper

        values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}
        count = max((i + 1 for i, name in enumerate(node.output) if name), default=0)
        return cls(plain, node.op_type, count, constant)

    def is_constant(self, operand: int) -> bool:
        """Whether an operand holds contents that may be read."""
        return operand < len(self.constant) and self.constant[operand]

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self.values.get(name, default))

    def number(self, name: str, default: float) -> float:
        """Return a real attribute."""
        return float(self.values.get(name, default))

    def text(self, name: str, default: str) -> str:
        """Return a text attribute."""
        return str(self.values.get(name, default))

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a list of integers, or None where it is absent."""
        found = self.values.get(name)
        return None if found is None else tuple(int(x) for x in found)

    def refuse(self, name: str, *allowed: Any) -> None:
        """Raise unless an attribute is absent or has one of the allowed values."""
        found = self.values.get(name, allowed[0])
        if found not in allowed:
            raise OnnxInputError(
                f"{name} = {found} is not supported",
                f"export with {name} = " + " or ".join(map(str, allowed)),
            )

    def refuse_more_than(self, results: int) -> None:
        """Raise where the network reads a result beyond the first ones."""
        if self.results > results:
            raise OnnxInputError(
                f"result {results} of `{self.operation}` is not supported",
                "use its first result alone",
            )


@cache
def load_operations() -> None:
    """Import the files that fill the table."""
    from enos_compiler.frontend import (  # noqa: F401 - importing registers
        onnx_ops_elementwise,
        onnx_ops_layers,
        onnx_ops_movement,
        onnx_ops_shapes,
    )


def integers_of(tensor: Tensor | None, what: str) -> tuple[int, ...] | None:
    """Return the integers that a constant operand holds; None where it is absent."""
    if tensor is None:
        return None
    if tensor.is_floating_point() or tensor.dim() > 1:
        raise OnnxInputError(f"{what} is no list of integers", "store it as int64 of rank 1")
    found = tensor.tolist()
    return tuple(int(x) for x in (found if isinstance(found, list) else [found]))


def number_of(tensor: Tensor | None) -> float | None:
    """Return the number that a constant operand of one element holds; None where it is absent."""
    return None if tensor is None else float(tensor.reshape(-1)[0].item())


def axes_of(attributes: Attributes, operand: Tensor | None, rank: int) -> tuple[int, ...] | None:
    """Return the axes that an attribute or an operand names, counted from the front."""
    axes = attributes.integers("axes") if operand is None else integers_of(operand, "axes")
    return None if axes is None else tuple(axis % rank for axis in axes)
