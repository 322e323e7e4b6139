# SPDX-License-Identifier: Apache-2.0
"""A network's program: events, waits, addresses, narrower copies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import pytest
from tiny_network import TinyCore, TinyTarget, attach, layer, network

from enos_compiler.cores.accounting import itemise
from enos_compiler.cores.target import Target
from enos_compiler.errors import PassError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.cost import Cost
from enos_compiler.ir.network import Home, Network, Value, Vector
from enos_compiler.schedule.network import schedule_network


def _chip() -> TinyTarget:
    cores = {
        "mac": TinyCore("mac"),
        "xbar": TinyCore("xbar", kind="crossbar", operators=("mac", "mf"), resident=True),
    }
    return TinyTarget(cores)


def _branches(reserved: int = 8) -> Network:
    """Return x -> a -> (b, c) -> add -> d with every inner value at its own address."""
    net = network(
        [
            layer("a", ("x",)),
            layer("b", ("a",)),
            layer("c", ("a",), macs=64),
            Vector(name="s", op="add", inputs=("b", "c"), output="s", core="vec"),
            layer("d", ("s",)),
        ],
        ("d",),
    )
    homes = {
        name: replace(net.values[name], home=Home("buffer", 16 * i, reserved))
        for i, name in enumerate(("a", "b", "c", "s"))
    }
    return net.with_values(homes)


def _assigned(net: Network, chip: TinyTarget, cores: dict[str, str], bits: Bits) -> Network:
    net = attach(net, chip, ("mac",), [Bits(8, 8, 8), bits], seed=0)
    layers = {
        n.name: replace(
            n, choice=next(c for c in n.choices if c.core == cores[n.name] and c.bits.output == 8)
        )
        for n in net.layers.values()
    }
    return net.with_layers(layers)


CORES = {"a": "mac", "b": "mac", "c": "xbar", "d": "mac"}


def _run(net: Network) -> Any:
    return schedule_network(net, cast("Target", _chip()))


def test_events_of_instructions_are_the_costs() -> None:
    chip = _chip()
    net = _assigned(_branches(), chip, CORES, Bits(4, 4, 4))
    program, _ = _run(net)
    items = itemise(net, cast("Target", chip))
    expected: Counter[str] = Counter()
    for cost in items.costs():
        expected.update(cost.events)
    found: Counter[str] = Counter()
    for instruction in program.instructions:
        found.update(instruction.events)
        owners = ("layer", "edge", "vector", "host", "programs")
        assert sum(getattr(instruction, o) is not None for o in owners) == 1
    assert found == expected
    assert [i.programs for i in program.setup] == ["c"]
    assert program.setup[0].events == items.programming["c"].events


def test_branches_overlap_and_waits_hold() -> None:
    program, _ = _run(_assigned(_branches(), _chip(), CORES, Bits(4, 4, 4)))
    by_id = {i.id: i for i in program.instructions}
    b, c = by_id["layer:b"], by_id["layer:c"]
    assert b.start_ns < c.end_ns
    assert c.start_ns < b.end_ns
    assert by_id["edge:a->c"].resource == "link"
    for instruction in program.instructions:
        for earlier in instruction.after:
            assert by_id[earlier].end_ns <= instruction.start_ns
    assert program.lower_bound_ns <= program.makespan_ns
    assert program.makespan_ns == max(i.end_ns for i in program.instructions)


@dataclass
class _LinkedTarget(TinyTarget):
    """Hands values to the vector unit over the link; a reshape costs what it says."""

    reshape_cycles: int = 0

    def edge_cost(self, value: Value, *rest: Any) -> Cost:
        _, producer, consumer, _ = rest
        if (producer, consumer) == ("mac", "vec"):
            return Cost({"link.wire/transfer": value.elements}, cycles=2)
        return super().edge_cost(value, *rest)

    def vector_cost(self, vector: Vector, *rest: Any) -> Cost:
        if vector.op == "reshape":
            return Cost({}, cycles=self.reshape_cycles)
        return super().vector_cost(vector, *rest)


def _reshaped(names: tuple[str, ...], cycles: int = 0) -> Any:
    """Return the program of x -> a -> reshapes -> d on a chip with transfers to the vector unit."""
    steps = [
        Vector(name=name, op="reshape", inputs=(before,), output=name, core="vec")
        for before, name in pairwise(("a", *names))
    ]
    net = network([layer("a", ("x",)), *steps, layer("d", (names[-1],))], ("d",))
    chip = _LinkedTarget(_chip().cores, reshape_cycles=cycles)
    net = _assigned(net, chip, CORES, Bits(8, 8, 8))
    return schedule_network(net, cast("Target", chip))[0]


def test_reshapes_that_cost_nothing_are_no_instructions_and_pass_dependencies_on() -> None:
    program = _reshaped(("r", "s"))
    by_id = {i.id: i for i in program.instructions}
    assert set(by_id) == {"layer:a", "edge:a->r", "layer:d"}
    assert by_id["layer:d"].after == ("edge:a->r", "layer:a")
    assert by_id["layer:d"].reads == ("s",)
    places = {b.name: (b.memory, b.address) for b in program.buffers}
    assert places["a"] == places["r"] == places["s"]
    assert all(i.cycles for i in program.instructions)


def test_reshapes_that_cost_cycles_stay() -> None:
    program = _reshaped(("r",), cycles=1)
    assert [i.id for i in program.instructions] == ["layer:a", "edge:a->r", "vector:r", "layer:d"]


def test_shared_addresses_serialise() -> None:
    net = _branches()
    apart, _ = _run(_assigned(net, _chip(), CORES, Bits(4, 4, 4)))
    shared = net.with_values({"c": replace(net.values["c"], home=net.values["b"].home)})
    shared = shared.with_values({"s": replace(net.values["s"], home=Home("buffer", 64, 8))})
    together, _ = _run(_assigned(shared, _chip(), CORES, Bits(4, 4, 4)))
    c = next(i for i in together.instructions if i.id == "layer:c")
    assert "layer:b" in c.after
    assert "layer:b" not in next(i for i in apart.instructions if i.id == "layer:c").after


def test_narrow_copy_needs_its_room() -> None:
    chip = _chip()
    net = _assigned(_branches(), chip, CORES, Bits(4, 8, 8))
    narrow = next(c for c in net.layers["c"].choices if c.bits.input == 4 and c.core == "xbar")
    net = net.with_layers({"c": replace(net.layers["c"], choice=narrow)})
    program, _ = _run(net)
    copy = next(b for b in program.buffers if b.name == "a@c")
    assert (copy.address, copy.size_bytes, copy.bits) == (4, 2, 4)
    edge = next(i for i in program.instructions if i.id == "edge:a->c")
    assert (edge.reads, edge.writes) == (("a",), ("a@c",))
    compute = next(i for i in program.instructions if i.id == "layer:c")
    assert compute.reads == ("a@c",)
    tight = net.with_values({"a": replace(net.values["a"], home=Home("buffer", 0, 4))})
    with pytest.raises(PassError, match="needs 8 bytes in buffer, its home reserves 4"):
        _run(tight)
