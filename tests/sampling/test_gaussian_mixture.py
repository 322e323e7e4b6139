# SPDX-License-Identifier: Apache-2.0
"""Mixtures as integers, random bits as steps, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_mixtures import TWO
from scipy import stats

from enos_compiler.errors import EnosError
from enos_compiler.sampling.chain import Chains
from enos_compiler.sampling.codes import encode, step_deviation, step_weights
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import GaussianMixture
from enos_compiler.sampling.randomness import Lanes, RandomCells
from enos_compiler.sampling.run import draws

FORM = SamplerForm()


@pytest.mark.parametrize("bits", range(2, 13))
def test_steps_reach_every_integer_of_their_width_symmetrically(bits: int) -> None:
    weights = step_weights(bits)
    sums = {0: 1.0}
    for weight in weights:
        grown: dict[int, float] = {}
        for value, share in sums.items():
            for moved in (value, value + int(weight)):
                grown[moved] = grown.get(moved, 0.0) + share / 2
        sums = grown
    reach = 2 ** (bits - 1) - 1
    half = int(weights.sum()) // 2
    odds = {value - half: share for value, share in sums.items()}
    assert sorted(odds) == list(range(-reach, reach + 1))
    assert all(np.isclose(odds[d], odds[-d]) for d in odds)
    second = sum(share * d * d for d, share in odds.items())
    assert np.isclose(second**0.5, step_deviation(bits))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    components=st.integers(1, 5),
    dimensions=st.integers(1, 4),
    bits=st.integers(6, 10),
)
def test_integer_densities_follow_the_mixture(
    seed: int, components: int, dimensions: int, bits: int
) -> None:
    """Differences of log2 densities are right up to the rounding of W, M, C and the result."""
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(components, 3.0))
    means = generator.normal(0, 2, (components, dimensions))
    roots = generator.normal(0, 0.2, (components, dimensions, dimensions))
    covariances = roots @ roots.swapaxes(1, 2) + generator.uniform(0.6, 1.5) * np.eye(dimensions)
    mixture = GaussianMixture(weights, means, covariances)
    form = replace(FORM, weight_bits=bits)
    codes = encode(mixture, form)
    chains = Chains(codes, form)
    which = generator.integers(0, components, 50)
    lattice = np.rint(codes.means[which] / 16 + generator.normal(0, 15, (50, dimensions)))
    states = lattice.astype(np.int64)
    found = chains.logs(chains.recompute(states)[1]) / 2.0**form.log_fraction_bits
    points = codes.real(states)
    expected = mixture.component_log_densities(points) / np.log(2)
    apart = points[:, None] - mixture.means
    step = np.exp2(codes.exponent.astype(np.float64))
    # each entry of W is off by half a unit, each mean by half of 2**-4 of a step
    from_weights = 0.5 * np.exp2(codes.scale.astype(float)) * (np.abs(apart / step).sum(-1) ** 2)
    slope = np.abs(np.einsum("kij,nkj->nki", np.linalg.inv(covariances), apart)) * step
    from_means = (slope.sum(-1) + 0.1) / 32 / np.log(2)
    tolerance = 1.1 * (from_weights + from_means) + 3 * 2.0**-form.log_fraction_bits
    offset = (np.log2(weights) - 0.5 * np.linalg.slogdet(covariances)[1] / np.log(2)).max()
    constant = offset - 0.5 * dimensions * np.log2(2 * np.pi)
    assert (np.abs(found + constant - expected) <= tolerance).all()


def test_biased_cells_bias_uncorrected_steps_and_not_flipped_ones() -> None:
    for correction, whitening, least in (("none", 1, 0.1), ("sign-flip", 2, None)):
        form = replace(FORM, correction=correction, whitening=whitening, chains=64)  # type: ignore[arg-type]  # one of two literals
        steps = draws(form, 2, 2000, random=RandomCells(bias=0.05), seed=3).steps
        mean = steps.mean() / steps.std()
        if least is not None:
            assert mean > least
        else:
            # the sign is off by 2 * bias**2 = 0.005, so the mean by twice that times |step|
            assert abs(mean) < 0.01 + 4 / np.sqrt(steps.size)


def test_cells_have_the_bias_spread_and_correlation_that_are_asked() -> None:
    seeds = np.random.SeedSequence(5).spawn(2)

    def draw(cells: RandomCells, lanes: int) -> np.ndarray:
        return cells.draw(4000, cells.odds(8, lanes, seed=seeds[0]), seed=seeds[1])

    biased = draw(RandomCells(bias=0.1), 8)
    assert abs(biased.mean() - 0.6) < 5 * np.sqrt(0.24 / biased.size)
    spread = draw(RandomCells(spread=0.1), 32).mean(0)
    assert 0.08 < spread.std() < 0.12
    sticky = draw(RandomCells(correlation=0.4), 8).astype(float)
    left, right = sticky[:-1] - 0.5, sticky[1:] - 0.5
    assert abs((left * right).mean() * 4 - 0.4) < 0.02
    fair = draw(RandomCells(), 33)
    assert stats.binomtest(int(fair.sum()), fair.size).pvalue > 1e-4
    assert np.array_equal(fair, draw(RandomCells(), 33))


def test_uniforms_are_uniform() -> None:
    uniforms = draws(replace(FORM, chains=32), 1, 2000, seed=2).uniforms
    assert stats.kstest(uniforms.ravel() / 2**FORM.uniform_bits, "uniform").pvalue > 1e-4
    assert Lanes.of(FORM, 3).total == 3 * (20 + 2) + 32


def _mixture(**changes: Any) -> GaussianMixture:
    parts = {"weights": TWO.weights, "means": TWO.means, "covariances": TWO.covariances}
    return GaussianMixture(**{**parts, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.array([0.6, 0.6])}, "weights: .*sum 1.2"),
        ({"weights": np.array([1.2, -0.2])}, "weights: .*-0.2"),
        ({"weights": np.array([np.nan, 1.0])}, "weights: holds NaN"),
        ({"means": np.zeros((3, 2))}, r"\(3, 2\)"),
        ({"covariances": np.array([np.eye(2), [[1, 2], [2, 1]]])}, r"covariances\[1\]: .*-1"),
        ({"covariances": np.array([[[1, 0.1], [0, 1]], np.eye(2)])}, "not symmetric"),
    ],
)
def test_what_is_no_mixture_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EnosError, match=message):
        _mixture(**changes)


@pytest.mark.parametrize(
    ("form", "mixture", "message"),
    [
        ({"weight_bits": 0}, {}, "weight_bits: is 0"),
        ({"adc_bits": 0}, {}, "adc_bits: is 0"),
        ({"chains": 0}, {}, "chains: is 0"),
        ({"step": 0.0}, {}, "step: is 0.0"),
        ({"correction": "luck"}, {}, "correction: is 'luck'"),
        ({"weight_bits": 4, "bits_per_conversion": 5}, {}, "a weight has 4 bits"),
        ({"state_bits": 6}, {}, "state_bits: coordinate 0 reaches .* 64"),
        (
            {"weight_bits": 3},
            {"covariances": np.array([np.eye(2), [[1.0, 0.98], [0.98, 1.0]]])},
            r"covariances\[1\]: .*rounded to 3 bits",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(
    form: dict[str, Any], mixture: dict[str, Any], message: str
) -> None:
    with pytest.raises(EnosError, match=message):
        encode(_mixture(**mixture), SamplerForm(**form))
