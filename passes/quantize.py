# SPDX-License-Identifier: Apache-2.0
"""Give every value a format and every layer its integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Quantize(Pass):
    """Turn the assigned network into integers: power-of-two formats, weight codes, multipliers.

    Values take the width of their producer, layers the operator and widths of their choice;
    batch norm is folded into mac's weights and joins the multipliers of every other operator.

    Raises:
        PassError: a layer is not assigned, or a parameter is not finite.
    """

    name: ClassVar[str] = "quantize"
    requires: ClassVar[frozenset[Fact]] = frozenset({"calibrated", "assigned"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"quantized"})

    def run(self, network: Network, context: Context) -> Network:  # noqa: ARG002 - contract
        """Return the network with formats and integers attached."""
        from enos_compiler.operators.quantize_network import (
            quantization_summary,
            quantize_network,
        )

        quantized = quantize_network(network)
        return quantized.with_section(self.name, quantization_summary(quantized))
