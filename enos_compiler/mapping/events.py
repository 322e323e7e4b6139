# SPDX-License-Identifier: Apache-2.0
"""What a mapping costs: integer events per level, tensor and wire, cycles, and energy from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enos_compiler.mapping.machine import Machine


@dataclass(frozen=True, slots=True)
class TensorEvents:
    """Counts of one tensor at one level, per instance of the level, in words."""

    keep: bool = False
    tile_size: int = 0
    """Operands of the tile; 0 where the tensor bypasses."""
    partition_size: int = 0
    """Distinct operands that one instance sees over the run."""
    utilized_capacity: int = 0
    """Words that the tile takes."""
    reads: int = 0
    fills: int = 0
    updates: int = 0
    temporal_reductions: int = 0
    """Additions of an arriving partial sum to a stored one."""
    address_generations: int = 0
    vector_reads: int = 0
    """Block accesses."""
    vector_fills: int = 0
    vector_updates: int = 0


@dataclass(frozen=True, slots=True)
class LevelEvents:
    """Counts of one storage level."""

    name: str
    instances: int
    """Instances in use."""
    expansion: tuple[int, int]
    """Columns and rows of instances in use."""
    clusters: int
    """Clusters in use; each makes one access and one address for all its instances."""
    cycles: int
    """Cycles that this level alone would take."""
    slowdown: float
    """Full speed over the speed that the level's bandwidth allows, at most 1."""
    tensors: Mapping[str, TensorEvents]

    def total(self, field: str) -> int:
        """Sum of a count over the tensors, per instance."""
        return sum(int(getattr(events, field)) for events in self.tensors.values())


@dataclass(frozen=True, slots=True)
class Ingress:
    """Accesses that share one multicast and one number of groups, per instance of the level."""

    multicast: int
    scatter: int
    accesses: float
    """Words; a fraction where operands are packed."""
    hops: float
    """Hops summed over groups and elements."""


@dataclass(frozen=True, slots=True)
class WireEvents:
    """Counts of one tensor on the wires from a level to what is inside it."""

    fanout: int
    multicast_factor: int
    ingresses: tuple[Ingress, ...]
    link_transfers: int
    spatial_reductions: int
    router_passes: int
    """Words through routers, links aside."""

    @property
    def hops(self) -> float:
        """Hops of all ingresses, links aside."""
        return sum(ingress.hops for ingress in self.ingresses)

    @property
    def mean_hops(self) -> float:
        """Hops per access."""
        accesses = sum(ingress.accesses for ingress in self.ingresses)
        return self.hops / accesses if accesses else 0.0


@dataclass(frozen=True, slots=True)
class NestEvents:
    """All counts of one nest on one machine."""

    macs: int
    compute_cycles: int
    """Cycles without any limit of bandwidth."""
    busy_cycles: int
    """Cycles with every limit, before network latencies; leakage is paid over these."""
    cycles: int
    used_macs: int
    levels: tuple[LevelEvents, ...]
    wires: tuple[Mapping[str, WireEvents], ...]
    """Per level, the wires inside it, by tensor."""

    def utilization(self, machine: Machine) -> float:
        """Multiply-accumulates done over those that the array could do in the same cycles."""
        return self.macs / machine.compute.instances / self.cycles

    def actions(self) -> dict[str, int]:
        """Integer events per component action, summed over instances.

        `LEVEL.read`, `.fill`, `.update` are block accesses, `.address` generated addresses, `.leak`
        cycles x instances, `.half_hop` halves of a hop, `.router` router passes.
        """
        out = {"mac": self.macs}
        for level, wires in zip(self.levels, self.wires, strict=True):
            out[f"{level.name}.read"] = level.total("vector_reads") * level.clusters
            out[f"{level.name}.fill"] = level.total("vector_fills") * level.clusters
            out[f"{level.name}.update"] = level.total("vector_updates") * level.clusters
            out[f"{level.name}.address"] = level.total("address_generations") * level.clusters
            out[f"{level.name}.leak"] = self.busy_cycles * level.instances
            hops = sum(wire.hops + wire.link_transfers for wire in wires.values())
            passes = sum(wire.router_passes + 2 * wire.link_transfers for wire in wires.values())
            out[f"{level.name}.half_hop"] = round(2 * hops) * level.instances
            out[f"{level.name}.router"] = passes * level.instances
        return {action: count for action, count in out.items() if count}

    def components_pj(self, machine: Machine) -> dict[str, float]:
        """Energy by component action: events x energy of one."""
        prices = action_prices_pj(machine)
        return {action: count * prices[action] for action, count in self.actions().items()}

    def energy_pj(self, machine: Machine) -> float:
        """Total energy, leakage included."""
        return sum(self.components_pj(machine).values())


def action_prices_pj(machine: Machine) -> dict[str, float]:
    """Energy of one event of every action in `NestEvents.actions`.

    Additions on the wires and in the memories are free, as in the public tables of the reference.
    """
    prices = {"mac": machine.compute.energy_pj}
    for level in machine.levels:
        prices[f"{level.name}.read"] = level.read_pj
        prices[f"{level.name}.fill"] = level.fill_pj
        prices[f"{level.name}.update"] = level.update_pj
        prices[f"{level.name}.address"] = level.address_pj
        prices[f"{level.name}.leak"] = level.leak_pj_per_cycle
        prices[f"{level.name}.half_hop"] = level.network.energy_per_hop_pj / 2
        prices[f"{level.name}.router"] = level.network.router_energy_pj
    return prices
