# SPDX-License-Identifier: Apache-2.0
"""ResNet-18, 20 and 50, a pre-activation DenseNet, a U-Net, keyword spotters."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.down = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with fourfold output channels."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.down = shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.down is not None:
            identity = self.down(x)
        return torch.relu(torch.add(out, identity))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A projection where shapes differ."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """ResNet; `width` channels in the first stage; a 3x3 stem for small images."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        width: int = 64,
        classes: int = 10,
        *,
        small_images: bool = False,
    ) -> None:
        super().__init__()
        kernel, stride = (3, 1) if small_images else (7, 2)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1)
        channels = width
        stages: list[nn.Module] = []
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage and i == 0 else 1
                stages.append(block(channels, width * 2**stage, stride))
                channels = width * 2**stage * block.expansion
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.avgpool(self.stages(x))
        return self.fc(torch.flatten(x, 1))


def resnet18(width: int = 64) -> nn.Module:
    """ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), width)


def resnet50(width: int = 64, depths: tuple[int, ...] = (3, 4, 6, 3)) -> nn.Module:
    """ResNet-50."""
    return ResNet(Bottleneck, depths, width)


def resnet20(width: int = 16, depths: tuple[int, ...] = (3, 3, 3)) -> nn.Module:
    """ResNet-20 for images of 32x32: a 3x3 stem and three stages."""
    return ResNet(BasicBlock, depths, width, small_images=True)


class DenseLayer(nn.Module):
    """Norm, ReLU, convolution, perhaps behind a 1x1 one; the output joins all that came before."""

    def __init__(self, inputs: int, growth: int, *, bottleneck: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if bottleneck:
            layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
            layers += [nn.Conv2d(inputs, 4 * growth, 1, bias=False)]
            inputs = 4 * growth
        layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
        layers += [nn.Conv2d(inputs, growth, 3, padding=1, bias=False)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(
    growth: int = 32,
    blocks: tuple[int, ...] = (6, 12, 24, 16),
    *,
    bottleneck: bool = True,
    small_images: bool = False,
) -> nn.Module:
    """DenseNet, 121 layers by default; average pooling between its blocks."""
    channels = 2 * growth
    parts: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    if not small_images:
        parts = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
    for block, layers in enumerate(blocks):
        for _ in range(layers):
            parts.append(DenseLayer(channels, growth, bottleneck=bottleneck))
            channels += growth
        parts += [nn.BatchNorm2d(channels), nn.ReLU()]
        if block < len(blocks) - 1:
            parts += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with norm and ReLU."""
    layers: list[nn.Module] = []
    for i in range(2):
        layers += [
            nn.Conv2d(inputs if i == 0 else outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net with transposed convolutions and joined skips."""

    def __init__(self, width: int = 64, depth: int = 2, classes: int = 2) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        self.enter = double_conv(3, width)
        self.down = nn.ModuleList(double_conv(a, 2 * a) for a in widths[:-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * a, a, 2, stride=2) for a in reversed(widths[:-1])
        )
        self.join = nn.ModuleList(double_conv(2 * a, a) for a in reversed(widths[:-1]))
        self.exit = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        skips = []
        for stage in self.down:
            skips.append(x)
            x = stage(F.max_pool2d(x, 2))
        for up, join in zip(self.up, self.join, strict=True):
            x = up(x)
            skip = skips.pop()
            if x.shape[-2:] != skip.shape[-2:]:
                x = F.pad(x, (0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2]))
            x = join(torch.cat([skip, x], dim=1))
        return self.exit(x)


class KeywordSpotter(nn.Module):
    """1-D separable convolutions over audio features, (N, features, time)."""

    def __init__(self, features: int = 40, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.enter = nn.Conv1d(features, width, 3, stride=2, padding=1)
        self.depthwise = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding="same", dilation=1 + i % 2, groups=width)
            for i in range(blocks)
        )
        self.pointwise = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(blocks))
        self.head = nn.Linear(width, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.hardtanh(self.enter(x), 0.0, 4.0), 2)
        for depthwise, pointwise, norm in zip(
            self.depthwise, self.pointwise, self.norms, strict=True
        ):
            x = x + F.hardswish(norm(pointwise(F.leaky_relu(depthwise(x), 0.1))))
        return self.head(F.adaptive_avg_pool1d(x, 1).squeeze(-1))


class RecurrentSpotter(nn.Module):
    """A keyword spotter with an LSTM, (N, features, time): what the compiler refuses."""

    def __init__(self, features: int = 40, width: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, width, batch_first=True)
        self.head = nn.Linear(width, 12)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.transpose(1, 2))
        return self.head(states[:, -1])
