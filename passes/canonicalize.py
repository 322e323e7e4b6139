# SPDX-License-Identifier: Apache-2.0
"""Lower the traced model to the closed set of canonical operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from enos_compiler.errors import FrontendError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True, slots=True)
class Canonicalize(Pass):
    """Lower every operation to a closed set; fuse norms and clamps; find layers and values.

    Raises:
        FrontendError: an operation has no canonical form, or none in integers and float islands
            are not allowed; names the user's line.
    """

    name: ClassVar[str] = "canonicalize"
    requires: ClassVar[frozenset[Fact]] = frozenset()
    ensures: ClassVar[frozenset[Fact]] = frozenset({"shaped"})

    def run(self, network: Network, context: Context) -> Network:
        """Return the canonical network."""
        from enos_compiler.frontend.canonical import lower

        if network.facts:
            return network
        lowered = lower(network)
        islands = [vector for vector in lowered.vectors.values() if vector.is_float]
        if islands and not context.allow_float:
            first = islands[0]
            others = f", and {len(islands) - 1} more" if len(islands) > 1 else ""
            module = f" (module {first.origin})" if first.origin else ""
            raise FrontendError(
                f"`{first.op}` has no integer form{module}{others}",
                place=_node(lowered, first.name).meta.get("place"),
                remedy="--allow-float, which leaves it to the host in floating point",
            )
        return lowered


def _node(network: Network, name: str) -> fx.Node:
    """Return the graph node of that name."""
    found: fx.Node = next(node for node in network.graph.graph.nodes if node.name == name)
    return found
