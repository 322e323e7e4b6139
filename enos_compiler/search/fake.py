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


class _Round(torch.autograd.Function):
    """Round to a grid between two bounds; the gradient passes inside them and stops outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, low: float, high: float) -> Tensor:
        """Return the nearest grid point, ties to even, saturated."""
        ctx.save_for_backward((x >= low) & (x <= high))
        return (x / step).round_().mul_(step).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient where the input was inside the bounds."""
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


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
    """Return the real values of the codes of `x`, differentiably."""
    low = (fmt.low - fmt.zero_point) * fmt.scale
    high = (fmt.high - fmt.zero_point) * fmt.scale
    rounded: Tensor = _Round.apply(x, fmt.scale, low, high)  # type: ignore[no-untyped-call]
    return rounded


def sign(x: Tensor) -> Tensor:
    """Return the sign of `x`, 0 at 0, with a surrogate gradient."""
    signs: Tensor = _Sign.apply(x)  # type: ignore[no-untyped-call]
    return signs
