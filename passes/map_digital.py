# SPDX-License-Identifier: Apache-2.0
"""Attach the loop nests of layers on digital cores, of whatever kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from enos_compiler.cores.layer_costs import details
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class MapDigital(Pass):
    """Attach to each layer on a digital core the mapping that its cost was computed with."""

    name: ClassVar[str] = "map-digital"
    requires: ClassVar[frozenset[Fact]] = frozenset({"assigned"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"mapped"})

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with a mapping per layer on a digital core."""
        found = details(network, context.target, on_crossbars=False)
        layers = {n: replace(network.layers[n], mapping=detail) for n, detail in found.items()}
        return network.with_layers(layers).with_section(self.name, {"layers": found})
