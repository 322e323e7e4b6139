# SPDX-License-Identifier: Apache-2.0
"""What one tap takes in an element of a loop-nest core: a stated energy, or sourced formulas.

An operator with a stated energy takes it whatever the operands' widths, as in public tables. Any
other is broken into its elementary operations, `multiply_8x4` and `add_22` say, each priced by the
target's `arithmetic:` formulas: its energy follows the widths of both operands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from enos_compiler.cores.arithmetic import operation_pj, tap_operations
from enos_compiler.cores.loopnest_spec import ElementSpec
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.cost import Action
from enos_compiler.spec import ArithmeticSpec

_MANY_TAPS = 1 << 24
"""Taps over which operations that many share are spread."""


@dataclass(frozen=True, slots=True)
class Element:
    """The elements of one core."""

    core: str
    spec: ElementSpec
    formulas: ArithmeticSpec

    def refusal(self, operator: str) -> str | None:
        """Return why the elements do not take an operator, or None."""
        known = {*self.spec.operator_pj, *self.spec.by_formula}
        if operator in known:
            return None
        return f"its elements have an energy for {', '.join(sorted(known))} only"

    def tap_pj(self, choice: Choice, taps: int) -> float:
        """Return the energy of one tap of an output with `taps` of them, in pJ."""
        stated = self.spec.operator_pj.get(choice.operator)
        if stated is not None:
            return float(stated.value)
        operations = tap_operations(choice.operator, choice.bits, taps, _MANY_TAPS)
        return sum(
            float(Fraction(count, _MANY_TAPS)) * operation_pj(name, self.formulas)[0]
            for name, count in operations.items()
        )

    def events(self, choice: Choice, taps: int, count: int) -> Counter[Action]:
        """Return the events of `count` taps, those of padded bounds included."""
        place = f"{self.core}.element"
        if choice.operator in self.spec.operator_pj:
            return Counter({f"{place}/{choice.operator}": count})
        operations = tap_operations(choice.operator, choice.bits, taps, count)
        return Counter({f"{place}/{name}": number for name, number in operations.items()})
