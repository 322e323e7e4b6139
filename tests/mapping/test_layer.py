# SPDX-License-Identifier: Apache-2.0
"""Operand widths in capacity and counts, partial sums apart."""

from __future__ import annotations

import random

import pytest
from small_machines import random_shape, three_levels

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.count import PLAIN
from enos_compiler.mapping.layer import count_layer
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.nest import LevelNest, MappingError, Nest
from enos_compiler.mapping.prices import Widths

ALL = frozenset({"Weights", "Inputs", "Outputs"})
MACHINE = Machine(
    "pair",
    ComputeSpec(1, 1, 1.0),
    (StorageLevel("pe", word_bits=32), StorageLevel("memory", word_bits=32)),
)
SHAPE = LayerShape(m=8, c=4)


def outputs(temporal: tuple[tuple[str, int], ...], widths: Widths) -> tuple[int, int]:
    """Updates of outputs in the scratchpad and in memory; `temporal` are memory's loops."""
    inside = {"M": 8, "C": 4}
    for dim, factor in temporal:
        inside[dim] //= factor
    loops = tuple((d, f) for d, f in inside.items() if f > 1)
    nest = Nest((LevelNest(ALL, loops), LevelNest(ALL, temporal)))
    events = count_layer(SHAPE, MACHINE, nest, widths)
    return tuple(level.tensors["Outputs"].updates for level in events.levels)  # type: ignore[return-value]


def test_finished_outputs_are_narrow_at_home_and_sums_are_wide() -> None:
    widths = Widths(8, 8, 8, 32)
    assert outputs((("M", 2),), widths) == (32, 2)
    assert outputs((("C", 2), ("M", 2)), widths) == (32, 16)
    assert outputs((("M", 2),), Widths(8, 8, 8)) == (8, 2)


def test_sums_wider_than_a_kept_word_are_refused_by_name() -> None:
    with pytest.raises(MappingError, match="Outputs have 40 bits, a word has 32"):
        map_layer(SHAPE, MACHINE, widths=Widths(8, 8, 8, 40))


def test_mapper_prices_widths_as_they_are_counted() -> None:
    """Up to one word per level, tensor and kind: counts are rounded up once a run."""
    compared = 0
    for seed in range(30):
        rng = random.Random(seed)
        machine = three_levels(rng, limited=False)
        widths = Widths(4, 4, 2, 8)
        shape = random_shape(rng, 400)
        try:
            found = map_layer(shape, machine, objective="energy", widths=widths)
        except InfeasibleError:
            continue
        events = count_layer(shape, machine, found.nest, widths, rule=PLAIN)
        most = sum(
            (spec.read_pj + spec.fill_pj + spec.update_pj + 2 * spec.address_pj)
            * level.clusters
            * 3
            for spec, level in zip(machine.levels, events.levels, strict=True)
        )
        leak = sum(spec.leak_pj_per_cycle for spec in machine.levels)
        assert found.energy_pj <= events.energy_pj(machine) * (1 + 1e-9)
        assert events.energy_pj(machine) <= found.energy_pj + most + leak
        compared += 1
    assert compared > 15
