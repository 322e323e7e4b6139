# SPDX-License-Identifier: Apache-2.0
"""xnor: one-bit inputs and weights, y = alpha * sum sign(x) * sign(w)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Layer
from enos_compiler.operators.growth import growth_bits
from enos_compiler.operators.single_sum import SingleSum
from enos_compiler.operators.terms import Reads
from enos_compiler.operators.weight_codes import root_mean_square, signs

if TYPE_CHECKING:
    from torch import Tensor


class Xnor(SingleSum):
    """Counts agreeing bits: inputs are {0, 1}, so y = 2 * popcount(x & w) - popcount(x).

    sign(x) is taken of the code that the layer reads, less its zero point: 0 where it rounds to
    zero, and at padding, which therefore needs no mask. The layer's input code has 2 bits or
    more; one plane of signs is what the core works on. In depth it trains only with a clipped
    straight-through gradient at sign x (|x| <= 1), not with none (70 against 16 %).
    Source: XNOR-Net, arXiv 1603.05279 (remembered), without its per-position scale, which is no
    sum of taps; the training figures are measured on small digits.
    """

    name: ClassVar[str] = "xnor"
    reads: ClassVar[Reads] = "sign"

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return why the operator does not take this layer, or None."""
        if signed_input:
            return (
                "xnor reads one plane of sign bits {0, 1}; signed inputs take three values and"
                " need a second plane for the negative ones: xnor2"
            )
        return super().refusal(layer, signed_input=signed_input)

    def codes(self, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Return sign codes +-1 and root-mean-square scales."""
        weight = weight.detach().double()
        return signs(weight), root_mean_square(weight)

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return one bit operation and one popcount cell, and an output's share of one addition.

        Counts of taps are summed in a tree of full adders, one cell per tap; the finished count
        is added once per output.
        """
        return {"xor_1": 1, "popcount": 1, f"add_{growth_bits(taps) + 1}": 1 / taps}
