# SPDX-License-Identifier: Apache-2.0
"""What a setting costs on a chip, for thousands of settings a second: tables of exact costs.

Every layer is priced once at each of its settings of input, weight and output bits, at its optimal
mapping; what lies between layers, once for each pair of widths. A setting's cost is a sum of table
entries and equals what the compiler reports of the same network before it is scheduled: latency is
the sum of all busy times, and leakage is paid over it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.cores.accounting import NO_CORE, energy_pj
from enos_compiler.cores.attach import with_homes
from enos_compiler.cores.base import Homes
from enos_compiler.cores.layer_costs import homes_of, reads_signed
from enos_compiler.errors import RefusalError
from enos_compiler.explore.objectives import ObjectiveName
from enos_compiler.explore.plan import BitPlan, Genome, IntArray
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.network import Layer, Network
from enos_compiler.semantics.widths import DEFAULT_BITS, coded_inputs, is_coded

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

FloatArray = NDArray[np.float64]
Table = tuple[FloatArray, FloatArray]
"""Energy in pJ and busy time in ns by widths."""
_SIDE = DEFAULT_BITS + 1
"""Widths 0 to 8 are indices."""


@dataclass(frozen=True, slots=True)
class HardwareCost:
    """What settings cost; each array has one entry per setting."""

    energy_pj: FloatArray
    latency_ns: FloatArray
    memory_bits: IntArray
    """Of all weights."""

    @property
    def edp_pj_ns(self) -> FloatArray:
        """Energy x latency."""
        return self.energy_pj * self.latency_ns

    def columns(self) -> dict[ObjectiveName, NDArray[Any]]:
        """Return what a search may weigh, by its name."""
        return {
            "energy": self.energy_pj,
            "latency": self.latency_ns,
            "edp": self.edp_pj_ns,
            "memory": self.memory_bits,
        }


@dataclass(frozen=True, slots=True)
class Placed:
    """A network whose values have homes, and the core that runs each layer at every width."""

    network: Network
    choices: Mapping[str, Choice]
    """By layer; their bits say nothing."""

    def at(self, layer: str, bits: Bits) -> Choice:
        """Return a layer's choice at some widths."""
        chosen = self.choices[layer]
        return Choice(chosen.core, chosen.operator, bits, chosen.options)

    def core(self, node: str) -> str:
        """Return the core of a layer or vector operation; none for an input."""
        if node in self.choices:
            return self.choices[node].core
        return self.network.vectors[node].core if node in self.network.vectors else NO_CORE


def place(network: Network, target: Target, widths: Sequence[int]) -> Placed:
    """Give values homes and each layer the first core that takes mac at every width.

    Options of a core that hold something of it for good are left out.

    Raises:
        RefusalError: no core takes a layer; with every core's reason.
    """
    for vector in network.vectors.values():
        if vector.is_float:
            raise RefusalError(
                f"{vector.op} has no integer form",
                place=f"operation {vector.name}",
                remedy="a network whose operations all have one",
            )
    housed = with_homes(network, target)
    return Placed(
        housed,
        {name: _placed(housed, layer, target, widths) for name, layer in housed.layers.items()},
    )


def _placed(network: Network, layer: Layer, target: Target, widths: Sequence[int]) -> Choice:
    outputs = sorted({*widths, DEFAULT_BITS})
    asked = [Bits(*bits) for bits in product(widths, widths, outputs)]
    signed = reads_signed(network, layer)
    reasons = []
    for core in target.cores.values():
        taken: dict[Any, set[Bits]] = {}
        for offer in core.choices(layer, ("mac",), asked, signed_input=signed):
            if isinstance(offer, Refusal):
                reasons.append(f"\n  {core.name}: {offer.reason}")
            elif not any(core.capacity(offer, layer).values()):
                taken.setdefault(offer.options, set()).add(offer.bits)
        whole = max(map(len, taken.values()), default=0)
        needed = len({b._replace(weight=b.input) for b in asked})
        if whole >= (needed if layer.shape.activation_product else len(set(asked))):
            options = next(o for o, bits in taken.items() if len(bits) == whole)
            return Choice(core.name, "mac", asked[0], options)
        reasons.append(f"\n  {core.name}: takes mac at {whole} of {len(asked)} widths")
    raise RefusalError(
        f"no core takes it as mac at every width of {min(widths)}..{max(widths)} bits without "
        "holding it for good" + "".join(dict.fromkeys(reasons)),
        place=f"layer {layer.name}",
        remedy="other --bits, or a target with a digital core such as eyeriss",
    )


@dataclass(frozen=True, slots=True)
class EdgeTable:
    """One read of a value, by stored and read bits."""

    value: str
    consumer: str
    table: Table


@dataclass(frozen=True, slots=True)
class HardwareTables:
    """Costs of every layer, edge and vector operation of one network by width."""

    plan: BitPlan
    layers: Mapping[str, Table]
    """Indexed by input, weight and output bits."""
    edges: Sequence[EdgeTable]
    vectors: Mapping[str, Table]
    """Indexed by the widest input and the output bits."""
    leakage_mw: float

    def cost(self, genomes: Sequence[Genome] | IntArray) -> HardwareCost:
        """Return what settings cost."""
        widths = self.plan.widths(genomes)
        energy = np.zeros(len(genomes))
        busy = np.zeros(len(genomes))
        for name, (energies, times) in self.layers.items():
            energy += energies[widths.layers[name]]
            busy += times[widths.layers[name]]
        for edge in self.edges:
            read = self.plan.read_bits(widths, edge.consumer, edge.value)
            energy += edge.table[0][widths.values[edge.value], read]
            busy += edge.table[1][widths.values[edge.value], read]
        network = self.plan.network
        for name, (energies, times) in self.vectors.items():
            inputs = coded_inputs(network, network.vectors[name])
            read = np.full(len(genomes), 0 if inputs else DEFAULT_BITS, dtype=np.int64)
            for value in inputs:
                read = np.maximum(read, self.plan.read_bits(widths, name, value))
            output = widths.values.get(network.vectors[name].output, DEFAULT_BITS)
            energy += energies[read, output]
            busy += times[read, output]
        return HardwareCost(energy + self.leakage_mw * busy, busy, self.plan.memory_bits(genomes))


@dataclass(frozen=True, slots=True)
class LayerQuestion:
    """A distinct layer to price at many widths; equal questions have equal tables."""

    layer: Layer
    choice: Choice
    homes: Homes

    @property
    def key(self) -> Hashable:
        """What its costs depend on."""
        choice = self.choice
        return (self.layer.shape, choice.core, choice.options, self.homes.memories)


def layer_table(target: Target, question: LayerQuestion, widths: Sequence[int]) -> Table:
    """Return the cost of a layer at every setting of its widths; NaN where it was not asked."""
    energy, busy = _empty(3), _empty(3)
    layer, choice = question.layer, question.choice
    outputs = sorted({*widths, DEFAULT_BITS})
    for bits in (Bits(*b) for b in product(widths, widths, outputs)):
        if layer.shape.activation_product and bits.weight != bits.input:
            continue
        at = Choice(choice.core, choice.operator, bits, choice.options)
        found = target.cores[choice.core].cost(layer, at, question.homes)
        energy[bits] = energy_pj(found.inference, target)
        busy[bits] = found.inference.latency_ns
    return energy, busy


def questions(placed: Placed) -> dict[str, LayerQuestion]:
    """Return what is to be priced, by layer."""
    network = placed.network
    return {
        name: LayerQuestion(layer, placed.choices[name], homes_of(network, layer))
        for name, layer in network.layers.items()
    }


def build_tables(
    placed: Placed,
    target: Target,
    widths: Sequence[int],
    price: Callable[[Sequence[LayerQuestion]], Iterable[Table]] | None = None,
) -> HardwareTables:
    """Return the tables of a network on a chip.

    Args:
        placed: the network with a core for each layer.
        target: the chip.
        widths: bits that layers may read and weigh with.
        price: answers distinct questions in order, elsewhere perhaps; by default here.
    """
    asked = questions(placed)
    distinct = {question.key: question for question in asked.values()}
    if price is None:
        found = [layer_table(target, q, widths) for q in distinct.values()]
    else:
        found = list(price(list(distinct.values())))
    tables = dict(zip(distinct, found, strict=True))
    return HardwareTables(
        plan=BitPlan(placed.network),
        layers={name: tables[question.key] for name, question in asked.items()},
        edges=_edges(placed, target),
        vectors=_vectors(placed.network, target),
        leakage_mw=target.leakage_mw(),
    )


def _edges(placed: Placed, target: Target) -> tuple[EdgeTable, ...]:
    """Return the reads that may cost something: narrowing, or a link between two cores."""
    network, found = placed.network, []
    for value, producer, consumer in network.edges():
        if not is_coded(network.values[value]):
            continue
        ends = (placed.core(producer), placed.core(consumer))
        energy, busy = _empty(2), _empty(2)
        for stored, read in product(range(1, _SIDE), repeat=2):
            if read <= stored:
                cost = target.edge_cost(network.values[value], stored, *ends, read)
                energy[stored, read] = energy_pj(cost, target)
                busy[stored, read] = cost.latency_ns
        if np.nansum(energy) or np.nansum(busy):
            found.append(EdgeTable(value, consumer, (energy, busy)))
    return tuple(found)


def _vectors(network: Network, target: Target) -> dict[str, Table]:
    found = {}
    for vector in network.vectors.values():
        energy, busy = _empty(2), _empty(2)
        for read, output in product(range(1, _SIDE), repeat=2):
            cost = target.vector_cost(vector, network, read, output)
            energy[read, output] = energy_pj(cost, target)
            busy[read, output] = cost.latency_ns
        found[vector.name] = (energy, busy)
    return found


def _empty(dimensions: int) -> FloatArray:
    return np.full((_SIDE,) * dimensions, np.nan)
