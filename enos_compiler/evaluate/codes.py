# SPDX-License-Identifier: Apache-2.0
"""Codes in torch: requantise and the vector operations, as `semantics` defines them.

Every value is a tensor of uint8 codes. Whole numbers are computed in float32 where they stay
below 2^24 and in float64 else, so every result is the definition's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enos_compiler.ir.formats import ValueFormat
from enos_compiler.semantics.arithmetic import FLOAT32_SPREAD
from enos_compiler.semantics.base import VectorOp


def as_codes(codes: Tensor) -> Tensor:
    """Return codes as bytes, images channels last."""
    if codes.dim() == 4:
        return codes.to(torch.uint8, memory_format=torch.channels_last)
    return codes.to(torch.uint8)


def saturate_(steps: Tensor, fmt: ValueFormat) -> Tensor:
    """Return the codes of steps from the zero point, which are overwritten."""
    steps.round_()
    if fmt.zero_point:
        steps += fmt.zero_point
    return steps.clamp_(fmt.low, fmt.high).to(torch.uint8)


def narrowed(codes: Tensor, old: ValueFormat, new: ValueFormat) -> Tensor:
    """Return the copy that a narrower reader gets."""
    if old == new:
        return codes
    steps = codes.to(torch.float32).sub_(old.zero_point).mul_(2.0 ** (old.exponent - new.exponent))
    return saturate_(steps, new)


def vector_codes(
    op: VectorOp,
    codes: tuple[Tensor, ...],
    formats: tuple[ValueFormat, ...],
    output: ValueFormat,
    attributes: Mapping[str, Any],
) -> Tensor:
    """Return what a vector operation computes.

    Sums of two close scales run in torch; all others are the operation's own integers, those that
    only move codes on the bytes themselves.
    """
    if op.name in ("add", "sub"):
        low, high = sorted(fmt.exponent for fmt in formats)
        if high - low <= FLOAT32_SPREAD:
            return _sum(codes, formats, output, -1 if op.name == "sub" else 1)
    kind = codes[0].dtype if op.keeps_format else torch.int64
    arrays = tuple(c.to(kind).numpy() for c in codes)
    result = np.ascontiguousarray(op.integers(arrays, formats, output, attributes))
    return as_codes(torch.from_numpy(result))


def _sum(
    codes: tuple[Tensor, ...],
    formats: tuple[ValueFormat, ...],
    output: ValueFormat,
    sign: int,
) -> Tensor:
    """Return a +- b: whole numbers of the finer unit times a power of two, exact in float32."""
    (a, b), (old_a, old_b) = codes, formats
    factor_a = 2.0 ** (old_a.exponent - output.exponent)
    factor_b = sign * 2.0 ** (old_b.exponent - output.exponent)
    steps = a.to(torch.float32).mul_(factor_a)
    constant = -old_a.zero_point * factor_a - old_b.zero_point * factor_b
    if constant:
        steps += constant
    if a.shape == b.shape:
        return saturate_(steps.add_(b.to(torch.float32), alpha=factor_b), output)
    return saturate_(torch.add(steps, b.to(torch.float32), alpha=factor_b), output)
