# SPDX-License-Identifier: Apache-2.0
"""The vector unit: lanes for pooling, additions, tables and narrowing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from enos_compiler.cores.arithmetic import multiplier_um2, operation_pj
from enos_compiler.cores.memory import Array, Chip
from enos_compiler.errors import SpecError, nearest
from enos_compiler.ir.cost import Action
from enos_compiler.spec import BufferSpec, Count, Strict

LANE_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "add": ("add_{w}",),
    "multiply": ("multiply_{h}x{h}",),
    "compare": ("compare_{c}",),
    "move": ("register_{c}",),
    "requantise": ("shift_{w}", "add_{w}"),
}
"""Elementary operations behind each lane operation; w lane, h half a lane, c code width."""
CODE_BITS = 8


class VectorSpec(Strict):
    """Constants of a vector unit."""

    lanes: Count
    lane_bits: Count
    """Width of an addition; a multiplication takes operands of half of it."""
    table: BufferSpec
    """One look-up table per lane: 256 codes."""


class VectorUnit:
    """Executes operations that are no layer and have an integer form."""

    kind: ClassVar[str] = "vector"
    Spec: ClassVar[type[VectorSpec]] = VectorSpec

    def __init__(self, name: str, spec: VectorSpec, chip: Chip) -> None:
        self.name = name
        self.spec = spec
        self.chip = chip
        self.lanes = int(spec.lanes.value)
        self.table = Array(name, "table", spec.table)
        self._prices = {**self.table.prices, **self._lane_prices()}

    def _lane_prices(self) -> dict[Action, tuple[float, str]]:
        width = self.spec.lane_bits.value
        sizes = {"w": width, "h": width // 2, "c": CODE_BITS}
        prices: dict[Action, tuple[float, str]] = {}
        for kind, parts in LANE_OPERATIONS.items():
            found = [operation_pj(p.format(**sizes), self.chip.arithmetic) for p in parts]
            sources = "; ".join(dict.fromkeys(source for _, source in found))
            prices[f"{self.name}.lanes/{kind}"] = (sum(energy for energy, _ in found), sources)
        return prices

    def work(self, operations: Mapping[str, int]) -> tuple[Counter[Action], int]:
        """Return events and cycles of lane operations by kind.

        Raises:
            SpecError: a kind of operation that the lanes do not have.
        """
        events: Counter[Action] = Counter()
        for kind, count in operations.items():
            if kind == "lookup":
                events[self.table.read] += count
            elif kind in LANE_OPERATIONS:
                events[f"{self.name}.lanes/{kind}"] += count
            else:
                raise SpecError(
                    f"the lanes have no operation `{kind}`",
                    place=self.name,
                    remedy=nearest(kind, (*LANE_OPERATIONS, "lookup")),
                )
        return events, -(-sum(operations.values()) // self.lanes)

    def _look_up(self, action: Action) -> tuple[float, str]:
        if action not in self._prices:
            raise SpecError(
                f"no energy is known for the event `{action}`",
                place=self.name,
                remedy=nearest(action, self._prices),
            )
        return self._prices[action]

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event in pJ; an unknown action is an error."""
        return self._look_up(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self._look_up(action)[1]

    def leakage_mw(self) -> float:
        """Return the leakage power in mW, from the area."""
        return self.chip.leakage_mw(self.area_um2())

    def area_um2(self) -> float:
        """Return the area: per lane a multiplier, an adder, a register and a table."""
        formulas, width = self.chip.arithmetic, self.spec.lane_bits.value
        lane = multiplier_um2(width // 2, width // 2, formulas)
        lane += width * (formulas.add_per_bit_um2.value + formulas.register_per_bit_um2.value)
        return float(self.lanes * (lane + self.spec.table.area_um2.value))
