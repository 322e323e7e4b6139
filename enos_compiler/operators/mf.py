# SPDX-License-Identifier: Apache-2.0
"""mf: the multiplication-free operator, y = c * sum sign(x)|w| + sign(w)|x|."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from enos_compiler.ir.network import Layer
from enos_compiler.operators.two_sums import RECTIFIED_RMS, TwoSums, spread

if TYPE_CHECKING:
    from torch import Tensor

_RECTIFIED_SHARE = 0.5
"""P(x != 0) of relu(N(0, 1))."""


class MultiplicationFree(TwoSums):
    """Adds magnitudes, each under the other operand's sign; inputs are never negative.

    c gives the sum mac's standard deviation for inputs relu(N(0, 1)):
    c = r_x r_w / sqrt(r_x**2 + p r_w**2 - (p mean|w|)**2), p = P(x != 0) = 1/2, r root mean
    squares. One factor on both halves: balancing them instead strengthens sign(x)|w|, which is
    never negative and nearly the same for all outputs, and training fails.
    Source: MF-Net (remembered); c derived and checked on 4 million samples.
    """

    name: ClassVar[str] = "mf"
    signed_magnitude: ClassVar[bool] = False

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return why the operator does not take this layer, or None."""
        if signed_input:
            return "mf is uncorrelated with the product where inputs have both signs; ef is not"
        return super().refusal(layer, signed_input=signed_input)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return c for both halves."""
        rms, mean = spread(weight)
        per_tap = (
            RECTIFIED_RMS**2 + _RECTIFIED_SHARE * rms.square() - (_RECTIFIED_SHARE * mean).square()
        )
        common = RECTIFIED_RMS * rms / per_tap.sqrt()
        return common, common
