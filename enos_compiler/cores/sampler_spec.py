# SPDX-License-Identifier: Apache-2.0
"""The form of a sampling core in a target file."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Literal

from enos_compiler.errors import SpecError
from enos_compiler.sampling.device import Imperfections
from enos_compiler.sampling.events import Units
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.randomness import RandomCells
from enos_compiler.sampling.run import Hardware
from enos_compiler.spec import Count, NonNegative, PartSpec, Positive, Quantity, Strict


class SamplerArraySpec(PartSpec):
    """SRAM arrays that hold precision matrices, one block of rows and columns for each chain."""

    rows: Count
    columns: Count
    count: Count
    """Arrays of the core."""
    cell_read_fj: Positive
    """Energy of one cell of a converted column in one read."""
    word_pj: Positive
    """Energy of reading one weight as a word, for an exact refresh."""
    program_pj: Positive
    """Energy of writing one weight."""
    read_ns: Positive
    cell_area_um2: NonNegative


class RandomSpec(PartSpec):
    """Cross-coupled inverters in the array, released from balance once for each bit."""

    bit_pj: Positive
    area_um2: NonNegative
    whitening: Count
    """Cells whose exclusive or gives one sign bit and one bit of the uniform number."""
    uniform_bits: Count
    """Random bits of one acceptance."""


class SamplerConverterSpec(PartSpec):
    """DACs on the rows of a chain, or ADCs on its columns."""

    bits: Count
    energy_pj: Positive
    """One conversion."""
    conversion_ns: Positive
    per_chain: Count
    """Converters of one chain; conversions beyond them take turns."""
    area_um2: NonNegative


class TableSpec(PartSpec):
    """The table of the exponential: 2 ** log_fraction_bits entries."""

    read_pj: Positive
    ports: Count
    """Reads of one chain in one cycle."""
    area_um2: NonNegative


class WordsSpec(Strict):
    """Widths of a chain's words."""

    weight_bits: Count
    bits_per_conversion: Count
    """Weight columns merged with binary weights in the charge domain before one conversion."""
    state_bits: Count
    log_bits: Count
    log_fraction_bits: Count
    exponential_bits: Count


class ScheduleSpec(Strict):
    """The operating point: what a program does by default."""

    refresh: Quantity[int]
    """Steps between exact recomputations; 0: never."""
    step: Positive
    """Standard deviation of a step, in units of 2.4 / sqrt(dimensions) deviations."""
    burn_in: Quantity[int]
    thinning: Count
    correction: Literal["none", "sign-flip"]


class ImperfectionsSpec(Strict):
    """What cells and converters of a device do; the report says how it moves the results."""

    mismatch: NonNegative
    """Relative standard deviation of a cell's contribution."""
    random_bias: NonNegative
    """Probability of a one above 1/2, of every random cell."""
    random_spread: NonNegative
    """Its standard deviation from cell to cell."""
    dac_inl_lsb: NonNegative
    adc_inl_lsb: NonNegative
    adc_offset_lsb: NonNegative


_PLACES = {
    "proposal_bits": "dac.bits",
    "adc_bits": "adc.bits",
    "weight_bits": "words.weight_bits",
    "bits_per_conversion": "words.bits_per_conversion",
    "state_bits": "words.state_bits",
    "log_bits": "words.log_bits",
    "log_fraction_bits": "words.log_fraction_bits",
    "exponential_bits": "words.exponential_bits",
    "uniform_bits": "random.uniform_bits",
    "whitening": "random.whitening",
    "refresh": "schedule.refresh",
    "step": "schedule.step",
    "burn_in": "schedule.burn_in",
    "thinning": "schedule.thinning",
}
"""Where the block states the fields of a program's form."""


class SamplerSpec(Strict):
    """Constants of a core of kind `sampler`."""

    array: SamplerArraySpec
    random: RandomSpec
    dac: SamplerConverterSpec
    adc: SamplerConverterSpec
    table: TableSpec
    multipliers: Count
    """Multipliers of one chain."""
    words: WordsSpec
    schedule: ScheduleSpec
    imperfections: ImperfectionsSpec

    def form(self, chains: int) -> SamplerForm:
        """Return the program's form for so many chains.

        Raises:
            SpecError: a width outside what can be built; its place is that of the figure.
        """
        figures = {name: self._figure(place) for name, place in _PLACES.items()}
        try:
            return SamplerForm(**figures, correction=self.schedule.correction, chains=chains)
        except SpecError as error:
            place = _PLACES.get(str(error.place), error.place)
            raise SpecError(error.message, place=place, remedy=error.remedy) from error

    def _figure(self, place: str) -> Any:
        """Return the value at a dotted place such as `words.state_bits`."""
        return attrgetter(place)(self).value

    def hardware(self) -> Hardware:
        """Return what a device does."""
        given = self.imperfections
        return Hardware(
            RandomCells(bias=given.random_bias.value, spread=given.random_spread.value),
            Imperfections(
                mismatch=given.mismatch.value,
                dac_inl_lsb=given.dac_inl_lsb.value,
                adc_inl_lsb=given.adc_inl_lsb.value,
                adc_offset_lsb=given.adc_offset_lsb.value,
            ),
        )

    def units(self, clock_ns: float) -> Units:
        """Return what serves one chain, in cycles of the chip's clock."""
        return Units(
            converters=self.adc.per_chain.value,
            multipliers=self.multipliers.value,
            table_ports=self.table.ports.value,
            read_cycles=_cycles(self.dac.conversion_ns.value + self.array.read_ns.value, clock_ns),
            conversion_cycles=_cycles(self.adc.conversion_ns.value, clock_ns),
        )


def _cycles(time_ns: float, clock_ns: float) -> int:
    return max(1, -int(-time_ns // clock_ns))
