# SPDX-License-Identifier: Apache-2.0
"""Give every value a format and every layer its integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from enos_compiler.errors import UsageError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Quantize(Pass):
    """Turn the assigned network into integers: power-of-two formats, weight codes, multipliers.

    Values take the width of their producer, layers the operator and widths of their choice;
    batch norm is folded into mac's weights and joins the multipliers of every other operator.
    Layers on crossbars whose converters change their sums carry what the converters do.

    Raises:
        PassError: a layer is not assigned, or a parameter is not finite.
    """

    name: ClassVar[str] = "quantize"
    requires: ClassVar[frozenset[Fact]] = frozenset({"calibrated", "assigned"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"quantized"})

    images: int = 0
    """Training images that set converters' ranges where the user gives data; 0: example inputs."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with formats and integers attached."""
        from enos_compiler.cores.layer_costs import arrays_of, samplers_of
        from enos_compiler.evaluate.converters import with_converters
        from enos_compiler.evaluate.samplers import sampler_figures
        from enos_compiler.frontend.calibrate import real_inputs
        from enos_compiler.operators.quantize_network import (
            quantization_summary,
            quantize_network,
        )

        if self.images < 0:
            raise UsageError(f"quantize{{images={self.images}}} is negative", remedy="images=0")
        samplers = samplers_of(network, context.target, context.seed)
        quantized = quantize_network(network, samplers)
        arrays = arrays_of(quantized, context.target)
        converters: dict[str, object] = {}
        if arrays:
            inputs = real_inputs(quantized, context.user, self.images)
            quantized, converters = with_converters(quantized, arrays, inputs)
        summary = {**quantization_summary(quantized), "converters": converters}
        quantized = quantized.with_section(self.name, summary)
        if samplers:
            rows = real_inputs(quantized, context.user, self.images)
            figures = sampler_figures(quantized, context.target, rows, context.seed)
            quantized = quantized.with_section("sample", figures)
        return quantized
