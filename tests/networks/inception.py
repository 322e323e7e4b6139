# SPDX-License-Identifier: Apache-2.0
"""GoogLeNet: modules of four branches, written from its paper's table."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU(inplace=True)
    )


class Inception(nn.Module):
    """1x1, 3x3 and 5x5 convolutions and a pool side by side."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.branch1 = convolution(inputs, one, 1)
        self.branch3 = nn.Sequential(
            convolution(inputs, reduce3, 1), convolution(reduce3, three, 3)
        )
        self.branch5 = nn.Sequential(convolution(inputs, reduce5, 1), convolution(reduce5, five, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1, self.branch3, self.branch5, self.pooled)
        return torch.cat([branch(x) for branch in branches], 1)


MODULES = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
"""Widths of each module's branches, None for a pool between them; table 1 of the GoogLeNet paper
(remembered)."""


class GoogLeNet(nn.Module):
    """GoogLeNet without its side classifiers and local response norms.

    `width` scales channels, `modules` picks rows of the table.
    """

    def __init__(
        self, width: float = 1.0, modules: tuple[int, ...] = tuple(range(11)), classes: int = 10
    ) -> None:
        super().__init__()

        def w(channels: int) -> int:
            return max(int(channels * width), 2)

        layers: list[nn.Module] = [
            convolution(3, w(64), 7, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            convolution(w(64), w(64), 1),
            convolution(w(64), w(192), 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ]
        channels = w(192)
        for row in (MODULES[i] for i in modules):
            if row is None:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            one, reduce3, three, reduce5, five, pooled = (w(n) for n in row)
            layers.append(Inception(channels, (one, reduce3, three, reduce5, five, pooled)))
            channels = one + three + five + pooled
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean([2, 3]))
