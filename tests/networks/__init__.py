# SPDX-License-Identifier: Apache-2.0
"""Networks of the kinds that users bring, written here: the one place for tests and benchmarks.

`build(name)` gives a network in evaluation mode with weights and running statistics drawn from a
fixed seed, and a batch of example inputs; small by width and resolution, or `full=True` as
published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from networks.attention import Decoder, VisionTransformer
from networks.efficient import EfficientNet, MobileNetV3, ShuffleNetV1
from networks.inception import GoogLeNet
from networks.mobile import MobileNetV1, MobileNetV2, ShuffleNetV2, squeezenet
from networks.modern import MODERN
from networks.residual import (
    KeywordSpotter,
    RecurrentSpotter,
    UNet,
    densenet,
    resnet18,
    resnet20,
    resnet50,
)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A network small and as published; shapes are those of the example inputs, batch first."""

    small: Callable[[], nn.Module]
    small_shape: Shape
    full: Callable[[], nn.Module]
    full_shape: Shape = (1, 3, 224, 224)
    vocabulary: int = 0
    """Token ids below it, where the network reads such; 0 for real numbers."""
    full_vocabulary: int = 0


_IMAGES = (3, 3, 32, 32)

COVERAGE: dict[str, Entry] = {
    "squeezenet": Entry(lambda: squeezenet(0.25), (3, 3, 64, 64), squeezenet),
    "shufflenet_v1": Entry(lambda: ShuffleNetV1(24, (2, 1), 12), _IMAGES, ShuffleNetV1),
    "shufflenet_v2": Entry(lambda: ShuffleNetV2(16, (2, 2, 1)), (3, 3, 64, 64), ShuffleNetV2),
    "mobilenet_v1": Entry(
        lambda: MobileNetV1(width=0.25, pairs=(0, 1, 2, 3)), _IMAGES, MobileNetV1
    ),
    "mobilenet_v2": Entry(lambda: MobileNetV2(0.25, 2), _IMAGES, MobileNetV2),
    "mobilenet_v3": Entry(lambda: MobileNetV3(0.25, (0, 1, 3, 4, 6, 10)), _IMAGES, MobileNetV3),
    "resnet18": Entry(lambda: resnet18(8), _IMAGES, resnet18),
    "resnet20": Entry(lambda: resnet20(8, (1, 1, 1)), (3, 3, 16, 16), resnet20, (1, 3, 32, 32)),
    "resnet50": Entry(lambda: resnet50(8, (1, 2, 1, 1)), _IMAGES, resnet50),
    "densenet": Entry(
        lambda: densenet(8, (3, 3), bottleneck=False, small_images=True), (3, 3, 16, 16), densenet
    ),
    "inception": Entry(lambda: GoogLeNet(0.125, (0, 2, 3)), (3, 3, 64, 64), GoogLeNet),
    "efficientnet": Entry(lambda: EfficientNet(0.25, 4, 2), _IMAGES, EfficientNet),
    "vit": Entry(lambda: VisionTransformer(32, 8, 32, 2, 4), _IMAGES, VisionTransformer),
    "decoder": Entry(Decoder, (3, 12), lambda: Decoder(5000, 128, 256, 6, 8), (1, 128), 50, 5000),
    "unet": Entry(lambda: UNet(8), (2, 3, 18, 16), lambda: UNet(64, 4), (1, 3, 256, 256)),
    "keyword": Entry(lambda: KeywordSpotter(10, 16, 3), (4, 10, 49), KeywordSpotter, (1, 40, 101)),
}
"""The networks that must compile for every target, by name."""

REFUSED: dict[str, Entry] = {
    "lstm": Entry(lambda: RecurrentSpotter(10, 16), (4, 10, 49), RecurrentSpotter, (1, 40, 101)),
}
"""Networks that the compiler refuses with the reason, by name."""


def build(name: str, *, full: bool = False) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a network of `COVERAGE`, `REFUSED` or `MODERN` and its example inputs."""
    if name in MODERN:
        construct, shape = MODERN[name]
        vocabulary = 0
    else:
        entry = (COVERAGE | REFUSED)[name]
        construct = entry.full if full else entry.small
        shape = entry.full_shape if full else entry.small_shape
        vocabulary = entry.full_vocabulary if full else entry.vocabulary
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = construct().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.get_buffer("running_mean"), -0.5, 0.5)
                nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        inputs = torch.randint(0, vocabulary, shape) if vocabulary else torch.randn(shape)
    return model, (inputs,)
