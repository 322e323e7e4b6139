# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3, EfficientNet-B0 and ShuffleNetV1, written from their papers' tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from networks.mobile import channel_shuffle


class SqueezeExcite(nn.Module):
    """Channels scaled by gates computed from their global averages."""

    def __init__(self, channels: int, hidden: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.activation, self.gate = activation, gate

    def forward(self, x: Tensor) -> Tensor:
        scale = self.activation(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return x * self.gate(self.excite(scale))


class MBConv(nn.Module):
    """Expand, depthwise, squeeze and excite, project; added to the input where shapes allow."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int,
        activation: nn.Module,
        excite: SqueezeExcite | None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers += [
                nn.Conv2d(inputs, hidden, 1, bias=False),
                nn.BatchNorm2d(hidden),
                activation,
            ]
        layers += [
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            activation,
        ]
        layers += [excite] if excite is not None else []
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def stem(outputs: int, activation: nn.Module) -> list[nn.Module]:
    """The first convolution, norm and activation."""
    return [nn.Conv2d(3, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), activation]


V3_LARGE = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)
"""(kernel, expanded, outputs, squeeze and excite, activation, stride) of each block of the large
network, table 1 of the MobileNetV3 paper (remembered)."""


class MobileNetV3(nn.Module):
    """MobileNetV3-Large; `width` scales channels, `blocks` picks rows of the table."""

    def __init__(
        self, width: float = 1.0, blocks: tuple[int, ...] = tuple(range(15)), classes: int = 10
    ) -> None:
        super().__init__()

        def w(channels: int) -> int:
            return max(int(channels * width), 4)

        channels = w(16)
        layers = stem(channels, nn.Hardswish())
        for kernel, hidden, outputs, excites, name, stride in (V3_LARGE[i] for i in blocks):
            activation = nn.ReLU() if name == "relu" else nn.Hardswish()
            excite = (
                SqueezeExcite(w(hidden), w(hidden // 4), nn.ReLU(), nn.Hardsigmoid())
                if excites
                else None
            )
            layers.append(
                MBConv(channels, w(hidden), w(outputs), kernel, stride, activation, excite)
            )
            channels = w(outputs)
        layers += [
            nn.Conv2d(channels, w(960), 1, bias=False),
            nn.BatchNorm2d(w(960)),
            nn.Hardswish(),
        ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(w(960), w(1280)), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(w(1280), classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean([2, 3]))


B0_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""(expansion, outputs, repeats, first stride, kernel), table 1 of the EfficientNet paper
(remembered)."""


class EfficientNet(nn.Module):
    """EfficientNet-B0; `width` scales channels, `stages` and `depth` limit blocks."""

    def __init__(
        self, width: float = 1.0, stages: int = 7, depth: int = 4, classes: int = 10
    ) -> None:
        super().__init__()

        def w(channels: int) -> int:
            return max(int(channels * width), 4)

        channels = w(32)
        layers = stem(channels, nn.SiLU())
        for expansion, outputs, repeats, first, kernel in B0_STAGES[:stages]:
            for i in range(min(repeats, depth)):
                hidden = channels * expansion
                excite = SqueezeExcite(hidden, max(channels // 4, 1), nn.SiLU(), nn.Sigmoid())
                stride = first if i == 0 else 1
                layers.append(
                    MBConv(channels, hidden, w(outputs), kernel, stride, nn.SiLU(), excite)
                )
                channels = w(outputs)
        layers += [nn.Conv2d(channels, w(1280), 1, bias=False), nn.BatchNorm2d(w(1280)), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(w(1280), classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


class GroupUnit(nn.Module):
    """ShuffleNetV1 unit: grouped pointwise, shuffle, depthwise, grouped pointwise."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        own = outputs - inputs if stride > 1 else outputs
        hidden = outputs // 4
        self.groups, self.stride = groups, stride
        self.compress = nn.Conv2d(inputs, hidden, 1, groups=1 if first else groups, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.expand = nn.Conv2d(hidden, own, 1, groups=groups, bias=False)
        self.norm3 = nn.BatchNorm2d(own)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.compress(x)))
        y = self.norm2(self.depthwise(channel_shuffle(y, self.groups)))
        y = self.norm3(self.expand(y))
        if self.stride == 1:
            return F.relu(x + y)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))


class ShuffleNetV1(nn.Module):
    """ShuffleNet of three groups; `width` channels in its first stage.

    Source: table 1 of the ShuffleNet paper, g = 3 (remembered).
    """

    def __init__(
        self,
        width: int = 240,
        repeats: tuple[int, ...] = (4, 8, 4),
        first: int = 24,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem(first, nn.ReLU()), nn.MaxPool2d(3, 2, 1))
        units: list[nn.Module] = []
        channels, outputs = first, width
        for stage, count in enumerate(repeats):
            for i in range(count):
                stride = 2 if i == 0 else 1
                units.append(GroupUnit(channels, outputs, stride, 3, stage == i == 0))
                channels = outputs
            outputs *= 2
        self.units = nn.Sequential(*units)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.units(self.stem(x)).mean([2, 3]))
