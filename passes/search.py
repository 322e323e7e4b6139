# SPDX-License-Identifier: Apache-2.0
"""Search operators and widths per layer while training under an energy budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from enos_compiler.assign.budget import Budget
from enos_compiler.errors import PassError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Search(Pass):
    """Train the network and a probability for each choice together; score = -log probability.

    All candidates of a layer run mixed by their probabilities; the expected energy is held to the
    budget. The weights and ranges that come out replace the network's.

    Raises:
        PassError: there are no training data.
    """

    name: ClassVar[str] = "search"
    requires: ClassVar[frozenset[Fact]] = frozenset({"calibrated", "choices"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"scored"})

    epochs: int = 8
    """Epochs of the search."""
    budget: Budget = field(default_factory=lambda: Budget.parse("floor+0.5"))
    """Energy that the expected energy is held to; forms as in assign."""
    pretrain: int | None = None
    """Epochs in float beforehand; `none`: as many as the search if the network is untrained."""
    learning_rate: float = 3e-3
    """Of the weights, at its highest."""
    architecture_rate: float = 0.1
    """Learning rate of the architecture parameters."""
    warm_up: float = 0.25
    """Share of the steps in which the probabilities rest, 0..1."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network trained and scored."""
        from enos_compiler.search.single import SearchSettings, search_single

        data = context.user.data() if context.user else None
        if data is None or data.train is None:
            raise PassError(
                "trains, but there are no training data",
                place="pass search",
                remedy="give the model file a data() function, or use sensitivity",
            )
        settings = SearchSettings(
            epochs=self.epochs,
            pretrain=self.pretrain,
            budget=self.budget,
            learning_rate=self.learning_rate,
            architecture_rate=self.architecture_rate,
            warm_up=self.warm_up,
            seed=context.seed,
            folder=context.work_folder,
            say=context.say,
        )
        scored, section = search_single(network, data, context.target, settings)
        return scored.with_section(self.name, section)
