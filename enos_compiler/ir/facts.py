# SPDX-License-Identifier: Apache-2.0
"""Facts: what is known of a network, and what a new fact makes stale."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from enos_compiler.ir.network import FACTS, Fact, Layer, Network, Value


def missing(network: Network, required: Collection[Fact]) -> tuple[Fact, ...]:
    """Return the required facts that the network lacks, in pipeline order."""
    return tuple(f for f in FACTS if f in required and f not in network.facts)


def drop_after(network: Network, ensured: Collection[Fact]) -> Network:
    """Return the network without the facts later than the latest ensured one.

    The annotations that belong to a dropped fact go with it, so that nothing stale is ever read.
    Facts of one pass together (`mapped` and `placed`) are siblings: neither drops the other.
    """
    if not ensured:
        return network
    latest = max(FACTS.index(f) for f in ensured)
    stale = [
        f for f in FACTS[latest + 1 :] if f in network.facts and f != _SIBLING.get(FACTS[latest])
    ]
    for fact in stale:
        network = _forget(network, fact)
    return replace(network, facts=network.facts - set(stale))


_SIBLING: dict[Fact, Fact] = {"mapped": "placed"}


def _forget(network: Network, fact: Fact) -> Network:
    if fact == "calibrated":
        return _values(network, lambda v: replace(v, range=None))
    if fact == "choices":
        network = _values(network, lambda v: replace(v, home=None))
        return _layers(network, choices=(), costs=(), programming=(), refusals=())
    if fact == "scored":
        return _layers(network, scores=None)
    if fact == "assigned":
        return _layers(network, choice=None)
    if fact == "quantized":
        return _layers(_values(network, lambda v: replace(v, format=None)), quantized=None)
    if fact == "mapped":
        return _layers(network, mapping=None)
    if fact == "placed":
        return _layers(network, placement=None)
    if fact == "scheduled":
        return replace(network, program=None)
    return network


def _layers(network: Network, **cleared: object) -> Network:
    changed: dict[str, Layer] = {
        name: replace(layer, **cleared)  # type: ignore[arg-type]  # keys are field names of Layer
        for name, layer in network.layers.items()
    }
    return network.with_layers(changed)


def _values(network: Network, change: Callable[[Value], Value]) -> Network:
    changed: dict[str, Value] = {name: change(value) for name, value in network.values.items()}
    return network.with_values(changed)
