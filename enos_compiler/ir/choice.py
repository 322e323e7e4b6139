# SPDX-License-Identifier: Apache-2.0
"""Ways to execute a layer, and the reasons why a way is closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Bits(NamedTuple):
    """Operand widths of one layer execution: input codes, weights, output codes."""

    input: int
    weight: int
    output: int

    def __str__(self) -> str:
        return f"{self.input}/{self.weight}/{self.output}"


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """One way to execute one layer."""

    core: str
    """Name of the core in the target."""
    operator: str
    """Name of the operator, e.g. `mac`."""
    bits: Bits
    options: tuple[tuple[str, int], ...] = ()
    """The core's own options, sorted by name: crossbar size, kernel size, ADC bits."""

    def __str__(self) -> str:
        tail = "".join(f" {name}={value}" for name, value in self.options)
        return f"{self.operator}@{self.core} {self.bits}{tail}"

    @property
    def edge_class(self) -> tuple[str, int, int]:
        """What an edge's cost depends on: core, input bits, output bits."""
        return (self.core, self.bits.input, self.bits.output)

    @property
    def tied_fields(self) -> tuple[str, str, int, tuple[tuple[str, int], ...]]:
        """Fields on which layers that share weights must agree."""
        return (self.core, self.operator, self.bits.weight, self.options)


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """Why a core does not take a layer with an operator."""

    core: str
    operator: str
    reason: str
