# SPDX-License-Identifier: Apache-2.0
"""The training loop of every phase: float, search, fine-tuning.

The same seed gives the same numbers: batches are drawn from a generator of their own, everything
else from PyTorch's, which is put back as it was afterwards. Learning rates rise over the first
twentieth of the steps and then fall along a half cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from enos_compiler.errors import FormatError, FrontendError
from enos_compiler.frontend.place import place_of_error
from enos_compiler.search.checkpoint import (
    Checkpoint,
    load,
    optimiser_tensors,
    restore_optimiser,
    save,
    set_aside,
)
from enos_compiler.search.evaluate import evaluate, module_predictor
from enos_compiler.search.parallel import average_gradients, is_first, mean_of, share_of
from enos_compiler.semantics.threads import one_thread

if TYPE_CHECKING:
    from enos_compiler.frontend.data import Data
    from enos_compiler.ir.network import Network

WARM_UP = 0.05
"""Share of the steps over which learning rates rise."""
SMALL_BATCH_MACS = 1e9
"""Below it a batch is trained on one thread; the numbers then do not depend on their count."""
MAX_NORM = 5.0
"""Gradients of weights are clipped to this norm."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch came to."""

    epoch: int
    loss: float
    validation_accuracy: float | None
    figures: dict[str, float] = field(default_factory=dict)
    """What the objective adds, e.g. the expected energy."""
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each layer's choice stood at: probability by arithmetic."""


class Objective:
    """What a phase adds to the loss; the default adds nothing.

    `parameters` are its own, trained at their own rate; `state` must be JSON-able.
    """

    state: dict[str, Any]
    held_out: float = 0.0
    """Share of the training items that only the objective's own steps see."""

    def __init__(self) -> None:
        self.state = {}

    def step(self, trainer: Trainer, chosen: Sequence[int]) -> float:
        """Train on one batch of the training split; return its loss."""
        loss = trainer.backward(chosen)
        trainer.advance()
        return loss

    def before_evaluation(self) -> None:
        """Prepare a measurement of the network as it stands."""

    def before_batch(self, progress: float) -> None:
        """Prepare a step; `progress` runs from 0 to 1 over the training."""

    def penalty(self) -> Tensor | None:
        """Return what is added to the loss of a batch."""
        return None

    def after_batch(self) -> None:
        """Follow a step."""

    def figures(self) -> dict[str, float]:
        """Return what an epoch's record should show."""
        return {}

    def shares(self) -> dict[str, dict[str, float]]:
        """Return what each layer's choice stands at."""
        return {}


@dataclass(frozen=True, slots=True)
class Settings:
    """How one phase trains."""

    name: str
    epochs: int
    learning_rate: float
    seed: int
    folder: Path | None = None
    """Where its checkpoint lives; None for none."""
    fingerprint: str = ""
    keep_best: bool = False
    """End with the parameters of the epoch of best validation accuracy."""
    batch: int | None = None
    """Extent that every batch must have; None for any."""
    single_thread: bool = False
    """Train on one thread: where layers are small, threads wait longer than they work."""
    bf16: bool = False
    """Compute convolutions and matrix products in bfloat16, sums in float32."""


@dataclass(slots=True)
class Trainer:
    """Trains a module on a user's data for some epochs.

    Args:
        module: what is trained.
        data: its train split, batch size and loss are used; validation where there is one.
        settings: how.
        objective: what is added to the loss.
        extra: parameter groups beside the module's, in the optimiser's form.
        on_epoch: called after each epoch.
        say: progress in words, for a person.
    """

    module: nn.Module
    data: Data
    settings: Settings
    objective: Objective = field(default_factory=Objective)
    extra: tuple[dict[str, Any], ...] = ()
    on_epoch: Callable[[EpochRecord], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None
    extra_module: nn.Module | None = None
    """Holds the parameters of `extra`; saved with the module."""
    history: list[EpochRecord] = field(default_factory=list)
    resumed: bool = False
    """Whether epochs were taken from a checkpoint."""
    _optimiser: torch.optim.Optimizer | None = None
    _held: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    """Indices of the training split that are trained on, and those that are held out."""

    def run(self) -> list[EpochRecord]:
        """Train to the end, from the checkpoint where there is one; return all epochs' records."""
        with (
            one_thread(wanted=self.settings.single_thread),
            torch.random.fork_rng(devices=[]),
        ):
            torch.manual_seed(self.settings.seed)
            self._run()
        return self.history

    def _run(self) -> None:
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed)
        weights = [p for p in self.module.parameters() if p.requires_grad]
        rate = settings.learning_rate
        optimiser = torch.optim.Adam([{"params": weights, "lr": rate}, *self.extra])
        rates = [float(group["lr"]) for group in optimiser.param_groups]
        best: dict[str, Tensor] = {}
        self._optimiser = optimiser
        self._divide()
        self._resume(optimiser, generator, best)
        for epoch in range(len(self.history), settings.epochs):
            record = self._epoch(epoch, optimiser, rates, generator)
            if settings.keep_best and self._is_best(record):
                best.update((n, t.clone()) for n, t in self.module.state_dict().items())
            self.history.append(record)
            if is_first():
                self._save(optimiser, generator, best)
                self.on_epoch(record)
        if best:
            self.module.load_state_dict(best)
        self.module.eval()

    def _divide(self) -> None:
        """Set the items aside that only the objective sees, in an order that the seed decides."""
        dataset = self.data.dataset("train")
        if dataset is None:
            raise FrontendError("there is no train split", remedy="give data() a train split")
        draws = torch.Generator().manual_seed(self.settings.seed)
        order = torch.randperm(len(dataset), generator=draws).tolist()
        aside = round(self.objective.held_out * len(order))
        self._held = (sorted(order[aside:]), sorted(order[:aside]))

    def _epoch(
        self,
        epoch: int,
        optimiser: torch.optim.Optimizer,
        rates: list[float],
        generator: torch.Generator,
    ) -> EpochRecord:
        self.module.train()
        losses: list[float] = []
        batches = list(self._batches(generator))
        steps = len(batches)
        for step, chosen in enumerate(batches):
            progress = (epoch + step / steps) / self.settings.epochs
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * _factor(progress)
            self.objective.before_batch(progress)
            losses.append(self.objective.step(self, chosen))
            self.objective.after_batch()
        self.objective.before_batch((epoch + 1) / self.settings.epochs)
        self.objective.before_evaluation()
        predictor = module_predictor(self.module)
        found = evaluate(predictor, self.data, "validation", batch=self.settings.batch)
        return EpochRecord(
            epoch=epoch + 1,
            loss=sum(losses) / len(losses),
            validation_accuracy=None if found is None else found.fraction,
            figures=self.objective.figures(),
            shares=self.objective.shares(),
        )

    def held_out_batch(self, number: int, size: int) -> list[int]:
        """Return the `number`-th batch of the items that are held out, in their own order."""
        aside = self._held[1]
        start = number * size % max(1, len(aside) - size + 1)
        return aside[start : start + size]

    def backward(self, chosen: Sequence[int], *, penalty: bool = True) -> float:
        """Leave the gradients of a batch's loss in the parameters; return the loss.

        Args:
            chosen: indices of the training split.
            penalty: add the objective's.

        Raises:
            FrontendError: the loss is not finite; names the first layer that is not.
        """
        mine = share_of(list(chosen))
        ((inputs, targets),) = self.data.batches("train", indices=mine, batch_size=len(mine))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            outputs = self.module(inputs)
        outputs = (outputs if isinstance(outputs, Tensor) else outputs[0]).float()
        loss = self._loss(outputs, targets)
        value = mean_of(float(loss.detach()))
        if not math.isfinite(value):
            raise self._not_finite(value, inputs)
        extra = self.objective.penalty() if penalty else None
        for parameter in self._parameters():
            parameter.grad = None
        (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]
        average_gradients(self._parameters())
        return value

    def advance(self, *, weights: bool = True, extra: bool = True) -> None:
        """Let the optimiser follow the gradients of the module, of the extra groups, or of both."""
        if self._optimiser is None:
            raise ValueError("nothing is trained outside run()")
        for wanted, parameters in (
            (weights, self.module.parameters()),
            (extra, self.extra_module.parameters() if self.extra_module else ()),
        ):
            if not wanted:
                for parameter in parameters:
                    parameter.grad = None
        nn.utils.clip_grad_norm_(self.module.parameters(), MAX_NORM)
        self._optimiser.step()

    def _parameters(self) -> list[nn.Parameter]:
        extra = self.extra_module.parameters() if self.extra_module else ()
        return [*self.module.parameters(), *extra]

    def _not_finite(self, value: float, inputs: Tensor) -> FrontendError:
        """Return the error of a loss that is no number, with the layer where it began."""
        from enos_compiler.search.module import NetworkModule

        layer = None
        if isinstance(self.module, NetworkModule):
            with torch.no_grad():
                layer = self.module.first_not_finite(inputs)
        path = self._path()
        kept = f"; the last good state is in {path}" if path and path.is_file() else ""
        return FrontendError(
            f"the training loss became {value}"
            + (f", first not finite at layer {layer}" if layer else ", though the outputs are not"),
            place=f"phase {self.settings.name}, epoch {len(self.history) + 1}",
            remedy="check the training data and the loss; scale the inputs to about -1..1, or "
            f"lower the learning rate{kept}",
        )

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the user's loss of a batch, or cross entropy.

        Raises:
            FrontendError: the user's function raises, or returns something else than a scalar.
        """
        if self.data.loss is None:
            whole = targets if targets.is_floating_point() else targets.long()
            return nn.functional.cross_entropy(outputs, whole)
        shapes = f"an output of shape {tuple(outputs.shape)}, a target of {tuple(targets.shape)}"
        try:
            loss = self.data.loss(outputs, targets)
        except Exception as error:
            raise FrontendError(
                f"the loss raised {type(error).__name__}: {error}",
                place=place_of_error(error),
                remedy=f"call it by itself on {shapes}",
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = getattr(loss, "shape", None)
            found = type(loss).__name__ if shape is None else f"shape {tuple(shape)}"
            raise FrontendError(
                f"the loss returned {found}, not a scalar tensor",
                remedy=f"reduce it, e.g. by .mean(); it is given {shapes}",
            )
        return loss.reshape(())

    def _batches(self, generator: torch.Generator) -> Iterator[list[int]]:
        """Yield shuffled indices; a last batch that is smaller is left out if there are others."""
        if not self._held[0]:
            self._divide()
        kept = self._held[0]
        order = [kept[i] for i in torch.randperm(len(kept), generator=generator).tolist()]
        size = self.settings.batch or min(self.data.batch_size, len(order))
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]

    def _is_best(self, record: EpochRecord) -> bool:
        def merit(one: EpochRecord) -> float:
            return -one.loss if one.validation_accuracy is None else one.validation_accuracy

        return all(merit(record) >= merit(earlier) for earlier in self.history)

    def _path(self) -> Path | None:
        folder = self.settings.folder
        return None if folder is None else folder / f"{self.settings.name}.safetensors"

    def _save(
        self,
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator,
        best: dict[str, Tensor],
    ) -> None:
        path = self._path()
        if path is None:
            return
        tensors = {f"module/{n}": t for n, t in self.module.state_dict().items()}
        tensors |= {f"best/{n}": t for n, t in best.items()}
        if self.extra_module is not None:
            tensors |= {f"extra/{n}": t for n, t in self.extra_module.state_dict().items()}
        tensors |= optimiser_tensors(optimiser)
        tensors["random/torch"] = torch.get_rng_state()
        tensors["random/batches"] = generator.get_state()
        state = {"history": [asdict(r) for r in self.history], "objective": self.objective.state}
        save(path, Checkpoint(self.settings.fingerprint, tensors, state))

    def _resume(
        self,
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator,
        best: dict[str, Tensor],
    ) -> None:
        path = self._path()
        found = None if path is None else load(path, self.settings.fingerprint)
        if found is None:
            if path is not None and path.is_file() and is_first():
                aside = set_aside(path)
                self.say(
                    f"{self.settings.name}: {path.name} is of a run with other options, data or "
                    f"network; it stays as {aside.name}, and the training starts afresh"
                )
            return

        def part(prefix: str) -> dict[str, Tensor]:
            names = [n for n in found.tensors if n.startswith(prefix)]
            return {n.removeprefix(prefix): found.tensors[n] for n in names}

        try:
            self.module.load_state_dict(part("module/"))
            best.update(part("best/"))
            if self.extra_module is not None:
                self.extra_module.load_state_dict(part("extra/"))
            restore_optimiser(optimiser, found.tensors)
        except (RuntimeError, KeyError, ValueError) as error:
            raise FormatError(
                f"holds other tensors than this training: {error}",
                place=str(path),
                remedy="delete the file; the training starts again",
            ) from error
        torch.set_rng_state(found.tensors["random/torch"])
        generator.set_state(found.tensors["random/batches"])
        self.history.extend(EpochRecord(**record) for record in found.state["history"])
        self.objective.state.update(found.state["objective"])
        self.resumed = bool(self.history)
        if len(self.history) < self.settings.epochs:
            self.say(f"{self.settings.name}: goes on after epoch {len(self.history)} of {path}")
        else:
            self.say(
                f"{self.settings.name}: nothing is left to train after {path}, which an "
                "interrupted run wrote; delete it to train again"
            )


def is_small(network: Network, data: Data) -> bool:
    """Return whether a training batch of the network is too little work for several threads."""
    return data.batch_size * network.macs / network.batch < SMALL_BATCH_MACS


def _factor(progress: float) -> float:
    """Return the share of the full learning rate at a progress of 0..1."""
    if progress < WARM_UP:
        return 0.1 + 0.9 * progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))
