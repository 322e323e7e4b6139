# SPDX-License-Identifier: Apache-2.0
"""Random small layers, machines and mapspaces: small enough that every nest can be counted."""

from __future__ import annotations

import random
from dataclasses import replace

from enos_compiler.ir.shape import DIMS, TENSORS, LayerShape
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.space import MapSpace


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
