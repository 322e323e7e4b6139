# SPDX-License-Identifier: Apache-2.0
"""A live batch norm, or a sum, and the rounding behind it in as few walks over memory as may be.

Apart, a norm, a ReLU and the rounding walk their tensor some ten times there and back, which takes
longer than a convolution; together they take two walks each way. Rounding to codes without a sign
is the ReLU. The definition is the norm or the sum followed by `fake.fake_quantize`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from enos_compiler.ir.formats import ValueFormat
from enos_compiler.search import compiled
from enos_compiler.search.fake import bounds

Extremes = tuple[float, float]
FormatOf = Callable[[Callable[[], Extremes]], ValueFormat]
"""What finds a value's extremes, if somebody wants them -> the format that the value gets."""


class Statistics(NamedTuple):
    """Of a batch, by channel, float64."""

    mean: Tensor
    variance: Tensor
    """Of the batch itself: divided by the number of pixels."""
    least: Tensor
    greatest: Tensor


class _NormRound(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: Statistics,
        eps: float,
        format_of: FormatOf,
    ) -> Tensor:
        """Return the rounded images."""
        inverse = (statistics.variance + eps).rsqrt()
        slope = weight.double() * inverse
        line = torch.stack([slope, bias.double() - statistics.mean * slope]).float()
        grid = _grid(format_of(lambda: _extremes(statistics, line)))
        out = torch.empty_like(x)
        rows, into = compiled.rows_of(x), compiled.rows_of(out)
        lines = compiled.repeated(line, rows.shape[1])
        compiled.run("scale_and_round", len(rows), rows, lines, grid, into)
        ctx.save_for_backward(x, weight)
        ctx.mean, ctx.inverse, ctx.lines, ctx.grid = statistics.mean, inverse, lines, grid
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, weight and bias."""
        x, weight = ctx.saved_tensors
        rows, behind = compiled.rows_of(x), compiled.rows_of(_channels_last(gradients[0]))
        width, channels = rows.shape[1], len(weight)
        count = x.numel() // channels
        shared = (rows, behind, ctx.lines, ctx.grid)
        means = compiled.repeated(ctx.mean, width)
        found = compiled.run_sums("gradient_sums", len(rows), (2, width), *shared, means)
        on_bias, products = torch.from_numpy(found).sum(0).view(2, -1, channels).sum(1)
        on_weight = products * ctx.inverse
        a = weight.double() * ctx.inverse
        b = -a * ctx.inverse * on_weight / count
        c = -a * on_bias / count - b * ctx.mean
        factors = compiled.repeated(torch.stack([a, b, c]), width)
        on_x = torch.empty_like(x)
        into = compiled.rows_of(on_x)
        compiled.run("gradient_through", len(rows), *shared, factors, into)
        return on_x, on_weight.to(weight.dtype), on_bias.to(weight.dtype), None, None, None


class _SumRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, fmt: ValueFormat) -> Tensor:
        """Return the rounded sum."""
        out = torch.empty_like(x)
        rows = compiled.rows_of(x)
        others = (compiled.rows_of(y), _grid(fmt), compiled.rows_of(out))
        compiled.run("add_and_round", len(rows), rows, *others)
        ctx.save_for_backward(x, y)
        ctx.bounds = bounds(fmt)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradient where the sum was inside the bounds."""
        x, y = ctx.saved_tensors
        gradient = _channels_last(gradients[0])
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, x + y, *ctx.bounds)
        return passed, passed, None


def norm_round(
    x: Tensor, weight: Tensor, bias: Tensor, statistics: Statistics, eps: float, format_of: FormatOf
) -> Tensor:
    """Return the images normalised by their own statistics and rounded.

    Args:
        x: (N, C, H, W) that `compiled.takes`.
        weight: (C,) gamma.
        bias: (C,) beta.
        statistics: of x.
        eps: added to the variance.
        format_of: gives the format, and may ask for the extremes of what is rounded.
    """
    found: Tensor = _NormRound.apply(x, weight, bias, statistics, eps, format_of)  # type: ignore[no-untyped-call]
    return found


def sum_round(x: Tensor, y: Tensor, fmt: ValueFormat) -> Tensor:
    """Return x + y rounded; both (N, C, H, W) and such that `compiled.takes` them together."""
    found: Tensor = _SumRound.apply(x, y, fmt)  # type: ignore[no-untyped-call]
    return found


def statistics_of(x: Tensor) -> Statistics:
    """Return the statistics of images that `compiled.takes`."""
    rows = compiled.rows_of(x)
    width, channels = rows.shape[1], x.shape[1]
    pivot = np.tile(rows[0, :channels], width // channels)
    found = compiled.run_sums("moments", len(rows), (4, width), rows, pivot)
    by_pixel = torch.from_numpy(found).view(len(found), 4, -1, channels)
    count = x.numel() // channels
    mean, square = by_pixel[:, :2].sum((0, 2)) / count
    return Statistics(
        mean=mean + torch.from_numpy(pivot[:channels]),
        variance=(square - mean * mean).clamp_min_(0.0),
        least=by_pixel[:, 2].amin((0, 1)),
        greatest=by_pixel[:, 3].amax((0, 1)),
    )


def _extremes(statistics: Statistics, line: Tensor) -> Extremes:
    """Return the least and the greatest of slope * x + offset."""
    slope, offset = line.double()
    ends = torch.stack([statistics.least, statistics.greatest]) * slope + offset
    return float(ends.min()), float(ends.max())


def _grid(fmt: ValueFormat) -> Any:
    """Return step, least and greatest value as the kernels take them."""
    return np.array((fmt.scale, *bounds(fmt)), dtype=np.float32)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
