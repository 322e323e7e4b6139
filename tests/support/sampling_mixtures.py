# SPDX-License-Identifier: Apache-2.0
"""Mixtures that the sampling tests share."""

from __future__ import annotations

import numpy as np

from enos_compiler.sampling.chain import Chains, Trace
from enos_compiler.sampling.codes import MixtureCodes, encode
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import GaussianMixture
from enos_compiler.sampling.randomness import Draws, Lanes, RandomCells, decode

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


def draws(
    form: SamplerForm,
    dimensions: int,
    steps: int,
    *,
    cells: RandomCells | None = None,
    seed: int = 0,
) -> Draws:
    """Return the steps and uniforms of a seeded run."""
    lanes = Lanes.of(form, dimensions).total
    bits = (cells or RandomCells()).draw(
        steps, form.chains, lanes, seed=np.random.SeedSequence(seed)
    )
    return decode(bits, form, dimensions)


def run(
    mixture: GaussianMixture,
    form: SamplerForm,
    steps: int,
    *,
    cells: RandomCells | None = None,
    seed: int = 0,
) -> tuple[MixtureCodes, Trace]:
    """Return the integers of a mixture and the trace of a seeded run on an ideal device."""
    codes = encode(mixture, form)
    drawn = draws(form, mixture.dimensions, steps, cells=cells, seed=seed)
    return codes, Chains(codes, form).run(drawn)
