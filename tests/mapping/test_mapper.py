# SPDX-License-Identifier: Apache-2.0
"""The mapper's optimum against every nest, counted one by one."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from nest_brute import Brute
from small_machines import four_levels, random_shape, random_space, three_levels

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.count import PLAIN, count_events
from enos_compiler.mapping.layer import count_layer
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.objective import OBJECTIVES
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.problem import Problem
from enos_compiler.mapping.space import MapSpace


def check(seed: int, machine: Machine, rng: random.Random, widths: Widths | None, most: int) -> int:
    """Compare every objective on one random layer; return the number of nests."""
    shape = random_shape(rng, most)
    space = (
        random_space(rng, machine, shape) if rng.random() < 0.8 else MapSpace.of_machine(machine)
    )
    brute = Brute(shape, machine, space, widths)
    best, count = brute.best()
    for objective in OBJECTIVES:
        if not count:
            with pytest.raises(InfeasibleError):
                map_layer(shape, machine, objective=objective, space=space, widths=widths)
            continue
        found = map_layer(shape, machine, objective=objective, space=space, widths=widths)
        what = (seed, objective, str(shape))
        assert found.certificate.value == pytest.approx(best[objective], rel=1e-9), what
        assert found.certificate.optimal, what
        priced = brute.price(found.nest)
        assert priced.energy == pytest.approx(found.energy_pj, rel=1e-9), what
        assert priced.cycles == pytest.approx(found.cycles, rel=1e-9), what
    return count


def run(seeds: Iterable[int], most: int) -> int:
    total = 0
    for seed in seeds:
        rng = random.Random(seed)
        kind = rng.choice(("three", "limited", "four", "widths"))
        machine = four_levels(rng) if kind == "four" else three_levels(rng, kind == "limited")
        widths = Widths(4, 4, 2, 8) if kind == "widths" else None
        total += check(seed, machine, rng, widths, most)
    return total


def test_optimum_is_the_minimum_over_every_nest() -> None:
    assert run([*range(50), 79, 120, 184, 192], 60) > 5000


def test_sums_stay_inside_where_only_finished_outputs_may_leave() -> None:
    """The optimum over the nests in which no partial sum reaches the outputs' home, or none."""
    bound = 0
    for seed in range(60):
        rng = random.Random(seed)
        machine = four_levels(rng) if seed % 3 == 0 else three_levels(rng, seed % 3 == 1)
        cheap = replace(machine.levels[-1], read_pj=0.01, update_pj=0.01)  # tempts sums out
        machine = replace(machine, levels=(*machine.levels[:-1], cheap))
        shape, widths = random_shape(rng, 40), Widths(4, 4, 2, 8) if seed % 2 else None
        free = MapSpace.of_machine(machine)
        space = replace(free, finished_outputs=True)
        best, _ = Brute(shape, machine, space, widths).best()
        any_nest, _ = Brute(shape, machine, free, widths).best()
        for objective in OBJECTIVES:
            if best[objective] == float("inf"):
                with pytest.raises(InfeasibleError):
                    map_layer(shape, machine, objective=objective, space=space, widths=widths)
                continue
            found = map_layer(shape, machine, objective=objective, space=space, widths=widths)
            assert found.certificate.value == pytest.approx(best[objective], rel=1e-9), seed
            assert found.certificate.optimal, seed
            events = count_layer(shape, machine, found.nest, widths, rule=PLAIN)
            assert events.levels[space.home("Outputs")].tensors["Outputs"].reads == 0, seed
            bound += best[objective] > any_nest[objective]
    assert bound > 3, "the rule must have changed some optima"


@pytest.mark.slow
def test_optimum_is_the_minimum_over_every_nest_of_many_layers() -> None:
    assert run(range(1000, 1240), 60) > 50_000


def scratchpads() -> Machine:
    """One scratchpad for each tensor in 12 x 14 elements, a buffer without weights, a memory."""
    cost = {"read_pj": 1.0, "fill_pj": 1.25, "update_pj": 1.5}
    far = {"read_pj": 200.0, "fill_pj": 210.0, "update_pj": 220.0}
    sizes = {"Outputs": 16, "Weights": 192, "Inputs": 12}
    pads = [
        StorageLevel(name.lower(), 168, 14, entries=n, keeps=frozenset({name}), **cost)  # type: ignore[arg-type]
        for name, n in sizes.items()
    ]
    buffer = StorageLevel(
        "buffer", entries=55296, keeps=frozenset({"Inputs", "Outputs"}), read_pj=6.0, fill_pj=7.0
    )
    memory = StorageLevel("memory", **far)  # type: ignore[arg-type]
    return Machine("scratchpads", ComputeSpec(168, 14, 1.0), (*pads, buffer, memory))


@pytest.mark.parametrize(
    "shape",
    [
        LayerShape(m=64, c=3, p=112, q=112, r=7, s=7, stride=(2, 2)),
        LayerShape(m=128, c=64, p=28, q=28, r=3, s=3, stride=(2, 2)),
        LayerShape(g=96, p=28, q=28, r=3, s=3),
        LayerShape(m=256, c=64, p=14, q=14),
        LayerShape(m=1000, c=512),
        LayerShape(g=12, n=196, m=196, c=64),
        LayerShape(g=4, m=24, c=24, p=14, q=14, r=3, s=3, dilation=(2, 2)),
    ],
    ids=str,
)
def test_nest_costs_what_the_mapper_said(shape: LayerShape) -> None:
    """The optimum, rebuilt as loops and counted event by event, has its price."""
    machine = scratchpads()
    found = map_layer(shape, machine, objective="edp")
    events = count_events(Problem.from_shape(shape), machine, found.nest, rule=PLAIN)
    assert events.energy_pj(machine) == pytest.approx(found.energy_pj, rel=1e-9)
    assert events.cycles == found.cycles
    assert found.certificate.optimal


def test_more_room_and_more_freedom_are_never_worse() -> None:
    shape = LayerShape(m=24, c=12, p=14, q=14, r=3, s=3)
    machine = scratchpads()
    least = map_layer(shape, machine, objective="energy").certificate.value
    smaller = replace(machine.levels[1], entries=24)
    small = replace(machine, levels=(machine.levels[0], smaller, *machine.levels[2:]))
    assert map_layer(shape, small, objective="energy").certificate.value >= least
    wider = MapSpace.of_machine(machine, joint=False)
    assert map_layer(shape, machine, objective="energy", space=wider).certificate.value <= least
    closed = MapSpace.of_machine(machine, spatial={"buffer": ("QM", "SC")})
    assert map_layer(shape, machine, objective="energy", space=closed).certificate.value >= least


def test_brute_force_prices_as_events_are_counted() -> None:
    """The enumeration's own prices are those of the plain rule."""
    for seed in range(60):
        rng = random.Random(seed)
        machine = three_levels(rng, limited=True) if seed % 2 else four_levels(rng)
        shape = random_shape(rng, 36)
        space = random_space(rng, machine, shape)
        brute = Brute(shape, machine, space)
        for nest in list(brute.nests())[:: max(1, rng.randint(5, 50))][:8]:
            events = count_events(Problem.from_shape(shape), machine, nest, rule=PLAIN)
            priced = brute.price(nest)
            leak = sum(v for a, v in events.components_pj(machine).items() if a.endswith(".leak"))
            exact = sum(
                spec.leak_pj_per_cycle * nest.instances(s) * priced.cycles
                for s, spec in enumerate(machine.levels)
            )
            assert events.energy_pj(machine) - leak == pytest.approx(priced.energy - exact)
            assert events.cycles == pytest.approx(priced.cycles, abs=1)
