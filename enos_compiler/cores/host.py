# SPDX-License-Identifier: Apache-2.0
"""The host: a processor outside the chip that takes what no core executes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil
from typing import ClassVar

from enos_compiler.cores.memory import Chip
from enos_compiler.errors import SpecError, nearest
from enos_compiler.ir.cost import Action
from enos_compiler.spec import Positive, Strict


class HostSpec(Strict):
    """Constants of the host; none may be zero, so that nothing on it is free."""

    energy_per_op_pj: Positive
    energy_per_byte_pj: Positive
    ops_per_ns: Positive


class Host:
    """Executes float islands, one scalar operation after another."""

    kind: ClassVar[str] = "host"
    Spec: ClassVar[type[HostSpec]] = HostSpec

    def __init__(self, name: str, spec: HostSpec, chip: Chip) -> None:
        self.name = name
        self.spec = spec
        self.chip = chip

    def work(self, operations: Mapping[str, int], moved_bytes: int) -> tuple[Counter[Action], int]:
        """Return events and chip cycles of scalar operations by kind and of bytes moved."""
        count = sum(operations.values())
        events = Counter(
            {f"{self.name}.core/operation": count, f"{self.name}.port/byte": moved_bytes}
        )
        return events, ceil(count / self.spec.ops_per_ns.value / self.chip.clock_ns)

    def _look_up(self, action: Action) -> tuple[float, str]:
        prices = {
            f"{self.name}.core/operation": self.spec.energy_per_op_pj,
            f"{self.name}.port/byte": self.spec.energy_per_byte_pj,
        }
        if action not in prices:
            raise SpecError(
                f"no energy is known for the event `{action}`",
                place=self.name,
                remedy=nearest(action, prices),
            )
        return prices[action].value, str(prices[action].source)

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event in pJ; an unknown action is an error."""
        return self._look_up(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self._look_up(action)[1]
