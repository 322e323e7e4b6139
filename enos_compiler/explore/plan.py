# SPDX-License-Identifier: Apache-2.0
"""From bits per layer to the width of every value, for many settings at once.

A genome gives each layer the width at which it reads its input and the width of its weights. A
value is stored at the widest width that any reader asks of it, so that a layer's output has its
consumer's input width; where several readers differ (residual adds, concatenations, branches) the
narrower ones read a narrowed copy, which is paid for. Network outputs have 8 bits. The rules of
vector operations stand in `semantics.widths`.

Source: the encoding of hw_mix_quant, the search code of Klhufek et al., arXiv 2404.05368 (seen);
ties, branches and outputs as this compiler's widths ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import UsageError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.semantics.widths import DEFAULT_BITS, coded_inputs, is_coded, width_rule

Genome = tuple[tuple[int, int], ...]
"""(activation, weight) bits of each layer, in execution order."""
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Widths:
    """Widths of many settings of one network; each array has one entry per setting."""

    layers: Mapping[str, tuple[IntArray, IntArray, IntArray]]
    """Input, weight and output bits of each layer."""
    values: Mapping[str, IntArray]
    """Stored width of each coded value."""


@dataclass(frozen=True)
class BitPlan:
    """How the widths of a network's values follow from the bits of its layers."""

    network: Network

    @property
    def names(self) -> tuple[str, ...]:
        """Layers in the order of a genome."""
        return tuple(self.network.layers)

    def uniform(self, bits: int) -> Genome:
        """Return the genome with the same width everywhere."""
        return ((bits, bits),) * len(self.network.layers)

    def widths(self, genomes: Sequence[Genome] | IntArray) -> Widths:
        """Return the widths that genomes, shape (settings, layers, 2), give.

        Raises:
            UsageError: a genome has another number of layers.
        """
        table = np.asarray(genomes, dtype=np.int64)
        if table.ndim != 3 or table.shape[1:] != (len(self.names), 2):
            raise UsageError(
                f"bits of shape {table.shape[1:]} for {len(self.names)} layers",
                place=self.network.name,
                remedy="(activation, weight) bits for every layer",
            )
        reads = {name: table[:, i, 0] for i, name in enumerate(self.names)}
        weights = {name: table[:, self._weight_gene[name], 1] for name in self.names}
        for layer in self.network.layers.values():
            if layer.shape.activation_product:
                weights[layer.name] = reads[layer.name]
        stored = self._stored(reads, len(table))
        values = {v: stored[group] for v, group in self._groups.items()}
        layers = {
            name: (reads[name], weights[name], values[self.network.layers[name].output])
            for name in self.names
        }
        return Widths(layers, values)

    def read_bits(self, widths: Widths, consumer: str, value: str) -> IntArray:
        """Return the width at which a node reads a value, after any narrowing."""
        if consumer in widths.layers:
            return widths.layers[consumer][0]
        vector = self.network.vectors[consumer]
        if width_rule(vector) == "free" or vector.output not in widths.values:
            return widths.values[value]
        return widths.values[vector.output]

    def bits(self, genome: Genome) -> tuple[dict[str, Bits], dict[str, int]]:
        """Return the operand widths of each layer and the output width of each vector operation."""
        found = self.widths([genome])
        layers = {n: Bits(*(int(a[0]) for a in w)) for n, w in found.layers.items()}
        vectors = {
            v.name: int(found.values[v.output][0]) if v.output in found.values else DEFAULT_BITS
            for v in self.network.vectors.values()
        }
        return layers, vectors

    def memory_bits(self, genomes: Sequence[Genome] | IntArray) -> IntArray:
        """Return the bits of all weights, those that layers share counted once."""
        widths = self.widths(genomes)
        total = np.zeros(len(genomes), dtype=np.int64)
        seen: set[str] = set()
        for layer in self.network.layers.values():
            if layer.tie not in seen and not layer.shape.activation_product:
                seen.add(layer.tie)
                total += layer.shape.volume("Weights") * widths.layers[layer.name][1]
        return total

    @cached_property
    def _weight_gene(self) -> dict[str, int]:
        """Index of the gene that sets each layer's weights: of the first that shares them."""
        first: dict[str, int] = {}
        for i, layer in enumerate(self.network.layers.values()):
            first.setdefault(layer.tie, i)
        return {n: first[layer.tie] for n, layer in self.network.layers.items()}

    @cached_property
    def _groups(self) -> dict[str, str]:
        """Coded values by a representative of those that must have one width."""
        network = self.network
        group = {name: name for name, value in network.values.items() if is_coded(value)}

        def root(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for vector in network.vectors.values():
            if width_rule(vector) == "keeps" and vector.output in group:
                for value in coded_inputs(network, vector):
                    group[root(value)] = root(vector.output)
        return {name: root(name) for name in group}

    @cached_property
    def _asks(self) -> tuple[_Ask, ...]:
        """What is asked of each group, that of the last reader first."""
        network = self.network
        found = [
            _Ask(self._groups[v], bits=DEFAULT_BITS) for v in network.outputs if v in self._groups
        ]
        for node in reversed(tuple(network.nodes())):
            for value in coded_inputs(network, node):
                found += self._asked(self._groups[value], node, value)
        return tuple(dict.fromkeys(found))

    def _asked(self, group: str, node: Layer | Vector, value: str) -> Iterator[_Ask]:
        """Yield what a reader asks; one that takes any width writes no wider than it reads."""
        if isinstance(node, Layer):
            yield _Ask(group, layer=node.name)
            return
        rule = width_rule(node)
        if rule != "keeps" and node.output in self._groups:
            yield _Ask(group, like=self._groups[node.output])
        if rule == "free" and self.network.producer(value) is None:
            yield _Ask(group, bits=DEFAULT_BITS)

    def _stored(self, reads: Mapping[str, IntArray], settings: int) -> dict[str, IntArray]:
        """Return the width of each group: the widest that is asked, to the fixed point."""
        stored = {g: np.zeros(settings, dtype=np.int64) for g in self._groups.values()}
        changed = True
        while changed:
            changed = False
            for ask in self._asks:
                width = _width(ask, reads, stored)
                if np.any(width > stored[ask.group]):
                    stored[ask.group] = np.maximum(stored[ask.group], width)
                    changed = True
        return {g: np.where(bits == 0, DEFAULT_BITS, bits) for g, bits in stored.items()}


@dataclass(frozen=True, slots=True)
class _Ask:
    """A width asked of a group of values: a layer's, another group's, or a number of bits."""

    group: str
    layer: str | None = None
    like: str | None = None
    bits: int = 0


def _width(
    ask: _Ask, reads: Mapping[str, IntArray], stored: Mapping[str, IntArray]
) -> IntArray | int:
    if ask.layer is not None:
        return reads[ask.layer]
    return ask.bits if ask.like is None else stored[ask.like]


def as_genome(row: Iterable[Iterable[int]]) -> Genome:
    """Return rows of two numbers as a genome."""
    return tuple((int(a), int(w)) for a, w in row)
