# SPDX-License-Identifier: Apache-2.0
"""Networks of the kinds that users bring, written here, small by width and resolution.

`build(name)` gives a network in evaluation mode with weights and running statistics drawn from a
fixed seed, and a batch of example inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from networks.attention import Decoder, VisionTransformer
from networks.mobile import MobileNetV2, ShuffleNetV2, squeezenet
from networks.modern import MODERN
from networks.residual import KeywordSpotter, UNet, densenet, resnet18, resnet50

_IMAGES = (3, 3, 32, 32)

SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "squeezenet": (lambda: squeezenet(0.25), (3, 3, 64, 64)),
    "shufflenet": (lambda: ShuffleNetV2(16, (2, 2, 1)), (3, 3, 64, 64)),
    "mobilenet": (lambda: MobileNetV2(0.25, 2), _IMAGES),
    "resnet18": (lambda: resnet18(8), _IMAGES),
    "resnet50": (lambda: resnet50(8, (1, 2, 1, 1)), _IMAGES),
    "vit": (lambda: VisionTransformer(32, 8, 32, 2, 4), _IMAGES),
    "densenet": (densenet, (3, 3, 16, 16)),
    "unet": (lambda: UNet(8), (2, 3, 18, 16)),
    "keyword": (lambda: KeywordSpotter(10, 16, 3), (4, 10, 49)),
    "decoder": (Decoder, (3, 12)),
}
"""Constructor and shape of the example inputs, by name."""


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a network of `SMALL` or `MODERN` and its example inputs."""
    construct, shape = (SMALL | MODERN)[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = construct().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.get_buffer("running_mean"), -0.5, 0.5)
                nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        inputs = torch.randint(0, 50, shape) if name == "decoder" else torch.randn(shape)
    return model, (inputs,)
