# SPDX-License-Identifier: Apache-2.0
"""Train the assigned network with the rounding that its integers will have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from enos_compiler.errors import PassError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass

DEFAULT_EPOCHS = 8
"""After a search that trained."""


@dataclass(frozen=True, slots=True)
class Finetune(Pass):
    """Fine-tune weights, normalisations and ranges of the assigned network; keep the best epoch.

    Runs after a search that trained, else only where epochs are asked for.

    Raises:
        PassError: epochs are asked for and there are no training data.
    """

    name: ClassVar[str] = "finetune"
    requires: ClassVar[frozenset[Fact]] = frozenset({"calibrated", "assigned"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"tuned"})

    epochs: int | None = None
    """`none`: 8 after a search that trained, else 0."""
    learning_rate: float = 1e-3
    """At its highest."""
    noise: bool = True
    """Add what crossbars' converters and devices do to sums, in validation too."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with tuned parameters; unchanged where nothing is to be trained."""
        trained = bool(network.sections.get("search", {}).get("trained"))
        epochs = self.epochs if self.epochs is not None else DEFAULT_EPOCHS if trained else 0
        if epochs == 0:
            return network
        data = context.user.data() if context.user else None
        if data is None or data.train is None:
            raise PassError(
                "trains, but there are no training data",
                place="pass finetune",
                remedy="give the model file a data() function, or leave the pass out",
            )
        from enos_compiler.search.noise import chosen_noise
        from enos_compiler.search.tune import TuneSettings, tune

        settings = TuneSettings(
            epochs,
            self.learning_rate,
            context.seed,
            context.work_folder,
            context.log,
            noise=chosen_noise(network, context.target.cores) if self.noise else {},
        )
        tuned, section = tune(network, data, settings)
        return tuned.with_section(self.name, section)
