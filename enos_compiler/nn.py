# SPDX-License-Identifier: Apache-2.0
"""Modules for a user's network that torch has not: stochastic nodes that a sampling core runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.overrides import has_torch_function

from enos_compiler.errors import EnosError
from enos_compiler.ir import ops
from enos_compiler.sampling.mixture import GaussianMixture

_sample = ops.recordable(ops.sample)
_sample_given = ops.recordable(ops.sample_given)


class GaussianMixtureSampler(nn.Module):
    """Draws points of a constant Gaussian mixture.

    In PyTorch it samples exactly, with `torch.distributions`; compiled, it is a layer of operator
    `sample` that a sampling core runs as Markov chains.

    Args:
        weights: (K,), summing to one.
        means: (K, D).
        covariances: (K, D, D), symmetric positive definite.

    Raises:
        EnosError: what is no mixture; names the parameter.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        GaussianMixture(*(t.detach().double().numpy() for t in (weights, means, covariances)))
        self.register_buffer("weights", weights.float())
        self.register_buffer("means", means.float())
        self.register_buffer("covariances", covariances.float())

    def forward(self, count: int, start: Tensor | None = None) -> Tensor:
        """Return `count` points: (count, D), or (N, count, D) for a `start` of N rows.

        Compiled networks need a tensor that leads to every result: give an input as `start`. Its
        contents are not read.
        """
        if start is not None and has_torch_function((start,)):
            return _sample(start, self.weights, self.means, self.covariances, count=count)
        components = MultivariateNormal(self.means, self.covariances)
        mixture = MixtureSameFamily(Categorical(self.weights), components)
        shape = (count,) if start is None else (start.shape[0], count)
        return mixture.sample(shape)  # type: ignore[no-any-return,no-untyped-call]


class MixtureDensitySampler(nn.Module):
    """Draws points of the Gaussian mixture that a network's outputs condition.

    A mixture density head: the network gives logits, means and logarithms of standard deviations;
    covariances are diagonal.

    Args:
        components: K.
        dimensions: D.
        count: points of one row.
    """

    def __init__(self, components: int, dimensions: int, count: int) -> None:
        super().__init__()
        if min(components, dimensions, count) < 1:
            raise EnosError(
                f"{components} components, {dimensions} dimensions, {count} points",
                place="MixtureDensitySampler",
                remedy="one of each at least",
            )
        self.components = components
        self.dimensions = dimensions
        self.count = count

    def forward(self, logits: Tensor, means: Tensor, log_deviations: Tensor) -> Tensor:
        """Return (N, count, D) points.

        Args:
            logits: (N, K); the weights are their softmax.
            means: (N, K * D).
            log_deviations: (N, K * D), natural logarithms.
        """
        if has_torch_function((logits, means, log_deviations)):
            return _sample_given(logits, means, log_deviations, count=self.count)
        shape = (-1, self.components, self.dimensions)
        deviation = log_deviations.view(shape).exp()
        components = MultivariateNormal(means.view(shape), scale_tril=torch.diag_embed(deviation))
        mixture = MixtureSameFamily(Categorical(logits=logits), components)
        drawn: Tensor = mixture.sample((self.count,))  # type: ignore[no-untyped-call]
        return drawn.transpose(0, 1)
