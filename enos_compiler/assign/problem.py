# SPDX-License-Identifier: Apache-2.0
"""The assignment as data: nodes with options, edges with prices, ties and capacities.

Every node of the network, and every input or constant, picks one option. A layer's options are its
choices; a vector operation's are the widths at which it may read and write; an input's are the
widths at which it may be stored. The width rules stand in `semantics.widths`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import isfinite
from typing import TYPE_CHECKING

from enos_compiler.assign.figures import Rates
from enos_compiler.cores.accounting import NO_CORE, pays_for_weights
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.kernels import as_core_sees
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.semantics.widths import (
    DEFAULT_BITS,
    coded_inputs,
    is_coded,
    layer_asks,
    width_rule,
)

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

EdgeClass = tuple[str, int]
"""What an edge's cost depends on at one end: core and width."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The width at which an option reads a value; `exact`: no narrower copy is made."""

    bits: int
    exact: bool = False

    def met_by(self, stored_bits: int) -> bool:
        """Return whether a value stored at that width can be read so."""
        return stored_bits == self.bits if self.exact else stored_bits >= self.bits


@dataclass(frozen=True, slots=True)
class Option:
    """One way to execute a node, or one width of an input."""

    core: str
    asks: Mapping[str, Ask]
    """By value read."""
    output: int
    """Width of the value produced."""
    score: float = 0.0
    price: float = 0.0
    """By the problem's rates; energy in pJ with its share of programming and leakage by default."""
    uses: tuple[tuple[str, float], ...] = ()
    """Scarce resources held for good."""
    tie: Hashable = None
    """Layers that share weights must agree on it."""
    choice: Choice | None = None
    """For layers."""

    @property
    def edge_class(self) -> Hashable:
        """Everything that other nodes and edges can see of this option."""
        return (self.core, tuple(sorted(self.asks.items(), key=_by_value)), self.output, self.tie)


def _by_value(item: tuple[str, Ask]) -> str:
    return item[0]


@dataclass(frozen=True, slots=True)
class Edge:
    """One read of a value; `price` has the pairs of ends that are allowed."""

    value: str
    producer: str
    consumer: str
    price: Mapping[tuple[EdgeClass, EdgeClass], float]
    is_free: bool
    """Whether it neither costs nor forbids anything."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What the solver sees."""

    options: Mapping[str, tuple[Option, ...]]
    """By node; inputs and constants under their value's name."""
    edges: tuple[Edge, ...]
    demands: Mapping[str, tuple[str, ...]]
    """By producer, the readers whose asks its width must be one of."""
    outputs: Mapping[str, str]
    """By node, the value that it produces."""
    ties: tuple[tuple[str, ...], ...]
    """Layers that share weights."""
    capacities: Mapping[str, int]
    dropped: int = 0
    """Options left out because another is at least as good everywhere."""
    notes: tuple[str, ...] = field(default=())


def build_problem(network: Network, target: Target, rates: Rates | None = None) -> Problem:
    """Return the assignment problem of a network with choices and scores.

    Args:
        network: with choices and scores.
        target: what prices them.
        rates: what a price counts; the energy in pJ by default.

    Raises:
        ValueError: a layer has no scores, or none that is finite.
    """
    rates = rates or Rates()
    options: dict[str, tuple[Option, ...]] = {}
    outputs: dict[str, str] = {}
    before = 0
    widths = _Widths(network)
    shared = shared_layers(network)
    tied = {name for group in shared for name in group}
    for name, value in network.values.items():
        if value.kind != "internal" and is_coded(value):
            options[name] = tuple(
                Option(NO_CORE, {}, bits) for bits in sorted(widths.of_input(name))
            )
            outputs[name] = name
            widths.stored[name] = {o.output for o in options[name]}
    for node in network.nodes():
        found = (
            _layer_options(network, node, target, rates, tied=node.name in tied)
            if isinstance(node, Layer)
            else _vector_options(network, node, target, rates, widths)
        )
        before += len(found)
        options[node.name] = undominated(found)
        outputs[node.name] = node.output
        widths.stored[node.output] = {o.output for o in options[node.name]}
    capacities = {
        f"{name}.{resource}": amount
        for name, core in target.cores.items()
        for resource, amount in core.capacities().items()
    }
    kept = sum(len(options[node.name]) for node in network.nodes())
    return Problem(
        options=options,
        edges=_edges(network, target, rates, options),
        demands=_demands(network),
        outputs=outputs,
        ties=shared,
        capacities=capacities,
        dropped=before - kept,
    )


def shared_layers(network: Network) -> tuple[tuple[str, ...], ...]:
    """Return the groups of two or more layers that share weights."""
    groups: dict[str, list[str]] = defaultdict(list)
    for layer in network.layers.values():
        groups[layer.tie].append(layer.name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def undominated(options: Iterable[Option]) -> tuple[Option, ...]:
    """Drop options that another of the same edge class beats or equals in score, price and uses.

    Of equal ones the first stays.
    """
    by_class: dict[Hashable, list[Option]] = defaultdict(list)
    for option in options:
        rivals = by_class[option.edge_class]
        if not any(_beats(rival, option) for rival in rivals):
            rivals[:] = [rival for rival in rivals if not _beats(option, rival)]
            rivals.append(option)
    return tuple(option for rivals in by_class.values() for option in rivals)


def _beats(one: Option, other: Option) -> bool:
    held = dict(other.uses)
    return (
        one.score <= other.score
        and one.price <= other.price
        and all(count <= held.get(resource, 0) for resource, count in one.uses)
    )


@dataclass(slots=True)
class _Widths:
    """The widths that each value may be stored at, found in execution order."""

    network: Network
    stored: dict[str, set[int]] = field(default_factory=dict)
    offered: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        choices = [c for layer in self.network.layers.values() for c in layer.choices]
        asked = {c.bits.input for c in choices} | {c.bits.output for c in choices}
        self.offered = frozenset(asked) or frozenset({DEFAULT_BITS})

    def of_input(self, value: str) -> set[int]:
        """Return the widths of an input or constant: 8 bits where a reader or user takes any."""
        if value in self.network.outputs:
            return {DEFAULT_BITS}
        readers = self.network.consumers(value)
        rules = {width_rule(r) for r in readers if isinstance(r, Vector)}
        products = {
            c.bits.weight
            for r in readers
            if isinstance(r, Layer) and r.shape.activation_product
            for c in r.choices
        }
        return {DEFAULT_BITS} if "free" in rules else {DEFAULT_BITS} | self.offered | products

    def greatest(self, value: str) -> int:
        """Return the widest that a value can be stored at."""
        return max(self.stored[value])


def _layer_options(
    network: Network, layer: Layer, target: Target, rates: Rates, *, tied: bool
) -> list[Option]:
    if layer.scores is None:
        raise ValueError(f"layer {layer.name} has no scores")
    core_of = target.cores
    pays = pays_for_weights(network, layer)
    options = []
    rows = zip(layer.choices, layer.costs, layer.programming, layer.scores, strict=True)
    for choice, cost, programming, score in rows:
        if not isfinite(score):
            continue
        price = rates.of(cost, target)
        uses: tuple[tuple[str, float], ...] = ()
        if pays:
            price += rates.of_weights(layer, choice, programming, target)
            seen, offered = as_core_sees(layer, choice)
            held = core_of[choice.core].capacity(offered, seen)
            uses = tuple(sorted((f"{choice.core}.{r}", n) for r, n in held.items() if n))
        bits = choice.bits
        asks = {v: Ask(layer_asks(layer, v, bits.input, bits.weight)) for v in layer.inputs}
        options.append(
            Option(
                core=choice.core,
                asks=asks,
                output=bits.output,
                score=score,
                price=price,
                uses=uses,
                tie=choice.tied_fields if tied else None,
                choice=choice,
            )
        )
    if not options:
        raise ValueError(f"layer {layer.name} has no choice with a finite score")
    return options


def _vector_options(
    network: Network, vector: Vector, target: Target, rates: Rates, widths: _Widths
) -> list[Option]:
    """Return the widths at which a vector operation may run; no score counts its loss.

    So one that reads any width writes at most the width that it reads, and a network output is
    written at the widest width that its inputs allow.
    """
    options = []
    for asks, output in _vector_widths(network, vector, widths):
        read = max((ask.bits for ask in asks.values()), default=DEFAULT_BITS)
        cost = target.vector_cost(vector, network, read, output)
        options.append(Option(vector.core, asks, output, price=rates.of(cost, target)))
    return options


def _vector_widths(
    network: Network, vector: Vector, widths: _Widths
) -> list[tuple[dict[str, Ask], int]]:
    coded = coded_inputs(network, vector)
    rule = width_rule(vector)
    found: list[tuple[dict[str, Ask], int]] = []
    if rule == "keeps" and coded:
        common = set.intersection(*(widths.stored[v] for v in coded))
        return [({v: Ask(bits, exact=True) for v in coded}, bits) for bits in sorted(common)]
    if rule == "free" or not coded:
        for stored in product(*(sorted(widths.stored[v]) for v in coded)):
            asks = {v: Ask(b, exact=True) for v, b in zip(coded, stored, strict=True)}
            limit = min(stored, default=DEFAULT_BITS)
            found += [(asks, bits) for bits in sorted(widths.offered) if bits <= limit]
            if limit < min(widths.offered):
                found.append((asks, limit))
    else:
        limit = min(widths.greatest(v) for v in coded)
        found = [
            ({v: Ask(bits) for v in coded}, bits)
            for bits in sorted(widths.offered)
            if bits <= limit
        ] or [({v: Ask(limit) for v in coded}, limit)]
    if vector.output in network.outputs:
        widest = max(bits for _, bits in found)
        found = [(asks, bits) for asks, bits in found if bits == widest]
    return found


def _edges(
    network: Network, target: Target, rates: Rates, options: Mapping[str, tuple[Option, ...]]
) -> tuple[Edge, ...]:
    edges = []
    for name, producer, consumer in network.edges():
        value = network.values[name]
        if not is_coded(value):
            continue
        sources = dict.fromkeys((o.core, o.output) for o in options[producer])
        readers = dict.fromkeys((o.core, o.asks[name]) for o in options[consumer])
        price = {
            ((core, stored), (reader, ask.bits)): rates.of(
                target.edge_cost(value, stored, core, reader, ask.bits), target
            )
            for core, stored in sources
            for reader, ask in readers
            if ask.met_by(stored)
        }
        pairs = len(sources) * len({(core, ask.bits) for core, ask in readers})
        free = len(price) == pairs and not any(price.values())
        edges.append(Edge(name, producer, consumer, price, free))
    return tuple(edges)


def _demands(network: Network) -> dict[str, tuple[str, ...]]:
    """Return, by producer, the readers of its value; none where the user reads it too."""
    readers: dict[str, list[str]] = defaultdict(list)
    for name, producer, consumer in network.edges():
        if is_coded(network.values[name]) and name not in network.outputs:
            readers[producer].append(consumer)
    return {producer: tuple(names) for producer, names in readers.items()}
