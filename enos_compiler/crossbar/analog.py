# SPDX-License-Identifier: Apache-2.0
"""Floating-point meaning of a crossbar: conductances, currents, converters, digital recovery.

A real matrix is scaled to the conductance range, a real input to the range of the drivers; column
currents are in units of one full input times one full conductance. The rules are those of CrossSim
3.2 (seen; see the cases under the tests); the integer meaning of a compiled network is `integer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.blocks import SplitRule, digits, split
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.converters import convert_input, convert_sum
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.crossbar.wires import effective_conductance, supplied_currents
from enos_compiler.errors import SpecError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Range of real values: fixed ends, or a percentile of what is there (then symmetric)."""

    low: float | None = None
    high: float | None = None
    percentile: float | None = None

    def of(self, values: Floats) -> tuple[float, float]:
        """Return (low, high) for `values`.

        A percentile p >= 1 spans +-p max|v|; p < 1 spans the larger of the p and 1 - p quantiles.
        """
        if self.percentile is None:
            if self.low is None or self.high is None:
                raise SpecError(
                    "a range needs both ends or a percentile",
                    place="range",
                    remedy="low and high, or percentile: 1.0",
                )
            return self.low, self.high
        if self.percentile >= 1:
            top = self.percentile * float(np.abs(values).max())
        else:
            ends = np.quantile(values, (self.percentile, 1 - self.percentile))
            top = float(np.abs(ends).max())
        return -top, top


@dataclass(frozen=True, slots=True)
class FloatMapping:
    """How real matrices and vectors come onto a crossbar."""

    weight_bits: int = 8
    slice_bits: int | None = None
    """Bits per weight slice; None maps the real weight onto one cell (or pair) unsliced."""
    input_bits: int = 8
    """Width of the driver's code, sign included where it has one."""
    weight_range: ValueRange = ValueRange(percentile=1.0)
    input_range: ValueRange = ValueRange(-1.0, 1.0)
    clip_weights: bool = True
    two_sided: bool = False
    """Differential and unsliced: both cells of a pair move, g+- = (1 +- u) / 2."""
    row_split: SplitRule = "equal"
    column_split: SplitRule = "equal"


@dataclass(frozen=True, slots=True)
class ArrayBlock:
    """One row block by one column block of the matrix; `slices` holds its cell planes.

    Each plane stack has shape (1 or 2, rows, columns): the second plane is the negative cells.
    """

    rows: slice
    columns: slice
    slices: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class AnalogMatrix:
    """A matrix as programmed: conductances per block and slice."""

    spec: CrossbarSpec
    mapping: FloatMapping
    weight_max: float
    outputs: int
    blocks: tuple[ArrayBlock, ...]


def _quantize_levels(g: Floats, spec: CrossbarSpec) -> Floats:
    """Round conductances to the 2^bits levels of the cell."""
    if not spec.cell.bits:
        return g
    floor, steps = spec.cell.floor, (1 << spec.cell.bits) - 1
    span = 1 - floor
    return floor + np.rint((g - floor) * steps / span) * span / steps


def _offset_levels(spec: CrossbarSpec) -> tuple[float, float]:
    """Floor and span of an unsliced offset cell; the lowest level is unused so that 0 is one."""
    span = 1 - spec.cell.floor
    if not spec.cell.bits:
        return spec.cell.floor, span
    top = (1 << spec.cell.bits) - 1
    span *= (top - 1) / top
    return 1 - span, span


def _unsliced(spec: CrossbarSpec, mapping: FloatMapping, u: Floats) -> Floats:
    """Planes (1 or 2, rows, columns) for u = weight / weight_max in [-1, 1]."""
    floor, span = spec.cell.floor, 1 - spec.cell.floor
    if spec.encoding != "differential":
        floor, span = _offset_levels(spec)
        return (floor + span * (u / 2 + 0.5))[None]
    if mapping.two_sided:
        pair = np.stack([floor + span * (1 + u) / 2, floor + span * (1 - u) / 2])
    else:
        least = 2.0 ** -(spec.cell.bits + 1) if spec.cell.bits else 0.0
        pair = np.stack(
            [
                np.where(u >= least, floor + span * u, floor),
                np.where(u < -least, floor - span * u, floor),
            ]
        )
    return pair.astype(np.float32).astype(np.float64)


def _sliced(spec: CrossbarSpec, bits: int, width: int, u: Floats) -> list[Floats]:
    """Planes per slice, least significant first, of the rounded integer weights."""
    top = (1 << (bits - 1)) - 1
    floor, span, full = spec.cell.floor, 1 - spec.cell.floor, (1 << width) - 1
    if spec.encoding == "differential":
        codes = np.rint(u * top).astype(np.int64)
        parts = digits(codes, bits - 1, width)
        pairs = [np.stack([np.maximum(p, 0), np.maximum(-p, 0)]) for p in parts]
    else:
        codes = np.rint(u * top + (1 << (bits - 1))).astype(np.int64)
        pairs = [p[None] for p in digits(codes, bits, width)]
    return [floor + span * p / full for p in pairs]


def _unit_column(spec: CrossbarSpec, width: int | None, slices: int, rows: int) -> list[Floats]:
    """Planes (1, rows, 1) per slice of the column that holds weight zero."""
    if width is None:
        floor, span = _offset_levels(spec)
        return [np.full((1, rows, 1), floor + span / 2)]
    floor, span = spec.cell.floor, 1 - spec.cell.floor
    full = (1 << width) - 1
    last = (1 << width) // 2 / full
    return [
        np.full((1, rows, 1), floor + span * (last if i == slices - 1 else 0.0))
        for i in range(slices)
    ]


def program(
    spec: CrossbarSpec,
    mapping: FloatMapping,
    weights: Floats,
    *,
    error: CellNoise | None = None,
    rng: np.random.Generator | None = None,
) -> AnalogMatrix:
    """Bring a real matrix (outputs, inputs) onto arrays.

    Args:
        spec: the array.
        mapping: ranges, widths and cuts.
        weights: shape (outputs, inputs).
        error: programming error, drawn once, after the rounding to levels.
        rng: required with `error`.
    """
    weight_max = mapping.weight_range.of(weights)[1]
    u = np.asarray(weights, np.float64).T / weight_max
    if mapping.clip_weights:
        u = np.clip(u, -1.0, 1.0)
    if mapping.slice_bits is None:
        planes = [_unsliced(spec, mapping, u)]
    else:
        planes = _sliced(spec, mapping.weight_bits, mapping.slice_bits, u)
    blocks = []
    for rows in split(u.shape[0], spec.rows, mapping.row_split):
        for columns in split(u.shape[1], spec.columns, mapping.column_split):
            parts = [p[:, rows, columns] for p in planes]
            if spec.encoding == "unit_column":
                count = rows.stop - rows.start
                extra = _unit_column(spec, mapping.slice_bits, len(parts), count)
                parts = [np.concatenate(pair, axis=2) for pair in zip(parts, extra, strict=True)]
            parts = [_quantize_levels(p, spec) for p in parts]
            if error is not None:
                parts = [error.apply(p, _needed(rng)) for p in parts]
            blocks.append(ArrayBlock(rows, columns, tuple(parts)))
    return AnalogMatrix(spec, mapping, weight_max, u.shape[1], tuple(blocks))


def _needed(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise SpecError(
            "noise needs a generator", place="rng", remedy="numpy.random.default_rng(1)"
        )
    return rng


def _input_digits(
    spec: CrossbarSpec, mapping: FloatMapping, x: Floats
) -> list[tuple[float, Floats]]:
    """(digital weight, row values) of each digit, least significant first."""
    width = spec.dac.digit_bits
    if width is None:
        return [(1.0, x)]
    magnitude = mapping.input_bits - spec.dac.signed
    full, top = (1 << magnitude) - 1, (1 << width) - 1
    codes = (np.sign(x) * np.rint(np.abs(x) * full)).astype(np.int64)
    return [
        ((1 << (k * width)) * top / full, d / top)
        for k, d in enumerate(digits(codes, magnitude, width))
    ]


def adc_limits(
    spec: CrossbarSpec, mapping: FloatMapping, rows: int, index: int
) -> tuple[float, float]:
    """Range of the converter of slice `index` on a block of `rows` rows.

    max: what any input could reach. granular: one cell step per code, stretched by the driver's
    M = 2^m / (2^m - 1). set from data: as given. Source: CrossSim 3.2's range rules (seen).
    """
    adc, signed, sliced = spec.adc, spec.dac.signed, mapping.slice_bits is not None
    if adc.set_from_data:
        return adc.limits[index if sliced else 0]
    magnitude = mapping.input_bits - signed
    stretch = (1 << magnitude) / ((1 << magnitude) - 1) if magnitude else 1.0
    differential = spec.encoding == "differential"
    both = signed or (differential and (sliced or spec.subtract_before_adc))
    if adc.range_mode == "granular":
        width = mapping.slice_bits
        lsb = stretch / ((1 << mapping.weight_bits) if width is None else (1 << width) - 1)
        top = lsb * ((1 << (adc.bits - 1)) - 1 if both else (1 << adc.bits) - 1)
    elif mapping.slice_bits is None or differential:
        top = float(rows)
    else:
        codes = 1 << adc.bits
        grid = (1 << mapping.slice_bits) / ((1 << mapping.slice_bits) - 1)
        top = 2.0 ** round(log2(rows)) * grid * stretch * (codes - (2 if both else 1)) / codes
    return (-top if both else 0.0), top


def _currents(
    matrix: AnalogMatrix,
    g: Floats,
    x: Floats,
    read_noise: CellNoise | None,
    rng: np.random.Generator | None,
) -> list[Floats]:
    """Column sums (columns, B): one entry, or two for a pair that is not yet subtracted."""
    spec = matrix.spec
    volts = x - spec.cell.cubic_read_v**2 * x**3 / 4
    planes = g.shape[0]
    if read_noise is not None:
        if not spec.wires.ideal:
            raise SpecError(
                "read noise is not modelled together with wire resistance",
                place="wires",
                remedy="set the wire resistances to 0, or leave read_noise out",
            )
        draw = (x.shape[1], *g.shape)
        sums = np.einsum("bpij,ib->pjb", read_noise.apply(g, _needed(rng), draw), volts)
        return [sums[p] for p in range(planes)]
    if spec.wires.ideal:
        return [g[p].T @ volts for p in range(planes)]
    r_on = spec.cell.r_on_ohm
    groups = [g] if spec.interleaved else [g[p : p + 1] for p in range(planes)]
    if spec.wires.supply_lines:
        return [supplied_currents(part, x, spec.wires, r_on, spec.rows) for part in groups]
    sums = []
    for part in groups:
        reach = effective_conductance(part, spec.wires, r_on)
        net = reach[0] - reach[1] if spec.interleaved else reach[0]
        sums.append(net.T @ volts)
    return sums


def _convert_slice(
    matrix: AnalogMatrix,
    g: Floats,
    parts: Sequence[tuple[float, Floats]],
    limits: tuple[float, float],
    read_noise: CellNoise | None,
    rng: np.random.Generator | None,
) -> Floats:
    """Digital column values (columns, B) of one slice of one block."""
    spec, adc = matrix.spec, matrix.spec.adc

    def convert(values: Floats) -> Floats:
        return convert_sum(
            values,
            adc.law,
            adc.bits,
            *limits,
            gain_db=adc.gain_db,
            symmetric_cdac=adc.symmetric_cdac,
        )

    totals: list[Floats] = []
    for weight, x in parts:
        cap = spec.column_current_limit
        sums = [np.clip(s, -cap, cap) for s in _currents(matrix, g, x, read_noise, rng)]
        if spec.subtract_before_adc and len(sums) == 2:
            sums = [sums[0] - sums[1]]
        if adc.per_digit:
            sums = [convert(s) for s in sums]
        sums = [weight * s for s in sums]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
    if not adc.per_digit:
        totals = [convert(s) for s in totals]
    return totals[0] - totals[1] if len(totals) == 2 else totals[0]


def _recover(matrix: AnalogMatrix, values: list[Floats], x_sum: Floats) -> Floats:
    """Undo floor, offset and slices: weights in units of the input scale, (columns, B)."""
    spec, mapping = matrix.spec, matrix.mapping
    span = 1 - spec.cell.floor
    unit = spec.encoding == "unit_column"
    if unit:
        values = [v[:-1] - v[-1:] for v in values]
    if mapping.slice_bits is None:
        if spec.encoding == "differential":
            return values[0] * (matrix.weight_max / span)
        low, reach = _offset_levels(spec)
        y = values[0] if unit else values[0] - (low + reach / 2) * x_sum
        return np.asarray(y * 2 * matrix.weight_max / span)
    full, half = (1 << mapping.slice_bits) - 1, 1 << (mapping.weight_bits - 1)
    y = np.zeros_like(values[0])
    for i, value in enumerate(values):
        if spec.encoding == "offset":
            value = value - spec.cell.floor * x_sum
        y += value / span * full * 2.0 ** (mapping.slice_bits * i)
    if spec.encoding == "offset":
        y -= half * x_sum
    return np.asarray(y * matrix.weight_max / (half - 1))


def multiply(
    matrix: AnalogMatrix,
    inputs: Floats,
    *,
    read_noise: CellNoise | None = None,
    rng: np.random.Generator | None = None,
) -> Floats:
    """Product of a programmed matrix with input columns (inputs, B): (outputs, B).

    Read noise is drawn anew for every vector, input digit, slice, and each cell of a pair.
    """
    spec, mapping = matrix.spec, matrix.mapping
    low, high = mapping.input_range.of(inputs)
    scale = (2.0 if spec.dac.signed else 1.0) / (high - low)
    x = convert_input(inputs * scale, spec.dac.law, mapping.input_bits, spec.dac.signed)
    y = np.zeros((matrix.outputs, inputs.shape[1]))
    for block in matrix.blocks:
        rows = block.rows.stop - block.rows.start
        parts = _input_digits(spec, mapping, x[block.rows])
        values = [
            _convert_slice(matrix, g, parts, _limits(spec, mapping, rows, i), read_noise, rng)
            for i, g in enumerate(block.slices)
        ]
        y[block.columns] += _recover(matrix, values, x[block.rows].sum(axis=0))
    return y / scale


def _limits(spec: CrossbarSpec, mapping: FloatMapping, rows: int, i: int) -> tuple[float, float]:
    return (0.0, 1.0) if spec.adc.law == "ideal" else adc_limits(spec, mapping, rows, i)


def slice_bits_of(bits: int, slices: int, differential: bool) -> int:
    """Bits per slice when `bits` are cut in `slices`: even where it divides, else rounded up."""
    if bits % slices == 0:
        return bits // slices
    return ceil((bits - 1 if differential else bits) / slices)
