# SPDX-License-Identifier: Apache-2.0
"""What an execution costs: integer events, cycles and area; energy only as events x price."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Action = str
"""An event's name, `owner.component/action`: owner is a core, memory or link of the target."""

Price = Callable[[Action], float]
"""Energy of one event in pJ; unknown actions are an error, never zero."""

_EMPTY: Mapping[Action, int] = MappingProxyType({})


def component_of(action: Action) -> str:
    """Return `owner.component` of an action."""
    return action.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Cost:
    """Integer events per action, busy cycles of the resource at its clock, and area.

    Costs add: events and cycles sum, area is the larger of the two (the same silicon is reused).
    """

    events: Mapping[Action, int] = field(default_factory=lambda: _EMPTY)
    cycles: int = 0
    clock_ns: float = 1.0
    area_um2: float = 0.0

    @property
    def latency_ns(self) -> float:
        """Busy time, cycles x clock period."""
        return self.cycles * self.clock_ns

    def energy_pj(self, price: Price) -> float:
        """Energy in pJ: the sum over actions, in name order, of events x price."""
        return sum(self.events[a] * price(a) for a in sorted(self.events))

    def components_pj(self, price: Price) -> dict[str, float]:
        """Energy in pJ by `owner.component`, summed in action order."""
        parts: dict[str, float] = defaultdict(float)
        for action in sorted(self.events):
            parts[component_of(action)] += self.events[action] * price(action)
        return dict(parts)

    def __add__(self, other: Cost) -> Cost:
        if self.cycles and other.cycles and self.clock_ns != other.clock_ns:
            raise ValueError(f"cycles at {self.clock_ns} ns and {other.clock_ns} ns do not add")
        clock_ns = self.clock_ns if self.cycles else other.clock_ns
        events = Counter(self.events)
        events.update(other.events)
        return Cost(
            events=dict(events),
            cycles=self.cycles + other.cycles,
            clock_ns=clock_ns,
            area_um2=max(self.area_um2, other.area_um2),
        )
