# SPDX-License-Identifier: Apache-2.0
"""Non-idealities: off by default, seeded, and of the stated size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar.adc_errors import AdcErrors
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.convolution import unfold
from enos_compiler.crossbar.fast import FastConvolution
from enos_compiler.crossbar.integer import IntegerMatrix, Stored, read, store
from enos_compiler.crossbar.montecarlo import error_to_signal, monte_carlo
from enos_compiler.crossbar.nonideal import (
    ArrayWires,
    CapacitorMismatch,
    NonIdealities,
    PowerLawDrift,
    StuckCells,
    make_device,
)
from enos_compiler.crossbar.pcm import PcmModel
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec, WireSpec
from enos_compiler.crossbar.wires import effective_conductance, first_order_conductance
from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import LayerShape

ALL = {
    "programming": CellNoise(0.02),
    "phase_change": PcmModel(),
    "on_off_ratio": 20.0,
    "stuck": StuckCells(0.02, 0.05),
    "drift": PowerLawDrift(3600.0),
    "capacitors": CapacitorMismatch(1.0, 0.05),
    "wires": ArrayWires(WireSpec(row_ohm=20.0, column_ohm=20.0)),
    "read_noise": CellNoise(0.02),
    "adc": AdcErrors(1.0, 1.0),
}


def _matrix(encoding: str = "differential", form: str = "signed", bits: int = 24) -> IntegerMatrix:
    rng = np.random.default_rng(11)
    spec = CrossbarSpec(
        rows=32,
        columns=32,
        cell=CellSpec(bits=2),
        encoding=encoding,  # type: ignore[arg-type]
        adc=AdcSpec(bits=bits),
    )
    codes = {
        "signed": rng.integers(-7, 8, (5, 40)),
        "unsigned": rng.integers(0, 8, (5, 40)),
        "binary": rng.choice([-1, 1], (5, 40)),
    }[form]
    width = {"signed": 4, "unsigned": 3, "binary": 1}[form]
    return store(spec, Stored(codes, width, form))  # type: ignore[arg-type]


X = np.random.default_rng(12).integers(0, 16, (40, 7))


@pytest.mark.parametrize("encoding", ["differential", "offset", "unit_column"])
@pytest.mark.parametrize("form", ["signed", "unsigned", "binary"])
def test_nothing_switched_on_changes_nothing(encoding: str, form: str) -> None:
    matrix = _matrix(encoding, form, 6)
    device = make_device(matrix, NonIdealities(), 1)
    assert NonIdealities().names == ()
    assert np.array_equal(device.read(X, 4), read(matrix, X, 4))


@pytest.mark.parametrize("name", ALL)
def test_each_error_is_seeded_and_has_an_effect(name: str) -> None:
    matrix = _matrix("offset", bits=8)
    errors = NonIdealities(**{name: ALL[name]})  # type: ignore[arg-type]
    assert errors.names == (name,)
    one, two = (make_device(matrix, errors, 5).read(X, 4) for _ in range(2))
    assert np.array_equal(one, two)
    drawn = name not in ("on_off_ratio", "wires")
    assert np.array_equal(make_device(matrix, errors, 6).read(X, 4), one) != drawn
    if name != "on_off_ratio":
        assert not np.array_equal(one, read(matrix, X, 4))


def test_streams_do_not_disturb_each_other() -> None:
    matrix = _matrix()
    alone = make_device(matrix, NonIdealities(stuck=StuckCells(0.1, 0.1)), 3)
    both = make_device(
        matrix, NonIdealities(stuck=StuckCells(0.1, 0.1), read_noise=CellNoise(0.1)), 3
    )
    for a, b in zip(alone.matrix.blocks, both.matrix.blocks, strict=True):
        assert all(np.array_equal(v, w) for v, w in zip(a.levels, b.levels, strict=True))


@pytest.mark.parametrize("encoding", ["differential", "offset", "unit_column"])
@pytest.mark.parametrize("form", ["signed", "unsigned", "binary"])
def test_a_finite_on_off_ratio_is_removed_digitally(encoding: str, form: str) -> None:
    """Without clipping only the rounding of the floor's sums remains: half a code each."""
    matrix = _matrix(encoding, form)
    device = make_device(matrix, NonIdealities(on_off_ratio=10.0), 1)
    conversions = 2 * 4 * sum(4**i for i in range(matrix.layout.slices)) * 2**3
    slack = 0.5 * conversions * (matrix.layout.gain + 1) + 1
    off = np.abs(device.read(X, 4) - read(matrix, X, 4))
    assert off.max() <= slack
    raw = replace(device.matrix, floor_level=0.0)
    if matrix.layout.planes == 1 and not (matrix.unit_column and matrix.layout.gain == 1):
        assert np.abs(read(raw, X, 4) - read(matrix, X, 4)).mean() > 5 * off.mean()


def test_the_torch_path_takes_a_perturbed_device() -> None:
    """Perturbed levels run through the same convolution; sums differ by float32 rounding only."""
    rng = np.random.default_rng(2)
    spec = CrossbarSpec(
        rows=20,
        columns=16,
        cell=CellSpec(bits=4),
        encoding="offset",
        dac=DacSpec(None),
        adc=AdcSpec(law="ideal"),
    )
    shape = LayerShape(n=2, m=3, c=4, p=3, q=3, r=3, s=3)
    matrix = store(spec, Stored(rng.integers(-7, 8, (3, 36)), 4))
    errors = NonIdealities(on_off_ratio=10.0, programming=CellNoise(0.05))
    device = make_device(matrix, errors, 4)
    x = rng.integers(0, 16, (2, 4, 5, 5))
    fast = FastConvolution([device.matrix], shape, 4, shortcut=False)
    assert fast.backend == "float"
    plain = device.read(unfold(x, shape)[0], 4).reshape(3, 2, 3, 3).transpose(1, 0, 2, 3)
    assert np.abs(fast(torch.from_numpy(x)).numpy() - plain).max() <= 1


def test_read_noise_adds_as_stated() -> None:
    matrix = _matrix()
    matrix = replace(
        matrix,
        spec=replace(matrix.spec, adc=AdcSpec(law="ideal"), dac=DacSpec(None)),
    )
    x = np.repeat(X[:, :1], 8000, axis=1)
    for kind in ("independent", "proportional"):
        noise = CellNoise(0.5, kind)
        y = make_device(matrix, NonIdealities(read_noise=noise), 1).read(x, 4)
        variance = np.zeros(5)
        for block in matrix.blocks:
            power = (X[block.rows, 0] ** 2)[None, :, None]
            for i, levels in enumerate(block.levels):
                seen = np.full_like(levels, 3.0) if kind == "independent" else levels
                variance += 16**i * 0.25 * (seen**2 * power).sum(axis=(0, 1))
        assert y.std(axis=1) == pytest.approx(np.sqrt(variance), rel=0.04)


def test_stuck_cells_drift_and_mismatch_have_their_sizes() -> None:
    rng = np.random.default_rng(0)
    g = np.full((400, 400), 0.5)
    stuck = StuckCells(0.1, 0.2).apply(g, 0.05, rng)
    assert np.mean(stuck == 1.0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(stuck == 0.05) == pytest.approx(0.2, abs=0.01)
    drift = PowerLawDrift(2000.0, exponent_sigma=0.0).apply(g, rng)
    assert drift == pytest.approx(0.5 * 100.0**-0.05)
    ones = np.ones((1, 200, 300))
    cells = CapacitorMismatch(4.0, 0.02).apply(ones, rng)
    assert cells.std() == pytest.approx(0.01, rel=0.02)
    assert cells.mean(axis=1) == pytest.approx(1.0)


def test_converter_errors_stay_within_the_curve() -> None:
    """Offsets are one per converter; at both ends of the range the INL is zero."""
    spec = CrossbarSpec(rows=4, columns=8, cell=CellSpec(bits=4), dac=DacSpec(None))
    spec = replace(spec, encoding="offset", adc=AdcSpec(bits=8, columns_per_adc=4))
    matrix = store(spec, Stored(np.full((8, 1), 8), 4, "unsigned"))
    offsets = make_device(matrix, NonIdealities(adc=AdcErrors(offset_lsb=3.0)), 2)
    assert offsets.converters is not None
    zero = offsets.converters.distort(np.zeros((1, 8, 1)), 0, 0)[0, :, 0]
    assert len(set(zero[:4])) == len(set(zero[4:])) == 1
    assert zero[0] != zero[4]
    bent = make_device(matrix, NonIdealities(adc=AdcErrors(inl_lsb=3.0)), 2)
    assert bent.converters is not None
    sweep = np.linspace(0, 255, 256)
    curve = bent.converters.distort(np.broadcast_to(sweep, (1, 8, 256)), 0, 0)[0] - sweep
    assert curve[:, [0, -1]] == pytest.approx(0)
    assert np.abs(curve).max() > 0.5


@settings(deadline=None, max_examples=15)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    planes=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_first_order_wires_err_in_second_order(
    rows: int, columns: int, planes: int, seed: int
) -> None:
    """A tenth of the resistance leaves about a hundredth of the error."""
    g = np.random.default_rng(seed).uniform(0.1, 1.0, (planes, rows, columns))
    errors = []
    for ohm in (1.0, 0.1):
        wires = WireSpec(row_ohm=ohm, column_ohm=2 * ohm, column_terminal_ohm=3 * ohm)
        exact = effective_conductance(g, wires, 1e4)
        errors.append(np.abs(first_order_conductance(g, wires, 1e4) - exact).max())
        assert np.abs(exact - g).max() > errors[-1]
    assert errors[1] <= 0.013 * errors[0] + 1e-15


def test_the_nodal_solution_of_one_cell_is_ohms_law() -> None:
    wires = WireSpec(row_ohm=30.0, column_ohm=20.0, row_terminal_ohm=5.0, column_terminal_ohm=45.0)
    g = effective_conductance(np.array([[[1.0]]]), wires, 100.0)
    assert g.item() == pytest.approx(1 / (1 + 0.3 + 0.2 + 0.05 + 0.45))
    none = effective_conductance(np.full((1, 3, 2), 0.7), WireSpec(), 100.0)
    assert none == pytest.approx(0.7)


def test_monte_carlo_covers_the_mean_at_its_confidence() -> None:
    """Of 200 studies of a known figure, about 90 % hold it."""
    held = 0
    for study in range(200):
        estimate = monte_carlo(
            lambda s: float(np.random.default_rng(s).normal(3.0, 2.0)),
            devices=8,
            confidence=0.9,
            seed=study,
        )
        held += estimate.low <= 3.0 <= estimate.high
    assert 165 <= held <= 195
    assert monte_carlo(lambda _: 2.0, devices=3) == monte_carlo(lambda _: 2.0, devices=3)


def test_noise_to_signal_grows_with_the_error() -> None:
    matrix = _matrix(bits=10)
    ideal = read(matrix, X, 4)

    def ratio(sigma: float) -> float:
        errors = NonIdealities(programming=CellNoise(sigma))
        run = monte_carlo(
            lambda s: error_to_signal(ideal, make_device(matrix, errors, s).read(X, 4)), devices=5
        )
        return run.mean

    assert 0 < ratio(0.05) < ratio(0.15) < ratio(0.4)
    assert error_to_signal(ideal, ideal) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NonIdealities(on_off_ratio=0.5), "on_off_ratio = 0.5 is not above 1"),
        (lambda: CellNoise(-1), "sigma = -1 is negative"),
        (lambda: StuckCells(0.7, 0.6), "is not a fraction"),
        (lambda: PowerLawDrift(1.0), "1.0 s lies before the first read at 20.0 s"),
        (lambda: CapacitorMismatch(0), "0 fF is not positive"),
        (lambda: ArrayWires(WireSpec(supply_lines=True)), "supply lines make"),
        (lambda: monte_carlo(lambda _: 1.0, devices=1), "1 devices at confidence 0.95"),
        (lambda: error_to_signal(np.zeros(2), np.ones(2)), "the ideal output is zero"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()
