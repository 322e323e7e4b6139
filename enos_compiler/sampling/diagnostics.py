# SPDX-License-Identifier: Apache-2.0
"""How good samples are: convergence between chains, effective samples, distance to the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from enos_compiler.sampling.mixture import Floats, GaussianMixture

LOW_ACCEPTANCE = 0.01
"""Share of accepted steps below which a chain counts as stuck."""
HIGH_R_HAT = 1.05
"""Above it chains disagree. Source: Vehtari et al., Bayesian Analysis 2021, ask for 1.01 of long
runs (remembered); a few hundred samples of a chain cannot resolve that."""


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """Convergence of one run; per coordinate where it says (D,)."""

    r_hat: Floats
    """(D,) rank-normalised split R-hat; NaN for a single chain that is too short."""
    effective_samples: Floats
    """(D,) of all chains together, for the mean."""
    draws: int
    """Samples of all chains together."""
    acceptance: Floats
    """(S,) of each chain."""

    @property
    def autocorrelation_time(self) -> Floats:
        """(D,) kept samples per effective one."""
        time: Floats = self.draws / self.effective_samples
        return time

    def warnings(self) -> tuple[str, ...]:
        """Return what a user must know before believing the samples."""
        found = []
        stuck = np.flatnonzero(self.acceptance < LOW_ACCEPTANCE)
        if stuck.size:
            found.append(
                f"{stuck.size} of {self.acceptance.size} chains accept "
                f"{self.acceptance.min():.2%} of their steps: step is too large, or log_bits too "
                "few for where they start"
            )
        worst = float(np.nanmax(self.r_hat)) if np.isfinite(self.r_hat).any() else 0.0
        if worst > HIGH_R_HAT:
            found.append(
                f"R-hat is {worst:.3f}: the chains have not met; raise burn_in or the steps, or "
                "read the modes' shares with care"
            )
        return tuple(found)


def diagnose(samples: Floats, acceptance: Floats) -> Diagnosis:
    """Return the diagnosis of samples (draws of a chain, S, D) and acceptance rates (S,).

    R-hat and effective samples are ArviZ's (rank-normalised split R-hat; Geyer's initial
    monotone sequence).
    """
    # slow to import, and only who diagnoses needs it
    from arviz_stats.base.array import array_stats

    stats_of: Any = array_stats  # untyped

    draws, chains, _ = samples.shape
    turned = np.ascontiguousarray(samples.transpose(2, 1, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        r_hat = stats_of.rhat(turned, chain_axis=1, draw_axis=2)
        effective = stats_of.ess(turned, chain_axis=1, draw_axis=2, method="mean")
    return Diagnosis(
        r_hat=np.atleast_1d(np.asarray(r_hat, np.float64)),
        effective_samples=np.atleast_1d(np.asarray(effective, np.float64)),
        draws=draws * chains,
        acceptance=acceptance,
    )


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two-dimensional samples are from their target, over square cells."""

    total_variation: float
    """0..1."""
    kl_bits: float
    """KL divergence of the samples' histogram from the target, in bits."""


def grid_distance(mixture: GaussianMixture, samples: Floats, *, cells: int = 24) -> Distance:
    """Compare samples (N, 2) with a mixture of two dimensions on cells x cells and an outside.

    A histogram of N exact samples is not at distance zero: compare with one of as many.
    """
    sd = np.sqrt(np.diagonal(mixture.covariances, axis1=1, axis2=2))
    low, high = (mixture.means - 4 * sd).min(0), (mixture.means + 4 * sd).max(0)
    edges = [np.linspace(low[j], high[j], cells + 1) for j in range(2)]
    found, _, _ = np.histogram2d(samples[:, 0], samples[:, 1], bins=edges)
    fine = 4
    middles = [_middles(edge, fine) for edge in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), -1)
    area = float(np.prod([edge[1] - edge[0] for edge in edges])) / fine**2
    mass = np.exp(mixture.log_density(points)) * area
    expected = mass.reshape(cells, fine, cells, fine).sum((1, 3)).ravel()
    expected = np.append(expected, max(1e-12, 1 - expected.sum()))
    shares = np.append(found.ravel(), len(samples) - found.sum()) / len(samples)
    here = shares > 0
    kl = float((shares[here] * np.log2(shares[here] / expected[here])).sum())
    return Distance(float(np.abs(shares - expected).sum() / 2), kl)


def _middles(edge: Floats, fine: int) -> Floats:
    count = (edge.size - 1) * fine
    width = (edge[-1] - edge[0]) / count
    middles: Floats = edge[0] + width * (np.arange(count) + 0.5)
    return middles


def spread_over_cells(samples: Floats, step: Floats, *, seed: int = 0) -> Floats:
    """Return samples (..., D) moved evenly within their lattice cell of extents (D,).

    Samples on a lattice beat against the cells of a histogram; spread ones do not.
    """
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, samples.shape)
    spread: Floats = samples + noise * step
    return spread


def sliced_wasserstein(
    samples: Floats, exact: Floats, *, directions: int = 64, seed: int = 0
) -> float:
    """Return the mean 1-Wasserstein distance over random directions, in units of the samples."""
    from scipy import stats

    generator = np.random.default_rng(seed)
    rays = generator.standard_normal((directions, samples.shape[1]))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    distances = [stats.wasserstein_distance(samples @ ray, exact @ ray) for ray in rays]
    return float(np.mean(distances))


def mode_shares(mixture: GaussianMixture, samples: Floats) -> Floats:
    """Return the share of samples (N, D) whose likeliest component is k, (K,)."""
    likeliest = mixture.component_log_densities(samples).argmax(1)
    return np.bincount(likeliest, minlength=mixture.components) / len(samples)
