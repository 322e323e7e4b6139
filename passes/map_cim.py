# SPDX-License-Identifier: Apache-2.0
"""Attach the crossbar placements of layers on compute-in-memory cores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from enos_compiler.cores.crossbar_map import crossbar_map
from enos_compiler.cores.layer_costs import details
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class MapCim(Pass):
    """Attach to each layer on a crossbar core the placement that its cost was computed with."""

    name: ClassVar[str] = "map-cim"
    requires: ClassVar[frozenset[Fact]] = frozenset({"assigned"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"placed"})

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with a placement per layer on a crossbar core."""
        found = details(network, context.target, on_crossbars=True)
        layers = {n: replace(network.layers[n], placement=detail) for n, detail in found.items()}
        section = {"layers": found, "crossbars": crossbar_map(network, context.target, found)}
        return network.with_layers(layers).with_section(self.name, section)
