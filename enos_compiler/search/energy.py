# SPDX-License-Identifier: Apache-2.0
"""Expected energy of a relaxed assignment, differentiable in the probabilities.

With independent layers it is exact for layers and edges, E = sum_l p_l . u_l + sum_e p_i^T M_e p_j:
the prices u and M are those of the assignment problem, so the search sees what the solver sees. A
reader that asks more bits than are stored, which no assignment allows, is priced at the stored
width. Vector operations are priced at the mean width that their readers ask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from enos_compiler.assign.figures import Rates
from enos_compiler.assign.problem import Edge, Option, Problem, build_problem
from enos_compiler.cores.accounting import pays_for_weights
from enos_compiler.ir.network import Layer, Network
from enos_compiler.search.architecture import ChoiceClass, Drawing, class_of
from enos_compiler.semantics.widths import layer_asks

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

Ends = dict[tuple[str, int], Tensor]
"""Probability of (core, width) at one end of an edge."""


@dataclass(frozen=True, slots=True)
class ExpectedEnergy:
    """Prices in pJ of everything that a relaxed assignment may choose."""

    network: Network
    problem: Problem
    class_pj: dict[str, Tensor]
    """By layer, (classes,): the cheapest choice of each class, with its share of programming."""
    standing: dict[str, tuple[int, ...]]
    """By layer, (classes,): the row of that choice."""

    def __call__(self, drawing: Drawing) -> Tensor:
        """Return the expected energy of one inference in pJ."""
        total = torch.tensor(0.0)
        for name, prices in self.class_pj.items():
            total = total + drawing.probabilities[name] @ prices
        for node in self.network.vectors.values():
            total = total + _vector(self.problem.options[node.name], drawing, node.output)
        for edge in self.problem.edges:
            if any(edge.price.values()):
                total = total + self._edge(edge, drawing)
        return total

    def _edge(self, edge: Edge, drawing: Drawing) -> Tensor:
        sources = self._source_ends(edge, drawing)
        reader = self.network.node(edge.consumer)
        if not isinstance(reader, Layer) and drawing.rules[reader.name] != "same":
            cores = {core for _, (core, _) in edge.price}
            pairs = [
                (share, edge.price.get(((core, b), (other, b)), 0.0))
                for (core, b), share in sources.items()
                for other in cores
            ]
            return sum((share * price for share, price in pairs), start=torch.tensor(0.0))
        total = torch.tensor(0.0)
        for (core, stored), share in sources.items():
            for (other, asked), reads in self._reader_ends(edge, drawing).items():
                ends = ((core, stored), (other, min(asked, stored)))
                price = edge.price.get(ends, 0.0)
                if price:
                    total = total + share * reads * price
        return total

    def _source_ends(self, edge: Edge, drawing: Drawing) -> Ends:
        if edge.producer in self.network.layers:
            space = drawing.spaces[edge.producer]
            drawn = drawing.probabilities[edge.producer]
            return _ends([(core, bits.output) for core, _, bits, _ in space.classes], drawn)
        core = next(core for (core, _), _ in edge.price)
        return {(core, b): torch.as_tensor(s) for b, s in drawing.stored(edge.value).items()}

    def _reader_ends(self, edge: Edge, drawing: Drawing) -> Ends:
        reader = self.network.node(edge.consumer)
        if isinstance(reader, Layer):
            space = drawing.spaces[reader.name]
            ends = [
                (core, layer_asks(reader, edge.value, bits.input, bits.weight))
                for core, _, bits, _ in space.classes
            ]
            return _ends(ends, drawing.probabilities[reader.name])
        shares = drawing.stored(reader.output)
        return {(reader.core, b): torch.as_tensor(share) for b, share in shares.items()}


def expected_energy(
    network: Network, target: Target, rates: Rates | None = None, chosen_by: Rates | None = None
) -> ExpectedEnergy:
    """Return the prices of a network with choices attached.

    Args:
        network: with choices.
        target: what prices them.
        rates: what is expected instead of the energy.
        chosen_by: by which rates the cheapest choice stands for its class; those of the price by
            default.
    """
    rates = rates or Rates()
    problem = build_problem(unscored(network), target, rates)
    prices, standing = {}, {}
    for name, layer in network.layers.items():
        cheapest = _cheapest(network, layer, target, chosen_by or rates)
        found = [_price(network, layer, row, target, rates) for row in cheapest.values()]
        prices[name] = torch.tensor(found, dtype=torch.float32)
        standing[name] = tuple(cheapest.values())
    return ExpectedEnergy(network, problem, prices, standing)


def unscored(network: Network) -> Network:
    """Return the network with equal scores, so that energy alone decides."""
    layers = {
        name: replace(layer, scores=(0.0,) * len(layer.choices))
        for name, layer in network.layers.items()
    }
    return network.with_layers(layers)


def _cheapest(
    network: Network, layer: Layer, target: Target, rates: Rates
) -> dict[ChoiceClass, int]:
    """Return the row of the cheapest choice of each class, in the order of the classes."""
    found: dict[ChoiceClass, tuple[float, int]] = {}
    for row, choice in enumerate(layer.choices):
        priced = (_price(network, layer, row, target, rates), row)
        key = class_of(choice)
        found[key] = min(priced, found.get(key, priced))
    return {key: row for key, (_, row) in found.items()}


def _price(network: Network, layer: Layer, row: int, target: Target, rates: Rates) -> float:
    """Return the price of a choice with its share of what weights cost."""
    price = rates.of(layer.costs[row], target)
    if pays_for_weights(network, layer):
        price += rates.of_weights(layer, layer.choices[row], layer.programming[row], target)
    return price


def _vector(options: tuple[Option, ...], drawing: Drawing, output: str) -> Tensor:
    """Return the expected energy of a vector operation over its options of each output width."""
    shares = drawing.stored(output)
    total = torch.tensor(0.0)
    for bits in sorted({option.output for option in options}):
        prices = [option.price for option in options if option.output == bits]
        total = total + shares.get(bits, 0.0) * sum(prices) / len(prices)
    return total


def _ends(ends: list[tuple[str, int]], probabilities: Tensor) -> Ends:
    found: Ends = {}
    for end, share in zip(ends, probabilities.unbind(), strict=True):
        found[end] = found[end] + share if end in found else share
    return found
