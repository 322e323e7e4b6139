# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits: a small network that a search trains from nothing in seconds.

    enosc examples/digits.py --target hybrid

The data are scikit-learn's 1,797 real digits of 8x8 pixels (pip install scikit-learn).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

WIDTH = 32
"""Channels of the inner convolutions."""


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """Return a 3x3 convolution with normalisation and ReLU."""
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def model(width: int = WIDTH) -> nn.Module:
    """Return the untrained network; its weights are drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *convolution(1, width),
            *convolution(width, width),
            *convolution(width, 2 * width, 2),
            *convolution(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 10),
        ).eval()


def _digits() -> tuple[Tensor, Tensor]:
    """Return all images in 0..1, (1797, 1, 8, 8), and their labels, in a fixed random order."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return images[order], torch.tensor(labels)[order]


def example_inputs() -> tuple[Tensor, ...]:
    """Return 64 training images."""
    return (_digits()[0][:64],)


def data() -> dict[str, Any]:
    """Return 1,100 training, 197 validation and 500 test images."""
    images, labels = _digits()
    bounds = {"train": (0, 1100), "validation": (1100, 1297), "test": (1297, 1797)}
    return {
        name: TensorDataset(images[first:last], labels[first:last])
        for name, (first, last) in bounds.items()
    }
