# SPDX-License-Identifier: Apache-2.0
"""The lower half of a handwritten digit from its upper half, as draws from a distribution.

enosc examples/bayesian_head.py --target hybrid

Tops of digits are ambiguous: a 4, a 9 and a 7 begin alike. So the network ends in a mixture density
head: three Gaussians over the first two principal components of the lower half, and a sampler that
draws from them. It is trained here for a few seconds on the real digits of scikit-learn.
"""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from enos_compiler.nn import MixtureDensitySampler

COMPONENTS = 3
DIMENSIONS = 2
LEAST_DEVIATION, MOST_DEVIATION = -1.5, 0.5
"""Natural logarithms of the standard deviations that the head may state."""


class TopToBottom(nn.Module):
    """A small convolutional network with a mixture density head."""

    def __init__(self, draws: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.ReLU(),
        )
        self.logits = nn.Linear(64, COMPONENTS)
        self.means = nn.Linear(64, COMPONENTS * DIMENSIONS)
        self.log_deviations = nn.Linear(64, COMPONENTS * DIMENSIONS)
        self.sampler = MixtureDensitySampler(COMPONENTS, DIMENSIONS, draws)

    def head(self, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, K), means and log deviations (N, K * D)."""
        features = self.features(top)
        deviations = self.log_deviations(features).clamp(LEAST_DEVIATION, MOST_DEVIATION)
        return self.logits(features), self.means(features), deviations

    def forward(self, top: Tensor) -> Tensor:
        """Return draws (N, count, 2) for upper halves (N, 1, 4, 8)."""
        draws: Tensor = self.sampler(*self.head(top))
        return draws

    def loss(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Return the mean negative log likelihood of the lower halves' components (N, 2)."""
        logits, means, deviations = self.head(top)
        shape = (-1, COMPONENTS, DIMENSIONS)
        each = Independent(Normal(means.view(shape), deviations.view(shape).exp()), 1)
        likelihood = MixtureSameFamily(Categorical(logits=logits), each).log_prob(bottom)  # type: ignore[no-untyped-call]
        loss: Tensor = -likelihood.mean()
        return loss


@cache
def halves() -> tuple[Tensor, Tensor]:
    """Return upper halves (N, 1, 4, 8) and two whitened components of the lower ones (N, 2)."""
    images = torch.from_numpy(load_digits().images).float() / 16
    bottom = images[:, 4:].flatten(1)
    bottom = bottom - bottom.mean(0)
    components = torch.linalg.svd(bottom, full_matrices=False).Vh[:DIMENSIONS]
    projected = bottom @ components.T
    return images[:, None, :4], projected / projected.std(0)


def model(draws: int = 256, epochs: int = 40) -> nn.Module:
    """Return the network, trained on the first 1,400 digits."""
    torch.manual_seed(0)
    network = TopToBottom(draws)
    tops, bottoms = halves()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(1400).split(64):
            optimiser.zero_grad()
            network.loss(tops[rows], bottoms[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval()


def example_inputs() -> tuple[Tensor, ...]:
    """Return upper halves that the network was not trained on."""
    return (halves()[0][1400:1464],)
