# SPDX-License-Identifier: Apache-2.0
"""Homes: where every value rests, decided once, before any cost.

One greedy pass in execution order: a value gets the lowest free address of the shared buffer among
the values alive with it, else DRAM. It is alive from its producer to its last reader, both
included, so that running in execution order is always feasible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enos_compiler.cores.memory import Chip
from enos_compiler.ir.network import Home, Network, Vector

HOME_BITS = 8
"""Homes are decided at the widest codes; narrower ones leave the rest of their bytes unused."""


@dataclass(frozen=True, slots=True)
class Life:
    """A value's claim on the buffer: first and last step of the execution order, and bytes."""

    first: int
    last: int
    size: int


def root_of(network: Network, value: str) -> str:
    """Return the value whose bytes `value` is a view of; itself where it is none.

    Raises:
        UsageError: a vector operation that is not registered.
    """
    producer = network.producer(value)
    while isinstance(producer, Vector) and is_view(network, producer):
        value = producer.inputs[0]
        producer = network.producer(value)
    return value


def is_view(network: Network, vector: Vector) -> bool:
    """Tell whether an operation does no work: its output is its input under another shape."""
    from enos_compiler.semantics.registry import vector_op

    output = network.values[vector.output]
    inputs = [network.values[v] for v in vector.inputs]
    if len(inputs) != 1 or inputs[0].elements != output.elements:
        return False
    op = vector_op(vector.op)
    shapes = tuple(v.shape for v in inputs)
    work = op.lane_operations(shapes, output.shape, vector.attributes)
    return op.keeps_format and not any(work.values())


def lives(network: Network, word_bytes: int) -> dict[str, Life]:
    """Return the claim of every value that a node computes and no output needs in DRAM.

    Views join the value that they view. A value with several readers claims twice its bytes: one
    narrower copy at a time lies beside it.
    """
    step = {name: i for i, name in enumerate(network.order)}
    roots = {v: root_of(network, v) for v in network.values}
    kept_out = {roots[v] for v in network.outputs}
    readers: dict[str, int] = {}
    seen_at: dict[str, int] = {}
    for node in network.nodes():
        view = isinstance(node, Vector) and is_view(network, node)
        for root in dict.fromkeys(roots[v] for v in node.inputs):
            seen_at[root] = step[node.name]
            if not view:
                readers[root] = readers.get(root, 0) + 1
    found: dict[str, Life] = {}
    for name, value in network.values.items():
        if value.kind != "internal" or roots[name] != name or name in kept_out:
            continue
        first = step[value.producer]
        copies = 2 if readers.get(name, 0) > 1 else 1
        size = -(-value.elements * HOME_BITS // 8)
        size = copies * -(-size // word_bytes) * word_bytes
        found[name] = Life(first, seen_at.get(name, first), size)
    return found


def homes(network: Network, chip: Chip) -> Mapping[str, Home]:
    """Return the home of every value: inputs, outputs and constants in DRAM, the rest by room."""
    placed: dict[str, Home] = {}
    if chip.shared is not None:
        buffer = chip.memories[chip.shared]
        capacity = buffer.capacity_bits // 8
        claims = lives(network, -(-buffer.word_bits // 8))
        for name, life in sorted(claims.items(), key=lambda c: c[1].first):
            taken = [
                (home.address, home.address + home.reserved_bytes)
                for other, home in placed.items()
                if home.address is not None and _together(claims[other], life)
            ]
            address = _lowest_gap(taken, life.size)
            if address + life.size <= capacity:
                placed[name] = Home(chip.shared, address, life.size)
    roots = {v: root_of(network, v) for v in network.values}
    return {v: placed.get(roots[v], Home(chip.dram)) for v in network.values}


def _together(a: Life, b: Life) -> bool:
    return a.first <= b.last and b.first <= a.last


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    """Return the lowest address at which `size` bytes overlap none of the taken ranges."""
    address = 0
    for start, end in sorted(taken):
        if address + size <= start:
            break
        address = max(address, end)
    return address
