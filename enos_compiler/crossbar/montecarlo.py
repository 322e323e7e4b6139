# SPDX-License-Identifier: Apache-2.0
"""Monte-Carlo evaluation over devices with a confidence interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from enos_compiler.errors import SpecError


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over devices and the interval that holds it with the stated confidence."""

    mean: float
    low: float
    high: float
    confidence: float
    samples: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Standard deviation from device to device."""
        return float(np.std(self.samples, ddof=1))


def monte_carlo(
    evaluate: Callable[[np.random.SeedSequence], float],
    *,
    devices: int = 30,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Evaluate a figure on independent devices.

    The interval is Student's t on the mean; it assumes that the mean of the samples is close to
    normal, so take more devices for skewed figures. Device i has the same seed in every call, so
    two settings compare on the same devices.

    Args:
        evaluate: the figure (an accuracy, a signal-to-noise ratio) of one device, by its seed.
        devices: how many to draw, at least 2.
        confidence: of the interval, 0..1.
        seed: of the whole study.

    Raises:
        SpecError: fewer than two devices, or a confidence outside (0, 1).
    """
    if devices < 2 or not 0 < confidence < 1:
        raise SpecError(
            f"{devices} devices at confidence {confidence} give no interval",
            place="monte_carlo",
            remedy="two devices or more, and a confidence such as 0.95",
        )
    seeds = np.random.SeedSequence(seed).spawn(devices)
    samples = tuple(float(evaluate(s)) for s in seeds)
    mean = float(np.mean(samples))
    error = float(np.std(samples, ddof=1)) / devices**0.5
    from scipy import stats

    reach = float(stats.t.ppf(0.5 + confidence / 2, devices - 1)) * error
    return Estimate(mean, mean - reach, mean + reach, confidence, samples)


def error_to_signal(ideal: np.ndarray, real: np.ndarray) -> float:
    """Power of the error over power of the ideal output; zero where they agree.

    Raises:
        SpecError: the ideal output is all zero.
    """
    power = float(np.mean(np.square(ideal, dtype=np.float64)))
    if power == 0:
        raise SpecError(
            "the ideal output is zero, so no ratio to it exists",
            place="error_to_signal",
            remedy="inputs that excite the layer",
        )
    difference = np.asarray(real, np.float64) - ideal
    return float(np.mean(np.square(difference))) / power
