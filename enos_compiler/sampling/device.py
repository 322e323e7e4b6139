# SPDX-License-Identifier: Apache-2.0
"""What a real array adds to a chain: mismatched cells, curved converters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enos_compiler.errors import EnosError, SpecError
from enos_compiler.sampling.codes import Integers, MixtureCodes
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import Floats


@dataclass(frozen=True, slots=True)
class Imperfections:
    """Sizes of what a device does; all off by default, all drawn once per device.

    Source: the forms are the usual ones of charge-domain arrays; sizes are a study's variables.
    """

    mismatch: float = 0.0
    """Relative standard deviation of a cell's contribution."""
    dac_inl_lsb: float = 0.0
    """Largest deviation of a DAC's transfer curve from its line, a half sine with random sign."""
    adc_inl_lsb: float = 0.0
    """The same of an ADC, in its own steps."""
    adc_offset_lsb: float = 0.0
    """Standard deviation of the ADCs' offsets, in their steps."""
    gain_error: float = 0.0
    """Relative standard deviation of a column's gain."""

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        for name in self.__slots__:
            if not getattr(self, name) >= 0:
                raise SpecError(f"is {getattr(self, name)}", place=name, remedy="0 or more")

    @property
    def ideal(self) -> bool:
        """Whether nothing is added."""
        return not any(getattr(self, name) for name in self.__slots__)


class Device:
    """One device instance: each chain has cells and converters of its own."""

    def __init__(
        self,
        imperfections: Imperfections,
        codes: MixtureCodes,
        form: SamplerForm,
        *,
        seed: np.random.SeedSequence,
    ) -> None:
        generator = np.random.Generator(np.random.Philox(seed))
        chains, columns = form.chains, codes.components * codes.dimensions
        groups = -(-form.weight_bits // form.bits_per_conversion)
        self.imperfections = imperfections
        self.proposal_bits = form.proposal_bits
        shape = (chains, columns, codes.dimensions, groups)
        self.cells = 1 + imperfections.mismatch * generator.standard_normal(shape)
        gains = imperfections.gain_error * generator.standard_normal((chains, columns, 1, groups))
        self.cells *= 1 + gains
        self.dac_bow = _signs(generator, (chains, codes.dimensions)) * imperfections.dac_inl_lsb
        self.adc_bow = _signs(generator, (chains, columns, groups)) * imperfections.adc_inl_lsb
        offsets = generator.standard_normal((chains, columns, groups))
        self.offset = imperfections.adc_offset_lsb * offsets

    def column_sums(self, step: Integers, digits: Floats) -> Floats:
        """Return what the columns add up for steps (S, D): (S, K * D, groups)."""
        driven = self._drive(step)
        sums: Floats = np.einsum("sj,cjg,scjg->scg", driven, digits, self.cells, optimize=True)
        return sums

    def _drive(self, step: Integers) -> Floats:
        """Return the DACs' outputs, in steps of the line through their ends."""
        full = 2 ** (self.proposal_bits - 1)
        driven: Floats = step + self.dac_bow * np.sin(np.pi * step / full)
        return driven

    def convert(self, scaled: Floats, bits: int) -> Floats:
        """Return what the ADCs see before they round, in their steps."""
        full = 2 ** (bits - 1)
        seen: Floats = scaled + self.adc_bow * np.sin(np.pi * scaled / full) + self.offset
        return seen

    def check(self, codes: MixtureCodes, digits: Integers, places: Integers) -> None:
        """Refuse a device whose mismatch leaves a matrix that is not positive definite.

        Raises:
            EnosError: names the component, the chain and the eigenvalue.
        """
        shape = (len(self.cells), codes.components, codes.dimensions, codes.dimensions)
        flat = digits.reshape(-1, *digits.shape[2:])
        real = (flat * self.cells * places).sum(-1).reshape(shape)
        least = np.linalg.eigvalsh((real + real.swapaxes(-1, -2)) / 2)[..., 0]
        if (least <= 0).any():
            chain, component = np.unravel_index(int(least.argmin()), least.shape)
            raise EnosError(
                f"mismatch {self.imperfections.mismatch:g} turns its inverse in chain {chain} "
                f"into a matrix with the eigenvalue {least.min():.4g}",
                place=f"covariances[{component}]",
                remedy="less mismatch, or a better conditioned covariance",
            )


def _signs(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return generator.choice(np.array([-1.0, 1.0]), shape)
