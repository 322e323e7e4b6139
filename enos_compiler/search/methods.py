# SPDX-License-Identifier: Apache-2.0
"""The methods of the search: one supernet, four ways to draw from it and to train it.

| method | what layers compute with | who trains the architecture |
| --- | --- | --- |
| single | the mixture | every batch, together with the weights |
| bilevel | the mixture | batches that the weights never see |
| sequential | one layer the mixture, the others their likeliest choice | every batch |
| variational | one sample a step | every batch, through the sample |

Source: the four names are those of ENOS (arXiv 2104.05217, opening seen); their form is
reconstructed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from enos_compiler.search.architecture import Architecture
from enos_compiler.search.budget import BudgetObjective, Limit
from enos_compiler.search.mixture import CompositeMixture
from enos_compiler.search.train import Trainer

MethodName = Literal["single", "bilevel", "sequential", "variational"]
METHODS: tuple[str, ...] = get_args(MethodName)
Order = Literal["energy", "forward", "random"]

HELD_OUT = 0.3
"""Share of the training items that a bi-level search keeps for the architecture."""
PROBE = 0.01
"""Length of the step in weight space that a second-order gradient is differenced over."""
HOT, COLD = 5.0, 0.5
"""Temperatures of the Gumbel-softmax at the start and at the end, geometric in between."""


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What the methods may be told."""

    seed: int = 0
    second_order: bool = False
    """Bi-level: follow how the architecture changes the weights' next step."""
    order: Order = "energy"
    """Sequential: layers by falling energy share, from input to output, or at random."""
    items: int = 1
    """Training items: the weight of the prior against the data in a variational search."""


class Single(BudgetObjective):
    """Weights and architecture descend the same loss."""


class Bilevel(BudgetObjective):
    """Weights descend the loss of one part of the data, the architecture that of another.

    With `second_order` the architecture's gradient counts that the weights will follow it:
    dL(w', a)/da - rate * d/da dL_train(w, a)/dw . dL(w', a)/dw', the product by a difference.
    Source: DARTS, arXiv 1806.09055 (remembered), equations 7 and 8.
    """

    held_out = HELD_OUT

    def __init__(
        self, architecture: Architecture, limit: Limit, warm_up: float, options: MethodOptions
    ) -> None:
        super().__init__(architecture, limit, warm_up)
        self.second_order = options.second_order

    def step(self, trainer: Trainer, chosen: Sequence[int]) -> float:
        """Train the architecture on a held-out batch, then the weights on this one."""
        if not self.resting:
            aside = trainer.held_out_batch(self.state["step"], len(chosen))
            if self.second_order:
                self._unrolled(trainer, chosen, aside)
            else:
                trainer.backward(aside)
            trainer.advance(weights=False)
            self.architecture.draw()
        loss = trainer.backward(chosen, penalty=False)
        trainer.advance(extra=False)
        return loss

    def _unrolled(self, trainer: Trainer, chosen: Sequence[int], aside: Sequence[int]) -> None:
        """Leave the second-order gradient of the architecture in its parameters."""
        weights = list(trainer.module.parameters())
        rate = trainer.settings.learning_rate
        trainer.backward(chosen, penalty=False)
        start = [w.detach().clone() for w in weights]
        first = [None if w.grad is None else w.grad.clone() for w in weights]
        self._move(weights, start, first, -rate)
        self._redraw()
        trainer.backward(aside)
        outer = [None if p.grad is None else p.grad.clone() for p in self.architecture.parameters()]
        direction = [None if w.grad is None else w.grad.clone() for w in weights]
        norm = sum(float(d.square().sum()) for d in direction if d is not None) ** 0.5
        reach = PROBE / max(norm, 1e-12)
        curved: list[list[Tensor | None]] = []
        drawn = torch.get_rng_state()
        for sign in (1.0, -1.0):
            torch.set_rng_state(drawn)  # the same noise on both sides, so that it cancels
            self._move(weights, start, direction, sign * reach)
            self._redraw()
            trainer.backward(chosen, penalty=False)
            curved.append([p.grad for p in self.architecture.parameters()])
        self._move(weights, start, first, 0.0)
        rows = zip(self.architecture.parameters(), outer, *curved, strict=True)
        for parameter, gradient, above, below in rows:
            parameter.grad = gradient
            if gradient is not None and above is not None and below is not None:
                parameter.grad = gradient - rate * (above - below) / (2 * reach)

    def _redraw(self) -> None:
        self.architecture.draw()
        self.choose()

    @staticmethod
    def _move(
        weights: Sequence[Tensor],
        start: Sequence[Tensor],
        direction: Sequence[Tensor | None],
        length: float,
    ) -> None:
        with torch.no_grad():
            for weight, origin, along in zip(weights, start, direction, strict=True):
                weight.copy_(origin if along is None else origin + length * along)


class Sequential(BudgetObjective):
    """One layer's choice is learnt per step; every other layer runs its likeliest one.

    All layers are visited once per sweep; each sweep orders them afresh.
    """

    def __init__(
        self, architecture: Architecture, limit: Limit, warm_up: float, options: MethodOptions
    ) -> None:
        super().__init__(architecture, limit, warm_up)
        self.order = options.order
        self.seed = options.seed
        self.open = [n for n, space in architecture.spaces.items() if len(space.classes) > 1]
        self.state |= {"sweep": -1, "turns": []}

    def choose(self) -> None:
        """Relax the layer whose turn it is."""
        relaxed = self.architecture.relaxed.probabilities
        now = self._turn()
        self.architecture.compute_with(
            {n: relaxed[n] if n == now else self.architecture.likeliest(n) for n in relaxed}
        )

    def before_evaluation(self) -> None:
        """Run every layer's likeliest choice."""
        _run_likeliest(self.architecture)

    def _turn(self) -> str | None:
        if self.resting or not self.open:
            return None
        sweep, place = divmod(self.state["step"], len(self.open))
        if self.state["sweep"] != sweep:
            self.state |= {"sweep": sweep, "turns": self._ordered(sweep)}
        turn: str = self.state["turns"][place]
        return turn

    def _ordered(self, sweep: int) -> list[str]:
        if self.order == "forward":
            return list(self.open)
        if self.order == "random":
            draws = torch.Generator().manual_seed(self.seed * 1_000_003 + sweep)
            return [self.open[i] for i in torch.randperm(len(self.open), generator=draws)]
        drawn = self.architecture.relaxed.probabilities
        prices = self.limit.energy.class_pj
        share = {n: float((drawn[n].detach() * prices[n]).sum()) for n in self.open}
        return sorted(self.open, key=lambda n: -share[n])


class Variational(BudgetObjective):
    """A posterior over assignments: one Gumbel sample a step, its gradient straight-through.

    The loss per item is CE + (1/N) sum_l KL(q_l || pi_l) with a prior pi ~ exp(-beta energy):
    sum_l KL = -entropy + beta E + constant, so the budget's multiplier stands for beta, and the
    entropy keeps choices open that the data do not decide.
    """

    def __init__(
        self, architecture: Architecture, limit: Limit, warm_up: float, options: MethodOptions
    ) -> None:
        super().__init__(architecture, limit, warm_up)
        self.seed = options.seed
        self.weight = 1 / options.items
        for space in architecture.spaces.values():
            if isinstance(space.mixture, CompositeMixture):
                space.mixture.probe_signs = True

    def choose(self) -> None:
        """Draw one class per layer."""
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + self.state["step"])
        heat = HOT * (COLD / HOT) ** self.searched
        sampled = {}
        odds = self.architecture.relaxed.probabilities
        for name, shares in odds.items():
            uniform = torch.rand(len(shares), generator=draws).clamp_min_(1e-20)
            logits = shares.clamp_min(1e-20).log() - (-uniform.log()).log()
            soft = torch.softmax(logits / heat, 0)
            hard = torch.nn.functional.one_hot(logits.detach().argmax(), len(shares))
            sampled[name] = hard + (soft - soft.detach())
        self.architecture.compute_with(sampled, {name: q.detach() for name, q in odds.items()})

    def penalty(self) -> Tensor | None:
        """Return the divergence from the prior: the budget's part and the entropy's."""
        held = super().penalty()
        if self.resting:
            return None
        shares = self.architecture.relaxed.probabilities.values()
        tiny = torch.finfo(torch.float32).tiny  # the slope at 0 is infinite
        kept = [p.clamp_min(tiny) for p in shares]
        entropy = torch.stack([torch.special.entr(p).sum() for p in kept]).sum()
        return -self.weight * entropy if held is None else held - self.weight * entropy

    def before_evaluation(self) -> None:
        """Run every layer's likeliest choice."""
        _run_likeliest(self.architecture)

    def sample(self, number: int) -> dict[str, Tensor]:
        """Return one assignment drawn from the posterior, as one-hot probabilities by layer."""
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 - 1 - number)
        found = {}
        for name, shares in self.architecture.relaxed.probabilities.items():
            row = torch.multinomial(shares.detach(), 1, generator=draws)[0]
            found[name] = torch.nn.functional.one_hot(row, len(shares)).float()
        return found


def make_method(
    name: str, architecture: Architecture, limit: Limit, warm_up: float, options: MethodOptions
) -> BudgetObjective:
    """Return the objective of a method by name."""
    if name == "single":
        return Single(architecture, limit, warm_up)
    kinds = {"bilevel": Bilevel, "sequential": Sequential, "variational": Variational}
    return kinds[name](architecture, limit, warm_up, options)


def _run_likeliest(architecture: Architecture) -> None:
    with torch.no_grad():
        architecture.compute_with({n: architecture.likeliest(n) for n in architecture.spaces})
