# SPDX-License-Identifier: Apache-2.0
"""The distribution that is sampled: a mixture of Gaussians, checked where it is stated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from enos_compiler.errors import EnosError

Floats = npt.NDArray[np.float64]

WEIGHT_TOLERANCE = 1e-6
"""How far the sum of the weights may be from one: float32 sums of 32 terms stay below."""


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMixture:
    """Weights (K,), means (K, D) and covariances (K, D, D) of K components in D dimensions.

    Raises:
        EnosError: shapes that do not fit, weights that are negative or do not sum to one, a
            covariance that is not symmetric positive definite.
    """

    weights: Floats
    means: Floats
    covariances: Floats

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        for name in ("weights", "means", "covariances"):
            array = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, array)
            if not np.isfinite(array).all():
                raise EnosError("holds NaN or infinity", place=name, remedy="give finite numbers")
        _check_shapes(self.weights, self.means, self.covariances)
        _check_weights(self.weights)
        for k, covariance in enumerate(self.covariances):
            _check_covariance(covariance, f"covariances[{k}]")

    @property
    def components(self) -> int:
        """K."""
        return self.weights.size

    @property
    def dimensions(self) -> int:
        """D."""
        return int(self.means.shape[1])

    @property
    def mean(self) -> Floats:
        """(D,)."""
        mean: Floats = self.weights @ self.means
        return mean

    @property
    def covariance(self) -> Floats:
        """(D, D)."""
        apart = self.means - self.mean
        between = np.einsum("k,ki,kj->ij", self.weights, apart, apart)
        total: Floats = np.einsum("k,kij->ij", self.weights, self.covariances) + between
        return total

    def component_log_densities(self, points: Floats) -> Floats:
        """Return log(weight) + log density of each component, (..., K), at points (..., D)."""
        factors = np.linalg.cholesky(self.covariances)
        apart = points[..., None, :] - self.means
        white = np.linalg.solve(factors, apart[..., None])[..., 0]
        logs = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(-1)
        constant = -0.5 * self.dimensions * np.log(2 * np.pi) - logs
        with np.errstate(divide="ignore"):
            density: Floats = np.log(self.weights) + constant - 0.5 * np.square(white).sum(-1)
        return density

    def log_density(self, points: Floats) -> Floats:
        """Return the log density at points (..., D)."""
        density: Floats = special.logsumexp(self.component_log_densities(points), axis=-1)
        return density

    def marginal_cdf(self, dimension: int, points: Floats) -> Floats:
        """Return the distribution function of one coordinate."""
        sd = np.sqrt(self.covariances[:, dimension, dimension])
        scaled = (np.asarray(points)[..., None] - self.means[:, dimension]) / sd
        cdf: Floats = special.ndtr(scaled) @ self.weights
        return cdf

    def sample(self, count: int, generator: np.random.Generator) -> Floats:
        """Draw independent points exactly, (count, D)."""
        which = generator.choice(self.components, size=count, p=self.weights / self.weights.sum())
        normal = generator.standard_normal((count, self.dimensions))
        factors = np.linalg.cholesky(self.covariances)
        points: Floats = self.means[which] + np.einsum("nij,nj->ni", factors[which], normal)
        return points


def _check_shapes(weights: Floats, means: Floats, covariances: Floats) -> None:
    k = weights.shape[0] if weights.ndim == 1 else 0
    d = means.shape[1] if means.ndim == 2 else 0
    if not (k and d and means.shape == (k, d) and covariances.shape == (k, d, d)):
        raise EnosError(
            f"shapes {weights.shape}, {means.shape}, {covariances.shape} do not fit each other",
            place="weights, means, covariances",
            remedy="give (K,), (K, D) and (K, D, D)",
        )


def _check_weights(weights: Floats) -> None:
    if (weights < 0).any() or abs(weights.sum() - 1) > WEIGHT_TOLERANCE:
        raise EnosError(
            f"are {np.round(weights, 6).tolist()}, their sum {weights.sum():.6g}",
            place="weights",
            remedy="give weights of 0 or more that sum to 1",
        )


def _check_covariance(covariance: Floats, place: str) -> None:
    symmetric = np.allclose(covariance, covariance.T, rtol=1e-6, atol=0)
    least = float(np.linalg.eigvalsh((covariance + covariance.T) / 2)[0])
    if not symmetric or least <= 0:
        what = "is not symmetric" if not symmetric else f"has the eigenvalue {least:.4g}"
        raise EnosError(
            f"{what}, so it is no covariance",
            place=place,
            remedy="give a symmetric positive definite matrix",
        )
