# SPDX-License-Identifier: Apache-2.0
"""One description of a crossbar: the integers, the errors, the cost and the placement read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from enos_compiler.errors import SpecError

Encoding = Literal["differential", "offset", "unit_column"]
"""How a signed weight lies in cells of one sign.

differential: a pair of cells, one per sign. offset: the weight plus half the range; the digital
side subtracts the offset times the sum of the inputs. unit_column: the same, the offset being read
from one extra column per array and subtracted from the codes of the others.
"""

DacLaw = Literal["ideal", "quantizer", "sign_magnitude"]
AdcLaw = Literal["ideal", "quantizer", "sign_magnitude", "ramp", "sar", "pipeline", "cyclic"]
RangeMode = Literal["full", "granular", "calibrated", "least-error"]
"""What a converter's range covers.

full: every sum that any input reaches. granular: one cell step per code (floating-point studies).
calibrated: every sum that given data reach. least-error: the range of least squared error on those
data, clipping and rounding together; it may clip rare sums to resolve the common ones finer.
"""
ENCODINGS: tuple[Encoding, ...] = ("differential", "offset", "unit_column")


def subtracts_pairs(encoding: Encoding, *, before_adc: bool) -> bool:
    """Whether the two cells of a weight are subtracted in analog, where it has two."""
    return encoding == "differential" and before_adc


def _require(condition: bool, message: str, place: str, remedy: str) -> None:
    if not condition:
        raise SpecError(message, place=place, remedy=remedy)


@dataclass(frozen=True, slots=True)
class CellSpec:
    """One memory cell between a row and a column."""

    bits: int = 1
    """Levels are 2 ** bits; 0 stands for a continuous conductance (studies only)."""
    r_on_ohm: float = 1e4
    """Resistance of the highest level."""
    r_off_ohm: float = inf
    """Resistance of the lowest level; infinity is an ideal off state."""
    cubic_read_v: float = 0.0
    """Read voltage V of the cubic cell I = g (x - V^2 x^3 / 4); 0 is a linear cell."""

    def __post_init__(self) -> None:
        """Refuse negative widths and an off state that conducts more than the on state."""
        _require(0 <= self.bits <= 16, f"bits = {self.bits} is outside 0..16", "cell.bits", "1..4")
        _require(
            0 < self.r_on_ohm < self.r_off_ohm,
            f"r_on = {self.r_on_ohm} ohm is not in (0, r_off = {self.r_off_ohm} ohm)",
            "cell.r_on_ohm",
            "an on resistance below the off resistance",
        )

    @property
    def floor(self) -> float:
        """Conductance of the lowest level in units of the highest, r_on / r_off."""
        return self.r_on_ohm / self.r_off_ohm


@dataclass(frozen=True, slots=True)
class DacSpec:
    """The row drivers."""

    digit_bits: int | None = 1
    """Bits of one input digit: 1 streams bit by bit, None applies the whole value at once."""
    law: DacLaw = "quantizer"
    signed: bool = False
    """Rows can be driven with either sign (the magnitude is streamed, the sign on every digit)."""

    def __post_init__(self) -> None:
        """Refuse an empty digit."""
        _require(
            self.digit_bits is None or self.digit_bits >= 1,
            f"digit_bits = {self.digit_bits} is below 1",
            "dac.digit_bits",
            "1 for bit-serial inputs, or leave it out for one shot",
        )


@dataclass(frozen=True, slots=True)
class AdcSpec:
    """The column converters."""

    bits: int = 8
    law: AdcLaw = "sign_magnitude"
    """ideal converts without limit. The integer arithmetic has one other law: symmetric codes for
    signed sums, 0..2^b - 1 else; which of the names stands here matters to floating-point studies
    alone."""
    per_digit: bool = True
    """Convert after every input digit; else once, after an analog sum over the digits."""
    columns_per_adc: int = 1
    """Columns that take turns on one converter."""
    range_mode: RangeMode = "least-error"
    range_per_column: bool = False
    """Integer arithmetic: every column has a step of its own; else a layer's columns share one."""
    limits: tuple[tuple[float, float], ...] = ()
    """Ranges set from data, one per weight slice (one in all without slices), in units of one full
    input times one full conductance."""
    gain_db: float = 100.0
    """Open-loop gain of the amplifier in the circuit laws."""
    symmetric_cdac: bool = True

    @property
    def set_from_data(self) -> bool:
        """Whether what real inputs give decides the range."""
        return self.range_mode in ("calibrated", "least-error")

    def __post_init__(self) -> None:
        """Refuse widths that no converter has."""
        _require(0 <= self.bits <= 24, f"bits = {self.bits} is outside 0..24", "adc.bits", "4..10")
        _require(
            self.columns_per_adc >= 1,
            f"columns_per_adc = {self.columns_per_adc} is below 1",
            "adc.columns_per_adc",
            "1 for a converter in every column",
        )


@dataclass(frozen=True, slots=True)
class WireSpec:
    """Resistances of the wires, per cell pitch."""

    row_ohm: float = 0.0
    column_ohm: float = 0.0
    row_terminal_ohm: float = 0.0
    """Driver resistance, in the first segment of every row."""
    column_terminal_ohm: float = 0.0
    """Input resistance of the column amplifier, in the last segment of every column."""
    supply_lines: bool = False
    """Rows only gate their cells; the current comes along a supply wire beside each column."""
    unused_rows: Literal["top", "bottom"] = "top"
    """Where the rows in use lie; with supply lines the unused rest lengthens the other end."""
    terminal_on_row_zero: bool = False
    """Reproduce the reference tool, which puts `row_terminal_ohm` on all segments of row 0 only."""

    def __post_init__(self) -> None:
        """Refuse negative resistances."""
        for name in ("row_ohm", "column_ohm", "row_terminal_ohm", "column_terminal_ohm"):
            value = getattr(self, name)
            _require(value >= 0, f"{value} ohm is negative", f"wires.{name}", "0 or more")

    @property
    def ideal(self) -> bool:
        """No wire has resistance."""
        return not (
            self.row_ohm or self.column_ohm or self.row_terminal_ohm or self.column_terminal_ohm
        )


@dataclass(frozen=True, slots=True)
class CrossbarSpec:
    """Arrays of `rows` input lines by `columns` output lines and what stands around them."""

    rows: int
    columns: int
    cell: CellSpec = field(default_factory=CellSpec)
    encoding: Encoding = "differential"
    subtract_before_adc: bool = True
    """Differential pairs: take the difference in analog; else convert each side by itself."""
    interleaved: bool = False
    """The two cells of a pair share one column wire (else they lie in two arrays)."""
    rows_at_once: int | None = None
    """Rows that one read drives; None drives all. Each group of rows is converted by itself."""
    dac: DacSpec = field(default_factory=DacSpec)
    adc: AdcSpec = field(default_factory=AdcSpec)
    wires: WireSpec = field(default_factory=WireSpec)
    column_current_limit: float = inf
    """Clip of a column's current, in units of one full input times one full conductance."""

    def __post_init__(self) -> None:
        """Refuse empty arrays, unknown encodings and pairs that contradict themselves."""
        for name in ("rows", "columns"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} = {value} is below 1", name, "a positive extent")
        _require(
            self.encoding in ENCODINGS,
            f"encoding = {self.encoding!r} is unknown",
            "encoding",
            f"one of: {', '.join(ENCODINGS)}",
        )
        _require(
            self.rows_at_once is None or 1 <= self.rows_at_once <= self.rows,
            f"rows_at_once = {self.rows_at_once} is outside 1..{self.rows}",
            "rows_at_once",
            f"at most {self.rows}",
        )
        _require(
            not self.interleaved or self.subtract_before_adc,
            "interleaved pairs share a wire, so they cannot be converted apart",
            "interleaved",
            "subtract_before_adc: true",
        )

    @property
    def subtracts_pairs(self) -> bool:
        """Whether a converter sees the difference of a pair of cells, hence both signs."""
        return subtracts_pairs(self.encoding, before_adc=self.subtract_before_adc)

    @property
    def read_rows(self) -> int:
        """Rows that take part in one conversion."""
        return self.rows_at_once or self.rows
