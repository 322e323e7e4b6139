# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the devices of a crossbar core, as a target file says it.

Compiling, the integer reference and ONNX know nothing of it: it enters where accuracy is measured
device by device (`enosc --evaluate`). Every block is off where it is absent.
"""

from __future__ import annotations

from math import inf
from typing import Annotated, Literal

from pydantic import Field, model_validator

from enos_compiler.crossbar.adc_errors import AdcErrors
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.nonideal import (
    ArrayWires,
    CapacitorMismatch,
    NonIdealities,
    PowerLawDrift,
    StuckCells,
)
from enos_compiler.crossbar.pcm import PcmModel
from enos_compiler.crossbar.spec import WireSpec
from enos_compiler.spec import NonNegative, Positive, Quantity, Strict, rule_error

Fraction = Quantity[Annotated[float, Field(ge=0, le=1)]]
Ratio = Quantity[Annotated[float, Field(gt=1, allow_inf_nan=False)]]


class CellNoiseSpec(Strict):
    """Error of a conductance: `sigma` of the on conductance, or of its own value."""

    sigma: NonNegative
    kind: Literal["independent", "proportional"]

    def build(self) -> CellNoise:
        """Return the model."""
        return CellNoise(self.sigma.value, self.kind)


class StuckSpec(Strict):
    """Shares of cells that hold their highest or lowest level."""

    at_on: Fraction
    at_off: Fraction

    @model_validator(mode="after")
    def _is_a_share(self) -> StuckSpec:
        total = self.at_on.value + self.at_off.value
        if total > 1:
            raise rule_error(f"{total:g} of all cells stuck", "shares that add up to at most 1")
        return self

    def build(self) -> StuckCells:
        """Return the model."""
        return StuckCells(self.at_on.value, self.at_off.value)


class DriftSpec(Strict):
    """Power-law drift from the first read to the time of use."""

    seconds: Positive
    first_read_s: Positive
    exponent: NonNegative
    exponent_sigma: NonNegative

    @model_validator(mode="after")
    def _reads_after_the_first(self) -> DriftSpec:
        if self.seconds.value < self.first_read_s.value:
            raise rule_error(
                f"use after {self.seconds.value:g} s, before the first read at "
                f"{self.first_read_s.value:g} s",
                "seconds of at least first_read_s",
            )
        return self

    def build(self) -> PowerLawDrift:
        """Return the model."""
        return PowerLawDrift(
            self.seconds.value,
            self.first_read_s.value,
            self.exponent.value,
            self.exponent_sigma.value,
        )


class CapacitorSpec(Strict):
    """Mismatch of the unit capacitors of a charge-domain array."""

    capacitance_ff: Positive
    coefficient: NonNegative

    def build(self) -> CapacitorMismatch:
        """Return the model."""
        return CapacitorMismatch(self.capacitance_ff.value, self.coefficient.value)


class WiresSpec(Strict):
    """Wire resistances per cell pitch, of drivers and of column amplifiers, and the cells' own."""

    row_ohm: NonNegative
    column_ohm: NonNegative
    row_terminal_ohm: NonNegative
    column_terminal_ohm: NonNegative
    r_on_ohm: Positive
    """Resistance of the highest level."""
    solution: Literal["first-order", "nodal"]

    def build(self) -> ArrayWires:
        """Return the model."""
        wires = WireSpec(
            row_ohm=self.row_ohm.value,
            column_ohm=self.column_ohm.value,
            row_terminal_ohm=self.row_terminal_ohm.value,
            column_terminal_ohm=self.column_terminal_ohm.value,
        )
        return ArrayWires(wires, exact=self.solution == "nodal", r_on_ohm=self.r_on_ohm.value)


class AdcErrorsSpec(Strict):
    """Static errors of the converters, in LSB at one standard deviation."""

    offset_lsb: NonNegative
    inl_lsb: NonNegative

    def build(self) -> AdcErrors:
        """Return the model."""
        return AdcErrors(self.offset_lsb.value, self.inl_lsb.value)


class PhaseChangeSpec(Strict):
    """Phase-change cells: programming, drift and read noise after some time."""

    seconds: NonNegative


class NonIdealitiesSpec(Strict):
    """The errors of a core's devices by name."""

    programming: CellNoiseSpec | None = None
    phase_change: PhaseChangeSpec | None = None
    on_off_ratio: Ratio | None = None
    stuck: StuckSpec | None = None
    drift: DriftSpec | None = None
    capacitors: CapacitorSpec | None = None
    wires: WiresSpec | None = None
    read_noise: CellNoiseSpec | None = None
    adc: AdcErrorsSpec | None = None

    def build(self) -> NonIdealities:
        """Return the model that devices are drawn from."""
        return NonIdealities(
            programming=self.programming.build() if self.programming else None,
            phase_change=PcmModel() if self.phase_change else None,
            phase_change_s=self.phase_change.seconds.value if self.phase_change else 0.0,
            on_off_ratio=self.on_off_ratio.value if self.on_off_ratio else inf,
            stuck=self.stuck.build() if self.stuck else None,
            drift=self.drift.build() if self.drift else None,
            capacitors=self.capacitors.build() if self.capacitors else None,
            wires=self.wires.build() if self.wires else None,
            read_noise=self.read_noise.build() if self.read_noise else None,
            adc=self.adc.build() if self.adc else None,
        )
