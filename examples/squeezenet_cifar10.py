# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet for 32x32 images: CIFAR-10, or CIFAR-100 with `classes=100`.

    enosc examples/squeezenet_cifar10.py --target hybrid --model-arg data=cifar-10-batches-py

The fire modules are those of SqueezeNet 1.1; the stem keeps the resolution of the small images,
and every convolution is followed by a batch normalisation.

Source: Iandola et al., "SqueezeNet", 2016, table 1, and the authors' version 1.1 (remembered).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cifar
import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Return a convolution that keeps the resolution, with normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Fire(nn.Module):
    """Squeeze to few channels by 1x1, then expand by 1x1 and 3x3 side by side."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = convolution(inputs, squeezed, 1)
        self.expand1 = convolution(squeezed, outputs // 2, 1)
        self.expand3 = convolution(squeezed, outputs // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        x = self.squeeze(x)
        return torch.cat((self.expand1(x), self.expand3(x)), 1)


class SqueezeNet(nn.Module):
    """A stem, eight fire modules on 16x16, 8x8 and 4x4 pixels, a 1x1 classifier and the mean."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        w = width
        self.features = nn.Sequential(
            convolution(3, 4 * w, 3),
            nn.MaxPool2d(2),
            Fire(4 * w, w, 8 * w),
            Fire(8 * w, w, 8 * w),
            nn.MaxPool2d(2),
            Fire(8 * w, 2 * w, 16 * w),
            Fire(16 * w, 2 * w, 16 * w),
            nn.MaxPool2d(2),
            Fire(16 * w, 3 * w, 24 * w),
            Fire(24 * w, 3 * w, 24 * w),
            Fire(24 * w, 4 * w, 32 * w),
            Fire(32 * w, 4 * w, 32 * w),
        )
        self.classifier = nn.Conv2d(32 * w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) to (N, classes) logits."""
        return self.classifier(self.features(x)).mean((2, 3))  # type: ignore[no-any-return]


def model(weights: str = "", classes: int = 10, width: int = 16) -> nn.Module:
    """Return the network; `weights` names a safetensors file with its parameters."""
    network = SqueezeNet(classes, width)
    cifar.load_weights(network, weights)
    return network.eval()


def example_inputs(data: str = "", images: int = 128) -> tuple[Tensor, ...]:
    """Return training images, (images, 3, 32, 32)."""
    return (cifar.example_images(data, images, cifar.CIFAR_MEAN, cifar.CIFAR_STD),)


def data(data: str = "") -> dict[str, Callable[[], Any]] | None:
    """Return the splits of CIFAR; validation is the last 5,000 training images."""
    return cifar.splits(data, cifar.CIFAR_MEAN, cifar.CIFAR_STD)
