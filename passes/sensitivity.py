# SPDX-License-Identifier: Apache-2.0
"""Score choices by the noise they cause at the network's output, without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Sensitivity(Pass):
    """Score = noise-to-signal of a choice at its layer's output x the layer's gain to the output.

    Choices whose operator needs training are dropped, and said so among the refusals; a layer
    that has no other keeps them, with a warning.
    """

    name: ClassVar[str] = "sensitivity"
    requires: ClassVar[frozenset[Fact]] = frozenset({"calibrated", "choices"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"scored"})

    images: int = 16
    """Most rows of the example inputs that are run; large networks use fewer."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network scored."""
        from enos_compiler.assign.sensitivity import score_layers

        found = score_layers(
            network,
            images=self.images,
            seed=context.seed,
            track=lambda layers: context.track(layers, "scoring"),
            cores=context.target.cores,
        )
        if found.dropped:
            context.say(f"sensitivity: {found.dropped} choices need training and are dropped")
        if found.untrained:
            context.say(
                f"sensitivity: {', '.join(found.untrained)} have only operators that need "
                "training; their scores are guesses, and so will be the accuracy"
            )
        section = {
            "images": found.images,
            "gains": found.gains,
            "dropped_choices": found.dropped,
            "needs_training": list(found.untrained),
        }
        return network.with_layers(found.layers).with_section(self.name, section)
