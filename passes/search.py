# SPDX-License-Identifier: Apache-2.0
"""Search operators and widths per layer while training under an energy budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from enos_compiler.assign.budget import Budget
from enos_compiler.errors import PassError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass

MethodName = Literal["single", "bilevel", "sequential", "variational"]
Order = Literal["energy", "forward", "random"]


@dataclass(frozen=True, slots=True)
class Search(Pass):
    """Train the network and a probability for each choice together; score = -log probability.

    The candidates of a layer run mixed by their probabilities, or one drawn from them; the expected
    energy is held to the budget. The weights and ranges that come out replace the network's.

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
    method: MethodName = "single"
    """How layers draw and train: single, bilevel, sequential or variational."""
    second_order: bool = False
    """Bilevel: follow how the probabilities change the weights' next step."""
    order: Order = "energy"
    """Sequential: layers by energy share, forward or random."""
    front: Annotated[int, Field(ge=0)] = 0
    """Budgets between the floor and all-MAC whose networks are measured; 0 for none."""
    prior: Annotated[float, Field(ge=0)] = 100.0
    """What a noise-to-signal of one at the outputs takes from a log-probability at the start."""
    tilted: bool = True
    """Meet the budget by weighing energies against the logits, not by a term of the loss."""
    noise: bool = True
    """Add what crossbars' converters and devices do to sums while training."""
    samples: Annotated[int, Field(ge=1)] = 8
    """Variational: assignments drawn from the posterior and measured."""
    bf16: bool = False
    """Compute convolutions in bfloat16 while training."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network trained and scored."""
        from enos_compiler.search.methods import MethodOptions
        from enos_compiler.search.run import SearchSettings, search

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
            say=context.log,
            method=self.method,
            method_options=MethodOptions(second_order=self.second_order, order=self.order),
            front=self.front,
            samples=self.samples,
            bf16=self.bf16,
            prior=self.prior,
            tilted=self.tilted,
            noise=self.noise,
        )
        scored, section = search(network, data, context.target, settings)
        return scored.with_section(self.name, section)
