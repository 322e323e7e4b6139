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
        codes (M, ...), float64 holding integers; mantissas (M,) and exponents (M,), float64.
    """
    import torch

    weight = weight.detach()
    limit = None if input_max is None else (1 - _BIAS_SHARE) * EXACT_FLOAT32 / input_max
    rows = weight.to(torch.float32).flatten(1)
    step = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1]))
    starts = range(0, rows.shape[0], step)
    with one_thread():
        found = [_least_squares(rows[start : start + step], bits, limit) for start in starts]
    mantissa = torch.cat([m for m, _ in found]).to(torch.float64)
    exponent = torch.cat([e for _, e in found]).to(torch.float64)
    return round_to_codes(weight, bits, mantissa, exponent), mantissa, exponent


def round_to_codes(weight: Tensor, bits: int, mantissa: Tensor, exponent: Tensor) -> Tensor:
    """Return the nearest codes at scale mantissa * 2**exponent, half to even, saturated."""
    import torch

    top = largest_code(bits)
    scale = per_channel(torch.ldexp(mantissa, exponent), weight)
    return (weight.detach().to(torch.float64) / scale).round_().clamp_(-top, top)


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
    together = max(1, _CHUNK_ELEMENTS // max(1, rows.numel()))
    groups = [tried[i : i + together] for i in range(0, len(tried), together)]
    room = (
        rows.new_empty(len(groups[0]), *rows.shape),
        rows.new_empty(len(groups[0]), *rows.shape),
    )
    norms = rows.abs().sum(1)
    errors = [_errors(rows, norms, octave, group, top, limit, room) for group in groups]
    best = torch.cat(errors).argmin(0)
    zero = largest == 0
    mantissa = torch.where(zero, 1.0, tried[best, 1])
    return mantissa, torch.where(zero, 0.0, octave + tried[best, 3])


def _errors(
    rows: Tensor,
    norms: Tensor,
    octave: Tensor,
    tried: Tensor,
    top: int,
    limit: float | None,
    room: tuple[Tensor, Tensor],
) -> Tensor:
    """Return (scales, M) squared errors of rows (M, taps); infinite above the limit on sums.

    Their L1 norms (M,) are `norms`. Steps and codes are written into `room`, since fresh memory
    costs as much as the sums.
    """
    import torch

    eighths, odd, shift = (tried[:, column, None] for column in range(3))
    scales = torch.ldexp(eighths / 8, octave + shift)
    steps = torch.mul(rows, (1 / scales)[:, :, None], out=room[0][: len(tried)])
    codes = torch.round(steps, out=room[1][: len(tried)]).clamp_(-top, top)
    errors: Tensor = torch.linalg.vecdot(steps.sub_(codes), steps).mul_(scales * scales)
    if limit is not None:
        # Rounding adds at most half a code per weight: most scales pass without a sum.
        reach = (norms / scales + rows.shape[1] / 2) * odd
        if ((reach >= limit) & (eighths != 8)).any():
            over = odd * codes.abs_().sum(2) >= limit
            errors[over & (eighths != 8)] = torch.inf
    return errors


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
    return weight + (form.to(weight.dtype) - weight.detach())


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
