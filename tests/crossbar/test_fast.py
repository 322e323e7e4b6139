# SPDX-License-Identifier: Apache-2.0
"""The torch path gives the codes of the integer definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar.calibrate import calibrate_steps
from enos_compiler.crossbar.convolution import unfold
from enos_compiler.crossbar.fast import FastConvolution
from enos_compiler.crossbar.fastint8 import exact_here
from enos_compiler.crossbar.integer import Stored, read, store
from enos_compiler.crossbar.layer import group_steps
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import LayerShape


@st.composite
def cases(draw: st.DrawFn) -> tuple[CrossbarSpec, LayerShape, str, int, int, bool]:
    spec = CrossbarSpec(
        rows=draw(st.integers(3, 40)),
        columns=64,
        cell=CellSpec(bits=draw(st.sampled_from([1, 2, 3, 7]))),
        encoding=draw(st.sampled_from(["differential", "offset", "unit_column"])),
        subtract_before_adc=draw(st.booleans()),
        rows_at_once=draw(st.sampled_from([None, 3])),
        dac=DacSpec(digit_bits=draw(st.sampled_from([None, 1, 2, 3]))),
        adc=AdcSpec(
            bits=draw(st.sampled_from([4, 6, 8, 10, 20])),
            per_digit=draw(st.booleans()),
            law=draw(st.sampled_from(["sign_magnitude", "sign_magnitude", "ideal"])),
        ),
    )
    pad = draw(st.integers(0, 1))
    shape = LayerShape(
        g=draw(st.integers(1, 2)),
        n=2,
        m=draw(st.integers(1, 5)),
        c=draw(st.integers(1, 5)),
        p=4,
        q=3,
        r=3,
        s=draw(st.sampled_from([1, 3])),
        stride=(draw(st.integers(1, 2)), 1),
        padding=(pad, 0, draw(st.integers(0, 1)), 0),
    )
    form = draw(st.sampled_from(["signed", "unsigned", "binary"]))
    signed = draw(st.booleans())
    return spec, shape, form, draw(st.integers(2, 8)), draw(st.integers(2, 8)), signed


@settings(deadline=None, max_examples=80)
@given(
    case=cases(),
    step=st.integers(0, 3),
    per_column=st.booleans(),
    backend=st.sampled_from([None, "float"]),
    shortcut=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_fast_codes_equal_the_definition(
    case: tuple[Any, ...],
    step: int,
    per_column: bool,
    backend: str | None,
    shortcut: bool,
    seed: int,
) -> None:
    spec, shape, form, weight_bits, input_bits, signed = case
    rng = np.random.default_rng(seed)
    stored = [_random_stored(rng, shape, form, weight_bits) for _ in range(shape.g)]
    matrices = [store(spec, s) for s in stored]
    top = (1 << (input_bits - signed)) - 1
    height, width = shape.input_extent
    sides = (height - shape.padding[0] - shape.padding[2], width)
    x = rng.integers(-top if signed else 0, top + 1, (shape.n, shape.g * shape.c, *sides))
    columns = unfold(x, shape)
    extent = (matrices[0].layout.slices, len(matrices) * matrices[0].blocks[0].levels[0].shape[2])
    steps = rng.integers(0, step + 1, extent) if per_column else np.full((extent[0], 1), step)
    plain = np.concatenate(
        [
            read(m, columns[g], input_bits, inputs_signed=signed, steps_log2=part)
            for g, m in enumerate(matrices)
            for part in [group_steps(steps, g, len(matrices))]
        ]
    )
    plain = plain.reshape(-1, shape.n, shape.p, shape.q).transpose(1, 0, 2, 3)
    fast = FastConvolution(
        matrices,
        shape,
        input_bits,
        inputs_signed=signed,
        steps_log2=steps,
        backend=backend,  # type: ignore[arg-type]
        shortcut=shortcut,
    )
    assert np.array_equal(fast(torch.from_numpy(x)).numpy().astype(np.int64), plain)


def _random_stored(
    rng: np.random.Generator, shape: LayerShape, form: str, weight_bits: int
) -> Stored:
    extent = (shape.m, shape.taps)
    if form == "binary":
        return Stored(rng.choice([-1, 1], extent), 1, "binary")
    top = (1 << (weight_bits - (form == "signed"))) - 1
    return Stored(rng.integers(-top if form == "signed" else 0, top + 1, extent), weight_bits, form)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell_bits", [2, 7])
@pytest.mark.parametrize("digit_bits", [None, 1])
def test_the_quantised_convolution_is_the_converter(cell_bits: int, digit_bits: int | None) -> None:
    """64 channels over three row blocks of 256, 8-bit ADC with twice the calibrated steps."""
    rng = np.random.default_rng(7)
    spec = CrossbarSpec(
        rows=256, columns=256, cell=CellSpec(bits=cell_bits), dac=DacSpec(digit_bits=digit_bits)
    )
    shape = LayerShape(n=2, m=8, c=64, p=8, q=8, r=3, s=3, padding=(1, 1, 1, 1))
    matrix = store(spec, Stored(rng.integers(-127, 128, (8, shape.taps)), 8))
    x = rng.integers(0, 128, (2, 64, 8, 8))
    columns = unfold(x, shape)[0]
    steps = tuple(1 + e for e in calibrate_steps(matrix, columns[:, ::5], 7))
    plain = read(matrix, columns, 7, steps_log2=steps).reshape(8, 2, 8, 8).transpose(1, 0, 2, 3)
    fast = FastConvolution([matrix], shape, 7, steps_log2=steps, shortcut=False)
    if not exact_here(127, 127):
        pytest.skip("this build of torch has no quantised convolution that is exact here")
    assert fast.backend == "int8"
    assert np.array_equal(fast(torch.from_numpy(x)).numpy().astype(np.int64), plain)


def test_matrices_that_do_not_fit_the_shape_are_refused() -> None:
    spec = CrossbarSpec(rows=8, columns=8)
    matrix = store(spec, Stored(np.ones((2, 4), np.int64), 2))
    with pytest.raises(SpecError, match="1 matrices of 2 x 4 do not make"):
        FastConvolution([matrix], LayerShape(m=2, c=5), 4)
    assert replace(spec, rows=4).read_rows == 4
