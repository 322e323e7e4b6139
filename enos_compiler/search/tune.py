# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of an assigned network with the rounding that its integers will have.

Every layer computes its own choice, every value is rounded at its own width, mac weights are
rounded with the normalisation folded in. Over the last part of the epochs the normalisation keeps
its running statistics, as the compiled network will; the epoch of best validation accuracy stays.
Layers on crossbars have a sample of their arrays' noise, in validation too: the epoch that stays is
one that lives with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from enos_compiler.ir.network import Network, Vector
from enos_compiler.search.checkpoint import fingerprint
from enos_compiler.search.evaluate import Accuracy, evaluate, fixed_batch, module_predictor
from enos_compiler.search.forms import assigned_forms
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.noise import DisturbedForm
from enos_compiler.search.train import EpochRecord, Objective, Settings, Trainer, is_small
from enos_compiler.semantics.widths import asked_bits, stored_bits

if TYPE_CHECKING:
    from enos_compiler.frontend.data import Data

FROZEN_SHARE = 0.5
"""Share of the epochs, the last ones, in which normalisations keep their running statistics."""
SETTLING_BATCHES = 20
"""Batches over which running statistics and ranges follow the assigned operators beforehand."""


class AssignedWidths:
    """The widths of an assigned network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._stored = {
            name: stored_bits(network, name)
            for name, value in network.values.items()
            if value.dtype == "float32"
        }

    def stored(self, value: str) -> Mapping[int, float | Tensor]:
        """Return the one width of `value`."""
        return {self._stored[value]: 1.0}

    def read(self, node: Vector, value: str) -> int | None:
        """Return the width that a vector operation asks; None where it reads any."""
        return asked_bits(node, value) if value in self._stored else None


class _FreezeNorms(Objective):
    def __init__(self, module: NetworkModule) -> None:
        super().__init__()
        self.module = module

    def before_batch(self, progress: float) -> None:
        self.module.freeze_norms = progress >= 1 - FROZEN_SHARE


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Options of fine-tuning."""

    epochs: int
    learning_rate: float
    seed: int
    folder: Path | None
    say: Callable[[str], None]
    noise: Mapping[str, float] = field(default_factory=dict)
    """By layer, the noise-to-signal that arrays add to its output."""


def assigned_module(network: Network, noise: Mapping[str, float] | None = None) -> NetworkModule:
    """Return an assigned network as it will compute, differentiable; with noise if there is any."""
    forms = assigned_forms(network.layers)
    forms.update({name: DisturbedForm(forms[name], one) for name, one in (noise or {}).items()})
    return NetworkModule(network, forms, AssignedWidths(network))


def tune(network: Network, data: Data, settings: TuneSettings) -> tuple[Network, dict[str, Any]]:
    """Return the network with tuned parameters and ranges, and what the report says of it."""
    data = data.for_network(network)
    module = assigned_module(network, settings.noise)
    batch = fixed_batch(network)
    settle(module, data, batch)

    def validated() -> Accuracy | None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)  # the same noise before and after
            return evaluate(module_predictor(module), data, "validation", batch=batch)

    before = validated()
    started = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def speak(record: EpochRecord) -> None:
        accuracy = record.validation_accuracy
        tail = "" if accuracy is None else f", validation accuracy {accuracy:.1%}"
        settings.say(f"finetune epoch {record.epoch}: loss {record.loss:.3f}{tail}")

    decisive = (
        *("finetune", settings.epochs, settings.learning_rate, settings.seed),
        tuple(settings.noise.items()),
    )
    phase = Settings(
        name="finetune",
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        folder=settings.folder,
        fingerprint=fingerprint(network, decisive, data) if settings.folder else "",
        keep_best=True,
        batch=batch,
        single_thread=is_small(network, data),
    )
    trainer = Trainer(module, data, phase, _FreezeNorms(module), on_epoch=speak, say=settings.say)
    history = trainer.run()
    after = validated()
    if before and after and before.correct > after.correct:
        module.load_state_dict(started)
        after = before
        settings.say("finetune: no epoch was better than the start, which is kept")
    section = {
        "validation_accuracy_before": before.fraction if before else None,
        "validation_accuracy_after": after.fraction if after else None,
        "resumed": trainer.resumed,
        "epochs": [asdict(record) for record in history],
    }
    return module.write_back(), section


def settle(module: NetworkModule, data: Data, batch: int | None) -> None:
    """Let running statistics and ranges follow a change of arithmetic, weights as they are."""
    module.train()
    size = batch or data.batch_size
    batches = data.batches("train", batch_size=size, limit=SETTLING_BATCHES * size)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same images, however they are augmented, in a resumed run
        for inputs, _ in batches:
            if len(inputs) == size:
                module(inputs)
    module.eval()
