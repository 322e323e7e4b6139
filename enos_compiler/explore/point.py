# SPDX-License-Identifier: Apache-2.0
"""One setting as an assigned network: what the compiler makes of it, item by item."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from enos_compiler.cores.accounting import itemise
from enos_compiler.cores.layer_costs import cost_of
from enos_compiler.errors import UsageError
from enos_compiler.explore.front import Chosen
from enos_compiler.explore.hardware import Placed
from enos_compiler.explore.plan import BitPlan, Genome
from enos_compiler.ir.network import Network
from enos_compiler.ir.serialize import load_network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


def assigned(placed: Placed, target: Target, genome: Genome) -> Network:
    """Return the network with every layer at its bits, priced, and every value at its width."""
    network = placed.network
    layers, vectors = BitPlan(network).bits(genome)
    changed = {}
    for name, layer in network.layers.items():
        choice = placed.at(name, layers[name])
        cost = cost_of(network, layer, choice, target)
        changed[name] = replace(
            layer,
            choices=(choice,),
            costs=(cost.inference,),
            programming=(cost.programming,),
            scores=None,
            choice=choice,
        )
    return network.with_layers(changed).with_vectors(
        {name: replace(network.vectors[name], bits=bits) for name, bits in vectors.items()}
    )


def energy_parts(placed: Placed, target: Target, genome: Genome) -> dict[str, float]:
    """Return the energy of a setting in pJ by `owner.component`, and that of `leakage`.

    The sum is the energy that `HardwareTables.cost` tells, the order of the sum aside.
    """
    items = itemise(assigned(placed, target, genome), target)
    parts: dict[str, float] = defaultdict(float)
    for cost in items.costs():
        for component, picojoule in cost.components_pj(target.energy_pj).items():
            parts[component] += picojoule
    parts["leakage"] = target.leakage_mw() * items.busy_ns
    return dict(parts)


def with_weights(network: Network, chosen: Chosen) -> Network:
    """Return the network with the weights and ranges of the one that a point was found with.

    Raises:
        UsageError: the point is of another network.
        FormatError: the stored network is damaged.
    """
    wanted, found = set(chosen.point.bits), set(network.layers)
    if wanted != found:
        other = sorted(wanted ^ found)[0]
        raise UsageError(
            f"the point is of another network: layer {other} is in one of the two only",
            place=str(chosen.folder),
            remedy="the model and the arguments that the front was searched with",
        )
    if chosen.network is None:
        return network
    stored = load_same(chosen.folder / chosen.network, network)
    return replace(
        stored,
        name=network.name,
        provenance=network.provenance,
        sections={**stored.sections, **network.sections},
    )


def load_same(folder: Path, network: Network) -> Network:
    """Return a stored network that has the same layers as another, with its own weights.

    Raises:
        UsageError: it has other layers.
        FormatError: it is damaged.
    """
    stored = load_network(folder)
    ours = {name: layer.shape for name, layer in network.layers.items()}
    theirs = {name: layer.shape for name, layer in stored.layers.items()}
    for name in dict.fromkeys((*ours, *theirs)):
        if ours.get(name) != theirs.get(name):
            raise UsageError(
                f"is of another network: layer {name} is {theirs.get(name, 'missing')} there, "
                f"{ours.get(name, 'missing')} here",
                place=str(folder),
                remedy="the model and the arguments that the front was searched with",
            )
    return stored
