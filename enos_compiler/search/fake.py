# SPDX-License-Identifier: Apache-2.0
"""Rounding that training sees: the quantiser's values forward, straight-through gradients back.

The formats come from `semantics.quantizer.value_format`; forward, every number equals
`dequantize(quantize_codes(x))` of that module (float32 holds each of the few codes exactly).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from enos_compiler.ir.formats import ValueFormat

_TO_UNITS = 1.5 * 2**23
"""A float32 of this many steps has neighbours one step apart: adding it rounds, half to even."""


class _Round(torch.autograd.Function):
    """Round to a grid between two bounds; the gradient passes inside them and stops outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, low: float, high: float) -> Tensor:
        """Return the nearest grid point, ties to even, saturated; `step` is a power of two."""
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return (x + _TO_UNITS * step).sub_(_TO_UNITS * step).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient where the input was inside the bounds."""
        (x,) = ctx.saved_tensors
        gradient = gradients[0]
        if gradient.stride() != x.stride():
            # One gradient in another order, e.g. a mean's, would spread to all layers before it.
            gradient = torch.empty_like(x).copy_(gradient)
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, x, ctx.low, ctx.high)
        return passed, None, None, None


class _Sign(torch.autograd.Function):
    """Sign with the clipped straight-through gradient, 1 where |x| <= 1.

    Source: the surrogate that trained xnor in depth in this project's own comparison; mf, bw and
    ef train with any.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return -1, 0 or 1."""
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient inside -1..1."""
        (x,) = ctx.saved_tensors
        passed: Tensor = gradients[0] * (x.abs() <= 1)
        return passed


def fake_quantize(x: Tensor, fmt: ValueFormat) -> Tensor:
    """Return the real values of the codes of `x`, differentiably, in float32."""
    low, high = bounds(fmt)
    rounded: Tensor = _Round.apply(x.float(), fmt.scale, low, high)  # type: ignore[no-untyped-call]
    return rounded


def bounds(fmt: ValueFormat) -> tuple[float, float]:
    """Return the real values of the least and the greatest code."""
    return (fmt.low - fmt.zero_point) * fmt.scale, (fmt.high - fmt.zero_point) * fmt.scale


def sign(x: Tensor) -> Tensor:
    """Return the sign of `x`, 0 at 0, with a surrogate gradient."""
    signs: Tensor = _Sign.apply(x)  # type: ignore[no-untyped-call]
    return signs
