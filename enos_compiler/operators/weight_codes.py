# SPDX-License-Identifier: Apache-2.0
"""Weights to integer codes, by one set of functions for training and for quantisation.

Every function works per output channel on (M, ...) tensors in torch, so that the form that trains
and the integers that are compiled are the same numbers.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from enos_compiler.semantics.quantizer import EXACT_FLOAT32
from enos_compiler.semantics.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

_BIAS_SHARE = 0.25
"""Part of the exact range that the choice of a scale leaves to the bias."""
_MANTISSAS = range(8, 16)
"""Scales tried are these eighths of powers of two: their odd parts are 1, 3, 5, .. 15."""
LEAST_EXPONENT = -64
"""No scale is finer: units stay normal numbers in float32 whatever a channel's size."""
_CHUNK_ELEMENTS = 2**16
"""Weights x scales tried at a time: the temporaries stay in the cache."""


def largest_code(bits: int) -> int:
    """Return the magnitude of the largest code of symmetric signed weights: 127 at 8 bits."""
    return int(2 ** (bits - 1)) - 1


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """Return `vector` (M,) in a shape that broadcasts against weights (M, ...)."""
    return vector.reshape(-1, *(1,) * (like.dim() - 1))


def root_mean_square(weight: Tensor) -> Tensor:
    """Return (M,) root mean square of each output channel."""
    return weight.flatten(1).square().mean(1).sqrt()


def signs(weight: Tensor) -> Tensor:
    """Return +-1 with the type of `weight`; +1 at 0, so that no weight ever dies."""
    return (weight >= 0).to(weight.dtype) * 2 - 1


def uniform_codes(
    weight: Tensor, bits: int, *, input_max: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes, odd mantissas and exponents: weight ~ codes * mantissa * 2**exponent.

    The scale of a channel is the m * 2**e, m odd and below 16, of least squared error. Given
    `input_max`, only scales with m * sum|codes| * input_max below three quarters of 2**24 are
    taken, which leaves a quarter to the bias so that float32 sums stay exact; m = 1 always is.

    Args:
        weight: (M, ...), any float type; used without its graph.
        bits: 2..8; codes lie in -(2**(bits-1) - 1) .. 2**(bits-1) - 1.
        input_max: largest magnitude of code - zero point of the input.

    Returns:
        codes (M, ...), integers in the type of the weights; mantissas (M,) and exponents (M,),
        float64.
    """
    import torch

    weight = weight.detach()
    limit = None if input_max is None else (1 - _BIAS_SHARE) * EXACT_FLOAT32 / input_max
    rows = weight.to(torch.float32).flatten(1)
    with one_thread():
        parts = torch.split(rows, _rows_at_a_time(rows))
        found = [_least_squares(part, bits, limit) for part in parts]
    mantissa = torch.cat([m for m, _ in found]).to(torch.float64)
    exponent = torch.cat([e for _, e in found]).to(torch.float64)
    return round_to_codes(weight, bits, mantissa, exponent), mantissa, exponent


def round_to_codes(weight: Tensor, bits: int, mantissa: Tensor, exponent: Tensor) -> Tensor:
    """Return the nearest codes at scale mantissa * 2**exponent, half to even, saturated."""
    import torch

    top = largest_code(bits)
    weight = weight.detach()
    scale = torch.ldexp(mantissa, exponent)
    codes = torch.empty_like(weight)
    step = _rows_at_a_time(weight)
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        steps = weight[rows].to(torch.float64, copy=True).div_(per_channel(scale[rows], weight))
        codes[rows] = steps.round_().clamp_(-top, top)
    return codes


def _rows_at_a_time(weight: Tensor) -> int:
    """Return the channels whose weights stay in the cache with what is computed from them."""
    return max(1, _CHUNK_ELEMENTS * max(1, len(weight)) // max(1, weight.numel()))


def _least_squares(rows: Tensor, bits: int, limit: float | None) -> tuple[Tensor, Tensor]:
    """Return the odd mantissa and exponent of each row's best scale; (1, 0) for a row of zeros.

    Of equal scales the first stays: small ones before great ones.
    """
    import torch

    top = largest_code(bits)
    largest = rows.abs().amax(1)
    octave = torch.floor(torch.log2(torch.where(largest > 0, largest / top, 1.0)))
    octave = octave.clamp_min(LEAST_EXPONENT)
    tried = _candidates(bits).to(rows.dtype).to(rows.device)
    best = _errors(rows, octave, tried, top, limit).argmin(0)
    zero = largest == 0
    mantissa = torch.where(zero, 1.0, tried[best, 1])
    return mantissa, torch.where(zero, 0.0, octave + tried[best, 3])


def _errors(rows: Tensor, octave: Tensor, tried: Tensor, top: int, limit: float | None) -> Tensor:
    """Return (scales, M) squared errors of rows (M, taps); infinite above the limit on sums.

    As many scales are tried together as the cache holds, in room that all of them share, since
    fresh memory costs as much as the sums; what is small is computed for all scales at once.
    """
    import torch

    eighths, odd, shift = (tried[:, column, None] for column in range(3))
    scales = torch.ldexp(eighths / 8, octave + shift)
    inverse, squares = (1 / scales)[:, :, None], scales * scales
    may_exceed = [False] * len(tried)
    if limit is not None:
        # Rounding adds at most half a code per weight: most scales pass without a sum.
        reach = (rows.abs().sum(1) / scales + rows.shape[1] / 2) * odd
        may_exceed = ((reach >= limit) & (eighths != 8)).any(1).tolist()
    together = min(len(tried), max(1, _CHUNK_ELEMENTS // max(1, rows.numel())))
    room = rows.new_empty(2, together, *rows.shape)
    found = []
    for start in range(0, len(tried), together):
        group = slice(start, start + together)
        steps, codes = room[:, : len(tried) - start]
        torch.mul(rows, inverse[group], out=steps)
        torch.round(steps, out=codes).clamp_(-top, top)
        errors = torch.linalg.vecdot(steps.sub_(codes), steps).mul_(squares[group])
        if limit is not None and any(may_exceed[group]):
            over = odd[group] * codes.abs_().sum(2) >= limit
            errors[over & (eighths[group] != 8)] = torch.inf
        found.append(errors)
    return torch.cat(found)


@cache
def _candidates(bits: int) -> Tensor:
    """Return (scales, 4): eighths, odd mantissa, octave, and the exponent of that mantissa."""
    import torch

    rows = []
    for shift in range(-3 if bits <= 4 else -1, 2):
        for eighths in _MANTISSAS:
            odd, drop = _odd_part(eighths)
            rows.append((eighths, odd, shift, shift - 3 + drop))
    return torch.tensor(rows, dtype=torch.float64)


def _odd_part(value: int) -> tuple[int, int]:
    """Return (m, k) with value = m * 2**k and m odd."""
    k = (value & -value).bit_length() - 1
    return value >> k, k


def straight_through(weight: Tensor, form: Tensor) -> Tensor:
    """Return `form`, whose gradient with respect to `weight` is one everywhere.

    The scale of a form follows its weights at every step, so no weight can run away from it and
    no mask is needed. For sign forms a gain of one on the scaled weight is what trains: the
    clipped surrogate times the scale is ten times too weak (58 against 91 % on small digits).
    """
    return (form.to(weight.dtype) - weight.detach()).add_(weight)


def tanh_signs(weight: Tensor) -> Tensor:
    """Return +-1 (M, ...) with the gradient of tanh(w / rms of the channel).

    At weights of root mean square 0.1 this is the surrogate tanh' with k = 10 that trains mf
    best; the width follows the weights, because a bump narrower than they are stops sign flips.
    """
    import torch

    hard = signs(weight.detach())
    width = root_mean_square(weight.detach()).clamp_min(torch.finfo(weight.dtype).tiny)
    soft = torch.tanh(weight / per_channel(width, weight))
    return soft + (hard - soft.detach())
