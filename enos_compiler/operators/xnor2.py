# SPDX-License-Identifier: Apache-2.0
"""xnor2: xnor on inputs of both signs, which take two planes of bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Layer
from enos_compiler.operators.single_sum import needs_weights
from enos_compiler.operators.xnor import Xnor


class TwoPlaneXnor(Xnor):
    """y = alpha * sum sign(x) * sign(w) with sign(x) in {-1, 0, 1}.

    One plane holds the taps above the zero point, the other those below; each is counted as xnor
    counts its only one, and the second count is subtracted. So every tap is paid twice.
    """

    name: ClassVar[str] = "xnor2"

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:
        """Return why the operator does not take this layer, or None."""
        if not signed_input:
            return "inputs have one sign: xnor reads them in one plane"
        return needs_weights(layer, self.name)

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return those of xnor, once for each plane."""
        once = super().elementary_operations(bits, taps)
        return {operation: 2 * count for operation, count in once.items()}
