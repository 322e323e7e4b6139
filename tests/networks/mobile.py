# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet 1.1, MobileNetV1 and V2 and ShuffleNetV2, written from their papers' tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class Fire(nn.Module):
    """Squeeze by 1x1, expand by 1x1 beside 3x3."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


def squeezenet(width: float = 1.0, classes: int = 10) -> nn.Module:
    """SqueezeNet 1.1; `width` scales every channel count."""

    def w(channels: int) -> int:
        return max(int(channels * width), 1)

    return nn.Sequential(
        nn.Conv2d(3, w(64), 3, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(w(64), w(16), w(64)),
        Fire(2 * w(64), w(16), w(64)),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(2 * w(64), w(32), w(128)),
        Fire(2 * w(128), w(32), w(128)),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(2 * w(128), w(48), w(192)),
        Fire(2 * w(192), w(64), w(256)),
        nn.Dropout(0.5),
        nn.Conv2d(2 * w(256), classes, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; added to the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, repeats, first stride), table 2 of the MobileNetV2 paper (remembered)."""


class MobileNetV2(nn.Module):
    """MobileNetV2; `width` scales channels, `depth` limits the repeats of each stage."""

    def __init__(self, width: float = 1.0, depth: int = 4, classes: int = 10) -> None:
        super().__init__()

        def w(channels: int) -> int:
            return max(int(channels * width), 4)

        channels = w(32)
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
        ]
        for expansion, outputs, repeats, first in MOBILENET_STAGES:
            for i in range(min(repeats, depth)):
                block = InvertedResidual(channels, w(outputs), first if i == 0 else 1, expansion)
                layers.append(block)
                channels = w(outputs)
        layers += [
            nn.Conv2d(channels, w(1280), 1, bias=False),
            nn.BatchNorm2d(w(1280)),
            nn.ReLU6(inplace=True),
        ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(w(1280), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = F.dropout(x.mean([2, 3]), 0.2, self.training)
        return self.head(x)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """The shuffle as most public code writes it."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


def branch(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Pointwise, depthwise, pointwise."""
    return [
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, stride, 1, groups=outputs, bias=False),
        nn.BatchNorm2d(outputs),
        nn.Conv2d(outputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class ShuffleUnit(nn.Module):
    """ShuffleNetV2 unit: split or downsample, then shuffle."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.left = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )
        self.right = nn.Sequential(*branch(inputs if stride > 1 else half, half, stride))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            out = torch.cat((left, self.right(right)), dim=1)
        else:
            out = torch.cat((self.left(x), self.right(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 with `width` channels in its first stage."""

    def __init__(self, width: int = 48, repeats: tuple[int, ...] = (4, 8, 4)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        units: list[nn.Module] = []
        channels, outputs = 24, width
        for count in repeats:
            units += [
                ShuffleUnit(channels if i == 0 else outputs, outputs, 2 if i == 0 else 1)
                for i in range(count)
            ]
            channels, outputs = outputs, outputs * 2
        self.stages = nn.Sequential(*units)
        self.tail = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(2 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tail(self.stages(self.pool(self.stem(x))))
        return self.head(x.mean([2, 3]))


SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""(channels, stride) of each separable pair, table 1 of the MobileNet paper (remembered)."""


class MobileNetV1(nn.Module):
    """MobileNet: a stem, thirteen pairs of depthwise and pointwise, one linear layer.

    `width` scales channels, `pairs` picks rows of the table.
    """

    def __init__(
        self, classes: int = 10, *, width: float = 1.0, pairs: tuple[int, ...] = tuple(range(13))
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []

        def add(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
            layers.extend(
                (
                    nn.Conv2d(
                        inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
                    ),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                )
            )

        channels = int(32 * width)
        add(3, channels, 3, 2)
        for outputs, stride in (SEPARABLE[i] for i in pairs):
            add(channels, channels, 3, stride, channels)
            add(channels, int(outputs * width), 1, 1)
            channels = int(outputs * width)
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean([2, 3]))
