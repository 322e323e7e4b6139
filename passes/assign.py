# SPDX-License-Identifier: Apache-2.0
"""Choose one execution for each layer under a budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.errors import PassError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Assign(Pass):
    """Give each layer the choice with the least total score that the budget allows.

    The solution is optimal over the attached choices, but for products of figures (edp, edap),
    where it is the best that tangents reach; the floor, the baseline, the price and the gap are
    recorded in the report. `budget=baseline` needs no scores.

    Raises:
        InfeasibleError: no assignment meets the budget; names the floor and what makes it up.
    """

    name: ClassVar[str] = "assign"
    requires: ClassVar[frozenset[Fact]] = frozenset({"choices"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"assigned"})

    budget: Budget = field(default_factory=lambda: Budget.parse("floor+0.5"))
    """Energy per inference: 0.6 of the baseline, floor+0.5, 12.5uJ, unlimited or baseline; or
    another figure, as in edap:0.6."""
    time_limit_s: float = 60.0
    """Processor time for each solve, the same on a machine with other work; on expiry the best
    found is kept with its gap."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with a choice per layer and a width per vector operation."""
        if self.budget.kind != "baseline" and "scored" not in network.facts:
            raise PassError(
                "requires scores, which no earlier pass has given",
                place="pass assign",
                remedy="run search or sensitivity before it, or assign{budget=baseline}",
            )
        found = solve_assignment(network, context.target, self.budget, self.time_limit_s)
        for note in found.summary["notes"]:
            context.say(f"assign: {note}")
        return found.network.with_section(self.name, found.summary)
