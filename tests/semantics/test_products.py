# SPDX-License-Identifier: Apache-2.0
"""Sums of products against the nest written out, in Python integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from enos_compiler.errors import EnosError
from enos_compiler.semantics import products

Ints = NDArray[np.int64]


Extents = tuple[int, ...]


def nest(x: Ints, w: Ints, stride: Extents, pad: Extents, dilation: Extents, groups: int) -> Ints:
    """Eight loops over Python integers."""
    n, _, height, width = x.shape
    outputs, c, r, s = w.shape
    p = (height + pad[0] + pad[2] - (r - 1) * dilation[0] - 1) // stride[0] + 1
    q = (width + pad[1] + pad[3] - (s - 1) * dilation[1] - 1) // stride[1] + 1
    out = np.zeros((n, outputs, p, q), dtype=np.int64)
    for b, m, i, j in itertools.product(range(n), range(outputs), range(p), range(q)):
        group = m // (outputs // groups)
        total = 0
        for k, u, v in itertools.product(range(c), range(r), range(s)):
            row = i * stride[0] + u * dilation[0] - pad[0]
            column = j * stride[1] + v * dilation[1] - pad[1]
            if 0 <= row < height and 0 <= column < width:
                total += int(x[b, group * c + k, row, column]) * int(w[m, k, u, v])
        out[b, m, i, j] = total
    return out


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_convolve_equals_the_nest(data: st.DataObject) -> None:
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    groups, c, m = (data.draw(st.integers(1, 3)) for _ in range(3))
    r, s = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, dilation = data.draw(pair), data.draw(pair)
    pad = data.draw(st.tuples(*[st.integers(0, 2)] * 4))
    height = data.draw(st.integers((r - 1) * dilation[0] + 1, 7))
    width = data.draw(st.integers((s - 1) * dilation[1] + 1, 7))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    top = data.draw(st.sampled_from([8, 2**22]))
    x = rng.integers(-top, top, (2, groups * c, height, width))
    w = rng.integers(-128, 128, (groups * m, c, r, s))
    found = products.convolve(x, w, stride=stride, padding=pad, dilation=dilation, groups=groups)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, nest(x, w, stride, pad, dilation, groups))


@pytest.mark.parametrize("chunk", [1, 3000, 20000])
def test_chunks_do_not_change_the_sum(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (3, 4, 9, 9)), rng.integers(-128, 128, (6, 4, 3, 3))
    whole = products.convolve(x, w, padding=(1, 1, 1, 1))
    monkeypatch.setattr(products, "CHUNK_BYTES", chunk)
    np.testing.assert_array_equal(products.convolve(x, w, padding=(1, 1, 1, 1)), whole)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), top=st.sampled_from([100, 2**12, 2**23]))
def test_matmul_is_exact(seed: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-top, top, (2, 3, 17)), rng.integers(-top, top, (2, 17, 5))
    expected = (a[..., None].astype(object) * b[:, None].astype(object)).sum(axis=2)
    assert products.matmul(a, b).tolist() == expected.tolist()


@pytest.mark.parametrize("taps", [513, 517, 519, 4001])
def test_the_largest_odd_sums_are_exact(taps: int) -> None:
    """255 * 127 * 519 is the first odd one that float32 cannot hold."""
    x = np.full((1, taps, 1, 1), 255)
    w = np.full((2, taps, 1, 1), 127)
    w[1] = -127
    assert products.convolve(x, w).ravel().tolist() == [255 * 127 * taps, -255 * 127 * taps]
    matrix = products.matmul(x.reshape(1, taps), w.reshape(2, taps).T)
    assert matrix.ravel().tolist() == [255 * 127 * taps, -255 * 127 * taps]


def test_sums_that_no_float_holds_are_refused() -> None:
    big = np.full((4, 4), 2**26, dtype=np.int64)
    with pytest.raises(EnosError, match=r"above 2\*\*53"):
        products.matmul(big, big)
