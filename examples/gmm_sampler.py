# SPDX-License-Identifier: Apache-2.0
"""A sampler alone: five hundred points of a mixture of two Gaussians in the plane.

enosc examples/gmm_sampler.py --target mc2ram
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from enos_compiler.nn import GaussianMixtureSampler


class Sampler(nn.Module):
    """Draws the points; its input starts it, and is not read."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.mixture = GaussianMixtureSampler(
            weights=torch.tensor([0.6, 0.4]),
            means=torch.tensor([[1.0, 0.0], [-1.5, 1.0]]),
            covariances=torch.tensor([[[1.0, 0.5], [0.5, 1.0]], [[0.5, -0.2], [-0.2, 0.8]]]),
        )

    def forward(self, start: Tensor) -> Tensor:
        """Return (N, count, 2) for a start of N rows."""
        return self.mixture(self.count, start)


def model(count: int = 500) -> nn.Module:
    """Return the sampler."""
    return Sampler(count)


def example_inputs(count: int = 500) -> tuple[Tensor, ...]:  # noqa: ARG001 - the form of model()
    """Return one start."""
    return (torch.ones(1, 1),)
