# SPDX-License-Identifier: Apache-2.0
"""A model file of two layers with data that it can learn, for tests of the explorer."""

from __future__ import annotations

MODEL = """
import torch
from torch import nn


def model(width: int = 2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * width, 2),
    ).eval()


def example_inputs():
    return (images(0, 4)[0],)


def images(first, count):
    torch.manual_seed(first)
    x = torch.rand(count, 1, 4, 4)
    return x, (x[:, 0, :2].mean((1, 2)) > x[:, 0, 2:].mean((1, 2))).long()


def data():
    def split(first, count):
        return torch.utils.data.TensorDataset(*images(first, count))
    return {"train": split(1, 64), "validation": split(2, 64), "test": split(3, 64),
            "batch_size": 16}
"""
