# SPDX-License-Identifier: Apache-2.0
"""The network that savings are measured against: multiply-accumulate at 8 bits everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.accounting import energy_pj
from enos_compiler.cores.base import Homes
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.network import Home, Layer, Network
from enos_compiler.semantics.widths import SUM_BITS, leaves_as_sums

if TYPE_CHECKING:
    from enos_compiler.cores.base import CoreCost
    from enos_compiler.cores.target import Target

BASELINE_BITS = Bits(8, 8, 8)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The network with every layer as in the baseline, and what to call it."""

    network: Network
    name: str


def homes_of(network: Network, layer: Layer) -> Homes:
    """Return where a layer's operands rest; a sum that leaves the network has 32 bits.

    Raises:
        ValueError: a value has no home yet.
    """
    return Homes(
        tuple(_home(network, value) for value in layer.inputs),
        _home(network, layer.output),
        SUM_BITS if leaves_as_sums(network, layer.output) else None,
    )


def cost_of(network: Network, layer: Layer, choice: Choice, target: Target) -> CoreCost:
    """Return what a choice costs, attached or not, with the mapping or placement behind it."""
    return target.cores[choice.core].cost(layer, choice, homes_of(network, layer))


def details(network: Network, target: Target, kind: str) -> dict[str, Mapping[str, Any]]:
    """Return the mapping or placement of each layer that is assigned to a core of one kind."""
    return {
        layer.name: cost_of(network, layer, layer.choice, target).detail
        for layer in network.layers.values()
        if layer.choice is not None and target.cores[layer.choice.core].kind == kind
    }


def baseline(network: Network, target: Target) -> Baseline:
    """Return the network on mac 8/8, on the first core in the target's order that takes it.

    Of several core options (crossbar sizes) the cheapest is taken. A layer that no core takes as
    mac 8/8 gets the dearest of its attached choices, and the name says so. Scarce capacities are
    not imposed: the baseline is a yardstick.
    """
    layers: dict[str, Layer] = {}
    fallen_back = False
    tied: dict[str, Choice] = {}
    for layer in network.layers.values():
        choice = tied.get(layer.weight_key) or _first_mac(network, layer, target)
        if choice is None:
            fallen_back = True
            choice = max(layer.choices, key=lambda c: (energy_pj(layer.cost_of(c), target), c))
        if layer.weight_key:
            tied[layer.weight_key] = choice
        layers[layer.name] = _with_choice(network, layer, choice, target)
    vectors = {name: replace(v, bits=8) for name, v in network.vectors.items()}
    assigned = network.with_layers(layers).with_vectors(vectors)
    return Baseline(assigned, _name(assigned, target, fallen_back=fallen_back))


def _first_mac(network: Network, layer: Layer, target: Target) -> Choice | None:
    ranges = [network.values[value].range for value in layer.inputs]
    signed = any(extremes is None or extremes[0] < 0 for extremes in ranges)
    for core in target.cores.values():
        offers = [
            offer
            for offer in core.choices(layer, ["mac"], [BASELINE_BITS], signed_input=signed)
            if not isinstance(offer, Refusal)
        ]
        if offers:
            return min(offers, key=lambda c: (_energy(network, layer, c, target), c))
    return None


def _energy(network: Network, layer: Layer, choice: Choice, target: Target) -> float:
    return energy_pj(cost_of(network, layer, choice, target).inference, target)


def _with_choice(network: Network, layer: Layer, choice: Choice, target: Target) -> Layer:
    """Assign a choice; one that was not attached is priced and attached alone."""
    if choice in layer.choices:
        return replace(layer, choice=choice)
    cost = cost_of(network, layer, choice, target)
    return replace(
        layer,
        choices=(choice,),
        costs=(cost.inference,),
        programming=(cost.programming,),
        scores=None,
        choice=choice,
    )


def _name(network: Network, target: Target, *, fallen_back: bool) -> str:
    if fallen_back:
        return "mac-8/8-else-dearest"
    used = {layer.choice.core for layer in network.layers.values() if layer.choice}
    kinds = dict.fromkeys(core.kind for name, core in target.cores.items() if name in used)
    return f"all-mac-{'+'.join(kinds)}-8/8" if kinds else "all-mac-8/8"


def _home(network: Network, value: str) -> Home:
    home = network.values[value].home
    if home is None:
        raise ValueError(f"value {value} has no home")
    return home
