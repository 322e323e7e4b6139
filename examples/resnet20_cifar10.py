# SPDX-License-Identifier: Apache-2.0
"""ResNet-20 for CIFAR-10 with parameter-free shortcuts.

    enosc examples/resnet20_cifar10.py --target hybrid \
        --model-arg weights=resnet20_cifar10.safetensors --model-arg data=cifar-10-batches-py

Without `data` the folder `$ENOS_SHARED/data` is read where that variable is set; with neither,
the example inputs are noise and there is nothing to train or test on.

Source: He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2, option A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cifar
import torch.nn.functional as F  # noqa: N812  (the name that PyTorch's own documents use)
from torch import Tensor, nn

MEAN: cifar.Constants = (0.485, 0.456, 0.406)
STD: cifar.Constants = (0.229, 0.224, 0.225)
"""Those of ImageNet: public CIFAR-10 weights of this network were trained with them."""


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut that carries no parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = outputs // inputs
        self.extra = (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """Three stages of three blocks, then the mean over all pixels and a linear layer."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(*(Block(width, width) for _ in range(3)))
        self.layer2 = self._stage(width)
        self.layer3 = self._stage(2 * width)
        self.linear = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(width: int) -> nn.Sequential:
        wide = 2 * width
        return nn.Sequential(Block(width, wide), Block(wide, wide), Block(wide, wide))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, classes) logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


def model(weights: str = "", classes: int = 10, width: int = 16) -> nn.Module:
    """Return the network; `weights` names a safetensors file with its parameters."""
    network = ResNet20(classes, width)
    cifar.load_weights(network, weights)
    return network.eval()


def example_inputs(data: str = "", images: int = 128) -> tuple[Tensor, ...]:
    """Return training images, (images, 3, 32, 32)."""
    return (cifar.example_images(data, images, MEAN, STD),)


def data(data: str = "") -> dict[str, Callable[[], Any]] | None:
    """Return the splits of CIFAR-10; validation is the last 5,000 training images."""
    return cifar.splits(data, MEAN, STD)
