# SPDX-License-Identifier: Apache-2.0
"""Give each layer the bits of a point that a search of bits and mappings found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

from enos_compiler.errors import UsageError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class AssignBits(Pass):
    """Assign mac to every layer at the bits of a point of `front.json`.

    Where the search kept the network that it measured beside its front, that network's weights and
    ranges are taken.

    Raises:
        UsageError: no file or point is named, or the point is of another network.
        RefusalError: no core takes a layer at these bits.
    """

    name: ClassVar[str] = "assign-bits"
    requires: ClassVar[frozenset[Fact]] = frozenset({"shaped", "calibrated"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"choices", "assigned"})

    file: str = ""
    """Path of `front.json`; blanks and braces as in a URL, %20."""
    point: int = 0
    """Number of the point, as the file has it."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with one priced choice per layer."""
        from enos_compiler.explore.front import read_point
        from enos_compiler.explore.hardware import place
        from enos_compiler.explore.plan import as_genome
        from enos_compiler.explore.point import assigned, with_weights

        if not self.file:
            raise UsageError(
                "no front is named", place="pass assign-bits", remedy="file=front.json"
            )
        chosen = read_point(Path(unquote(self.file)), self.point)
        network = with_weights(network, chosen)
        genome = as_genome(chosen.point.bits[name] for name in network.layers)
        widths = sorted({bits for pair in genome for bits in pair})
        placed = place(network, context.target, widths)
        section = {
            "file": unquote(self.file),
            "point": self.point,
            "searched_on": chosen.point.target,
            "objectives": dict(chosen.point.objectives),
            "tier": chosen.point.tier,
        }
        return assigned(placed, context.target, genome).with_section(self.name, section)
