# SPDX-License-Identifier: Apache-2.0
"""ef: the older multiplication-free operator, y ~ sum sign(x) w + sign(w) x."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from enos_compiler.operators.two_sums import RECTIFIED_RMS, TwoSums, spread

if TYPE_CHECKING:
    from torch import Tensor

_DEVIATION = 1.549
"""Standard deviation of the balanced tap over r_x r_w for x = relu(N(0, 1)) and normal w.

Source: sqrt(p + 1 + 2 (mean|x| / r_x)(mean|w| / r_w)) with p = 1/2, mean|x| / r_x = 0.564,
mean|w| / r_w = 0.798. For x = N(0, 1) the same constants give 1.00 of mac's deviation.
"""


class SignProduct(TwoSums):
    """sign(x w)(|x| + |w|), both halves balanced: r_x sign(x) w + r_w sign(w) x over 1.549.

    r_x is that of relu(N(0, 1)), r_w the root mean square of the channel's weights. Its
    correlation with the product is 0.8 to 0.9 for rectified and for signed inputs.
    Source: abstracts of arXiv 1702.02676 and ICASSP 2018 (seen); the balance is ours, correlation
    and deviation measured on 4 million samples.
    """

    name: ClassVar[str] = "ef"
    signed_magnitude: ClassVar[bool] = True

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return r_w / 1.549 for inputs and r_x / 1.549 for their signs."""
        rms, _ = spread(weight)
        return rms / _DEVIATION, rms.new_full(rms.shape, RECTIFIED_RMS / _DEVIATION)
