# SPDX-License-Identifier: Apache-2.0
"""Accuracy of whatever predicts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from enos_compiler.frontend.data import Data
from enos_compiler.search.evaluate import evaluate, module_predictor

COUNT = 10


@pytest.fixture
def labelled() -> Data:
    """One-hot inputs whose class is the index of the one; the last three labels are wrong."""
    labels = torch.arange(COUNT) % 4
    inputs = torch.nn.functional.one_hot(labels, 4).float()
    labels[-3:] += 1
    return Data(test=TensorDataset(inputs, labels % 4), batch_size=4)


def test_counts_every_item_once(labelled: Data) -> None:
    found = evaluate(lambda x: x, labelled)
    assert found is not None
    assert (found.correct, found.answers, found.fraction) == (7, COUNT, 0.7)


def test_fills_the_last_batch_where_the_extent_is_fixed(labelled: Data) -> None:
    extents = []

    def predict(x: Tensor) -> Tensor:
        extents.append(len(x))
        return x

    found = evaluate(predict, labelled, batch=4)
    assert extents == [4, 4, 4]
    assert found is not None
    assert (found.correct, found.answers) == (7, COUNT)


def test_nothing_to_measure_is_none(labelled: Data) -> None:
    assert evaluate(lambda x: x, labelled, "validation") is None
    regression = Data(test=TensorDataset(torch.rand(4, 2), torch.rand(4, 2)))
    assert evaluate(lambda x: x, regression) is None


def test_module_is_put_back_into_training(labelled: Data) -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(0.9)).train()
    found = evaluate(module_predictor(module), labelled)
    assert found is not None
    assert found.correct == 7
    assert module.training
