# SPDX-License-Identifier: Apache-2.0
"""Non-idealities of a crossbar in the integer model: named, seeded, off by default.

Errors of the cells change the stored levels of a device once; errors of an access or of a converter
enter when it is read. With everything off the codes are those of the ideal array, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.adc_errors import AdcErrors, ConverterErrors
from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.integer import (
    ColumnHook,
    IntegerMatrix,
    StoredBlock,
    read,
)
from enos_compiler.crossbar.pcm import PcmModel
from enos_compiler.crossbar.spec import WireSpec
from enos_compiler.crossbar.wires import effective_conductance, first_order_conductance
from enos_compiler.errors import SpecError

Floats = npt.NDArray[np.float64]


def _fraction(value: float, place: str) -> None:
    if not 0 <= value <= 1:
        raise SpecError(f"{value} is not a fraction", place=place, remedy="0..1")


def _not_negative(value: float, place: str) -> None:
    if value < 0:
        raise SpecError(f"{value} is negative", place=place, remedy="0 or more")


@dataclass(frozen=True, slots=True)
class StuckCells:
    """Cells that hold their highest or lowest level whatever is written.

    Source: stuck-at-one and stuck-at-zero rates are measured per technology; 9.04 % at off and
    1.75 % at on for an early RRAM array (Chen et al., IEEE Trans. Computers 2015, remembered).
    """

    at_on: float = 0.0
    at_off: float = 0.0

    def __post_init__(self) -> None:
        """Refuse rates that are no fractions."""
        _fraction(self.at_on, "stuck.at_on")
        _fraction(self.at_off, "stuck.at_off")
        _fraction(self.at_on + self.at_off, "stuck")

    def apply(self, g: Floats, floor: float, rng: np.random.Generator) -> Floats:
        """Conductances with some cells stuck at `floor` or at 1."""
        draw = rng.random(g.shape)
        stuck = np.where(draw < self.at_on, 1.0, floor)
        return np.where(draw < self.at_on + self.at_off, stuck, g)


@dataclass(frozen=True, slots=True)
class PowerLawDrift:
    """Conductance g(t) = g(t0) (t / t0)^-nu, nu normal per cell and not below zero.

    Source: power law of phase-change drift; nu about 0.05 with a spread of 0.01 (remembered, see
    `pcm.PcmModel` for the dependence on the level).
    """

    seconds: float
    first_read_s: float = 20.0
    exponent: float = 0.05
    exponent_sigma: float = 0.01

    def __post_init__(self) -> None:
        """Refuse a read before the first one."""
        if not 0 < self.first_read_s <= self.seconds:
            raise SpecError(
                f"{self.seconds} s lies before the first read at {self.first_read_s} s",
                place="drift.seconds",
                remedy="a time from the first read on",
            )

    def apply(self, g: Floats, rng: np.random.Generator) -> Floats:
        """Conductances at `seconds`."""
        nu = self.exponent + self.exponent_sigma * rng.standard_normal(g.shape)
        return np.asarray(g * (self.seconds / self.first_read_s) ** -np.maximum(nu, 0.0))


@dataclass(frozen=True, slots=True)
class CapacitorMismatch:
    """Unit capacitors of a charge-domain array: the column shares charge over all its cells.

    Each capacitor is C (1 + s N); a column reads sum(C_i v_i) / mean(C_i). s = coefficient /
    sqrt(C / fF). Source: area law of matching (Pelgrom); 0.01 at 1 fF for metal fringe capacitors
    is an order of magnitude (remembered).
    """

    capacitance_ff: float
    coefficient: float = 0.01

    def __post_init__(self) -> None:
        """Refuse empty capacitors and negative coefficients."""
        if self.capacitance_ff <= 0:
            raise SpecError(
                f"{self.capacitance_ff} fF is not positive",
                place="capacitors.capacitance_ff",
                remedy="about 1 fF",
            )
        _not_negative(self.coefficient, "capacitors.coefficient")

    def apply(self, levels: Floats, rng: np.random.Generator) -> Floats:
        """Levels (planes, rows, columns) as the columns weigh them."""
        sigma = self.coefficient / self.capacitance_ff**0.5
        size = np.maximum(1 + sigma * rng.standard_normal(levels.shape), 0.0)
        return np.asarray(levels * size / size.mean(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class ArrayWires:
    """Wire resistance in the integer model.

    exact solves the nodal equations of every array; else the first-order estimate.
    """

    wires: WireSpec
    exact: bool = True
    r_on_ohm: float | None = None
    """Resistance of the highest level; None takes the array's own."""

    def __post_init__(self) -> None:
        """Refuse wires whose current depends on which rows gate."""
        if self.wires.supply_lines:
            raise SpecError(
                "supply lines make a column's current non-linear in the inputs",
                place="wires.supply_lines",
                remedy="the floating-point engine (analog.multiply), or driven rows",
            )


@dataclass(frozen=True, slots=True)
class NonIdealities:
    """What is wrong with a device; every field is off until it is set."""

    programming: CellNoise | None = None
    """Error of each write, in units of the on conductance or relative."""
    phase_change: PcmModel | None = None
    """Programming, drift and read noise of phase-change cells at `phase_change_s`."""
    phase_change_s: float = 0.0
    """Seconds after the first possible read."""
    on_off_ratio: float = inf
    """On over off conductance: empty cells conduct 1 / ratio."""
    stuck: StuckCells | None = None
    drift: PowerLawDrift | None = None
    capacitors: CapacitorMismatch | None = None
    wires: ArrayWires | None = None
    read_noise: CellNoise | None = None
    """Error of each cell in each access, referred to the column: independent cells add as
    sigma * sqrt(sum x^2), proportional ones as sigma * sqrt(sum (g x)^2), without the floor at
    zero conductance."""
    adc: AdcErrors | None = None

    def __post_init__(self) -> None:
        """Refuse an off state above the on state."""
        if self.on_off_ratio <= 1:
            raise SpecError(
                f"on_off_ratio = {self.on_off_ratio} is not above 1",
                place="on_off_ratio",
                remedy="10 or more",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is switched on."""
        return tuple(
            f.name
            for f in fields(self)
            if f.name != "phase_change_s" and getattr(self, f.name) != f.default
        )


@dataclass(frozen=True, slots=True)
class Device:
    """One sample of an array: its cells, its converters, and the stream of its read noise."""

    matrix: IntegerMatrix
    column_hook: ColumnHook | None
    converters: ConverterErrors | None

    def read(
        self,
        x: IntArray,
        input_bits: int,
        *,
        inputs_signed: bool = False,
        steps_log2: int | tuple[int, ...] = 0,
    ) -> IntArray:
        """Product as this device computes it, see `integer.read`."""
        return read(
            self.matrix,
            x,
            input_bits,
            inputs_signed=inputs_signed,
            steps_log2=steps_log2,
            column_hook=self.column_hook,
            code_hook=None if self.converters is None else self.converters.distort,
        )


def make_device(
    matrix: IntegerMatrix,
    errors: NonIdealities,
    seed: int | np.random.SeedSequence,
    *,
    inputs_signed: bool = False,
) -> Device:
    """Draw one device.

    Each named error has its own random stream, so switching one on leaves the others' draws as
    they were.

    Args:
        matrix: ideal levels, from `integer.store`.
        errors: what is switched on.
        seed: of this device.
        inputs_signed: sets the code range that the INL spans.
    """
    names = [f.name for f in fields(NonIdealities)]
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    keyed = [
        np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, i))
        for i in range(len(names))
    ]
    streams = {n: np.random.default_rng(k) for n, k in zip(names, keyed, strict=True)}
    blocks = tuple(
        StoredBlock(b.rows, tuple(_perturb(matrix, v, errors, streams) for v in b.levels))
        for b in matrix.blocks
    )
    floor = _floor(errors)
    top = (1 << matrix.spec.cell.bits) - 1
    converters = None
    if errors.adc is not None:
        converters = errors.adc.draw(matrix, streams["adc"], inputs_signed=inputs_signed)
    device = replace(matrix, blocks=blocks, floor_level=top * floor / (1 - floor))
    return Device(
        device,
        _read_noise_hook(device, errors, streams["read_noise"]),
        converters,
    )


def _floor(errors: NonIdealities) -> float:
    return 1 / errors.on_off_ratio


def _perturb(
    matrix: IntegerMatrix,
    levels: Floats,
    errors: NonIdealities,
    streams: dict[str, np.random.Generator],
) -> Floats:
    """Levels of one slice of one block with all cell errors, in cell steps above level zero.

    Level l stands for the conductance f + (1 - f) l / top in units of the on conductance, f the
    off conductance; a perturbed g is the level g top / (1 - f), so that the floor stays in the
    sums (it cancels in pairs and beside a unit column, else it is subtracted digitally).
    """
    floor, top = _floor(errors), float((1 << matrix.spec.cell.bits) - 1)
    g: Floats | None = None

    def conductance() -> Floats:
        return floor + (1 - floor) * levels / top if g is None else g

    if errors.on_off_ratio != inf:
        g = conductance()
    if errors.programming is not None:
        g = errors.programming.apply(conductance(), streams["programming"])
    if errors.phase_change is not None:
        target, rng = conductance(), streams["phase_change"]
        nu = errors.phase_change.exponent(target, rng)
        written = errors.phase_change.programmed(target, rng)
        g = errors.phase_change.at(written, errors.phase_change_s, nu, rng)
    if errors.stuck is not None:
        g = errors.stuck.apply(conductance(), floor, streams["stuck"])
    if errors.drift is not None:
        g = errors.drift.apply(conductance(), streams["drift"])
    if errors.wires is not None:
        g = _through_wires(matrix, conductance(), errors.wires)
    out = levels if g is None else g * top / (1 - floor)
    if errors.capacitors is not None:
        out = errors.capacitors.apply(out, streams["capacitors"])
    return out


def _through_wires(matrix: IntegerMatrix, g: Floats, model: ArrayWires) -> Floats:
    """Conductances that the drivers see, array by array; columns are cut at the array's width."""
    solve = effective_conductance if model.exact else first_order_conductance
    r_on, width = model.r_on_ohm or matrix.spec.cell.r_on_ohm, matrix.spec.columns
    cuts = [g[:, :, i : i + width] for i in range(0, g.shape[2], width)]
    out = []
    for part in cuts:
        if matrix.spec.interleaved and len(part) == 2:
            out.append(solve(part, model.wires, r_on))
        else:
            planes = [solve(part[p : p + 1], model.wires, r_on) for p in range(len(part))]
            out.append(np.concatenate(planes))
    return np.concatenate(out, axis=2)


def _read_noise_hook(
    matrix: IntegerMatrix, errors: NonIdealities, rng: np.random.Generator
) -> ColumnHook | None:
    noise = errors.read_noise
    if noise is None or not noise.sigma:
        return None
    full = (1 << matrix.spec.cell.bits) - 1 + matrix.floor_level

    def add(sums: Floats, levels: Floats, x: Floats, block: int) -> Floats:
        del block
        power = x**2
        if noise.kind == "proportional":
            variance = np.matmul((levels**2).transpose(0, 2, 1), power)
        else:
            variance = np.broadcast_to(full**2 * power.sum(axis=0), sums.shape)
        spread = noise.sigma * np.sqrt(variance)
        return np.asarray(sums + spread * rng.standard_normal(sums.shape))

    return add
