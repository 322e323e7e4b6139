# SPDX-License-Identifier: Apache-2.0
"""Convolutions of every kind on crossbars against torch's float64 convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar.convolution import crossbar_convolution, unfold
from enos_compiler.crossbar.operators import weight_signs
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, Encoding
from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import LayerShape


@st.composite
def shapes(draw: st.DrawFn) -> LayerShape:
    return LayerShape(
        g=draw(st.integers(1, 3)),
        n=draw(st.integers(1, 2)),
        m=draw(st.integers(1, 3)),
        c=draw(st.integers(1, 3)),
        p=draw(st.integers(1, 3)),
        q=draw(st.integers(1, 3)),
        r=draw(st.integers(1, 3)),
        s=draw(st.integers(1, 3)),
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        dilation=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
    )


def _torch(x: np.ndarray, w: np.ndarray, shape: LayerShape) -> np.ndarray:
    y = torch.nn.functional.conv2d(
        torch.from_numpy(x.astype(np.float64)),
        torch.from_numpy(w.astype(np.float64)),
        stride=shape.stride,
        dilation=shape.dilation,
        groups=shape.g,
    )
    return y.numpy().round().astype(np.int64)


@settings(deadline=None, max_examples=60)
@given(
    shape=shapes(),
    pad=st.integers(0, 1),
    zero_point=st.sampled_from([0, 2, 8]),
    encoding=st.sampled_from(["differential", "offset", "unit_column"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_convolutions_equal_torch(
    shape: LayerShape, pad: int, zero_point: int, encoding: Encoding, seed: int
) -> None:
    height, width = shape.input_extent
    pad = min(pad, (height - 1) // 2, (width - 1) // 2)
    shape = LayerShape(
        **{f: getattr(shape, f) for f in ("g", "n", "m", "c", "p", "q", "r", "s")},
        stride=shape.stride,
        dilation=shape.dilation,
        padding=(pad, pad, pad, pad),
    )
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 16, (shape.n, shape.g * shape.c, height - 2 * pad, width - 2 * pad))
    w = rng.integers(-7, 8, (shape.g * shape.m, shape.c, shape.r, shape.s))
    spec = CrossbarSpec(
        rows=7, columns=9, cell=CellSpec(bits=2), encoding=encoding, adc=AdcSpec(bits=12)
    )
    centred = np.pad(x - zero_point, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    run = crossbar_convolution(spec, "mac", w, x, shape, 4, 4, zero_point=zero_point)
    assert np.array_equal(run["sum"], _torch(centred, w, shape))
    run = crossbar_convolution(spec, "bw", w, x, shape, 4, 4, zero_point=zero_point)
    assert np.array_equal(run["sum"], _torch(centred, weight_signs(w), shape))
    signed = x - zero_point
    run = crossbar_convolution(spec, "xnor", w, signed, shape, 4, 5, inputs_signed=True)
    assert np.array_equal(run["sum"], _torch(np.sign(centred), weight_signs(w), shape))
    run = crossbar_convolution(spec, "mf", w, signed, shape, 4, 5, inputs_signed=True)
    assert np.array_equal(run["A"], _torch(np.sign(centred), np.abs(w), shape))
    assert np.array_equal(run["B"], _torch(np.abs(centred), weight_signs(w), shape))


def test_wrong_inputs_are_refused() -> None:
    shape = LayerShape(c=2, p=3, q=3, r=3, s=3)
    with pytest.raises(SpecError, match=r"input \(1, 2, 4, 5\) after padding is not"):
        unfold(np.zeros((1, 2, 4, 5), np.int64), shape)
    spec, one = CrossbarSpec(rows=8, columns=8), np.ones((1, 1, 1, 1), np.int64)
    with pytest.raises(SpecError, match="mf reads the sign of an input"):
        crossbar_convolution(spec, "mf", one, one, LayerShape(), 4, 4, zero_point=3)
