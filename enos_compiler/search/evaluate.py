# SPDX-License-Identifier: Apache-2.0
"""Accuracy on a user's data, of whatever answers a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from enos_compiler.frontend.data import Data, SplitName

Predict = Callable[[Tensor], Tensor]
"""Inputs of one batch to the network's first output."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Correct answers among all."""

    correct: int
    answers: int

    @property
    def fraction(self) -> float:
        """Share of correct answers, 0..1."""
        return self.correct / self.answers


def evaluate(
    predict: Predict,
    data: Data,
    split: SplitName = "test",
    *,
    batch: int | None = None,
    limit: int | None = None,
) -> Accuracy | None:
    """Return the accuracy of a classifier on a split.

    The greatest entry along axis 1 of the output is the answer; targets are class indices. None
    where there is no such split or the targets are no class indices.

    Args:
        predict: what is measured.
        data: the user's splits.
        split: which one.
        batch: extent that every batch must have; the last one is filled up with copies of its
            last item, which are not counted. None where any extent will do.
        limit: use so many items only.
    """
    correct = answers = 0
    for inputs, targets in data.batches(split, batch_size=batch, limit=limit):
        if targets.is_floating_point():
            return None
        outputs = predict(_filled(inputs, batch))[: len(inputs)]
        if outputs.dim() != targets.dim() + 1:
            return None
        correct += int((outputs.argmax(1) == targets).sum())
        answers += targets.numel()
    return Accuracy(correct, answers) if answers else None


def fixed_batch(network: Network) -> int | None:
    """Return the only batch that a network's shapes allow; None where any will do."""
    return None if network.batch_is_symbolic else network.batch


def module_predictor(module: nn.Module) -> Predict:
    """Return the first output of a module in evaluation mode, without gradients."""

    def predict(inputs: Tensor) -> Tensor:
        was_training = module.training
        module.eval()
        with torch.no_grad():
            outputs = module(inputs)
        module.train(was_training)
        first: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]
        return first

    return predict


def _filled(inputs: Tensor, batch: int | None) -> Tensor:
    if batch is None or len(inputs) == batch:
        return inputs
    return torch.cat((inputs, inputs[-1:].expand(batch - len(inputs), *inputs.shape[1:])))
