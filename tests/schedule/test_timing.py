# SPDX-License-Identifier: Apache-2.0
"""Times keep the rules of the machine; of few tasks the schedule is the shortest one there is."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.steps import PLACES, Step, StepCycles, pipeline
from enos_compiler.ir.cost import Cost
from enos_compiler.ir.program import Instruction, Program
from enos_compiler.schedule.exact import shortest
from enos_compiler.schedule.list_schedule import Timing, list_schedule, tighten, time_tasks
from enos_compiler.schedule.network import instructions_of
from enos_compiler.schedule.shop import Shop, one_machine
from enos_compiler.schedule.tasks import Task, TaskGraph
from enos_compiler.simulate.rules import check_times


def _task(name: str, resource: str, cycles: int, **more: object) -> Task:
    return Task(name, resource, "compute", Cost({}, cycles), {"layer": name}, **more)  # type: ignore[arg-type]  # steps and one_port


def _graph(tasks: list[Task], edges: list[tuple[str, str]]) -> TaskGraph:
    found = TaskGraph({task.id: task for task in tasks})
    found.graph = nx.DiGraph()
    found.graph.add_nodes_from(found.tasks)
    found.graph.add_edges_from(edges)
    return found


@st.composite
def _edges(draw: st.DrawFn, count: int, most: int) -> list[tuple[str, str]]:
    """Return dependencies of later tasks on earlier ones, at most so many each."""
    found = []
    for i in range(1, count):
        found += [(f"t{j}", f"t{i}") for j in draw(st.sets(st.integers(0, i - 1), max_size=most))]
    return found


@st.composite
def _graphs(draw: st.DrawFn, most: int = 12) -> TaskGraph:
    one = st.tuples(st.sampled_from(["p", "q", "r"]), st.integers(0, 5))
    drawn = draw(st.lists(one, min_size=1, max_size=most))
    tasks = [_task(f"t{i}", resource, cycles) for i, (resource, cycles) in enumerate(drawn)]
    return _graph(tasks, draw(_edges(len(tasks), 3)))


@st.composite
def _stepped_graphs(draw: st.DrawFn, most: int = 8) -> TaskGraph:
    """Return tasks of which some run in steps."""
    cycles = st.builds(StepCycles, *[st.integers(0, 4)] * 3)
    tasks = []
    for i in range(draw(st.integers(1, most))):
        told = draw(st.lists(cycles, max_size=4))
        port = draw(st.booleans())
        steps = tuple(Step({"P": (k, k + 1)}, {}, {}, {}, c) for k, c in enumerate(told))
        length = pipeline(told, one_port=port)[1] if told else draw(st.integers(0, 5))
        core = draw(st.sampled_from(["p", "q"]))
        tasks.append(_task(f"t{i}", core, length, steps=steps, one_port=port))
    return _graph(tasks, draw(_edges(len(tasks), 2)))


def _least(graph: TaskGraph) -> int:
    """Return the shortest makespan: every order in which tasks can be begun, played out.

    Each begins as early as what it waits for and its resource allow; so do the tasks of a shortest
    schedule, taken by their starts. Two ways to have done the same tasks are one where what is left
    sees the same times.
    """
    tasks, waits = graph.tasks, {n: set(graph.graph.predecessors(n)) for n in graph.tasks}
    seen: set[tuple[object, ...]] = set()

    def rest(end: dict[str, int], free: dict[str, int]) -> int | None:
        left = [n for n in tasks if n not in end]
        needed = {p for n in left for p in waits[n]}
        told = tuple((n, end[n]) for n in sorted(needed & set(end)))
        state = (tuple(left), told, tuple(sorted(free.items())), max(end.values(), default=0))
        if state in seen:
            return None
        seen.add(state)
        if not left:
            return max(end.values(), default=0)
        found = []
        for name in left:
            if waits[name] <= set(end):
                task = tasks[name]
                begin = max([free.get(task.resource, 0), *(end[p] for p in waits[name])])
                done = begin + task.cycles
                found.append(rest({**end, name: done}, {**free, task.resource: done}))
        return min((one for one in found if one is not None), default=None)

    least = rest({}, {})
    assert least is not None
    return least


def _is_valid(graph: TaskGraph, timing: Timing) -> None:
    end = {n: timing.start[n] + t.cycles for n, t in graph.tasks.items()}
    assert set(timing.start) == set(graph.tasks)
    assert all(end[a] <= timing.start[b] for a, b in graph.graph.edges)
    for resource in {t.resource for t in graph.tasks.values()}:
        names = [n for n, t in graph.tasks.items() if t.resource == resource]
        mine = sorted((timing.start[n], end[n]) for n in names)
        assert all(a[1] <= b[0] for a, b in pairwise(mine))
    assert timing.makespan == max(end.values())


@settings(deadline=None)
@given(graph=_graphs())
def test_schedules_are_valid_and_within_bounds(graph: TaskGraph) -> None:
    shop = Shop.of(graph)
    timing = time_tasks(shop)
    _is_valid(graph, timing)
    assert shop.lower_bound() <= timing.bound <= timing.makespan <= sum(shop.cycles.values())


@settings(deadline=None, max_examples=60)
@given(graph=_graphs(most=7))
def test_schedules_of_few_tasks_are_optimal_and_known_to_be(graph: TaskGraph) -> None:
    shop = Shop.of(graph)
    timing, least = time_tasks(shop), _least(graph)
    assert timing.makespan == timing.bound == least
    assert shop.lower_bound() <= least


@settings(deadline=None, max_examples=60)
@given(graph=_graphs(most=7), nodes=st.integers(0, 12), more=st.integers(0, 3))
def test_a_search_that_was_cut_short_proves_nothing_that_is_not_so(
    graph: TaskGraph, nodes: int, more: int
) -> None:
    least = _least(graph)
    shop = Shop.of(graph)
    found = shortest(shop, least + more, nodes)
    if found.start is None:
        assert not (found.is_proven and more)
        return
    ends = {name: begin + shop.cycles[name] for name, begin in found.start.items()}
    _is_valid(graph, Timing(found.start, max(ends.values()), "branch and bound"))
    assert least <= max(ends.values()) < least + more
    assert max(ends.values()) == least or not found.is_proven


@settings(deadline=None, max_examples=60)
@given(graph=_stepped_graphs(most=5))
def test_overlapping_tasks_have_no_better_order(graph: TaskGraph) -> None:
    """Every order of tasks, begun as early as their engines and places allow, one by one."""
    shop = Shop.of(graph)
    timing = time_tasks(shop)

    def orders(done: tuple[str, ...]) -> list[tuple[str, ...]]:
        free = [n for n, b in shop.before.items() if n not in done and set(b) <= set(done)]
        return [one for n in free for one in orders((*done, n))] if free else [done]

    least = min(_placed(shop, order) for order in orders(()))
    assert timing.makespan == timing.bound == least >= shop.lower_bound()


def _placed(shop: Shop, order: tuple[str, ...]) -> int:
    """Return the makespan of tasks placed in an order."""
    start = tighten(shop, {name: i for i, name in enumerate(order)})
    return max(begin + shop.cycles[name] for name, begin in start.items())


@settings(deadline=None, max_examples=100)
@given(graph=_stepped_graphs())
def test_instructions_of_steps_keep_the_rules_of_the_machine(graph: TaskGraph) -> None:
    """Whatever overlaps: resources, waits, ports of both directions, places of a core's steps."""
    shop = Shop.of(graph)
    timing = time_tasks(shop)
    listed = instructions_of(graph, shop, timing.start, Fraction(1, 10))
    resources = tuple({one.resource for one in listed})
    check_times(listed, Program(resources, (), listed, {}, 0.1))
    assert max(one.start_cycle + one.cycles for one in listed) == timing.makespan
    assert shop.lower_bound() <= timing.makespan <= sum(shop.cycles.values())
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
    by_step = {(one.layer, one.step, str(one.op)): one for one in listed}
    for first, last in (("load", "compute"), ("compute", "store")):
        spans = [
            (one.start_cycle, end.start_cycle + end.cycles)
            for (layer, step, op), one in by_step.items()
            if op == first
            for end in (by_step[layer, step, last],)
        ]
        for begin, end in spans:
            assert sum(a <= begin < b for a, b in spans) <= PLACES or begin == end


def test_a_layer_of_one_step_leaves_the_other_place_to_the_next_layer() -> None:
    """The next layer loads while the only step before it is computed."""
    once = (Step({"P": (0, 1)}, {}, {}, {}, StepCycles(2, 10, 1)),)
    tasks = [_task(name, "p", 13, steps=once) for name in ("a", "b")]
    timing = time_tasks(Shop.of(_graph(tasks, [])))
    assert dict(timing.start) == {"a": 0, "b": 10}


def test_improvement_finds_what_neither_rule_does() -> None:
    """The longest path's head holds a resource that a shorter but more blocking task needs."""
    tasks = [("a", "p", 3), ("b", "p", 2), ("c", "q", 4), ("d", "r", 2), ("e", "q", 2)]
    graph = _graph([_task(*told) for told in tasks], [("a", "d"), ("d", "e"), ("b", "c")])
    timing = time_tasks(Shop.of(graph))
    assert timing.makespan == _least(graph)
    assert timing.rule != "branch and bound"


def test_exact_search_lets_a_resource_wait_where_no_list_does() -> None:
    """`p` stays idle for `b`, on which all else waits; a list starts `e` there at once."""
    tasks = [("a", "r", 2), ("b", "p", 0), ("c", "q", 2), ("d", "q", 2), ("e", "p", 4)]
    graph = _graph([_task(*told) for told in tasks], [("a", "b"), ("b", "c"), ("b", "d")])
    shop = Shop.of(graph)
    timing = time_tasks(shop)
    listed = list_schedule(shop, sorted(shop.cycles, key=lambda name: -shop.tails[name]))
    assert max(begin + shop.cycles[name] for name, begin in listed.items()) == 8
    assert (timing.makespan, timing.rule, timing.bound) == (6, "branch and bound", 6)


def test_tails_are_the_longest_paths() -> None:
    tasks = [_task(name, name, cycles) for name, cycles in (("a", 2), ("b", 7), ("c", 1), ("d", 3))]
    shop = Shop.of(_graph(tasks, [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]))
    assert list(shop.tails.items()) == [("a", 12), ("b", 10), ("c", 4), ("d", 3)]
    assert list(shop.heads.items()) == [("a", 0), ("b", 2), ("c", 2), ("d", 9)]
    assert shop.lower_bound() == 12


@pytest.mark.parametrize(
    ("jobs", "makespan"),
    [
        ([], 0),
        ([(3, 2, 4)], 9),
        ([(0, 4, 0), (1, 2, 6)], 9),  # the second one interrupts the first
        ([(0, 4, 5), (1, 2, 0)], 9),
        ([(5, 1, 0), (0, 1, 0)], 6),
    ],
)
def test_one_machine_goes_on_with_the_longest_tail(
    jobs: list[tuple[int, int, int]], makespan: int
) -> None:
    assert one_machine(jobs) == makespan
