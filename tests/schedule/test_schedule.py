# SPDX-License-Identifier: Apache-2.0
"""Schedules respect dependencies and resources, lose no event, and meet their bounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, pairwise, permutations, product
from typing import Any, cast

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from tiny_network import TinyCore, TinyTarget, attach, layer, network

from enos_compiler.cores.accounting import itemise
from enos_compiler.cores.steps import Step, StepCycles, pipeline
from enos_compiler.cores.target import Target
from enos_compiler.errors import PassError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.cost import Cost
from enos_compiler.ir.network import Home, Network, Value, Vector
from enos_compiler.ir.program import Instruction, Program
from enos_compiler.schedule.blocks import PLACES
from enos_compiler.schedule.list_schedule import (
    instructions_of,
    lower_bound,
    schedule_network,
    time_tasks,
)
from enos_compiler.schedule.tasks import Task, TaskGraph
from enos_compiler.simulate.rules import check_times


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


@st.composite
def _graphs(draw: st.DrawFn, most: int = 12) -> TaskGraph:
    count = draw(st.integers(1, most))
    found = TaskGraph()
    for i in range(count):
        cycles = draw(st.integers(0, 5))
        resource = draw(st.sampled_from(["p", "q", "r"]))
        task = Task(f"t{i}", resource, "compute", Cost({}, cycles, 0.1), {"layer": f"t{i}"})
        found.tasks[task.id] = task
        found.graph.add_node(task.id)
        for j in draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else ():
            found.graph.add_edge(f"t{j}", task.id)
    return found


@settings(deadline=None)
@given(graph=_graphs())
def test_schedules_are_valid_and_within_bounds(graph: TaskGraph) -> None:
    timing = time_tasks(graph)
    end = {n: timing.start[n] + t.duration for n, t in graph.tasks.items()}
    assert all(end[a] <= timing.start[b] for a, b in graph.graph.edges)
    for resource in graph.resources():
        mine = sorted((timing.start[n], end[n]) for n, t in graph.tasks.items()
                      if t.resource == resource)  # fmt: skip
        assert all(a[1] <= b[0] for a, b in pairwise(mine))
    total = sum(t.duration for t in graph.tasks.values())
    assert lower_bound(graph) <= timing.makespan <= total


@settings(deadline=None, max_examples=30)
@given(graph=_graphs(most=6))
def test_lower_bound_is_below_every_order(graph: TaskGraph) -> None:
    """The bound holds against every serial order per resource, played out one by one."""
    best = None
    for order in permutations(graph.tasks):
        rank = {n: i for i, n in enumerate(order)}
        if any(rank[a] > rank[b] for a, b in graph.graph.edges):
            continue
        free: dict[str, Fraction] = {}
        end: dict[str, Fraction] = {}
        for name in order:
            task = graph.tasks[name]
            waits = [end[p] for p in graph.graph.predecessors(name)]
            begin = max([free.get(task.resource, Fraction(0)), *waits])
            end[name] = free[task.resource] = begin + task.duration
        best = min(max(end.values()), best) if best is not None else max(end.values())
    assert best is not None
    assert lower_bound(graph) <= best <= time_tasks(graph).makespan


@st.composite
def _stepped_graphs(draw: st.DrawFn) -> TaskGraph:
    """Return tasks of which some run in steps, in any order of urgency."""
    found = TaskGraph()
    cycles = st.builds(StepCycles, *[st.integers(0, 4)] * 3)
    for i in range(draw(st.integers(1, 8))):
        core = draw(st.sampled_from(["p", "q"]))
        told = draw(st.lists(cycles, max_size=4))
        port = draw(st.booleans())
        steps = tuple(Step({"P": (k, k + 1)}, {}, {}, {}, c) for k, c in enumerate(told))
        length = pipeline(told, one_port=port)[1] if told else draw(st.integers(0, 5))
        name = f"t{i}"
        found.tasks[name] = Task(
            name,
            core,
            "compute",
            Cost({}, length, 0.1),
            {"layer": name},
            steps=steps,
            one_port=port,
        )
        found.graph.add_node(name)
        for j in draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else ():
            found.graph.add_edge(f"t{j}", name)
    return found


@settings(deadline=None, max_examples=200)
@given(graph=_stepped_graphs())
def test_instructions_of_steps_keep_the_rules_of_the_machine(graph: TaskGraph) -> None:
    """Whatever overlaps: resources, waits, ports of both directions, places of a core's steps."""
    timing = time_tasks(graph)
    listed = instructions_of(graph, timing)
    resources = tuple({one.resource for one in listed})
    check_times(listed, Program(resources, (), listed, {}, 0.1))
    ends = [one.start_cycle + one.cycles for one in listed]
    assert max(ends) * Fraction(1, 10) == timing.makespan
    assert lower_bound(graph) <= timing.makespan
    assert timing.makespan <= sum(t.duration for t in graph.tasks.values())
    for core in ("p", "q"):
        mine = [
            one for one in listed if one.resource.split(".")[0] == core and one.step is not None
        ]
        _check_places(mine)
        ports = [one for one in mine if one.op != "compute" and one.cycles]
        shared = [one for one in ports if one.resource == f"{core}.port"]
        for one, other in product(shared, ports):
            apart = (
                one.start_cycle + one.cycles <= other.start_cycle
                or other.start_cycle + other.cycles <= one.start_cycle
            )
            assert one is other or apart


def _check_places(listed: list[Instruction]) -> None:
    """At no time are more than two steps between load and compute, or compute and store."""
    by_step = {(one.layer, one.step, one.op): one for one in listed}
    for first, last in (("load", "compute"), ("compute", "store")):
        spans = [
            (one.start_cycle, end.start_cycle + end.cycles)
            for (layer, step, op), one in by_step.items()
            if op == first
            for end in (by_step[layer, step, last],)
        ]
        for begin, end in spans:
            assert sum(a <= begin < b for a, b in spans) <= PLACES or begin == end


def _optimum(graph: TaskGraph) -> Fraction:
    """Return the shortest makespan, by a mixed-integer program over starts and orders."""
    names = list(graph.tasks)
    at = {n: i for i, n in enumerate(names)}
    length = [float(graph.tasks[n].duration) for n in names]
    pairs = [
        (i, j)
        for i, j in combinations(range(len(names)), 2)
        if graph.tasks[names[i]].resource == graph.tasks[names[j]].resource
    ]
    horizon, last = sum(length), len(names)
    size = last + 1 + len(pairs)
    rows, least = [], []

    def require(entries: dict[int, float], bound: float) -> None:
        row = np.zeros(size)
        for column, factor in entries.items():
            row[column] = factor
        rows.append(row)
        least.append(bound)

    for a, b in graph.graph.edges:
        require({at[b]: 1, at[a]: -1}, length[at[a]])
    for i in range(last):
        require({last: 1, i: -1}, length[i])
    for k, (i, j) in enumerate(pairs, start=last + 1):
        require({j: 1, i: -1, k: horizon}, length[i])  # either i before j, where k is 0
        require({i: 1, j: -1, k: -horizon}, length[j] - horizon)
    solved = milp(
        np.eye(size)[last],
        constraints=LinearConstraint(np.array(rows), np.array(least), np.inf),
        integrality=[*(0,) * (last + 1), *(1,) * len(pairs)],
        bounds=Bounds(0, [*(horizon,) * (last + 1), *(1.0,) * len(pairs)]),
    )
    return Fraction(round(solved.fun * 10), 10)


# the same graphs in every run: a fifth is what was found on them, no theorem for all graphs
@settings(deadline=None, max_examples=60, derandomize=True)
@given(graph=_graphs(most=8))
def test_schedules_are_close_to_the_exact_optimum(graph: TaskGraph) -> None:
    """No schedule is shorter than the optimum; on these graphs ours is within a fifth of it."""
    best, found = _optimum(graph), time_tasks(graph).makespan
    assert lower_bound(graph) <= best <= found
    assert found <= best * Fraction(6, 5) or found - best <= Fraction(1, 10)


def test_improvement_finds_what_neither_rule_does() -> None:
    """The longest path's head holds a resource that a shorter but more blocking task needs."""
    graph = TaskGraph()
    tasks = (("a", "p", 3), ("b", "p", 2), ("c", "q", 4), ("d", "r", 2), ("e", "q", 2))
    for name, resource, cycles in tasks:
        graph.tasks[name] = Task(name, resource, "compute", Cost({}, cycles), {"layer": name})
    graph.graph = nx.DiGraph([("a", "d"), ("d", "e"), ("b", "c")])
    graph.graph.add_nodes_from(graph.tasks)
    assert time_tasks(graph).makespan == _optimum(graph)


def test_critical_path_is_the_longest_path() -> None:
    graph = TaskGraph()
    for name, cycles in (("a", 2), ("b", 7), ("c", 1), ("d", 3)):
        graph.tasks[name] = Task(name, name, "compute", Cost({}, cycles), {"layer": name})
    graph.graph = nx.DiGraph([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    assert graph.critical_path()["a"] == 12
    assert lower_bound(graph) == 12
