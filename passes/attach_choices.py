# SPDX-License-Identifier: Apache-2.0
"""Attach to each layer the ways to execute it and what each costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from enos_compiler import plugins
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.errors import RefusalError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass

Width = Annotated[int, Field(ge=2, le=8)]


@dataclass(frozen=True, slots=True)
class AttachChoices(Pass):
    """Decide where values rest, and list for each layer every choice with its cost.

    Raises:
        RefusalError: a layer that no core takes, with every core's reason; a float operation
            without --allow-float.
    """

    name: ClassVar[str] = "attach-choices"
    requires: ClassVar[frozenset[Fact]] = frozenset({"shaped", "calibrated"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"choices"})

    operators: tuple[str, ...] = ()
    """Operators to offer, e.g. mac|bw|mf; none given: every registered one."""
    weight_bits: tuple[Width, ...] = (8, 4)
    """Weight widths; an operator that offers only narrower ones takes its widest."""
    activation_bits: tuple[Width, ...] = (8, 4)
    """Widths of values between layers."""
    kernels: tuple[int, ...] = ()
    """Kernel extents beside a convolution's own, e.g. 3|5|7; odd."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with homes on values and priced choices on layers."""
        for vector in network.vectors.values():
            if vector.is_float and not context.allow_float:
                raise RefusalError(
                    f"{vector.op} has no integer form and would run in float on the host",
                    place=f"operation {vector.name}",
                    remedy="--allow-float accepts it, with its tolerance in the report",
                )
        operators = self.operators or plugins.names("operators")
        for operator in operators:
            plugins.entry("operators", operator)
        request = Request(
            operators,
            self.weight_bits,
            self.activation_bits,
            context.first_last_free,
            self.kernels,
        )
        network, summary = attach_choices(
            network, context.target, request, lambda layers: context.track(layers, "pricing")
        )
        for note in summary["notes"]:
            context.say(f"attach-choices: {note}")
        return network.with_section(self.name, summary)
