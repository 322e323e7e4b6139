# SPDX-License-Identifier: Apache-2.0
"""Samples against the exact mixture, with thresholds from the number of effective samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sampling_mixtures import TWO
from scipy import stats

from enos_compiler.sampling.codes import encode
from enos_compiler.sampling.diagnostics import (
    diagnose,
    grid_distance,
    mode_shares,
    sliced_wasserstein,
    spread_over_cells,
)
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.randomness import RandomCells
from enos_compiler.sampling.run import Hardware, flat_samples, run

LONG = SamplerForm(chains=64, burn_in=200, thinning=20)
SAMPLES = 250
"""Of each chain."""


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Samples of ideal chains, (draws, chains, 2)."""
    codes = encode(TWO, LONG)
    trace = run(codes, LONG, SAMPLES * LONG.chains, seed=11)
    assert trace.saturated == 0
    return codes.real(trace.states)


def test_moments_lie_within_their_standard_errors(samples: np.ndarray) -> None:
    """Five figures, each within 4.5 standard errors: a false alarm once in 30,000 runs."""
    diagnosis = diagnose(samples, np.ones(LONG.chains))
    assert (diagnosis.r_hat < 1.01).all()
    flat = samples.reshape(-1, 2)
    effective = diagnosis.effective_samples
    error = np.sqrt(np.diag(TWO.covariance) / effective)
    assert (np.abs(flat.mean(0) - TWO.mean) < 4.5 * error).all()
    apart = flat - TWO.mean
    products = np.stack([apart[:, 0] ** 2, apart[:, 1] ** 2, apart[:, 0] * apart[:, 1]], 1)
    wanted = TWO.covariance[[0, 1, 0], [0, 1, 1]]
    # squares decorrelate no slower than the coordinates themselves
    error = products.std(0) / np.sqrt(effective.min())
    assert (np.abs(products.mean(0) - wanted) < 4.5 * error).all()


def test_marginals_pass_kolmogorov_smirnov(samples: np.ndarray) -> None:
    """Two marginals at a family error of 1e-4, on draws that are thinned to independence."""
    diagnosis = diagnose(samples, np.ones(LONG.chains))
    apart = int(np.ceil(diagnosis.autocorrelation_time.max()))
    flat = samples[::apart].reshape(-1, 2)
    flat = spread_over_cells(flat, encode(TWO, LONG).step)
    for dimension in range(2):
        found = stats.kstest(TWO.marginal_cdf(dimension, flat[:, dimension]), "uniform")
        assert found.pvalue > 1e-4 / 2


def test_modes_have_their_shares(samples: np.ndarray) -> None:
    flat = samples.reshape(-1, 2)
    exact = TWO.sample(200_000, np.random.default_rng(1))
    expected = mode_shares(TWO, exact)
    effective = diagnose(samples, np.ones(LONG.chains)).effective_samples.min()
    error = np.sqrt(expected * (1 - expected) / effective)
    assert (np.abs(mode_shares(TWO, flat) - expected) < 4.5 * error).all()


def test_distances_see_what_acceptance_does_not() -> None:
    """Rounding conversions that are never refreshed leave the target; refreshing brings it back."""
    exact = TWO.sample(8000, np.random.default_rng(4))
    floor = grid_distance(TWO, exact)
    found = {}
    for name, change in {
        "exact": {},
        "refreshed": {"bits_per_conversion": 4, "refresh": 16},
        "drifting": {"bits_per_conversion": 8, "refresh": 0},
    }.items():
        form = replace(LONG, **change)  # type: ignore[arg-type]  # integers by name
        codes = encode(TWO, form)
        trace = run(codes, form, 8000, seed=7)
        flat = spread_over_cells(flat_samples(codes, trace), codes.step)
        found[name] = (grid_distance(TWO, flat), sliced_wasserstein(flat, exact))
        assert trace.acceptance.mean() > 0.15
    assert found["exact"][0].total_variation < 1.25 * floor.total_variation
    assert found["refreshed"][0].total_variation < 1.5 * floor.total_variation
    assert found["drifting"][0].total_variation > 2.5 * floor.total_variation
    assert found["drifting"][1] > 5 * found["exact"][1]


def test_biased_cells_move_the_mean_unless_the_sign_is_flipped() -> None:
    """The stationary law under an asymmetric proposal is not the target's."""
    hardware = Hardware(random=RandomCells(bias=0.05))
    found = {}
    for correction, whitening in (("none", 1), ("sign-flip", 2)):
        form = replace(LONG, correction=correction, whitening=whitening)  # type: ignore[arg-type]  # one of two literals
        codes = encode(TWO, form)
        flat = flat_samples(codes, run(codes, form, 8000, seed=9, hardware=hardware))
        found[correction] = np.abs(flat.mean(0) - TWO.mean).max()
    assert found["sign-flip"] < 0.12 < 0.25 < found["none"]


def test_a_chain_that_never_accepts_is_reported() -> None:
    states = np.zeros((50, 4, 2))
    diagnosis = diagnose(states, np.zeros(4))
    assert any("4 of 4 chains accept 0.00%" in warning for warning in diagnosis.warnings())
    apart = np.random.default_rng(0).normal(size=(200, 4, 1)) + np.arange(4)[None, :, None] * 3
    assert any("R-hat" in warning for warning in diagnose(apart, np.ones(4)).warnings())
