# SPDX-License-Identifier: Apache-2.0
"""A program with all that its instructions need: it runs without the network and the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from enos_compiler.ir.choice import Choice
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.ir.program import Program
from enos_compiler.ir.shape import LayerShape

Source = Literal["input", "constant", "computed", "copy"]


@dataclass(frozen=True, slots=True)
class StoredValue:
    """What lies in a buffer: codes of a format, or plain integers where there is none."""

    shape: tuple[int, ...]
    source: Source
    format: ValueFormat | None
    """None for indices and for 32-bit sums that leave the network."""
    signed: bool
    """Whether the buffer holds two's complement: sums and indices."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerKernel:
    """What a layer computes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    shape: LayerShape
    choice: Choice
    quantized: QuantizedLayer
    programmed_by: str | None = None
    """The layer whose set-up writes the resident weights; None where they come anew."""
    weights: str | None = None
    """The buffer that weights are loaded from. Kernels hold their integers; its words count."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorKernel:
    """What a vector or host operation computes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    reads: tuple[ValueFormat, ...]
    """Formats in which it reads its operands."""
    writes: ValueFormat
    fetch_bits: int
    """Width at which the lanes fetch codes: that of the widest operand."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Attributes that are tensors."""
    is_view: bool = False
    """Its output lies where its input does; no instruction runs it."""


@dataclass(frozen=True, slots=True, eq=False)
class Executable:
    """A program and the integers that it computes with."""

    name: str
    program: Program
    batch: int
    """Leading extent that one run takes."""
    batch_is_symbolic: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, StoredValue]
    layers: Mapping[str, LayerKernel]
    vectors: Mapping[str, VectorKernel]
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Codes of constant values, by name."""
