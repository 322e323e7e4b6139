# SPDX-License-Identifier: Apache-2.0
"""The contract of a vector operation: float meaning, integers, work and ONNX form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from enos_compiler.ir.formats import IntArray, ValueFormat

INDEX_FORMAT = ValueFormat(exponent=0, zero_point=0, bits=8)
"""How an operand of plain integers (token ids), which carries no format, is described to an op."""

if TYPE_CHECKING:
    from onnx import NodeProto

    from enos_compiler.semantics.onnx_builder import OnnxBuilder


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFunction:
    """A local function of domain `enos` and the tensors and attributes of one call.

    Its formal inputs are the layer's input codes (uint8), then `tensors` in order. Its output is
    the layer's `total` (see QuantizedLayer): float32 where |total| < 2**24, else double.
    Codes and total have the layer's own rank: 1-D convolutions 3, linear layers any.
    """

    name: str
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    output: str
    tensors: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()
    """Those of `tensors` that whoever runs the file may replace: they become graph inputs."""
    attributes: Mapping[str, Any] = field(default_factory=dict)


class VectorOp(Protocol):
    """One operation that is not a layer; built-in ones and a stranger's alike.

    A stranger's class inherits from it for the defaults and registers itself under the
    entry point group `enos_compiler.vector_ops`.
    """

    name: ClassVar[str]
    function: ClassVar[Callable[..., Any]]
    """The canonical function that fx nodes call; its torch body is the float meaning.

    `enos_compiler.ir.ops.recordable` lets the frontend see calls of it in a user's model.
    """
    keeps_format: ClassVar[bool] = False
    """Moves or selects codes: the output has the input's scale, zero point and width."""
    asks_output_width: ClassVar[bool] = False
    """Reads its inputs at most at the width that it produces; others read any stored width."""
    is_float: ClassVar[bool] = False
    """Has no integer form: a float island under `--allow-float`."""
    parameters: ClassVar[tuple[str, ...]] = ()
    """Attributes that name a parameter tensor; the methods get it as float64 array or None."""

    def integers(
        self,
        codes: tuple[IntArray, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> IntArray:
        """Return output codes, int64, for input codes of the given formats."""

    def lane_operations(
        self,
        input_shapes: tuple[tuple[int, ...], ...],
        output_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """Return how many lane operations of which kind: add, multiply, compare, lookup, move."""

    def onnx(
        self,
        builder: OnnxBuilder,
        inputs: tuple[str, ...],
        formats: tuple[ValueFormat, ...],
        output: ValueFormat,
        attributes: Mapping[str, Any],
    ) -> str:
        """Add nodes that turn code tensors (uint8) into output codes; return their name."""
