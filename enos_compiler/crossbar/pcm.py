# SPDX-License-Identifier: Apache-2.0
"""Phase-change memory: programming error, drift and 1/f read noise of a conductance in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PcmModel:
    """Statistical model of one device; conductances are fractions of full scale.

    Programming: sigma = (0.26348 + 1.9650 g - 1.1731 g^2) uS of 25 uS. Drift: g (t / t0)^-nu with
    nu normal, mean clip(-0.0155 ln g + 0.0244, 0.049, 0.1) and standard deviation
    clip(-0.0125 ln g - 0.0059, 0.008, 0.045), no drift upwards. Read noise: relative
    min(0.0088 g^-0.65, 0.2) sqrt(ln((t + t_read) / (2 t_read))).

    Source: Joshi et al., Nature Communications 11, 2473 (2020), coefficients as in aihwkit 1.2.0;
    the programming polynomial seen, drift and read noise remembered and held against the
    reference's table of means and deviations.
    """

    full_scale_us: float = 25.0
    first_read_s: float = 20.0
    read_time_s: float = 250e-9

    def programmed(self, target: Floats, rng: np.random.Generator) -> Floats:
        """Conductance right after programming `target`, floored at zero."""
        sigma = (0.26348 + 1.9650 * target - 1.1731 * target**2) / self.full_scale_us
        return np.asarray(np.maximum(target + sigma * rng.standard_normal(target.shape), 0.0))

    def exponent(self, target: Floats, rng: np.random.Generator) -> Floats:
        """Drift exponent of each device: a property of the device, drawn once."""
        log_g = np.log(np.maximum(target, 1e-9))
        mean = np.clip(-0.0155 * log_g + 0.0244, 0.049, 0.1)
        spread = np.clip(-0.0125 * log_g - 0.0059, 0.008, 0.045)
        return np.asarray(np.abs(mean + spread * rng.standard_normal(target.shape)))

    def at(
        self,
        programmed: Floats,
        seconds: float,
        exponent: Floats,
        rng: np.random.Generator,
    ) -> Floats:
        """Conductance as one read sees it `seconds` after the first possible read."""
        time = seconds + self.first_read_s
        drifted = programmed * (time / self.first_read_s) ** -exponent
        relative = np.minimum(0.0088 / np.maximum(programmed**0.65, 1e-3), 0.2)
        spread = relative * np.sqrt(np.log((time + self.read_time_s) / (2 * self.read_time_s)))
        noisy = drifted * (1 + spread * rng.standard_normal(drifted.shape))
        return np.asarray(np.maximum(noisy, 0.0))
