# SPDX-License-Identifier: Apache-2.0
"""Networks of published size, with random weights, for `enosc` and the benchmarks.

    enosc benchmarks/networks.py --model-arg name=resnet18 --model-arg resolution=224

Without data they are scored by sensitivity; what they cost depends on shapes alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from networks.attention import VisionTransformer
from networks.mobile import MobileNetV2, ShuffleNetV2, squeezenet
from networks.residual import resnet18, resnet50

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "squeezenet": squeezenet,
    "shufflenet": ShuffleNetV2,
    "mobilenet": MobileNetV2,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vit": VisionTransformer,
}


def model(name: str = "resnet18") -> nn.Module:
    """Return a network in evaluation mode; its weights are drawn from a fixed seed."""
    if name not in NETWORKS:
        raise ValueError(f"name={name} is not one of {', '.join(NETWORKS)}")
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


def example_inputs(resolution: int = 224) -> tuple[Tensor, ...]:
    """Return one image of noise."""
    return (torch.randn(1, 3, resolution, resolution, generator=torch.Generator().manual_seed(0)),)
