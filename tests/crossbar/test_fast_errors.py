# SPDX-License-Identifier: Apache-2.0
"""Noise and errors of the torch path: the statistics and the codes of the integer model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from enos_compiler.crossbar.adc_errors import AdcErrors
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.convolution import unfold
from enos_compiler.crossbar.fast import FastConvolution
from enos_compiler.crossbar.fastblock import make_block
from enos_compiler.crossbar.fastint8 import exact_here
from enos_compiler.crossbar.fastnoise import POOL, NormalStream, RowPower
from enos_compiler.crossbar.integer import IntegerMatrix, Stored, StoredBlock, read, store
from enos_compiler.crossbar.nonideal import NonIdealities, make_device
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.ir.shape import LayerShape


def test_read_noise_has_the_stated_spread() -> None:
    """Without converter: sigma * sqrt(2 sum x^2) per column of a pair, mean the product."""
    rng = np.random.default_rng(3)
    spec = CrossbarSpec(
        rows=64,
        columns=8,
        cell=CellSpec(bits=7),
        dac=DacSpec(digit_bits=None),
        adc=AdcSpec(law="ideal"),
    )
    shape = LayerShape(n=1, m=4, c=32)
    matrix = store(spec, Stored(rng.integers(-127, 128, (4, 32)), 8))
    x = rng.integers(0, 128, (1, 32, 1, 1))
    many = torch.from_numpy(x).repeat(6000, 1, 1, 1)
    y, again, other = (
        FastConvolution([matrix], shape, 7, read_noise=CellNoise(3.0 / 127), seed=s)(many).numpy()[
            :, :, 0, 0
        ]
        for s in (1, 1, 2)
    )
    assert np.array_equal(y, again)
    assert not np.array_equal(y, other)
    spread = 3.0 * np.sqrt(2 * (x**2).sum())
    assert y.std(axis=0) == pytest.approx(spread, rel=0.05)
    assert y.mean(axis=0) == pytest.approx(
        read(matrix, x[0, :, :, 0], 7)[:, 0], abs=5 * spread / np.sqrt(6000)
    )


@pytest.mark.parametrize("kind", ["independent", "proportional"])
@pytest.mark.parametrize("per_digit", [True, False])
@pytest.mark.parametrize("steps", [(0, 0), (2, 1)])
def test_read_noise_is_that_of_the_integer_model(
    per_digit: bool, kind: str, steps: tuple[int, int]
) -> None:
    """Two row blocks that cut through channels, slices, digits: equal spread at every position."""
    rng = np.random.default_rng(5)
    spec = CrossbarSpec(
        rows=20,
        columns=16,
        cell=CellSpec(bits=2),
        dac=DacSpec(digit_bits=2),
        adc=AdcSpec(bits=12, law="sign_magnitude" if any(steps) else "ideal", per_digit=per_digit),
    )
    shape = LayerShape(n=3000, m=2, c=4, p=2, q=2, r=3, s=3, padding=(1, 1, 0, 0))
    matrix = store(spec, Stored(rng.integers(-7, 8, (2, 36)), 4))
    x = np.repeat(rng.integers(0, 16, (1, 4, 3, 3)), 3000, axis=0)
    noise = CellNoise(0.5, kind)  # type: ignore[arg-type]
    device = make_device(matrix, NonIdealities(read_noise=noise), 3)
    plain = device.read(unfold(x, shape)[0], 4, steps_log2=steps).reshape(2, 3000, 4)
    fast = FastConvolution([matrix], shape, 4, steps_log2=steps, read_noise=noise, seed=1)
    ours = fast(torch.from_numpy(x)).numpy().reshape(3000, 2, 4)
    assert ours.std(axis=0) == pytest.approx(plain.std(axis=1), rel=0.08)
    assert len(set(plain.std(axis=1).round(1).ravel())) > 2


def test_normals_are_normal_and_independent() -> None:
    """Moments, distribution, and no memory between neighbours, runs and seeds."""
    count = 1 << 18
    stream = NormalStream(3)
    runs = [stream.draw(count).numpy().astype(np.float64) for _ in range(6)]
    runs += [NormalStream(4).draw(count).numpy().astype(np.float64)]
    slack = 4.5 / count**0.5
    for run in runs:
        assert abs(run.mean()) < slack
        assert abs(run.std() - 1) < slack
        assert abs(stats.skew(run)) < slack * 6**0.5
        assert abs(stats.kurtosis(run)) < slack * 24**0.5
        assert stats.kstest(run, "norm").statistic < 2 / count**0.5
        for lag in (1, 2, 3, 16, 64, 1024):
            assert abs(np.mean(run[lag:] * run[:-lag])) < slack
    for i, one in enumerate(runs):
        for other in runs[:i]:
            assert abs(np.mean(one * other)) < slack
    long = NormalStream(5).draw(POOL + 100)
    assert len(long) == POOL + 100
    assert long.std().item() == pytest.approx(1, abs=0.01)


def test_normals_do_not_depend_on_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        serial = NormalStream(3).draw(1 << 16)
        torch.set_num_threads(2)
        assert torch.equal(NormalStream(3).draw(1 << 16), serial)
    finally:
        torch.set_num_threads(before)


@settings(deadline=None, max_examples=40)
@given(
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    kernel=st.sampled_from([(1, 1), (3, 3), (3, 1), (2, 3)]),
    groups=st.integers(1, 2),
    first=st.integers(0, 5),
)
def test_row_power_is_the_sum_of_squares_under_the_kernel(
    stride: int, dilation: int, padding: int, kernel: tuple[int, int], groups: int, first: int
) -> None:
    """Against a convolution with the block's mask, blocks that cut through channels included."""
    rng = np.random.default_rng(first)
    channels, taps = 3, kernel[0] * kernel[1]
    mask = np.zeros((groups, channels * taps), np.float32)
    mask[:, min(first, taps - 1) :] = 1
    weight = torch.from_numpy(mask.reshape(groups, channels, *kernel))
    shape = LayerShape(
        g=groups,
        c=channels,
        r=kernel[0],
        s=kernel[1],
        stride=(stride, stride),
        dilation=(dilation, dilation),
    )
    x = torch.from_numpy(rng.integers(0, 16, (2, groups * channels, 9, 8)).astype(np.float32))

    def conv(values: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(values, kernels, None, stride, padding, dilation, groups)

    wanted = conv(x * x, weight)
    for layout in (torch.contiguous_format, torch.channels_last):
        values = x.clone(memory_format=layout)
        assert torch.equal(RowPower(weight, shape)(values, conv, [padding, padding]), wanted)


def _case(encoding: str) -> tuple[IntegerMatrix, LayerShape]:
    rng = np.random.default_rng(2)
    spec = CrossbarSpec(
        rows=20,
        columns=16,
        cell=CellSpec(bits=2),
        encoding=encoding,  # type: ignore[arg-type]
        dac=DacSpec(1),
        adc=AdcSpec(bits=5, columns_per_adc=2),
    )
    shape = LayerShape(n=2, m=6, c=4, p=3, q=3, r=3, s=3)
    return store(spec, Stored(rng.integers(-7, 8, (6, 36)), 4)), shape


@pytest.mark.parametrize("encoding", ["differential", "offset", "unit_column"])
@pytest.mark.parametrize("apart", [False, True])
def test_converter_errors_give_the_codes_of_the_integer_model(encoding: str, apart: bool) -> None:
    """Offsets and bends of every converter; float32 decides at most a rare tie differently."""
    matrix, shape = _case(encoding)
    errors = NonIdealities(adc=AdcErrors(1.0, 2.0))
    matrix = replace(matrix, spec=replace(matrix.spec, subtract_before_adc=not apart))
    x = np.random.default_rng(1).integers(0, 16, (2, 4, 5, 5))
    device = make_device(matrix, errors, 8)
    assert device.converters is not None
    fast = FastConvolution([device.matrix], shape, 4, converters=[device.converters])
    plain = device.read(unfold(x, shape)[0], 4).reshape(6, 2, 3, 3).transpose(1, 0, 2, 3)
    ideal = make_device(matrix, NonIdealities(), 8).read(unfold(x, shape)[0], 4)
    assert np.array_equal(fast(torch.from_numpy(x)).numpy(), plain)
    assert not np.array_equal(ideal.reshape(6, 2, 3, 3).transpose(1, 0, 2, 3), plain)


def test_rounded_levels_are_near_and_computed_as_such() -> None:
    """The int8 path on a perturbed device equals the integer model on the rounded levels."""
    matrix, shape = _case("differential")
    errors = NonIdealities(programming=CellNoise(0.1, "proportional"))
    device = make_device(matrix, errors, 4)
    fast = FastConvolution([device.matrix], shape, 4, round_levels=True)
    if exact_here(127, 1):
        assert fast.backend == "int8"
    rounded = []
    for index, block in enumerate(device.matrix.blocks):
        tensors = make_block(
            [device.matrix], index, shape, np.zeros((1, 2, 6), np.int64), parts=1, rounded=True
        )
        levels = tensors.weight(torch.float64).flatten(1).numpy().reshape(2, 6, -1)
        first = block.rows.start - tensors.first * 9
        net = levels[:, :, first : first + block.rows.stop - block.rows.start]
        exact = np.stack([v[0] - v[1] for v in block.levels]).transpose(0, 2, 1)
        assert np.abs(net - exact).max() <= 0.5 / 127 * np.abs(exact).max() * 1.0001
        assert not np.array_equal(net, exact)
        pairs = tuple(
            np.stack([np.maximum(v, 0), np.maximum(-v, 0)]) for v in net.transpose(0, 2, 1)
        )
        rounded.append(StoredBlock(block.rows, pairs))
    x = np.random.default_rng(1).integers(0, 16, (2, 4, 5, 5))
    twin = make_device(replace(matrix, blocks=tuple(rounded)), NonIdealities(), 0)
    plain = twin.read(unfold(x, shape)[0], 4).reshape(6, 2, 3, 3).transpose(1, 0, 2, 3)
    assert np.array_equal(fast(torch.from_numpy(x)).numpy(), plain)


def test_saturation_counts_the_conversions_that_clip() -> None:
    matrix, shape = _case("differential")
    x = np.random.default_rng(1).integers(0, 16, (2, 4, 5, 5))
    counted = 0
    columns = unfold(x, shape)[0]
    for block in matrix.blocks:
        for levels in block.levels:
            for digit in range(4):
                sums = (levels[0] - levels[1]).T @ ((columns[block.rows] >> digit) & 1)
                counted += int((np.abs(sums) > 15).sum())
    fast = FastConvolution([matrix], shape, 4, shortcut=False)
    conversions = 2 * 2 * 4 * 6 * 18
    assert fast.saturation(torch.from_numpy(x)) == (counted, conversions)
    assert 0 < counted < conversions
