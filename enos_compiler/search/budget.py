# SPDX-License-Identifier: Apache-2.0
"""The budget of a search, met outside the loss or by a term of it.

Outside the loss (`tilted`, the default of the pass): probabilities are those of the logits less
tilt x energy, with the least tilt that brings the expected energy to the budget. The logits then
learn what choices do to the loss alone, and the assignment counts energies once, exactly.

In the loss, an augmented Lagrangian of the expected cost: with the excess g = (E - budget) /
(baseline - floor), in logarithms where it is a product of figures, it adds rho/2 max(0, g +
lambda/rho)^2 - lambda^2/(2 rho), and lambda follows max(0, lambda + rate g) after each step.

Architecture parameters rest over the first part of the steps, because untrained weights would
favour operators that need no training.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log

import torch
from torch import Tensor

from enos_compiler.search.architecture import Architecture, Drawing
from enos_compiler.search.energy import ExpectedEnergy
from enos_compiler.search.train import Objective

RHO = 2.0
"""Weight of the quadratic term; lambda alone meets the budget in the end."""
LAMBDA_RATE = 0.2
"""How far lambda moves in one step per unit of excess."""
RETILTED = 20
"""Steps between two solutions for the tilt."""
TILT_MOST = 1e5
"""Greatest tilt, where the cheapest class of every layer is all but certain."""
BISECTIONS = 40
"""Halvings of the tilt."""
SHOWN_SHARE = 0.005
"""Least probability that an epoch's record keeps."""


@dataclass(frozen=True, slots=True)
class Held:
    """A figure or a product of figures that is held to a budget, in logarithms.

    The product of expected figures stands for the expected product: between independent layers they
    differ by covariances alone, and the assignment holds the product itself.
    """

    figures: tuple[ExpectedEnergy, ...]
    log_budget: float
    log_span: float
    """From the cheapest network to the baseline."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What the expected energy is held to."""

    energy: ExpectedEnergy
    budget_pj: float
    """Infinite for none."""
    span_pj: float
    """From the cheapest network to the baseline: the unit of an excess."""
    held: Held | None = None
    """What is bound instead of the energy."""

    @property
    def standing(self) -> dict[str, tuple[int, ...]]:
        """The row of the choice that stands for each class of each layer."""
        return self.energy.standing if self.held is None else self.held.figures[0].standing

    def class_prices(self) -> dict[str, Tensor]:
        """Return what each class of each layer adds to an excess, by layer."""
        if self.held is None:
            return {n: pj / self.span_pj for n, pj in self.energy.class_pj.items()}
        scales = [sum(float(p.min()) for p in f.class_pj.values()) for f in self.held.figures]
        pairs = list(zip(self.held.figures, scales, strict=True))
        return {
            name: sum((f.class_pj[name] / scale for f, scale in pairs), start=torch.tensor(0.0))
            / self.held.log_span
            for name in self.energy.class_pj
        }

    def excess(self, drawing: Drawing) -> Tensor | None:
        """Return how far the expected cost is above the budget, in spans; None without one."""
        if self.held is not None:
            logarithms = [figure(drawing).log() for figure in self.held.figures]
            return (torch.stack(logarithms).sum() - self.held.log_budget) / self.held.log_span
        if self.budget_pj == inf:
            return None
        return (self.energy(drawing) - self.budget_pj) / self.span_pj


class BudgetObjective(Objective):
    """Draws the architecture before each batch and holds its expected energy to a budget.

    Args:
        architecture: what is searched.
        limit: what the expected energy is held to.
        warm_up: share of the steps in which the architecture rests.
    """

    tilted: bool = False
    """Meet the budget by weighing energies against the logits, not by a term of the loss."""

    def __init__(self, architecture: Architecture, limit: Limit, warm_up: float) -> None:
        super().__init__()
        self.architecture = architecture
        self.limit = limit
        self.warm_up = warm_up
        self.state = {"lambda": 0.0, "step": 0}
        self.progress = 0.0
        self._excess: float | None = None
        self._weighed = False

    @property
    def resting(self) -> bool:
        """Whether the architecture is not trained yet."""
        return self.progress < self.warm_up

    @property
    def searched(self) -> float:
        """Progress of the search itself, 0..1, after the warm-up."""
        return max(0.0, (self.progress - self.warm_up) / max(1e-9, 1 - self.warm_up))

    def before_batch(self, progress: float) -> None:
        """Draw probabilities; without gradient while the architecture rests."""
        self.progress = progress
        if self.tilted and not self.resting:
            if self.state["step"] % RETILTED == 0:
                self._tilt()
            elif not self._weighed:
                self._weigh(self.state["lambda"])
        with torch.set_grad_enabled(not self.resting):
            self.architecture.draw()
            self.choose()

    def _tilt(self) -> None:
        """Weigh energies against the logits as much as the budget asks: tilt by bisection."""
        with torch.no_grad():
            low, high = 0.0, TILT_MOST
            if self._over(low):
                for _ in range(BISECTIONS):
                    middle = (low + high) / 2
                    low, high = (middle, high) if self._over(middle) else (low, middle)
            else:
                high = 0.0
            self.state["lambda"] = high
            self._weigh(high)

    def _over(self, tilt: float) -> bool:
        self._weigh(tilt)
        excess = self.limit.excess(self.architecture.relaxed)
        return excess is not None and float(excess) > 0

    def _weigh(self, tilt: float) -> None:
        """Weigh `tilt` x price against each class; a price of one is the span of the budget."""
        self._weighed = True
        self.architecture.weigh(
            {name: tilt * price for name, price in self.limit.class_prices().items()}
        )

    def choose(self) -> None:
        """Say what the layers compute with; by default the probabilities themselves."""

    def penalty(self) -> Tensor | None:
        """Return the augmented Lagrangian of the budget."""
        self._excess = None
        excess = None if self.resting else self.limit.excess(self.architecture.relaxed)
        if excess is None or self.tilted:
            return None
        self._excess = float(excess.detach())
        multiplier = self.state["lambda"]
        active = torch.clamp(excess + multiplier / RHO, min=0.0)
        total: Tensor = RHO / 2 * active.square() - multiplier**2 / (2 * RHO)
        return total

    def after_batch(self) -> None:
        """Move the multiplier."""
        self.state["step"] += 1
        if self._excess is not None:
            self.state["lambda"] = max(0.0, self.state["lambda"] + LAMBDA_RATE * self._excess)

    def figures(self) -> dict[str, float]:
        """Return the expected energy, the multiplier and the mean entropy of the choices."""
        with torch.no_grad():
            return {
                "expected_energy_pj": float(self.limit.energy(self.architecture.relaxed)),
                "lambda": self.state["lambda"],
                "entropy": mean_entropy(self.architecture),
            }

    def shares(self) -> dict[str, dict[str, float]]:
        """Return the probabilities of each layer's arithmetics, the negligible ones left out."""
        found: dict[str, dict[str, float]] = {}
        for name, space in self.architecture.spaces.items():
            row: dict[str, float] = {}
            drawn = self.architecture.relaxed.probabilities[name].tolist()
            for one, share in zip(space.classes, drawn, strict=True):
                label = f"{one.operator} {one.bits.input}/{one.bits.weight} {one.core}"
                label += f" {one.kernel}x{one.kernel}" if one.kernel else ""
                row[label] = row.get(label, 0.0) + share
            if len(row) > 1:
                found[name] = {k: round(v, 4) for k, v in row.items() if v >= SHOWN_SHARE}
        return found


def mean_entropy(architecture: Architecture) -> float:
    """Return the mean entropy of the layers with a choice, as a share of the greatest, 0..1."""
    shares = [p for p in architecture.relaxed.probabilities.values() if len(p) > 1]
    if not shares:
        return 0.0
    whole = [float(torch.special.entr(p.detach()).sum()) / log(len(p)) for p in shares]
    return sum(whole) / len(whole)
