# SPDX-License-Identifier: Apache-2.0
"""Exact integer sums of products: convolution and matrix product through floating-point BLAS.

numpy's integer products have no BLAS. A sum of integers is exact in a float of p bits, in any
order and with or without fused multiply-add, as long as the sum of the magnitudes stays below
2**p; that bound is computed from the operands, float32 is used below 2**24 and float64 below 2**53.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import EnosError
from enos_compiler.ir.formats import IntArray
from enos_compiler.semantics.quantizer import EXACT_FLOAT32, EXACT_FLOAT64

CHUNK_BYTES = 32 * 2**20
"""Size of the unfolded input that is held at a time."""

_Float = np.dtype[np.float32] | np.dtype[np.float64]


def matmul(a: IntArray, b: IntArray) -> IntArray:
    """Return the exact product of integer matrices (..., N, C) and (..., C, M), int64.

    Raises:
        EnosError: a sum of magnitudes may reach 2**53.
    """
    dtype = _exact_type(_largest(a) * _largest(b) * a.shape[-1])
    product: IntArray = np.matmul(a.astype(dtype), b.astype(dtype)).astype(np.int64)
    return product


def convolve(
    x: IntArray,
    w: IntArray,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> IntArray:
    """Return the exact cross-correlation of integers, int64, shape (N, G*M, P, Q).

    Args:
        x: (N, G*C, H, W), zero points already subtracted: padding inserts 0.
        w: (G*M, C, R, S), signed.
        stride: rows, columns.
        padding: top, left, bottom, right.
        dilation: rows, columns.
        groups: G.

    Raises:
        EnosError: a sum of magnitudes may reach 2**53.
    """
    per_output = np.abs(w).sum(axis=(1, 2, 3))
    dtype = _exact_type(_largest(x) * int(per_output.max(initial=0)))
    windows = _windows(x.astype(dtype), w.shape[2:], stride, padding, dilation, groups)
    n, g, c, r, s, p, q = windows.shape
    kernels = w.astype(dtype).reshape(g, w.shape[0] // g, c * r * s)
    out = np.empty((n, g, kernels.shape[1], p, q), dtype=np.int64)
    row_bytes = g * c * r * s * q * np.dtype(dtype).itemsize
    for images, rows in _chunks(n, p, row_bytes):
        part = windows[images, ..., rows, :]
        if c == 1:
            taps = kernels.reshape(g, -1, r, s)
            out[images, ..., rows, :] = _by_taps(part[:, :, 0], taps)
        else:
            count, height = part.shape[0], part.shape[5]
            columns = part.reshape(count, g, c * r * s, height * q)
            product = np.matmul(kernels, columns)
            out[images, ..., rows, :] = product.reshape(count, g, -1, height, q)
    return out.reshape(n, w.shape[0], p, q)


def _windows(
    x: NDArray[Any],
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[Any]:
    """Return a view (N, G, C, R, S, P, Q) of the zero-padded input."""
    top, left, bottom, right = padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    view = view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    view = _split_groups(view, groups)
    return view.transpose(0, 1, 2, 5, 6, 3, 4)


def _split_groups(view: NDArray[Any], groups: int) -> NDArray[Any]:
    """Split axis 1 of a strided view into (G, C) without copying."""
    n, channels, *rest = view.shape
    outer, channel, *inner = view.strides
    per_group = channels // groups
    return np.lib.stride_tricks.as_strided(
        view,
        (n, groups, per_group, *rest),
        (outer, channel * per_group, channel, *inner),
        writeable=False,
    )


def _by_taps(windows: NDArray[Any], taps: NDArray[Any]) -> NDArray[Any]:
    """Depthwise sum: windows (N, G, R, S, P, Q) with taps (G, M, R, S), no unfolded copy."""
    n, g, r, s, p, q = windows.shape
    total = np.zeros((n, g, taps.shape[1], p, q), dtype=windows.dtype)
    for i in range(r):
        for j in range(s):
            total += taps[:, :, i, j, None, None] * windows[:, :, None, i, j]
    return total


def _chunks(images: int, rows: int, row_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of images, or of one image's rows, whose unfolded input fits CHUNK_BYTES."""
    fit = max(1, CHUNK_BYTES // max(1, row_bytes))
    if fit >= rows:
        step = max(1, fit // max(1, rows))
        for n in range(0, images, step):
            yield slice(n, n + step), slice(0, rows)
        return
    for n in range(images):
        for p in range(0, rows, fit):
            yield slice(n, n + 1), slice(p, p + fit)


def _largest(values: IntArray) -> int:
    """Return the largest magnitude; 0 of nothing."""
    return max(int(values.max()), -int(values.min())) if values.size else 0


def _exact_type(bound: int) -> type[np.float32] | type[np.float64]:
    """Return the float type in which sums of magnitude below `bound` are exact."""
    if bound < EXACT_FLOAT32:
        return np.float32
    if bound < EXACT_FLOAT64:
        return np.float64
    raise EnosError(
        f"a sum of products may reach {bound}, above 2**53 where float64 stops being exact",
        remedy="use narrower operands",
    )
