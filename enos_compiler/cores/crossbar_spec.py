# SPDX-License-Identifier: Apache-2.0
"""The form of a crossbar core in a target file, and the array that each size of it stands for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from enos_compiler.cores.nonideal_spec import NonIdealitiesSpec
from enos_compiler.crossbar import adc_energy
from enos_compiler.crossbar import spec as arrays
from enos_compiler.crossbar.integer import lossless_adc_bits
from enos_compiler.crossbar.operators import CrossbarOperator
from enos_compiler.spec import (
    BufferSpec,
    Count,
    NonNegative,
    PartSpec,
    Positive,
    Quantity,
    Strict,
    rule_error,
)

ConverterBits = Annotated[int, Field(ge=1, le=16)]
Family = Literal[
    "in-memory-sar", "survey-best", "survey-best-at-rate", "survey-best-fifth", "survey-typical"
]
"""Published formulas for the energy of a conversion; see `crossbar.adc_energy`."""


class CellsSpec(PartSpec):
    """The memory cells: reading, writing, area."""

    bits: Quantity[Annotated[int, Field(ge=1, le=8)]]
    """Levels of a cell are 2 ** bits."""
    read_fj: NonNegative | None = None
    """Energy of one cell of a converted column in one access, whether it holds a weight or not;
    columns that are not converted are not read. Else each size has a `read_pj` of its own."""
    program_pj: Positive
    """Energy of writing one cell."""
    program_ns: Positive
    """Time of one write."""
    cells_per_write: Count
    """Cells that one write programs at once."""
    area_um2: NonNegative


class DriversSpec(PartSpec):
    """What puts one input digit on a row, and holds it there for one access."""

    digit_bits: Quantity[Annotated[int, Field(ge=1, le=8)]]
    """Bits of one digit; 1 needs no converter."""
    drive_pj: NonNegative
    """Energy of one row driven across an array in one access."""
    area_um2: NonNegative
    """Of one row's driver."""


class ConvertersSpec(PartSpec):
    """Column converters: energy by resolution, from the chip's own figures or from a survey."""

    energy_pj: dict[ConverterBits, Positive] | None = None
    """Energy of one conversion by resolution; fewer bits than the least cost as much as it."""
    family: Family | None = None
    """Where the chip has no figures of its own: a published formula, at the part's process. Bits
    below what it holds for cost as much as the least that it does."""
    widest: Quantity[ConverterBits] | None = None
    """Widest resolution of a family."""
    resolutions: list[Quantity[ConverterBits]] | None = None
    """What a layer may choose from; absent: the fewest bits that lose nothing of its sums."""
    range: Literal["full", "calibrated", "least-error"] = "least-error"
    """full: every sum that the weights can reach. calibrated: those that real inputs reach.
    least-error: what errs least on real inputs, which may clip rare sums."""
    per: Literal["layer", "column"] = "layer"
    """Whether all columns of a layer share a range."""
    conversion_ns: Positive
    columns_per_adc: Count
    area_um2: NonNegative

    @model_validator(mode="after")
    def _has_prices(self) -> ConvertersSpec:
        if (self.energy_pj is None) == (self.family is None):
            raise rule_error(
                "no single source of conversion energies", "give `energy_pj:` or a `family:`"
            )
        if self.family is not None and self.widest is None:
            raise rule_error("a family without a widest resolution", "add `widest:`")
        if self.energy_pj is not None:
            energies = [self.energy_pj[b].value for b in sorted(self.energy_pj)]
            if not energies or energies != sorted(energies):
                raise rule_error(
                    f"energies {energies} pJ that fall with the resolution",
                    "energies that do not fall: a formula that turns up is not valid there",
                )
        for bits in self.resolutions or ():
            if bits.value > self.most_bits:
                raise rule_error(
                    f"a resolution of {bits.value} bits; the widest priced one has "
                    f"{self.most_bits}",
                    f"at most {self.most_bits}, or the energy of {bits.value} bits",
                )
        return self

    @property
    def most_bits(self) -> int:
        """Widest resolution that has a price."""
        if self.energy_pj is not None:
            return max(self.energy_pj)
        return int(self.widest.value) if self.widest else 0

    def energy(self, bits: int) -> tuple[float, str]:
        """Return energy in pJ and source of one conversion of `bits` bits."""
        if self.energy_pj is not None:
            figure = self.energy_pj[min(b for b in self.energy_pj if b >= bits)]
            return float(figure.value), str(figure.source)
        rate, node = 1e9 / self.conversion_ns.value, self.node_nm.value
        found = {
            "in-memory-sar": lambda: adc_energy.in_memory_sar(bits, self.vdd_v.value),
            "survey-best": lambda: adc_energy.survey_best(bits),
            "survey-best-at-rate": lambda: adc_energy.survey_best_at_rate(bits, rate),
            "survey-best-fifth": lambda: adc_energy.survey_best_fifth(
                max(bits, adc_energy.BEST_FIFTH_FROM), rate, node
            ),
            "survey-typical": lambda: adc_energy.survey_typical(bits, rate, node),
        }[self.family or "in-memory-sar"]()
        return found.value, found.source


class SamplersSpec(PartSpec):
    """Sample-and-hold stages in front of shared converters; a chip without them leaves it out."""

    sample_pj: NonNegative
    area_um2: NonNegative


class AddersSpec(PartSpec):
    """Shift-and-add units; left out, the formulas of the chip's arithmetic price them."""

    add_pj: Positive
    """One code added to its accumulator."""
    area_um2: NonNegative


class SizeSpec(Strict):
    """Arrays of one size."""

    rows: Count
    columns: Count
    rows_at_once: Count | None = None
    """Rows that one access drives; all of them where absent."""
    count: Count
    """How many of them the chip has: a scarce resource that layers share."""
    swap: Count | None = None
    """Of these, how many are kept for layers that are reprogrammed in every inference; none where
    absent: reloading is then forbidden."""
    read_pj: NonNegative | None = None
    """Energy of one access of a whole array, where `cells.read_fj` is not given."""


class CrossbarCoreSpec(Strict):
    """Constants of a crossbar core."""

    operators: Annotated[list[CrossbarOperator], Field(min_length=1)]
    """What the periphery can do: which sums it drives and recovers."""
    input_bits: Count
    """Widest inputs; wider ones are narrowed on the edge."""
    weight_bits: Count
    """Widest weights."""
    encoding: arrays.Encoding
    subtract_before_adc: bool = True
    """Pairs of cells: take the difference in analog; else convert each side by itself."""
    interleaved: bool = False
    """The two cells of a pair lie side by side in one array; else in two arrays."""
    copies: list[Count] | None = None
    """Replicas of its weights that a layer may choose; one where absent."""
    cells: CellsSpec
    drivers: DriversSpec
    converters: ConvertersSpec
    samplers: SamplersSpec | None = None
    adders: AddersSpec | None = None
    sizes: Annotated[list[SizeSpec], Field(min_length=1)]
    input_buffer: BufferSpec
    weight_memory: BufferSpec | None = None
    """Keeps weights of layers that are reloaded; those of the others come from DRAM each time."""
    nonidealities: NonIdealitiesSpec | None = None
    """What is wrong with the devices; ideal ones where absent."""

    @model_validator(mode="after")
    def _sizes_are_whole(self) -> CrossbarCoreSpec:
        if len(set(self.operators)) < len(self.operators):
            raise rule_error("an operator twice in `operators`", "name each once")
        seen: set[int] = set()
        for size in self.sizes:
            rows = size.rows.value
            if rows in seen:
                raise rule_error(f"two sizes of {rows} rows", "join them and add their counts")
            seen.add(rows)
            self._check_size(size)
        if self.interleaved and not self.sums_signed:
            raise rule_error(
                "interleaved cells that are no pair subtracted before its conversion",
                "encoding: differential and subtract_before_adc: true",
            )
        if self.cells.bits.value > self.weight_bits.value:
            raise rule_error(
                f"cells of {self.cells.bits.value} bits for weights of at most "
                f"{self.weight_bits.value}",
                "cells no wider than the weights",
            )
        return self

    def _check_size(self, size: SizeSpec) -> None:
        rows, at_once = size.rows.value, size.rows_at_once
        if (size.read_pj is None) == (self.cells.read_fj is None):
            raise rule_error(
                f"no single price of reading arrays of {rows} rows",
                "give `cells.read_fj`, or `read_pj` of every size",
            )
        if at_once is not None and at_once.value > rows:
            raise rule_error(f"rows_at_once = {at_once.value} of {rows} rows", f"at most {rows}")
        if size.swap is not None and size.swap.value > size.count.value:
            raise rule_error(
                f"swap = {size.swap.value} of {size.count.value} arrays of {rows} rows",
                f"at most {size.count.value}",
            )
        needed = self.lossless_bits(at_once.value if at_once else rows)
        if self.converters.resolutions is None and needed > self.converters.most_bits:
            most = self.converters.most_bits
            raise rule_error(
                f"arrays of {rows} rows, which need converters of {needed} bits; the widest "
                f"priced one has {most}",
                f"fewer rows, the energy of {needed} bits, or `resolutions:` that may lose",
            )

    @property
    def sums_signed(self) -> bool:
        """Whether a converter sees sums of both signs."""
        return arrays.subtracts_pairs(self.encoding, before_adc=self.subtract_before_adc)

    def lossless_bits(self, rows: int) -> int:
        """Return the converter bits that lose nothing of any sum of `rows` rows."""
        return lossless_adc_bits(
            rows,
            cell_bits=self.cells.bits.value,
            digit_bits=self.drivers.digit_bits.value,
            signed=self.sums_signed,
        )

    def array(self, size: SizeSpec, adc_bits: int) -> arrays.CrossbarSpec:
        """Return the array of one size with converters of `adc_bits` bits."""
        return arrays.CrossbarSpec(
            rows=size.rows.value,
            columns=size.columns.value,
            cell=arrays.CellSpec(bits=self.cells.bits.value),
            encoding=self.encoding,
            subtract_before_adc=self.subtract_before_adc,
            interleaved=self.interleaved,
            rows_at_once=size.rows_at_once.value if size.rows_at_once else None,
            dac=arrays.DacSpec(digit_bits=self.drivers.digit_bits.value),
            adc=arrays.AdcSpec(
                bits=adc_bits,
                columns_per_adc=self.converters.columns_per_adc.value,
                range_mode=self.converters.range,
                range_per_column=self.converters.per == "column",
            ),
        )
