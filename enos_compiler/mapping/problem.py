# SPDX-License-Identifier: Apache-2.0
"""The problem that a nest solves: loop bounds, and how each tensor is indexed by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from enos_compiler.errors import FormatError
from enos_compiler.ir.shape import LayerShape


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a tensor index, `coefficient * dim`."""

    dim: str
    coefficient: int = 1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor whose index along each rank is a sum of terms."""

    name: str
    ranks: tuple[tuple[Term, ...], ...]
    read_write: bool = False
    """True for the tensor that collects sums; it is both read and updated."""

    def extents(self, box: Mapping[str, int]) -> tuple[int, ...]:
        """Extent of each rank of the bounding box, given the extents of the dimensions."""
        return tuple(
            1 + sum(term.coefficient * (box[term.dim] - 1) for term in rank) for rank in self.ranks
        )

    def volume(self, box: Mapping[str, int]) -> int:
        """Elements of the bounding box; rows and columns that a stride skips count too."""
        return prod(self.extents(box))

    def step(self, dim: str, stride: int) -> tuple[int, ...]:
        """How far the box moves along each rank when `dim` advances by `stride`."""
        return tuple(
            sum(term.coefficient * stride for term in rank if term.dim == dim)
            for rank in self.ranks
        )

    def uses(self, dim: str) -> bool:
        """Whether the tensor is indexed by `dim`."""
        return any(term.dim == dim for rank in self.ranks for term in rank)


@dataclass(frozen=True, slots=True)
class Problem:
    """Bounds of all loops and the tensors that they index."""

    bounds: tuple[tuple[str, int], ...]
    tensors: tuple[TensorSpec, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the loops."""
        return tuple(name for name, _ in self.bounds)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole nest."""
        return prod(bound for _, bound in self.bounds)

    def tensor(self, name: str) -> TensorSpec:
        """The tensor called `name`."""
        return next(tensor for tensor in self.tensors if tensor.name == name)

    @classmethod
    def from_shape(cls, shape: LayerShape) -> Problem:
        """The eight-dimensional problem of a layer; groups are a loop like any other."""
        return cls(
            bounds=tuple(shape.bounds.items()),
            tensors=layer_tensors(shape.stride, shape.dilation),
        )

    @classmethod
    def from_reference(cls, data: Mapping[str, Any]) -> Problem:
        """Build a problem from the JSON form of the reference set.

        Raises:
            FormatError: a rank names a dimension or coefficient that the problem does not have.
        """
        dims, coefficients = data["dims"], data["coefficients"]

        def term(entry: Mapping[str, str]) -> Term:
            coef = entry.get("coef")
            if entry["dim"] not in dims or (coef is not None and coef not in coefficients):
                raise FormatError(
                    f"term {dict(entry)} names an unknown dimension or coefficient",
                    remedy=f"use {', '.join([*dims, *coefficients])}",
                )
            return Term(entry["dim"], 1 if coef is None else coefficients[coef])

        tensors = tuple(
            TensorSpec(
                name=tensor["name"],
                ranks=tuple(tuple(term(entry) for entry in rank) for rank in tensor["ranks"]),
                read_write=tensor["read_write"],
            )
            for tensor in data["tensors"]
        )
        return cls(bounds=tuple(dims.items()), tensors=tensors)


def layer_tensors(
    stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1)
) -> tuple[TensorSpec, ...]:
    """Weights, Inputs and Outputs of a layer, indexed by the eight dimensions of `LayerShape`."""
    rows = (Term("P", stride[0]), Term("R", dilation[0]))
    columns = (Term("Q", stride[1]), Term("S", dilation[1]))

    def plain(dims: str) -> tuple[tuple[Term, ...], ...]:
        return tuple((Term(dim),) for dim in dims)

    return (
        TensorSpec("Weights", plain("GMCRS")),
        TensorSpec("Inputs", (*plain("GNC"), rows, columns)),
        TensorSpec("Outputs", plain("GNMPQ"), read_write=True),
    )
