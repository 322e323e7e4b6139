# SPDX-License-Identifier: Apache-2.0
"""shift: weights are signed powers of two, y = beta * sum sign(w) * (x << code)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from enos_compiler.ir.choice import Bits
from enos_compiler.operators.growth import growth_bits
from enos_compiler.operators.single_sum import SingleSum
from enos_compiler.operators.weight_codes import per_channel, root_mean_square, signs

if TYPE_CHECKING:
    from torch import Tensor

_TOP_IN_RMS = {2: 1.40, 3: 2.30, 4: 4.45}
"""Largest level over the weights' root mean square, by weight bits: least squared error.

Source: measured on 400,000 normal weights in steps of 0.05; squared errors 0.165, 0.045, 0.038.
"""


class Shift(SingleSum):
    """Shifts the input instead of multiplying it: sign and a shift of 0 .. 2**(b-1) - 1 places.

    Codes are sign(w) * 2**k with k = round(log2(|w| / top)) + R, clamped to 0..R, R = 2**(b-1)-1;
    weights of 2 to 4 bits, because a shift of up to 15 places at 5 bits would widen the
    accumulator by as much. `top` and the scale beta follow the channel's root mean square, so the
    output keeps mac's deviation.
    Source: DeepShift-Q, arXiv 1905.13298 (its repository seen), whose weights have no scale; the
    scale per channel is ours and joins the batch-norm gain in one multiplier.
    """

    name: ClassVar[str] = "shift"
    weight_bits: ClassVar[tuple[int, ...]] = (2, 3, 4)

    def codes(self, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Return codes +-2**k and scales that keep each channel's root mean square."""
        import torch

        weight = weight.detach().double()
        rms = root_mean_square(weight)
        places = largest_shift(bits)
        top = (rms * _TOP_IN_RMS[bits]).clamp_min(torch.finfo(torch.float64).tiny)
        power = torch.log2(weight.abs() / per_channel(top, weight)).round_().clamp_(-places, 0)
        codes = signs(weight) * torch.exp2(power + places)
        return codes, rms / root_mean_square(codes)

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return one shift, one conditional negation and one addition.

        Accumulator: input bits + the largest shift + ceil(log2 taps).
        """
        return {
            f"shift_{bits.input}": 1,
            f"xor_{bits.input}": 1,
            f"add_{bits.input + largest_shift(bits.weight) + growth_bits(taps)}": 1,
        }


def largest_shift(bits: int) -> int:
    """Return R, the places by which the largest weight shifts: one bit of `bits` is the sign."""
    return int(2 ** (bits - 1)) - 1
