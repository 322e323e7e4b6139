# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 and V2 for 32x32 images: CIFAR-10.

    enos-explore examples/mobilenet_cifar10.py --target eyeriss \
        --model-arg version=2 --model-arg weights=mobilenetv2.safetensors

Layers are those of the papers. Of their five halvings of the image the second one is left out, so
that the last maps have 2x2 pixels. `benchmarks/quant_mapping.py` trains the weights.

Source: Howard et al., "MobileNets", 2017, table 1; Sandler et al., "MobileNetV2", 2018, table 2
(both remembered).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cifar
from torch import Tensor, nn

PAIRS = (
    (64, 1),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""MobileNetV1: (channels, stride) of each depthwise and pointwise pair."""
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2: (expansion, channels, repeats, first stride) of each stage."""
STEM = 32
LAST = 1280
"""Channels of MobileNetV2's last convolution; a width below one does not narrow it."""
MULTIPLE = 8
"""Channel counts are multiples of it."""


def scaled(channels: int, width: float) -> int:
    """Return a channel count at a width, rounded to a multiple and never far below."""
    found = max(MULTIPLE, int(channels * width + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return found + MULTIPLE if found < 0.9 * channels * width else found


def convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution that keeps extents (over its stride), and its normalisation."""
    padding = kernel // 2
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return MobileNetV1's pair: 3x3 depthwise, then 1x1."""
    return nn.Sequential(
        *convolution(inputs, inputs, 3, stride, inputs),
        nn.ReLU(inplace=True),
        *convolution(inputs, outputs),
        nn.ReLU(inplace=True),
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, 3x3 depthwise, project; plus the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [*convolution(inputs, hidden), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.body = nn.Sequential(
            *expand,
            *convolution(hidden, hidden, 3, stride, hidden),
            nn.ReLU6(inplace=True),
            *convolution(hidden, outputs),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class Classifier(nn.Module):
    """Features, the mean over all pixels, a linear layer."""

    def __init__(self, features: nn.Sequential, channels: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) to (N, classes) logits."""
        return self.head(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


def mobilenet_v1(classes: int, width: float) -> nn.Module:
    """Return MobileNetV1: a stem, thirteen pairs, a linear layer."""
    channels = scaled(STEM, width)
    layers: list[nn.Module] = [*convolution(3, channels, 3, 2), nn.ReLU(inplace=True)]
    for outputs, stride in PAIRS:
        layers.append(separable(channels, scaled(outputs, width), stride))
        channels = scaled(outputs, width)
    return Classifier(nn.Sequential(*layers), channels, classes)


def mobilenet_v2(classes: int, width: float) -> nn.Module:
    """Return MobileNetV2: a stem, seventeen blocks, a last convolution, a linear layer."""
    channels = scaled(STEM, width)
    layers: list[nn.Module] = [*convolution(3, channels, 3, 2), nn.ReLU6(inplace=True)]
    for expansion, outputs, repeats, first in BLOCKS:
        for number in range(repeats):
            stride = 1 if number else first
            layers.append(InvertedResidual(channels, scaled(outputs, width), stride, expansion))
            channels = scaled(outputs, width)
    last = scaled(LAST, max(1.0, width))
    layers += [*convolution(channels, last), nn.ReLU6(inplace=True)]
    return Classifier(nn.Sequential(*layers), last, classes)


def model(weights: str = "", classes: int = 10, width: float = 0.25, version: int = 1) -> nn.Module:
    """Return MobileNetV1 or V2; `weights` names a safetensors file with its parameters."""
    network = (mobilenet_v1 if version == 1 else mobilenet_v2)(classes, width)
    cifar.load_weights(network, weights)
    return network.eval()


def example_inputs(data: str = "", images: int = 128) -> tuple[Tensor, ...]:
    """Return training images, (images, 3, 32, 32)."""
    return (cifar.example_images(data, images, cifar.CIFAR_MEAN, cifar.CIFAR_STD),)


def data(data: str = "") -> dict[str, Callable[[], Any]] | None:
    """Return the splits of CIFAR-10; validation is the last 5,000 training images."""
    return cifar.splits(data, cifar.CIFAR_MEAN, cifar.CIFAR_STD)
