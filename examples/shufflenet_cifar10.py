# SPDX-License-Identifier: Apache-2.0
"""ShuffleNetV2 for 32x32 images: CIFAR-10, or CIFAR-100 with `classes=100`.

    enosc examples/shufflenet_cifar10.py --target hybrid --model-arg data=cifar-10-batches-py

The units are those of the paper; the stem keeps the resolution of the small images.

Source: Ma et al., "ShuffleNet V2", 2018, figure 3 and table 5 (remembered).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cifar
import torch
from torch import Tensor, nn

STAGES = {
    0.25: (24, 48, 96, 512),
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
}
"""Channels of the three stages and of the last convolution, by width; 0.25 halves the paper's
least."""


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 1x1 convolution with normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def depthwise(channels: int, stride: int) -> nn.Sequential:
    """Return a 3x3 depthwise convolution with normalisation, without activation."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )


def shuffle(x: Tensor) -> Tensor:
    """Interleave the two halves of the channels of (N, C, H, W)."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Unit(nn.Module):
    """Half of the channels pass by; the other half runs through 1x1, depthwise, 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            pointwise(half, half), depthwise(half, 1), pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        kept, worked = x.chunk(2, 1)
        return shuffle(torch.cat((kept, self.branch(worked)), 1))


class Down(nn.Module):
    """Halve the resolution: both branches work on all channels with stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.short = nn.Sequential(depthwise(inputs, 2), pointwise(inputs, half))
        self.branch = nn.Sequential(
            pointwise(inputs, half), depthwise(half, 2), pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        return shuffle(torch.cat((self.short(x), self.branch(x)), 1))


class ShuffleNetV2(nn.Module):
    """A 3x3 stem, three stages of 4, 8 and 4 units, a 1x1 convolution and a linear layer."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        *stages, last = STAGES[width]
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
        )
        units: list[nn.Module] = []
        inputs = 24
        for outputs, repeats in zip(stages, (4, 8, 4), strict=True):
            units += [Down(inputs, outputs), *(Unit(outputs) for _ in range(repeats - 1))]
            inputs = outputs
        self.stages = nn.Sequential(*units)
        self.last = pointwise(inputs, last)
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) to (N, classes) logits."""
        x = self.last(self.stages(self.stem(x)))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


def model(weights: str = "", classes: int = 10, width: float = 1.0) -> nn.Module:
    """Return the network of width 0.25, 0.5 or 1.0; `weights` names a safetensors file."""
    network = ShuffleNetV2(classes, width)
    cifar.load_weights(network, weights)
    return network.eval()


def example_inputs(data: str = "", images: int = 128) -> tuple[Tensor, ...]:
    """Return training images, (images, 3, 32, 32)."""
    return (cifar.example_images(data, images, cifar.CIFAR_MEAN, cifar.CIFAR_STD),)


def data(data: str = "") -> dict[str, Callable[[], Any]] | None:
    """Return the splits of CIFAR; validation is the last 5,000 training images."""
    return cifar.splits(data, cifar.CIFAR_MEAN, cifar.CIFAR_STD)
