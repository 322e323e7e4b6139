# SPDX-License-Identifier: Apache-2.0
"""The counting rules against a simulation that moves every element."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st
from nest_oracle import simulate

from enos_compiler.ir.shape import DIMS, TENSORS
from enos_compiler.mapping.count import EXACT, PLAIN, CountingRule, count_events
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.nest import LevelNest, Nest
from enos_compiler.mapping.problem import Problem, layer_tensors

LEVELS = 3
WIDE = Machine(
    "wide",
    ComputeSpec(1 << 24, 1 << 12, 1.0),
    (
        StorageLevel("pe", instances=1 << 16, mesh_x=1 << 8, read_bandwidth=2.0),
        StorageLevel("buffer", instances=1 << 8, mesh_x=1 << 4, shared_bandwidth=3.0),
        StorageLevel("memory", write_bandwidth=0.5, read_bandwidth=1.0),
    ),
)


@st.composite
def nests(draw: st.DrawFn) -> tuple[Problem, Nest]:
    """Three levels, every factor 1 to 4, at most 300 multiply-accumulates."""
    budget = 300
    bounds: dict[str, int] = dict.fromkeys(DIMS, 1)
    levels = []
    for s in range(LEVELS):
        groups: dict[str, list[tuple[str, int]]] = {"temporal": [], "x": [], "y": []}
        for kind, most in (("x", 1), ("y", 1), ("temporal", 3)):
            used = {dim for dim, _ in groups["x"]} if kind == "y" else set()
            dims = draw(st.lists(st.sampled_from(DIMS), max_size=most, unique=True))
            for name in dims:
                dim = str(name)
                factor = draw(st.integers(2, 4))
                if dim not in used and factor <= budget:
                    budget //= factor
                    bounds[dim] *= factor
                    groups[kind].append((dim, factor))
        keep = frozenset(TENSORS)
        if s < LEVELS - 1:
            keep = frozenset(draw(st.sets(st.sampled_from(TENSORS), min_size=0)))
        levels.append(
            LevelNest(keep, tuple(groups["temporal"]), tuple(groups["x"]), tuple(groups["y"]))
        )
    if levels[-1].spatial and not draw(st.booleans()):
        levels[-1] = replace(levels[-1], spatial_x=(), spatial_y=())
        bounds = dict.fromkeys(DIMS, 1)
        for level in levels:
            for dim, factor in level.temporal + level.spatial:
                bounds[dim] *= factor
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    return Problem(tuple(bounds.items()), layer_tensors(stride, dilation)), Nest(tuple(levels))


def totals(events: NestEvents, kind: str) -> dict[tuple[int, str], int]:
    return {
        (s, name): getattr(tensor, kind) * level.instances
        for s, level in enumerate(events.levels)
        for name, tensor in level.tensors.items()
    }


@given(nests())
@settings(deadline=None, max_examples=60)
def test_exact_rule_moves_what_one_tile_buffers_move(case: tuple[Problem, Nest]) -> None:
    problem, nest = case
    events = count_events(problem, WIDE, nest, rule=EXACT)
    moved = simulate(problem, nest)
    for kind in ("reads", "fills", "updates"):
        for (s, name), count in totals(events, kind).items():
            assert count == moved[s, name, kind], (s, name, kind)


@given(nests())
@settings(deadline=None, max_examples=60)
def test_plain_rule_never_moves_less(case: tuple[Problem, Nest]) -> None:
    """And exactly as much of weights and outputs, which have no overlap to keep."""
    problem, nest = case
    plain = count_events(problem, WIDE, nest, rule=PLAIN)
    exact = count_events(problem, WIDE, nest, rule=EXACT)
    for kind in ("reads", "fills", "updates"):
        ours = totals(plain, kind)
        for (s, name), count in totals(exact, kind).items():
            assert ours[s, name] >= count
            assert name == "Inputs" or ours[s, name] == count


@given(nests())
@settings(deadline=None, max_examples=60)
def test_latency_is_that_of_the_slowest_level(case: tuple[Problem, Nest]) -> None:
    """Cycles = the longest of the computation and every level's words over its bandwidth."""
    problem, nest = case
    moved = simulate(problem, nest)
    needs = [float(nest.compute_cycles)]
    for s, spec in enumerate(WIDE.levels):
        reads = float(sum(moved[s, t, "reads"] for t in TENSORS)) / nest.instances(s)
        writes = 1.0 * sum(moved[s, t, k] for t in TENSORS for k in ("fills", "updates"))
        writes /= nest.instances(s)
        for limit, words in (
            (spec.read_bandwidth, reads),
            (spec.write_bandwidth, writes),
            (spec.shared_bandwidth, reads + writes),
        ):
            if limit is not None:
                needs.append(words / limit)
    cycles = count_events(problem, WIDE, nest, rule=EXACT).cycles
    assert ceil(max(needs) * (1 - 1e-12)) <= cycles <= ceil(max(needs) * (1 + 1e-12))


def test_abbreviation_counts_a_wrap_as_one_iteration() -> None:
    """A one-element buffer under P=4 outside R=5 holds 20 inputs in turn; Timeloop counts 17."""
    problem = Problem((("P", 4), ("R", 5)), layer_tensors())
    problem = Problem(
        tuple((dim, dict(problem.bounds).get(dim, 1)) for dim in DIMS), problem.tensors
    )
    everything = frozenset(TENSORS)
    nest = Nest(
        (
            LevelNest(everything),
            LevelNest(everything, (("P", 4), ("R", 5))),
            LevelNest(everything),
        )
    )
    fills = {
        rule: count_events(problem, WIDE, nest, rule=rule).levels[0].tensors["Inputs"].fills
        for rule in (CountingRule(), PLAIN, EXACT)
    }
    assert fills == {CountingRule(): 17, PLAIN: 20, EXACT: 20}
