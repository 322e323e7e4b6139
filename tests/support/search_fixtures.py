# SPDX-License-Identifier: Apache-2.0
"""The small network and the digits that every test of the search uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_network import build, digits

from enos_compiler.frontend.data import Data
from enos_compiler.ir.network import Network


@pytest.fixture
def small() -> Network:
    """The small network without choices."""
    return build()


@pytest.fixture
def data() -> Data:
    """256 training, 96 validation and 96 test digits."""
    images, labels = digits()
    splits: dict[str, Any] = {}
    first = 0
    for name, count in (("train", 256), ("validation", 96), ("test", 96)):
        rows = slice(first, first + count)
        splits[name] = torch.utils.data.TensorDataset(images[rows], labels[rows])
        first += count
    return Data(**splits, batch_size=32)
