# SPDX-License-Identifier: Apache-2.0
"""How a sampler is run: widths of its words, how often it refreshes, which steps it proposes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import sqrt
from typing import Literal, get_args

from enos_compiler.errors import SpecError

Correction = Literal["none", "sign-flip"]

_LIMITS = {
    "proposal_bits": (2, 12),
    "weight_bits": (2, 16),
    "bits_per_conversion": (1, 16),
    "adc_bits": (1, 24),
    "state_bits": (4, 24),
    "log_bits": (8, 32),
    "log_fraction_bits": (2, 12),
    "exponential_bits": (2, 24),
    "uniform_bits": (2, 24),
    "refresh": (0, None),
    "whitening": (1, 8),
    "chains": (1, None),
    "burn_in": (0, None),
    "thinning": (1, None),
}


@dataclass(frozen=True, slots=True)
class SamplerForm:
    """Every width and count of a sampling program; a core states the widths, a network the rest.

    Raises:
        SpecError: a width or count outside what can be built; names it.
    """

    proposal_bits: int = 7
    """Signed width of a step in one dimension, which is the DAC's: two dimensions of 7 bits and
    single weight columns are resolved by 8-bit conversions without rounding."""
    weight_bits: int = 8
    """Signed width of the entries of a precision matrix."""
    bits_per_conversion: int = 1
    """Weight columns merged with binary weights in the charge domain before one conversion."""
    adc_bits: int = 8
    state_bits: int = 12
    """Width of a coordinate of the chain."""
    log_bits: int = 20
    """Width of a log2 density, its fraction included; below its range it saturates."""
    log_fraction_bits: int = 8
    """Fraction of a log2 density: the address of the exponential's table."""
    exponential_bits: int = 12
    """Width of the exponential's table."""
    uniform_bits: int = 16
    """Random bits of one acceptance."""
    refresh: int = 64
    """Steps between exact recomputations of the incremental form; 0: never."""
    correction: Correction = "sign-flip"
    """How the step stays symmetric under biased random bits: a separately drawn sign, or not."""
    whitening: int = 2
    """Cells whose exclusive or gives one sign bit: bias e becomes 2 e^2 at two cells."""
    step: float = 1.0
    """Standard deviation of a step, in units of the mixture's within-component deviation times
    2.4 / sqrt(D) (Roberts, Gelman and Gilks 1997, remembered); reached within a factor sqrt(2)."""
    chains: int = 16
    burn_in: int = 200
    """Steps of each chain that are thrown away."""
    thinning: int = 4
    """Steps from one kept sample of a chain to the next."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                bound = f"{low}..{high}" if high is not None else f"{low} or more"
                raise SpecError(f"is {value}", place=name, remedy=bound)
        if self.bits_per_conversion > self.weight_bits:
            raise SpecError(
                f"is {self.bits_per_conversion}, a weight has {self.weight_bits} bits",
                place="bits_per_conversion",
                remedy="merge at most the columns of one weight",
            )
        if self.log_fraction_bits >= self.log_bits:
            raise SpecError(
                f"is {self.log_fraction_bits} of {self.log_bits} bits",
                place="log_fraction_bits",
                remedy="leave bits for the whole part",
            )
        if not self.step > 0:
            raise SpecError(f"is {self.step}", place="step", remedy="a positive number")
        if self.correction not in get_args(Correction):
            raise SpecError(
                f"is {self.correction!r}",
                place="correction",
                remedy=" or ".join(get_args(Correction)),
            )

    def as_dict(self) -> dict[str, int | float | str]:
        """Return the fields by name, as a file holds them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def step_deviations(self, dimensions: int) -> float:
        """Return the wanted deviation of a step in each of D dimensions, in those of components."""
        return self.step * 2.4 / sqrt(dimensions)

    def iterations(self, samples: int) -> int:
        """Return the steps of each chain that give so many samples in all."""
        return self.burn_in + -(-samples // self.chains) * self.thinning
