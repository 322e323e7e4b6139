# SPDX-License-Identifier: Apache-2.0
"""Rounding of large activations, alone or behind a norm, in few walks over memory.

Apart, a live batch norm, a ReLU and the rounding walk their tensor some ten times there and back,
which takes longer than a convolution; together they take two walks each way. Rounding to codes
without a sign is the ReLU. The definition is the norm or the sum, then the sum of shares times
`fake.fake_quantize` at each width, which small tensors take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from enos_compiler import compiled
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.search import kernels
from enos_compiler.search.fake import bounds, fake_quantize

UNROUNDED = (2.0**-100, float("-inf"), float("inf"))
"""Step and ends of a grid so fine that a float32 lies on it."""
LEAST = 2**17
"""Elements from which on the compiled form pays on one thread: below it calls cost more than they
save. Of several threads each needs a part of its own, or PyTorch's, which wake faster, win."""
WIDTH = 128
"""Numbers that a row has at most: its constants stay in the fastest memory."""

Doubles = NDArray[np.float64]
Formats = Sequence[ValueFormat | None]
"""None leaves numbers as they are."""
Extremes = tuple[float, float]
FormatsOf = Callable[[Callable[[], Extremes]], Formats]
"""What finds a value's extremes, if somebody wants them -> the formats that the value gets."""


class Statistics(NamedTuple):
    """Of a batch, by channel. What has one number a channel is numpy's, whose calls take less."""

    mean: Doubles
    variance: Doubles
    """Of the batch itself: divided by the number of pixels."""
    least: Doubles
    """Only where extremes were asked for, as `greatest`."""
    greatest: Doubles


class _Walk(NamedTuple):
    """What (x * slope + offset) rounded to grids needs there and back, as the kernels take it."""

    line: Any
    """(2, width) slope and offset."""
    grids: Any
    mean: Any
    """(width,)"""


class _NormRounded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        shares: Tensor,
        statistics: Statistics,
        eps: float,
        formats_of: FormatsOf,
    ) -> Tensor:
        """Return the rounded images."""
        inverse = 1 / np.sqrt(statistics.variance + eps)
        slope = weight.detach().numpy() * inverse
        line = np.stack([slope, bias.detach().numpy() - statistics.mean * slope])
        formats = formats_of(lambda: _extremes(statistics, line))
        width = _width_of(x)
        lines, means = _repeated(line, width), _repeated(statistics.mean, width)
        ctx.save_for_backward(x, weight)
        ctx.walk = _Walk(lines, _grids(formats, shares), means)
        ctx.mean, ctx.inverse = statistics.mean, inverse
        return _forth(ctx.walk, x, torch.empty_like(x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, weight, bias and shares."""
        x, weight = ctx.saved_tensors
        walk: _Walk = ctx.walk
        upstream = _channels_last(gradients[0])
        on_bias, products, *on_shares = _sums(walk, x, upstream)
        on_weight = products * ctx.inverse
        a = weight.detach().numpy() * ctx.inverse
        b = -a * ctx.inverse * on_weight / (x.numel() // len(weight))
        c = -a * on_bias / (x.numel() // len(weight)) - b * ctx.mean
        on_x = _back(walk, x, upstream, _repeated(np.stack([a, b, c]), _width_of(x)))
        found = (_tensor(on_weight), _tensor(on_bias), _on_shares(on_shares))
        return on_x, *found, None, None, None


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: Tensor, formats: Formats) -> Tensor:
        """Return the rounded images."""
        line, _, mean = _untouched(_width_of(x))
        ctx.save_for_backward(x)
        ctx.walk = _Walk(line, _grids(formats, shares), mean)
        return _forth(ctx.walk, x, torch.empty_like(x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images and shares."""
        (x,) = ctx.saved_tensors
        walk: _Walk = ctx.walk
        upstream = _channels_last(gradients[0])
        on_shares = None
        if ctx.needs_input_grad[1]:
            _, _, *sums = _sums(walk, x, upstream)
            on_shares = _on_shares(sums)
        return _back(walk, x, upstream, _untouched(_width_of(x))[1]), on_shares, None


def norm_rounded(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shares: Sequence[float | Tensor],
    statistics: Statistics,
    eps: float,
    formats_of: FormatsOf,
) -> Tensor:
    """Return images normalised by their own statistics and rounded.

    Args:
        x: (N, C, H, W), `is_large`.
        weight: (C,) gamma.
        bias: (C,) beta.
        shares: probability of each format.
        statistics: of x.
        eps: added to the variance.
        formats_of: gives the formats, and may ask for the extremes of what is rounded.
    """
    apply: Any = _NormRounded.apply
    found: Tensor = apply(x, weight, bias, _stacked(shares), statistics, eps, formats_of)
    return found


def rounded(x: Tensor, shares: Sequence[float | Tensor], formats: Formats) -> Tensor:
    """Return the sum of shares times x rounded to each format; a single share is 1."""
    if not any(formats) and len(formats) == 1:
        return x
    if is_large(x):
        apply: Any = _Rounded.apply
        found: Tensor = apply(x, _stacked(shares), formats)
        return found
    copies = [x if fmt is None else fake_quantize(x, fmt) for fmt in formats]
    if len(copies) == 1:
        return copies[0]
    total = copies[0] * shares[0]
    for copy, share in zip(copies[1:], shares[1:], strict=True):
        total = total + copy * share
    return total


def is_large(*images: Tensor) -> bool:
    """Return whether images are alike, channels last and worth the compiled form."""
    first, threads = images[0], torch.get_num_threads()
    return (
        first.dim() == 4
        and first.numel() >= (LEAST if threads == 1 else threads * compiled.LEAST_PART)
        and compiled.takes(*images)
        and all(
            x.shape == first.shape and x.is_contiguous(memory_format=torch.channels_last)
            for x in images
        )
    )


def statistics_of(x: Tensor, *, extremes: bool) -> Statistics:
    """Return the statistics of images that are `is_large`, with extremes only where asked."""
    rows = _rows_of(x)
    width, channels = rows.shape[1], x.shape[1]
    pivot = rows[0, :channels].copy()
    arguments = (rows, _repeated(pivot, width), extremes)
    found = compiled.run_parts(kernels.moments, len(rows), rows.size, (4, width), *arguments)
    by_pixel = found.reshape(len(found), 4, -1, channels)
    mean, square = by_pixel[:, :2].sum((0, 2)) / (x.numel() // channels)
    return Statistics(
        mean=mean + pivot,
        variance=np.maximum(square - mean * mean, 0.0),
        least=by_pixel[:, 2].min((0, 1)),
        greatest=by_pixel[:, 3].max((0, 1)),
    )


def _forth(walk: _Walk, x: Tensor, out: Tensor) -> Tensor:
    rows, into = _rows_of(x), _rows_of(out)
    compiled.run(kernels.scale_and_round, len(rows), rows.size, rows, walk.line, walk.grids, into)
    return out


def _sums(walk: _Walk, x: Tensor, upstream: Tensor) -> Doubles:
    """Return what the gradient adds up to, (2 + grids, C): see `kernels.gradient_sums`."""
    rows, count = _rows_of(x), 2 + len(walk.grids)
    arguments = (rows, _rows_of(upstream), walk.line, walk.grids, walk.mean)
    shape = (count, rows.shape[1])
    found = compiled.run_parts(kernels.gradient_sums, len(rows), rows.size, shape, *arguments)
    by_channel: Doubles = found.sum(0).reshape(count, -1, x.shape[1]).sum(1)
    return by_channel


def _back(walk: _Walk, x: Tensor, upstream: Tensor, factors: Any) -> Tensor:
    rows, on_x = _rows_of(x), torch.empty_like(x)
    arguments = (rows, _rows_of(upstream), walk.line, walk.grids, factors, _rows_of(on_x))
    compiled.run(kernels.gradient_through, len(rows), rows.size, *arguments)
    return on_x


def _on_shares(sums: Sequence[Doubles]) -> Tensor:
    return _tensor(np.array([by_channel.sum() for by_channel in sums]))


def _tensor(numbers: Doubles) -> Tensor:
    return torch.from_numpy(numbers).float()


def _rows_of(images: Tensor) -> Any:
    """Return images, channels last, as a numpy view (rows, width) of whole pixels."""
    return images.detach().permute(0, 2, 3, 1).reshape(-1, _width_of(images)).numpy()


def _width_of(images: Tensor) -> int:
    """Return the numbers of a row: whole pixels, as many as divide the images."""
    return _widest(images.numel() // images.shape[1], images.shape[1])


@cache
def _widest(pixels: int, channels: int) -> int:
    found = max(n for n in range(1, max(WIDTH // channels, 1) + 1) if pixels % n == 0)
    return found * channels


@cache
def _untouched(width: int) -> tuple[Any, Any, Any]:
    """Return the line, the backward factors and the mean that leave rows of a width as they are."""
    one, none = np.ones(width, np.float32), np.zeros(width, np.float32)
    return np.stack([one, none]), np.stack([one, none, none]), none


def _repeated(constants: NDArray[Any], width: int) -> Any:
    """Return (..., channels) constants as float32, repeated along the last axis of `_rows_of`."""
    times = width // constants.shape[-1]
    exact = constants.astype(np.float32)
    return exact if times == 1 else np.concatenate([exact] * times, -1)


def _extremes(statistics: Statistics, line: Doubles) -> Extremes:
    """Return the least and the greatest of slope * x + offset."""
    ends = np.stack([statistics.least, statistics.greatest]) * line[0] + line[1]
    return float(ends.min()), float(ends.max())


def _grids(formats: Formats, shares: Tensor) -> Any:
    """Return formats and shares as the kernels take them, (grids, 4); a single share is 1."""
    ends = [UNROUNDED if fmt is None else (fmt.scale, *bounds(fmt)) for fmt in formats]
    rows = np.array([(*end, 1.0) for end in ends], dtype=np.float32)
    if len(rows) > 1:
        rows[:, 3] = shares.detach().numpy()
    return rows


def _stacked(shares: Sequence[float | Tensor]) -> Tensor:
    """Return shares side by side; a single one is 1, from which nothing learns."""
    if len(shares) == 1:
        return torch.ones(1)
    return torch.stack([torch.as_tensor(share) for share in shares])


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
