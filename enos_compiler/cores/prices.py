# SPDX-License-Identifier: Apache-2.0
"""A core's price list: energy and source of each of its actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enos_compiler.cores.arithmetic import operation_pj
from enos_compiler.errors import SpecError
from enos_compiler.ir.cost import Action
from enos_compiler.spec import ArithmeticSpec


@dataclass(slots=True)
class PriceList:
    """Prices of one owner: a fixed table, and the elementary operations of some components.

    An action of a component in `logic` is an elementary operation priced by the formulas of the
    target's `arithmetic:` block, e.g. `mac.pe/multiply_8x8`.
    """

    owner: str
    arithmetic: ArithmeticSpec
    logic: frozenset[str]
    table: Mapping[Action, tuple[float, str]]
    _known: dict[Action, tuple[float, str]] = field(default_factory=dict)

    def look_up(self, action: Action) -> tuple[float, str]:
        """Return energy in pJ and source of one event.

        Raises:
            SpecError: the owner has no such action; unknown is never zero.
        """
        found = self._known.get(action) or self.table.get(action)
        if found is None:
            path, _, operation = action.partition("/")
            owner, _, component = path.partition(".")
            if owner != self.owner or component not in self.logic:
                raise SpecError(
                    f"no energy is known for the event `{action}`",
                    place=self.owner,
                    remedy=f"one of: {', '.join(sorted(self.table))}",
                )
            found = operation_pj(operation, self.arithmetic)
        self._known[action] = found
        return found
