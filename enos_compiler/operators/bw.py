# SPDX-License-Identifier: Apache-2.0
"""bw: binary weights, y = alpha * sum x * sign(w)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from enos_compiler.ir.choice import Bits
from enos_compiler.operators.growth import growth_bits
from enos_compiler.operators.single_sum import SingleSum
from enos_compiler.operators.weight_codes import root_mean_square, signs

if TYPE_CHECKING:
    from torch import Tensor


class BinaryWeight(SingleSum):
    """Adds or subtracts inputs by the sign of a one-bit weight, sign(0) = +1.

    alpha is the root mean square of the channel's weights, which keeps mac's output deviation;
    the least-squares alpha, mean |w|, would give 0.80 of it for normal weights.
    Source: XNOR-Net, arXiv 1603.05279, for the operator (remembered); the factor 0.80 measured.
    """

    name: ClassVar[str] = "bw"

    def codes(self, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Return sign codes +-1 and root-mean-square scales."""
        weight = weight.detach().double()
        return signs(weight), root_mean_square(weight)

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return one conditional negation of the input and one addition.

        The negation is an XOR per bit; its carry enters the addition. Accumulator: input bits +
        ceil(log2 taps).
        """
        return {
            f"xor_{bits.input}": 1,
            f"add_{bits.input + growth_bits(taps)}": 1,
        }
