# SPDX-License-Identifier: Apache-2.0
"""Homes against a step-by-step check that no two living values share a byte."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from core_layers import hybrid
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.homes import homes, root_of
from enos_compiler.cores.memory import Array, Chip
from enos_compiler.ir import Home, Network, Value, Vector


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Random graphs of additions and views over one input, with one or two outputs."""
    values = {"x": Value("x", (1, draw(st.integers(1, 40))), "input", "x")}
    vectors: dict[str, Vector] = {}
    for i in range(draw(st.integers(1, 9))):
        name = f"v{i}"
        first = draw(st.sampled_from(sorted(values)))
        if draw(st.booleans()):
            second = draw(st.sampled_from(sorted(values)))
            vectors[name] = Vector(name, "add", (first, second), name)
            shape: tuple[int, ...] = (1, draw(st.integers(1, 40)))
        else:
            vectors[name] = Vector(name, "reshape", (first,), name)
            shape = (values[first].elements, 1)
        values[name] = Value(name, shape, "internal", name)
    outputs = draw(st.lists(st.sampled_from(sorted(vectors)), min_size=1, max_size=2, unique=True))
    nothing: Any = None
    return Network(
        "random",
        nothing,
        (),
        vectors=vectors,
        values=values,
        inputs=("x",),
        outputs=tuple(outputs),
        order=tuple(vectors),
    )


def chip(capacity_bytes: int) -> Chip:
    shared = hybrid().chip
    spec = shared.memories["buffer"].spec
    capacity = spec.capacity_bits.model_copy(update={"value": capacity_bytes * 8})
    small = Array("buffer", "array", spec.model_copy(update={"capacity_bits": capacity}))
    return Chip(
        shared.clock_ns,
        shared.arithmetic,
        shared.leakage_pw_per_um2,
        {**shared.memories, "buffer": small},
        shared.bits_per_cycle,
        shared.dram,
        shared.shared,
    )


def alive_at(network: Network, step: int, value: str) -> bool:
    """Tell whether a step lies between a value's producer and its last reader, views included."""
    order = list(network.order)
    family = [v for v in network.values if root_of(network, v) == value]
    born = order.index(network.values[value].producer)
    reads = [order.index(n.name) for v in family for n in network.consumers(v)]
    return born <= step <= max([born, *reads])


@settings(deadline=None, max_examples=200)
@given(networks(), st.sampled_from([0, 8, 64, 128, 4096]))
def test_living_values_never_overlap(network: Network, capacity: int) -> None:
    found = homes(network, chip(max(capacity, 8)))
    assert set(found) == set(network.values)
    own = {v: h for v, h in found.items() if h.address is not None and root_of(network, v) == v}
    for step in range(len(network.order)):
        taken: list[tuple[int, int]] = []
        for value, home in own.items():
            if alive_at(network, step, value):
                assert home.address is not None
                taken.append((home.address, home.address + home.reserved_bytes))
        taken.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(taken))
        assert not taken or taken[-1][1] <= max(capacity, 8)


@settings(deadline=None, max_examples=200)
@given(networks())
def test_inputs_and_outputs_are_in_dram_and_views_lie_on_what_they_view(network: Network) -> None:
    found = homes(network, chip(4096))
    for name in (*network.inputs, *network.outputs):
        assert found[name] == Home("dram")
    for name in network.values:
        assert found[name] == found[root_of(network, name)]


@settings(deadline=None, max_examples=200)
@given(networks())
def test_a_value_with_several_readers_reserves_a_copy_beside_it(network: Network) -> None:
    found = homes(network, chip(1 << 20))
    for name, home in found.items():
        if home.address is None or root_of(network, name) != name:
            continue
        family = [v for v in network.values if root_of(network, v) == name]
        readers = {
            n.name
            for v in family
            for n in network.consumers(v)
            if network.vectors[n.name].op == "add"
        }
        copies = 2 if len(readers) > 1 else 1
        assert home.reserved_bytes == copies * -(-network.values[name].elements // 8) * 8


@settings(deadline=None, max_examples=100)
@given(networks())
def test_everything_that_may_rest_in_a_large_buffer_does(network: Network) -> None:
    found = homes(network, chip(1 << 20))
    kept_out = {root_of(network, v) for v in (*network.inputs, *network.outputs)}
    for name in network.values:
        assert (found[name].memory == "dram") == (root_of(network, name) in kept_out)
