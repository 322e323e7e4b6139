# SPDX-License-Identifier: Apache-2.0
"""Lowers draws from Gaussian mixtures: `enos_compiler.nn` makes them visible to the recorder."""

from __future__ import annotations

from torch import fx

from enos_compiler.errors import EnosError
from enos_compiler.frontend.lowering import Builder, lowers
from enos_compiler.sampling.mixture import GaussianMixture


@lowers("sample")
def sample(
    b: Builder,
    start: fx.Node,
    weights: fx.Node,
    means: fx.Node,
    covariances: fx.Node,
    *,
    count: int,
) -> fx.Node:
    """Draws of a constant mixture, checked here so that the user's line is named."""
    parts = (weights, means, covariances)
    if not all(b.is_constant(part) for part in parts):
        raise b.error(
            "a mixture's weights, means or covariances depend on an input",
            "use MixtureDensitySampler, which takes them as logits, means and log deviations",
        )
    try:
        GaussianMixture(*(b.tensor(part).detach().double().numpy() for part in parts))
    except EnosError as error:
        raise b.error(f"{error.place} {error.message}", error.remedy or "") from error
    return b.emit("sample", start, weights, means, covariances, count=count)


@lowers("sample_given")
def sample_given(
    b: Builder, logits: fx.Node, means: fx.Node, log_deviations: fx.Node, *, count: int
) -> fx.Node:
    """Draws of a mixture that the network conditions."""
    return b.emit("sample_given", logits, means, log_deviations, count=count)
