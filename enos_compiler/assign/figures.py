# SPDX-License-Identifier: Apache-2.0
"""What a budget may bind: energy, latency, area, memory, and products of them.

Latency is the sum of all busy times, which no schedule exceeds; area is that of the arrays that
layers hold for themselves, converters and drivers included (a digital core and the buffers are
there whatever is assigned); memory is the bits of all weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from enos_compiler.assign.measures import factors
from enos_compiler.cores.accounting import energy_pj, itemise, pays_for_weights, totals
from enos_compiler.cores.base import HasArrays
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.cost import Cost
from enos_compiler.ir.kernels import as_core_sees
from enos_compiler.ir.network import Layer, Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


@dataclass(frozen=True, slots=True)
class Rates:
    """The price of an assignment: figures times rates; by default its energy in pJ."""

    energy: float = 1.0
    """Per pJ, leakage over busy times included."""
    latency: float = 0.0
    """Per ns."""
    area: float = 0.0
    """Per um2."""
    memory: float = 0.0
    """Per bit."""

    def of(self, cost: Cost, target: Target) -> float:
        """Return the price of what a cost spends, leakage over its own time (mW ns = pJ)."""
        spent = 0.0
        if self.energy:
            spent = self.energy * (energy_pj(cost, target) + target.leakage_mw() * cost.latency_ns)
        return spent + self.latency * cost.latency_ns

    def of_weights(self, layer: Layer, choice: Choice, programming: Cost, target: Target) -> float:
        """Return the price of the weights that a layer holds: set-up, arrays, bits."""
        found = self.energy * energy_pj(programming, target) / target.inferences_per_programming
        if self.area:
            found += self.area * held_um2(layer, choice, target)
        if self.memory:
            found += self.memory * weight_bits(layer, choice)
        return found


@dataclass(frozen=True, slots=True)
class Figures:
    """What an assigned network comes to."""

    energy: float
    """pJ."""
    latency: float
    """ns."""
    area: float
    """um2."""
    memory: float
    """Bits."""

    def of(self, measure: str) -> float:
        """Return a figure or a product of figures by name."""
        return float(prod(getattr(self, factor) for factor in factors(measure)))

    def tangent(self, measure: str) -> Rates:
        """Return the rates that turn a logarithm of the measure into its tangent here.

        A logarithm is concave: log(measure) <= log(its value here) + price - number of factors.
        """
        slopes = {factor: 1 / getattr(self, factor) for factor in factors(measure)}
        return Rates(**({"energy": 0.0} | slopes))


def figures_of(network: Network, target: Target) -> Figures:
    """Return the figures of an assigned network."""
    items = itemise(network, target)
    area = memory = 0.0
    for layer in network.layers.values():
        if layer.choice is not None and pays_for_weights(network, layer):
            area += held_um2(layer, layer.choice, target)
            memory += weight_bits(layer, layer.choice)
    energy = totals(items, target, items.busy_ns).energy_pj
    return Figures(energy, items.busy_ns, area, memory)


def held_um2(layer: Layer, choice: Choice, target: Target) -> float:
    """Return the area of the arrays that a layer holds for itself; 0 on other cores."""
    core = target.cores[choice.core]
    if not isinstance(core, HasArrays):
        return 0.0
    return core.held_um2(*as_core_sees(layer, choice))


def weight_bits(layer: Layer, choice: Choice) -> float:
    """Return the bits of a layer's weights; an operand that is an activation has none."""
    if layer.weight is None:
        return 0.0
    seen, _ = as_core_sees(layer, choice)
    return float(seen.shape.volume("Weights") * choice.bits.weight)
