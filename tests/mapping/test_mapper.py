# SPDX-License-Identifier: Apache-2.0
"""The mapper's optimum against every nest, counted one by one."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from nest_brute import Brute

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import DIMS, TENSORS, LayerShape
from enos_compiler.mapping.count import PLAIN, count_events
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import Objective, map_layer
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.problem import Problem
from enos_compiler.mapping.space import MapSpace

OBJECTIVES: tuple[Objective, ...] = ("energy", "latency", "edp", "accesses")


def random_shape(rng: random.Random, most: int) -> LayerShape:
    while True:
        bounds = dict.fromkeys("gnmcpqrs", 1)
        for name in rng.sample("mcpqrs", rng.randint(2, 4)) + rng.sample("gn", rng.choice((0, 1))):
            bounds[name] = rng.choice((2, 2, 3, 4) if name in "mcpq" else (2, 3))
        shape = LayerShape(
            **bounds,  # type: ignore[arg-type]
            stride=(rng.choice((1, 1, 2, 3)), rng.choice((1, 2))),
            dilation=(rng.choice((1, 1, 2)), rng.choice((1, 2))),
        )
        if shape.macs <= most:
            return shape


def random_level(rng: random.Random, name: str, **more: object) -> StorageLevel:
    spread = rng.choice((1.0, 3.0, 10.0))
    return StorageLevel(
        name,
        read_pj=rng.uniform(0.5, spread),
        fill_pj=rng.uniform(0.5, spread),
        update_pj=rng.uniform(0.5, spread),
        address_pj=rng.choice((0.0, 0.2)),
        **more,  # type: ignore[arg-type]
    )


def three_levels(rng: random.Random, limited: bool) -> Machine:
    """Processing elements in a mesh, a buffer, a memory."""
    x, y = rng.choice(((2, 2), (4, 1), (3, 2), (2, 3)))

    def limit(low: float) -> float | None:
        return rng.uniform(low, 2.0) if limited and rng.random() < 0.7 else None

    pe = random_level(
        rng, "pe", instances=x * y, mesh_x=x, entries=rng.choice((3, 4, 6, 9)), word_bits=8
    )
    if rng.random() < 0.4:
        room: dict[str, int] = {
            t: rng.choice((1, 2, 4)) for t in rng.sample(TENSORS, rng.randint(1, 3))
        }
        pe = replace(pe, tensor_entries=room)
    keeps = [rng.sample(TENSORS, rng.randint(1, 3)) for _ in range(2)]
    pe = replace(
        pe, keeps=frozenset(keeps[0]), cluster_size=rng.choice((1, 1, 2)) if x % 2 == 0 else 1
    )
    buffer = random_level(
        rng,
        "buffer",
        entries=rng.choice((8, 16, 40)),
        keeps=frozenset(keeps[1]),
        read_bandwidth=limit(0.5),
        write_bandwidth=limit(0.5),
        leak_pj_per_cycle=rng.choice((0.0, 2.0)),
    )
    memory = random_level(
        rng, "memory", shared_bandwidth=limit(0.1), read_bandwidth=limit(0.1), word_bits=32
    )
    memory = replace(memory, read_pj=memory.read_pj * 20, update_pj=memory.update_pj * 20)
    lanes = rng.choice((1, 1, 2))
    compute = ComputeSpec(x * y * lanes**2, x * lanes, 0.3)
    return Machine("three", compute, (pe, buffer, memory))


def four_levels(rng: random.Random) -> Machine:
    """Lanes with registers inside banks inside a buffer: two fan-outs."""
    levels = (
        random_level(rng, "register", instances=4, mesh_x=2, entries=rng.choice((2, 3, 4))),
        random_level(rng, "bank", instances=2, mesh_x=2, entries=rng.choice((4, 8))),
        random_level(rng, "buffer", entries=rng.choice((12, 24))),
        random_level(rng, "memory"),
    )
    kept = [
        replace(level, keeps=frozenset(rng.sample(TENSORS, rng.randint(1, 3))))
        for level in levels[:3]
    ]
    return Machine("four", ComputeSpec(4, 2, 0.3), (*kept, levels[3]))


def random_space(rng: random.Random, machine: Machine, shape: LayerShape) -> MapSpace:
    """The machine's space with some dimensions closed or limited."""
    wide = [dim for dim in DIMS if shape.bounds[dim] > 1]
    spatial = {
        level.name: ("".join(rng.sample(DIMS, 6)), "".join(rng.sample(DIMS, 6)))
        for level in machine.levels
    }
    buffer = machine.levels[machine.index("buffer")]
    homes = {str(t): "buffer" for t in TENSORS if buffer.may_keep(t) and rng.random() < 0.2}
    joint = rng.random() < 0.5
    space = MapSpace.of_machine(machine, joint=joint, spatial=spatial, homes=homes)
    for s, level in enumerate(space.levels):
        ranges = dict(level.temporal)
        dim = rng.choice(wide)
        if rng.random() < 0.3 and dim not in ranges:
            ranges[dim] = rng.choice(((1, 1), (1, 2), (2, None)))
        space = space.with_level(s, temporal=ranges)
    return space


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
