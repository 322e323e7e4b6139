# SPDX-License-Identifier: Apache-2.0
"""Give the arrays left over to the layers that hold up a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from enos_compiler.assign.replicas import replicated
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Replicate(Pass):
    """Copy weights on crossbars so that a stream of inferences passes at the shortest interval.

    Copies are taken from those that a core offers (`copies:` in the target's file); arrays and the
    budget of `assign` bind. It trades energy for throughput, so no pipeline runs it unasked.
    """

    name: ClassVar[str] = "replicate"
    requires: ClassVar[frozenset[Fact]] = frozenset({"assigned"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"assigned"})

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with other copies of some layers' weights."""
        found = network.sections.get("assign", {})
        budget = found.get("measure", {"name": "energy", "allowed": found.get("budget_pj")})
        changed, summary = replicated(network, context.target, budget["name"], budget["allowed"])
        if not summary["balanced"]:
            context.say("replicate: the layers fill all arrays or the budget: copies stay")
        return changed.with_section(self.name, summary)
