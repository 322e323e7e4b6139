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

    Of several core options the cheapest is taken: of crossbar sizes whether or not there are as
    many, since each holds some (the baseline is a yardstick); a weight memory goes to the layers
    that save most per bit while it lasts, and the others reload. A layer that no core takes as
    mac 8/8 gets the dearest of its attached choices, and the name says so.
    """
    chosen: dict[str, Choice] = {}
    upgrades: list[Upgrade] = []
    fallen_back = False
    for key, tied in _by_weights(network).items():
        offers = _first_mac(network, tied[0], target)
        if offers:
            chosen[key], better = _options(network, tied, offers, target)
            upgrades += better
        else:
            fallen_back = True
            chosen[key] = _dearest(tied[0], target)
    left = {(n, r): amount for n, c in target.cores.items() for r, amount in c.capacities().items()}
    for upgrade in sorted(upgrades, key=lambda u: -u.saved_pj / sum(u.uses.values())):
        wanted = {(upgrade.choice.core, r): n for r, n in upgrade.uses.items()}
        if all(n <= left[resource] for resource, n in wanted.items()):
            chosen[upgrade.key] = upgrade.choice
            for resource, n in wanted.items():
                left[resource] -= n
    layers = {
        layer.name: _with_choice(network, layer, chosen[layer.weight_key or layer.name], target)
        for layer in network.layers.values()
    }
    vectors = {name: replace(v, bits=8) for name, v in network.vectors.items()}
    assigned = network.with_layers(layers).with_vectors(vectors)
    return Baseline(assigned, _name(assigned, target, fallen_back=fallen_back))


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A cheaper option of some layers with shared weights, for a share of scarce resources."""

    key: str
    choice: Choice
    saved_pj: float
    uses: Mapping[str, int]


def _by_weights(network: Network) -> dict[str, list[Layer]]:
    """Return the layers by weight key, or by name where they have no weights."""
    groups: dict[str, list[Layer]] = {}
    for layer in network.layers.values():
        groups.setdefault(layer.weight_key or layer.name, []).append(layer)
    return groups


def _options(
    network: Network, tied: list[Layer], offers: list[Choice], target: Target
) -> tuple[Choice, list[Upgrade]]:
    """Return the cheapest offer that holds nothing scarce, and a cheaper one that does.

    Where every offer holds something, the cheapest is taken as it is.
    """
    core = target.cores[offers[0].core]
    price = {c: sum(_energy(network, layer, c, target) for layer in tied) for c in offers}
    uses = {c: {r: n for r, n in core.capacity(c, tied[0]).items() if n} for c in offers}
    best = min(offers, key=lambda c: (price[c], c))
    plain = [c for c in offers if not uses[c]]
    if not plain:
        return best, []
    first = min(plain, key=lambda c: (price[c], c))
    if not uses[best]:
        return first, []
    key = tied[0].weight_key or tied[0].name
    return first, [Upgrade(key, best, price[first] - price[best], uses[best])]


def _dearest(layer: Layer, target: Target) -> Choice:
    return max(layer.choices, key=lambda c: (energy_pj(layer.cost_of(c), target), c))


def _first_mac(network: Network, layer: Layer, target: Target) -> list[Choice]:
    """Return mac 8/8 on the first core that takes it, with every core option; empty where none."""
    ranges = [network.values[value].range for value in layer.inputs]
    signed = any(extremes is None or extremes[0] < 0 for extremes in ranges)
    for core in target.cores.values():
        offers = [
            offer
            for offer in core.choices(layer, ["mac"], [BASELINE_BITS], signed_input=signed)
            if not isinstance(offer, Refusal)
        ]
        if offers:
            return offers
    return []


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
