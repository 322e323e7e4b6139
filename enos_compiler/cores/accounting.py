# SPDX-License-Identifier: Apache-2.0
"""What an assigned network costs, item by item: the one sum that everybody reads.

The assignment prices with it, the schedule turns its items into instructions and the report prints
them, so that a number cannot differ between the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from enos_compiler.ir.choice import Choice
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer, Network, Value
from enos_compiler.semantics.widths import (
    DEFAULT_BITS,
    coded_inputs,
    is_coded,
    read_bits,
    stored_bits,
)

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

NO_CORE = ""
"""Stands for the producer's core of a network input or a constant, which comes from memory."""


@dataclass(frozen=True, slots=True)
class EdgeItem:
    """One read of a value that costs something: a link transfer, a narrowing, or both."""

    value: str
    producer: str
    consumer: str
    producer_core: str
    consumer_core: str
    stored_bits: int
    bits: int
    """Width that the consumer reads."""
    cost: Cost

    @property
    def name(self) -> str:
        """`producer->consumer`."""
        return f"{self.producer}->{self.consumer}"

    @property
    def narrows(self) -> bool:
        """Whether a narrower copy is made."""
        return self.bits < self.stored_bits


@dataclass(frozen=True, slots=True)
class Items:
    """Costs of an assigned network; each event belongs to exactly one item."""

    layers: Mapping[str, Cost]
    edges: tuple[EdgeItem, ...]
    vectors: Mapping[str, Cost]
    """On the vector unit."""
    host: Mapping[str, Cost]
    """Vector operations that the host executes."""
    programming: Mapping[str, Cost]
    """Writing resident weights, by layer; layers that share weights write them once."""

    def costs(self) -> tuple[Cost, ...]:
        """Return the costs of one inference, programming left out, in the order of the sums."""
        return (
            *self.layers.values(),
            *(edge.cost for edge in self.edges),
            *self.vectors.values(),
            *self.host.values(),
        )

    @property
    def busy_ns(self) -> float:
        """Sum of all latencies of one inference: no schedule takes longer."""
        return float(sum(duration(cost) for cost in self.costs()))


@dataclass(frozen=True, slots=True)
class Totals:
    """Energy of one inference in pJ by what it is spent on."""

    layers_pj: float
    edges_pj: float
    vector_pj: float
    host_pj: float
    programming_pj: float
    """Setting up resident weights, divided by the inferences that one set-up serves."""
    leakage_pj: float

    @property
    def energy_pj(self) -> float:
        """The sum, in the order of the fields."""
        return (
            self.layers_pj
            + self.edges_pj
            + self.vector_pj
            + self.host_pj
            + self.programming_pj
            + self.leakage_pj
        )


def duration(cost: Cost) -> Fraction:
    """Return the latency in ns exactly, so that times of a schedule never drift."""
    return cost.cycles * Fraction(str(cost.clock_ns))


def executing_core(network: Network, node: str) -> str:
    """Return the core that executes a layer or vector node; `NO_CORE` for inputs and constants."""
    if node in network.layers:
        return _choice(network.layers[node]).core
    return network.vectors[node].core if node in network.vectors else NO_CORE


def energy_pj(cost: Cost, target: Target) -> float:
    """Return the energy of a cost in pJ: the sum of its components, as a report row shows it."""
    return sum(cost.components_pj(target.energy_pj).values())


def itemise(network: Network, target: Target) -> Items:
    """Return every item of an assigned network's cost."""
    layers: dict[str, Cost] = {}
    vectors: dict[str, Cost] = {}
    host: dict[str, Cost] = {}
    for node in network.nodes():
        if isinstance(node, Layer):
            layers[node.name] = node.cost_of(_choice(node))
            continue
        widths = (read_bits(network, node, v) for v in coded_inputs(network, node))
        cost = target.vector_cost(node, network, max(widths, default=DEFAULT_BITS), node.bits)
        (host if node.core == target.host.name else vectors)[node.name] = cost
    return Items(layers, _edges(network, target), vectors, host, _programming(network))


def totals(items: Items, target: Target, makespan_ns: float) -> Totals:
    """Return the energy of one inference; leakage is leakage power x `makespan_ns` (mW ns = pJ)."""
    per_set_up = sum(energy_pj(cost, target) for cost in items.programming.values())
    return Totals(
        layers_pj=float(sum(energy_pj(cost, target) for cost in items.layers.values())),
        edges_pj=float(sum(energy_pj(edge.cost, target) for edge in items.edges)),
        vector_pj=float(sum(energy_pj(cost, target) for cost in items.vectors.values())),
        host_pj=float(sum(energy_pj(cost, target) for cost in items.host.values())),
        programming_pj=per_set_up / target.inferences_per_programming,
        leakage_pj=target.leakage_mw() * makespan_ns,
    )


def pays_for_weights(network: Network, layer: Layer) -> bool:
    """Return whether the layer is the first that holds its weights: residency counts once."""
    first = next(other for other in network.layers.values() if other.tie == layer.tie)
    return layer.name == first.name


def events_by_item(items: Items) -> dict[tuple[str, str], dict[Action, int]]:
    """Return the integer events of every item by its owner and name, as a replay counts them."""
    found: dict[tuple[str, str], dict[Action, int]] = {}
    for owner, costs in (
        ("layer", items.layers),
        ("vector", items.vectors),
        ("host", items.host),
        ("programs", items.programming),
    ):
        found |= {(owner, name): dict(cost.events) for name, cost in costs.items()}
    found |= {("edge", edge.name): dict(edge.cost.events) for edge in items.edges}
    return {item: events for item, events in found.items() if events}


def layer_of_programming(network: Network, layer: Layer) -> str | None:
    """Return the layer whose set-up writes this one's resident weights; None for reloaded ones."""
    cost = layer.programming_of(_choice(layer))
    if not (cost.events or cost.cycles):
        return None
    return next(name for name, other in network.layers.items() if other.tie == layer.tie)


def _edges(network: Network, target: Target) -> tuple[EdgeItem, ...]:
    items = []
    for name, producer, consumer in network.edges():
        value: Value = network.values[name]
        if not is_coded(value):
            continue
        stored = stored_bits(network, name)
        bits = read_bits(network, network.node(consumer), name)
        ends = (executing_core(network, producer), executing_core(network, consumer))
        cost = target.edge_cost(value, stored, ends[0], ends[1], bits)
        if cost.events or cost.cycles:
            items.append(EdgeItem(name, producer, consumer, *ends, stored, bits, cost))
    return tuple(items)


def _programming(network: Network) -> dict[str, Cost]:
    found: dict[str, Cost] = {}
    for layer in network.layers.values():
        cost = layer.programming_of(_choice(layer))
        if (cost.events or cost.cycles) and pays_for_weights(network, layer):
            found[layer.name] = cost
    return found


def _choice(layer: Layer) -> Choice:
    if layer.choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    return layer.choice
