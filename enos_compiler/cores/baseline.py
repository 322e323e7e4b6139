# SPDX-License-Identifier: Apache-2.0
"""The network that savings are measured against: multiply-accumulate at 8 bits everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from enos_compiler.cores.accounting import energy_pj
from enos_compiler.cores.layer_costs import BASELINE_BITS, baseline_offers, cost_of
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.kernels import as_core_sees
from enos_compiler.ir.network import Layer, Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


_KNOWN_AS = {"loop-nest": "digital"}
"""What a reader calls the cores of a kind, where it is another word."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The network with every layer as in the baseline, and what to call it."""

    network: Network
    name: str


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
        offers = baseline_offers(network, tied[0], target)
        if offers:
            chosen[key], better = _options(network, tied, offers, target)
            upgrades += better
        else:
            fallen_back = True
            chosen[key] = _dearest(tied[0], target)
    left: dict[tuple[str, str], float] = {
        (n, r): amount for n, c in target.cores.items() for r, amount in c.capacities().items()
    }
    for upgrade in sorted(upgrades, key=lambda u: -u.saved_pj / sum(u.uses.values())):
        wanted = {(upgrade.choice.core, r): n for r, n in upgrade.uses.items()}
        if all(n <= left[resource] for resource, n in wanted.items()):
            chosen[upgrade.key] = upgrade.choice
            for resource, n in wanted.items():
                left[resource] -= n
    layers = {
        layer.name: _with_choice(network, layer, chosen[layer.tie], target)
        for layer in network.layers.values()
    }
    vectors = {name: replace(v, bits=BASELINE_BITS.output) for name, v in network.vectors.items()}
    assigned = network.with_layers(layers).with_vectors(vectors)
    return Baseline(assigned, _name(assigned, target, fallen_back=fallen_back))


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A cheaper option of some layers with shared weights, for a share of scarce resources."""

    key: str
    choice: Choice
    saved_pj: float
    uses: Mapping[str, float]


def _by_weights(network: Network) -> dict[str, list[Layer]]:
    """Return the layers by weight key, or by name where they have no weights."""
    groups: dict[str, list[Layer]] = {}
    for layer in network.layers.values():
        groups.setdefault(layer.tie, []).append(layer)
    return groups


def _options(
    network: Network, tied: list[Layer], offers: list[Choice], target: Target
) -> tuple[Choice, list[Upgrade]]:
    """Return the cheapest offer that holds nothing scarce, and a cheaper one that does.

    Where every offer holds something, the cheapest is taken as it is.
    """
    core = target.cores[offers[0].core]
    price = {c: sum(_energy(network, layer, c, target) for layer in tied) for c in offers}
    seen = {c: as_core_sees(tied[0], c) for c in offers}
    uses = {
        c: {r: n for r, n in core.capacity(as_offered, layer).items() if n}
        for c, (layer, as_offered) in seen.items()
    }
    best = min(offers, key=lambda c: (price[c], c))
    plain = [c for c in offers if not uses[c]]
    if not plain:
        return best, []
    first = min(plain, key=lambda c: (price[c], c))
    if not uses[best]:
        return first, []
    key = tied[0].tie
    return first, [Upgrade(key, best, price[first] - price[best], uses[best])]


def _dearest(layer: Layer, target: Target) -> Choice:
    return max(layer.choices, key=lambda c: (energy_pj(layer.cost_of(c), target), c))


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
    kinds = dict.fromkeys(
        _KNOWN_AS.get(core.kind, core.kind) for name, core in target.cores.items() if name in used
    )
    return f"all-mac-{'+'.join(kinds)}-8/8" if kinds else "all-mac-8/8"
