# SPDX-License-Identifier: Apache-2.0
"""Mixtures that the sampling tests share."""

from __future__ import annotations

import numpy as np

from enos_compiler.sampling.mixture import GaussianMixture

TWO = GaussianMixture(
    np.array([0.6, 0.4]),
    np.array([[1.0, 0.0], [-1.5, 1.0]]),
    np.array([[[1.0, 0.5], [0.5, 1.0]], [[0.5, -0.2], [-0.2, 0.8]]]),
)
"""Two overlapping components in two dimensions."""

LINE = GaussianMixture(
    np.array([0.7, 0.3]), np.array([[-1.0], [1.6]]), np.array([[[1.0]], [[0.4]]])
)
"""Two components in one dimension, for chains whose every state is enumerated."""
