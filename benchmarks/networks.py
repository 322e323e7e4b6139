# SPDX-License-Identifier: Apache-2.0
"""Networks of published size, with random weights, for `enosc` and the benchmarks.

    enosc benchmarks/networks.py --model-arg name=resnet18 --model-arg resolution=224

Without data they are scored by sensitivity; what they cost depends on shapes alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from networks import COVERAGE, build


def model(name: str = "resnet18") -> nn.Module:
    """Return a network in evaluation mode; its weights are drawn from a fixed seed."""
    _known(name)
    return build(name, full=True)[0]


def example_inputs(name: str = "resnet18", resolution: int = 0) -> tuple[Tensor, ...]:
    """Return one input of noise, images of another resolution where one is given."""
    _known(name)
    inputs = build(name, full=True)[1]
    if not resolution:
        return inputs
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(1, 3, resolution, resolution, generator=generator),)


def _known(name: str) -> None:
    if name not in COVERAGE:
        raise ValueError(f"name={name} is not one of {', '.join(COVERAGE)}")
