# SPDX-License-Identifier: Apache-2.0
"""Single-level search: weights and architecture parameters descend the same training loss.

The loss is the user's plus an augmented Lagrangian of the expected energy: with the excess
g = (E - budget) / (baseline - floor), it adds rho/2 max(0, g + lambda/rho)^2 - lambda^2/(2 rho),
and lambda follows max(0, lambda + rate g) after each step. Architecture parameters rest over the
first part of the steps, because untrained weights would favour operators that need no training.
A network that has learnt nothing yet is first trained in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.ir.network import Network
from enos_compiler.ir.units import energy_text
from enos_compiler.search.architecture import Architecture, SearchedWidths
from enos_compiler.search.checkpoint import fingerprint
from enos_compiler.search.energy import ExpectedEnergy, expected_energy, unscored
from enos_compiler.search.evaluate import Accuracy, evaluate, module_predictor
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.train import EpochRecord, Objective, Settings, Trainer, is_small

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.data import Data

RHO = 2.0
"""Weight of the quadratic term; lambda alone meets the budget in the end."""
LAMBDA_RATE = 0.2
"""How far lambda moves in one step per unit of excess."""
UNTRAINED = 1.5
"""A network below this multiple of the most frequent answer's share has learnt nothing."""
_SOLVE_S = 60.0


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


class BudgetObjective(Objective):
    """Draws the architecture before each batch and holds its expected energy to a budget."""

    def __init__(
        self,
        architecture: Architecture,
        energy: ExpectedEnergy,
        budget_pj: float,
        span_pj: float,
        warm_up: float,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.energy = energy
        self.budget_pj = budget_pj
        self.span_pj = span_pj
        self.warm_up = warm_up
        self.state = {"lambda": 0.0}
        self._resting = True
        self._excess: float | None = None

    def before_batch(self, progress: float) -> None:
        """Draw probabilities; without gradient while the architecture rests."""
        self._resting = progress < self.warm_up
        with torch.set_grad_enabled(not self._resting):
            self.architecture.draw()

    def penalty(self) -> Tensor | None:
        """Return the augmented Lagrangian of the budget."""
        self._excess = None
        if self._resting or self.budget_pj == float("inf"):
            return None
        excess = (self.energy(self.architecture) - self.budget_pj) / self.span_pj
        self._excess = float(excess.detach())
        multiplier = self.state["lambda"]
        active = torch.clamp(excess + multiplier / RHO, min=0.0)
        total: Tensor = RHO / 2 * active.square() - multiplier**2 / (2 * RHO)
        return total

    def after_batch(self) -> None:
        """Move the multiplier."""
        if self._excess is not None:
            self.state["lambda"] = max(0.0, self.state["lambda"] + LAMBDA_RATE * self._excess)

    def figures(self) -> dict[str, float]:
        """Return the expected energy and the multiplier."""
        with torch.no_grad():
            return {
                "expected_energy_pj": float(self.energy(self.architecture)),
                "lambda": self.state["lambda"],
            }


def search_single(
    network: Network, data: Data, target: Target, settings: SearchSettings
) -> tuple[Network, dict[str, Any]]:
    """Return the network with trained weights and scores, and what the report says of it.

    A choice's score is -log of the probability of its arithmetic.

    Raises:
        InfeasibleError: the budget is below the cheapest network.
    """
    data = data.for_network(network)
    budget_pj, span_pj = _limits(network, target, settings.budget)
    energy = expected_energy(network, target)
    network, float_section = train_float(network, data, settings)
    architecture = Architecture(network)
    objective = BudgetObjective(architecture, energy, budget_pj, span_pj, settings.warm_up)
    module = NetworkModule(network, architecture.forms(), SearchedWidths(architecture))
    trainer = Trainer(
        module,
        data,
        _phase("search", settings, settings.epochs, network, data),
        objective,
        extra=({"params": list(architecture.parameters()), "lr": settings.architecture_rate},),
        on_epoch=_speaker("search", settings, budget_pj),
        say=settings.say,
        extra_module=architecture,
    )
    history = trainer.run()
    with torch.no_grad():
        architecture.draw()
    trained = module.write_back()
    layers = {
        name: replace(layer, scores=architecture.scores(layer))
        for name, layer in trained.layers.items()
    }
    section = {
        "method": "single",
        "trained": True,
        "resumed": trainer.resumed,
        "budget_pj": None if budget_pj == float("inf") else budget_pj,
        "float": float_section,
        "epochs": [asdict(record) for record in history],
    }
    return trained.with_layers(layers), section


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
    trainer = Trainer(module, data, phase, on_epoch=_speaker("float", settings), say=settings.say)
    section["epochs"] = [asdict(record) for record in trainer.run()]
    section["resumed"] = trainer.resumed
    tested = evaluate(module_predictor(module), data, "test", batch=batch)
    section["test_accuracy"] = tested.fraction if tested else None
    return module.write_back(), section


def fixed_batch(network: Network) -> int | None:
    """Return the only batch that a network's shapes allow; None where any will do."""
    return None if network.batch_is_symbolic else network.batch


def _untrained(before: Accuracy, data: Data) -> bool:
    counts: Counter[int] = Counter()
    for _, targets in data.batches("validation"):
        counts.update(targets.flatten().tolist())
    return before.fraction < UNTRAINED * max(counts.values()) / counts.total()


def _limits(network: Network, target: Target, budget: Budget) -> tuple[float, float]:
    """Return the budget and the span from the cheapest network to the baseline, in pJ.

    Raises:
        InfeasibleError: the budget is below the cheapest network; better now than after training.
    """
    found = solve_assignment(unscored(network), target, budget, _SOLVE_S).summary
    baseline_pj = float(found["baseline_pj"])
    floor_pj = float(found.get("floor_pj", 0.0))
    allowed_pj = float("inf") if found["budget_pj"] is None else float(found["budget_pj"])
    return allowed_pj, max(baseline_pj - floor_pj, 0.01 * baseline_pj)


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
    )


def _speaker(
    phase: str, settings: SearchSettings, budget_pj: float = float("inf")
) -> Callable[[EpochRecord], None]:
    def speak(record: EpochRecord) -> None:
        parts = [f"{phase} epoch {record.epoch}: loss {record.loss:.3f}"]
        if record.validation_accuracy is not None:
            parts.append(f"validation accuracy {record.validation_accuracy:.1%}")
        energy_pj = record.figures.get("expected_energy_pj")
        if energy_pj is not None:
            text = f"expected energy {energy_text(energy_pj)}"
            if budget_pj != float("inf"):
                text += f" (budget {energy_text(budget_pj, like=energy_pj)})"
            parts.append(text)
        settings.say(", ".join(parts))

    return speak
