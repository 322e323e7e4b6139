# SPDX-License-Identifier: Apache-2.0
"""The search: train weights and architecture together, score the choices, draw a front.

A network that has learnt nothing yet is first trained in float. What the methods share is the
supernet, the budget and the data; how they draw and train stands in `methods`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.assign.figures import Rates, figures_of
from enos_compiler.assign.measures import factors
from enos_compiler.assign.sensitivity import score_layers
from enos_compiler.assign.solver import Solver
from enos_compiler.errors import FrontendError
from enos_compiler.ir.network import Network
from enos_compiler.search.architecture import Architecture, SearchedWidths
from enos_compiler.search.budget import Held, Limit
from enos_compiler.search.checkpoint import fingerprint
from enos_compiler.search.energy import expected_energy, unscored
from enos_compiler.search.evaluate import Accuracy, evaluate, fixed_batch, module_predictor
from enos_compiler.search.front import SOLVE_S, draw_front, posterior_samples
from enos_compiler.search.methods import MethodOptions, Variational, make_method
from enos_compiler.search.mixture import CompositeMixture
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.noise import IMAGES, array_noise, standing_noise
from enos_compiler.search.parallel import is_parallel, start
from enos_compiler.search.runlog import RunLog
from enos_compiler.search.train import Settings, Trainer, is_small

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.data import Data

LEAST_HALVED = 16
"""Batches below it are never halved to estimate gradients."""
UNTRAINED = 1.5
"""A network below this multiple of the most frequent answer's share has learnt nothing."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Options of the search; the pass that offers them says what each means."""

    epochs: int
    pretrain: int | None
    budget: Budget
    learning_rate: float
    architecture_rate: float
    warm_up: float
    seed: int
    folder: Path | None
    say: Callable[[str], None]
    method: str = "single"
    method_options: MethodOptions = field(default_factory=MethodOptions)
    front: int = 0
    """Budgets between the floor and the baseline to draw a front of; 0 for none."""
    samples: int = 8
    """Assignments drawn from the posterior of a variational search."""
    bf16: bool = False
    prior: float = 0.0
    """What a noise-to-signal of one at the outputs takes from a choice's log-probability to begin
    with; 0 starts from equal probabilities."""
    tilted: bool = False
    """Meet the budget by weighing energies against the logits, not by a term of the loss."""
    noise: bool = True
    """Add what crossbars do to sums while the supernet trains."""


def search(
    network: Network, data: Data, target: Target, settings: SearchSettings
) -> tuple[Network, dict[str, Any]]:
    """Return the network with trained weights and scores, and what the report says of it.

    A choice's score is -log of the probability of its arithmetic.

    Raises:
        InfeasibleError: the budget is below the cheapest network.
    """
    data = data.for_network(network)
    _check_splits(data)
    start()
    limit = _limit(network, target, settings.budget)
    network, float_section = train_float(network, data, settings)
    architecture = Architecture(network)
    _measure(architecture, network, target, limit, settings)
    items = len(data.dataset("train"))  # type: ignore[arg-type]  # checked above
    options = replace(settings.method_options, seed=settings.seed, items=items)
    method = make_method(settings.method, architecture, limit, settings.warm_up, options)
    method.tilted = settings.tilted
    estimate_signs(architecture, data.batch_size)
    module = NetworkModule(network, architecture.forms(), SearchedWidths(architecture))
    log = RunLog(settings, limit.budget_pj)
    trainer = Trainer(
        module,
        data,
        _phase("search", settings, settings.epochs, network, data),
        method,
        extra=({"params": list(architecture.parameters()), "lr": settings.architecture_rate},),
        on_epoch=lambda record: log.epoch("search", record, trainer.history),
        say=settings.say,
        extra_module=architecture,
    )
    history = trainer.run()
    log.finish(history)
    with torch.no_grad():
        architecture.draw()
    trained = module.write_back()
    layers = {
        name: replace(layer, scores=architecture.scores(layer))
        for name, layer in trained.layers.items()
    }
    scored = trained.with_layers(layers)
    section = {
        "method": settings.method,
        "trained": True,
        "resumed": trainer.resumed,
        "budget_pj": None if limit.budget_pj == inf else limit.budget_pj,
        "float": float_section,
        "epochs": [asdict(record) for record in history],
        "front": draw_front(scored, data, target, settings.front, settings.say),
    }
    if isinstance(method, Variational):
        section["posterior"] = posterior_samples(
            scored, method, data, target, settings.samples, settings.say
        )
    return scored, section


def _measure(
    architecture: Architecture,
    network: Network,
    target: Target,
    limit: Limit,
    settings: SearchSettings,
) -> None:
    """Tell the architecture what choices are expected to do, as far as the settings ask for it."""
    noise: Mapping[str, Sequence[float]] = {}
    if settings.prior:
        found = score_layers(
            network, images=IMAGES, seed=settings.seed, cores=target.cores, training=True
        )
        distortions = {name: layer.scores or () for name, layer in found.layers.items()}
        architecture.expect(distortions, settings.prior)
        noise = found.arrays
    elif settings.noise:
        noise = array_noise(network, target.cores)
    if settings.noise and noise:
        architecture.noise = standing_noise(noise, limit.standing)


def estimate_signs(architecture: Architecture, batch: int) -> None:
    """Let half of each batch estimate the gradients of the sums over signs, if it is large."""
    if batch < LEAST_HALVED or is_parallel():
        return
    for space in architecture.spaces.values():
        if isinstance(space.mixture, CompositeMixture):
            space.mixture.sign_rows = slice(0, batch // 2)


def _check_splits(data: Data) -> None:
    """Refuse a split that is missing or empty before anything is trained."""
    if data.dataset("train") is None:
        raise FrontendError("there is no train split", remedy="give data() a train split")
    data.dataset("validation")


def train_float(
    network: Network, data: Data, settings: SearchSettings
) -> tuple[Network, dict[str, Any]]:
    """Train the network in float where it needs it; return it and the report's words on it.

    Without a number of epochs from the user, a network that knows no more than the most frequent
    answer is trained as long as the search, any other not at all.
    """
    module = NetworkModule(network)
    batch = fixed_batch(network)
    before = evaluate(module_predictor(module), data, "validation", batch=batch)
    epochs = settings.pretrain
    if epochs is None:
        epochs = settings.epochs if before and _untrained(before, data) else 0
    section: dict[str, Any] = {
        "validation_accuracy_before": before.fraction if before else None,
        "resumed": False,
        "epochs": [],
    }
    if not epochs:
        return network, section
    if before:
        settings.say(
            f"search: the network answers {before.fraction:.1%} of the validation set; "
            f"{epochs} epochs in float come first"
        )
    phase = _phase("float", settings, epochs, network, data)
    log = RunLog(settings, inf)
    trainer = Trainer(
        module,
        data,
        phase,
        on_epoch=lambda record: log.epoch("float", record, trainer.history),
        say=settings.say,
    )
    section["epochs"] = [asdict(record) for record in trainer.run()]
    section["resumed"] = trainer.resumed
    tested = evaluate(module_predictor(module), data, "test", batch=batch)
    section["test_accuracy"] = tested.fraction if tested else None
    return module.write_back(), section


def _untrained(before: Accuracy, data: Data) -> bool:
    counts: Counter[int] = Counter()
    for _, targets in data.batches("validation"):
        counts.update(targets.flatten().tolist())
    return before.fraction < UNTRAINED * max(counts.values()) / counts.total()


def _limit(network: Network, target: Target, budget: Budget) -> Limit:
    """Return the budget and the span from the cheapest network to the baseline.

    Raises:
        InfeasibleError: the budget is below the cheapest network; better now than after training.
    """
    found = solve_assignment(unscored(network), target, budget, SOLVE_S).summary
    baseline_pj = float(found["baseline_pj"])
    floor_pj = float(found.get("floor_pj", 0.0))
    allowed_pj = inf if found["budget_pj"] is None else float(found["budget_pj"])
    span_pj = max(baseline_pj - floor_pj, 0.01 * baseline_pj)
    held = _held(network, target, budget.measure, found["measure"]) if "measure" in found else None
    return Limit(expected_energy(network, target), allowed_pj, span_pj, held)


def _held(network: Network, target: Target, measure: str, bounds: Mapping[str, Any]) -> Held | None:
    """Return the figures of a measure other than energy, and the bound on their product."""
    if bounds["allowed"] is None:
        return None
    solver = Solver(unscored(network), target, measure, SOLVE_S)
    chosen_by = figures_of(solver.least(), target).tangent(measure)
    figures = tuple(
        expected_energy(network, target, Rates(**({"energy": 0.0} | {factor: 1.0})), chosen_by)
        for factor in factors(measure)
    )
    span = max(log(bounds["baseline"] / bounds["floor"]), 0.01)
    return Held(figures, log(bounds["allowed"]), span)


def _phase(
    name: str, settings: SearchSettings, epochs: int, network: Network, data: Data
) -> Settings:
    decisive = (
        name,
        epochs,
        settings.learning_rate,
        settings.seed,
        str(settings.budget),
        settings.architecture_rate,
        settings.warm_up,
        settings.method,
        settings.method_options,
        settings.bf16,
        settings.prior,
        settings.tilted,
        settings.noise,
    )
    return Settings(
        name=name,
        epochs=epochs,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        folder=settings.folder,
        fingerprint=fingerprint(network, decisive, data) if settings.folder else "",
        batch=fixed_batch(network),
        single_thread=is_small(network, data),
        bf16=settings.bf16,
    )
