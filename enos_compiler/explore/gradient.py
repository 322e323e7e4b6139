# SPDX-License-Identifier: Apache-2.0
"""A front from gradients: one search that trains weights and widths together, cut at many budgets.

The search of `enos_compiler.search` mixes every width of every layer and learns how probable each
is while the expected energy is held to a budget. Its scores are then assigned exactly at budgets
from the cheapest network to the baseline: settings that cost one training in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.explore.plan import Genome, as_genome
from enos_compiler.search.front import SOLVE_S
from enos_compiler.search.run import SearchSettings, search

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.data import Data
    from enos_compiler.ir.network import Network

HELD_TO = "floor+0.5"
"""Budget of the training: halfway from the cheapest network to the baseline."""
LEARNING_RATE = 3e-3
ARCHITECTURE_RATE = 0.1
WARM_UP = 0.25
"""Rates and rest of the pass search."""


@dataclass(frozen=True, slots=True)
class GradientSearch:
    """Options of the search."""

    bits: tuple[int, ...]
    points: int
    """Budgets to assign at."""
    epochs: int
    float_epochs: int | None
    """Beforehand; None: as many as the search where the network has learnt nothing."""
    seed: int
    folder: Path
    """Of its checkpoint, from which an interrupted search goes on."""
    say: Callable[[str], None]


def gradient_front(
    network: Network, data: Data, target: Target, options: GradientSearch
) -> tuple[Genome, ...]:
    """Return distinct settings from the cheapest to the most accurate.

    Raises:
        RefusalError: no core takes a layer.
        FrontendError: there is no train split.
    """
    request = Request(("mac",), options.bits, options.bits, first_last_free=True)
    offered, _ = attach_choices(network, target, request)
    settings = SearchSettings(
        epochs=options.epochs,
        pretrain=options.float_epochs,
        budget=Budget.parse(HELD_TO),
        learning_rate=LEARNING_RATE,
        architecture_rate=ARCHITECTURE_RATE,
        warm_up=WARM_UP,
        seed=options.seed,
        folder=options.folder,
        say=options.say,
    )
    scored, _ = search(offered, data, target, settings)
    budgets = [f"floor+{share:.4g}" for share in np.linspace(0, 1, options.points)]
    found = [_setting(scored, target, Budget.parse(text)) for text in budgets]
    return tuple(dict.fromkeys(found))


def _setting(scored: Network, target: Target, budget: Budget) -> Genome:
    assigned = solve_assignment(scored, target, budget, SOLVE_S).network
    chosen: Sequence[tuple[int, int]] = [
        (layer.choice.bits.input, layer.choice.bits.weight)
        for layer in assigned.layers.values()
        if layer.choice is not None
    ]
    return as_genome(chosen)
