# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a setting on the user's validation split, in three tiers of effort.

* proxy: calibrated rounding of the shared weights, running statistics and ranges re-estimated;
* qat: some epochs of quantisation-aware training from the shared weights;
* full: as qat, for as long as a final network is trained.

A setting's accuracy depends on the recipe and the bits alone, wherever it is measured: workers read
the network from its folder and the data through the user's own file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from enos_compiler.errors import FrontendError
from enos_compiler.explore.plan import BitPlan, Genome
from enos_compiler.frontend.data import Data
from enos_compiler.frontend.user import load_user_model
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Network
from enos_compiler.ir.serialize import load_network
from enos_compiler.search.evaluate import Accuracy, evaluate, fixed_batch, module_predictor
from enos_compiler.search.tune import TuneSettings, assigned_module, settle, tune
from enos_compiler.semantics.threads import one_thread

TierName = Literal["proxy", "qat", "full"]
LEARNING_RATE = 1e-3
"""Of fine-tuning at its highest, as in the pass finetune."""


@dataclass(frozen=True, slots=True)
class Tier:
    """How an accuracy is found."""

    name: TierName
    epochs: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that measuring an accuracy needs, small enough to send to any worker."""

    network: str
    """Folder of the calibrated network with the shared weights."""
    model: str
    """The user's file, which gives the data."""
    model_args: tuple[tuple[str, str], ...]
    seed: int
    images: int | None
    """Most validation images of the proxy; None: all."""


def measure(recipe: Recipe, tier: Tier, genome: Genome) -> float:
    """Return the share of right answers on the validation split."""
    network, data = _loaded(recipe)
    return measured(network, data, tier, genome, seed=recipe.seed, images=recipe.images).fraction


def measured(
    network: Network, data: Data, tier: Tier, genome: Genome, *, seed: int, images: int | None
) -> Accuracy:
    """Return the right answers among all; the same on any number of threads.

    Raises:
        FrontendError: the validation split is missing, or its targets are no classes.
    """
    bits = with_bits(network, genome)
    data = data.for_network(network)
    batch = fixed_batch(network)
    with one_thread():
        if tier.name == "proxy":
            module = assigned_module(bits)
            settle(module, data, batch)
            limit = images
        else:
            silent: Callable[[str], None] = lambda _text: None  # noqa: E731  # needs a type
            settings = TuneSettings(tier.epochs, LEARNING_RATE, seed, None, silent)
            module = assigned_module(tune(bits, data, settings)[0])
            limit = None
        predict = module_predictor(module)
        found = evaluate(predict, data, "validation", batch=batch, limit=limit)
    if found is None:
        raise FrontendError(
            "accuracy needs a validation split whose targets are class indices",
            place="data()",
            remedy="give data() one, or search --objectives noise,edp",
        )
    return found


def with_bits(network: Network, genome: Genome) -> Network:
    """Return the network assigned to mac at some bits, wherever it runs."""
    layers, vectors = BitPlan(network).bits(genome)
    return network.with_layers(
        {
            name: replace(layer, choice=Choice("", "mac", layers[name]))
            for name, layer in network.layers.items()
        }
    ).with_vectors(
        {name: replace(network.vectors[name], bits=bits) for name, bits in vectors.items()}
    )


@lru_cache(maxsize=1)
def _loaded(recipe: Recipe) -> tuple[Network, Any]:
    """Return a worker's network and data, read once."""
    user = load_user_model(recipe.model, dict(recipe.model_args), seed=recipe.seed)
    data = user.data()
    if data is None:
        raise FrontendError(
            "the model file has no data()", place=recipe.model, remedy="give it one"
        )
    return load_network(Path(recipe.network)), data
