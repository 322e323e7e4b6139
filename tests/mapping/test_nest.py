# SPDX-License-Identifier: Apache-2.0
"""What a nest may not ask for, and how the refusal reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import TENSORS, LayerShape
from enos_compiler.mapping.count import count_events
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.nest import LevelNest, MappingError, Nest
from enos_compiler.mapping.problem import Problem

ALL = frozenset(TENSORS)
MACHINE = Machine(
    "small",
    ComputeSpec(8, 4, 1.0),
    (
        StorageLevel("pe", instances=8, mesh_x=4, entries=6, word_bits=8),
        StorageLevel("memory", word_bits=16),
    ),
)
SHAPE = LayerShape(m=4, c=2, n=3)
PROBLEM = Problem.from_shape(SHAPE)
NEST = Nest(
    (
        LevelNest(ALL, (("C", 2),)),
        LevelNest(ALL, (("N", 3),), spatial_x=(("M", 4),)),
    )
)


def with_level(level: int, **changes: object) -> Nest:
    levels = list(NEST.levels)
    levels[level] = replace(levels[level], **changes)  # type: ignore[arg-type]
    return Nest(tuple(levels))


def test_a_valid_nest_is_counted() -> None:
    events = count_events(PROBLEM, MACHINE, NEST)
    assert events.macs == SHAPE.macs == 24
    assert events.cycles == events.compute_cycles == 6
    assert events.levels[1].tensors["Outputs"].updates == 12


def test_capacity_equal_to_the_limit_is_accepted_and_one_word_less_is_not() -> None:
    def machine(entries: int, copies: float = 1.0) -> Machine:
        pe = replace(MACHINE.levels[0], entries=entries, multiple_buffering=copies)
        return replace(MACHINE, levels=(pe, MACHINE.levels[1]))

    count_events(PROBLEM, machine(5), NEST)
    count_events(PROBLEM, machine(10, 2.0), NEST)
    for refused in (machine(4), machine(9, 2.0)):
        with pytest.raises(MappingError) as caught:
            count_events(PROBLEM, refused, NEST)
        assert (caught.value.level, caught.value.needed, caught.value.available) == ("pe", 5, 4)
        assert str(caught.value) == (
            "pe: tiles take 5 words (Weights 2, Inputs 2, Outputs 1), the capacity is 4\n"
            "  try: smaller factors at and inside this level, or let a tensor bypass it"
        )


def test_a_partition_limits_its_own_tensor() -> None:
    pe = replace(MACHINE.levels[0], entries=None, tensor_entries={"Inputs": 1})
    with pytest.raises(
        MappingError, match="tile of Inputs takes 2 words, 1 are set aside"
    ) as error:
        count_events(PROBLEM, replace(MACHINE, levels=(pe, MACHINE.levels[1])), NEST)
    assert error.value.as_dict()["tensor"] == "Inputs"


@pytest.mark.parametrize(
    ("nest", "words"),
    [
        (with_level(1, temporal=()), "factors of N multiply to 1, its bound is 3"),
        (with_level(1, spatial_x=(), spatial_y=(("M", 4),)), "ask for 4 in Y, the mesh has 2"),
        (with_level(1, spatial_x=(("M", 4), ("M", 1))), "dimension M appears twice"),
        (with_level(0, temporal=(("K", 2),)), "loop K:2 is over no dimension"),
        (with_level(1, keep=frozenset({"Inputs", "Outputs"})), "Weights rest at 4 instances"),
        (
            Nest(tuple(replace(level, keep=frozenset({"Inputs"})) for level in NEST.levels)),
            "no level keeps Weights",
        ),
        (Nest(NEST.levels[:1]), "a nest of 1 levels on 2 storage levels"),
    ],
)
def test_each_broken_rule_is_named(nest: Nest, words: str) -> None:
    with pytest.raises(MappingError, match=words):
        count_events(PROBLEM, MACHINE, nest)


def test_operands_wider_than_a_word_are_refused() -> None:
    with pytest.raises(MappingError, match="Weights have 9 bits, a word has 8"):
        count_events(PROBLEM, MACHINE, NEST, bits={"Weights": 9, "Inputs": 8, "Outputs": 8})


def test_packing_halves_words_and_never_straddles() -> None:
    bits = {"Weights": 4, "Inputs": 3, "Outputs": 5}
    plain, packed = (count_events(PROBLEM, MACHINE, NEST, bits=b).levels[0] for b in (None, bits))
    for tensor, per_word in (("Weights", 2), ("Inputs", 2), ("Outputs", 1)):
        reads = plain.tensors[tensor].reads
        assert packed.tensors[tensor].reads == -(-reads // per_word)


def test_a_tensor_at_its_home_is_not_counted_further_out() -> None:
    """Inputs that rest in the buffer: nothing crosses to memory, nor fills the buffer's room."""
    buffer = StorageLevel("buffer", entries=14, word_bits=16)
    machine = replace(MACHINE, levels=(MACHINE.levels[0], buffer, MACHINE.levels[1]))

    def nest(outer: frozenset[str]) -> Nest:
        fanout = replace(NEST.levels[1], temporal=())
        return Nest((NEST.levels[0], fanout, LevelNest(outer, (("N", 3),))))

    rest = count_events(PROBLEM, machine, nest(ALL - {"Inputs"}))
    moved = count_events(PROBLEM, machine, nest(ALL))
    assert rest.levels[2].tensors["Inputs"].reads == 0
    assert moved.levels[2].tensors["Inputs"].reads == 6
    assert rest.levels[1].tensors["Inputs"].reads == moved.levels[1].tensors["Inputs"].reads
    assert rest.levels[1].tensors["Inputs"].fills == 0
    assert rest.levels[0] == moved.levels[0]


def test_impossible_machines_are_refused() -> None:
    with pytest.raises(SpecError, match=r"storage level pe: entries|instances = 0 is below 1"):
        StorageLevel("pe", instances=0)
    with pytest.raises(SpecError, match="mesh_x = 3 does not divide instances = 8"):
        StorageLevel("pe", instances=8, mesh_x=3)
    with pytest.raises(SpecError, match="memory is 3x1 and does not divide pe"):
        Machine("odd", MACHINE.compute, (MACHINE.levels[0], StorageLevel("memory", 3, 3)))
    with pytest.raises(SpecError, match=r"read_bandwidth = 0\.0 is not above 0"):
        StorageLevel("pe", read_bandwidth=0.0)


def test_components_sum_to_the_energy() -> None:
    machine = replace(
        MACHINE,
        levels=(
            replace(MACHINE.levels[0], read_pj=0.5, fill_pj=0.25, update_pj=0.75, address_pj=0.1),
            replace(MACHINE.levels[1], read_pj=100.0, update_pj=120.0, leak_pj_per_cycle=2.0),
        ),
    )
    events = count_events(PROBLEM, machine, NEST)
    assert events.actions()["mac"] == 24
    assert events.actions()["memory.leak"] == events.busy_cycles
    assert events.energy_pj(machine) == pytest.approx(sum(events.components_pj(machine).values()))
    assert events.components_pj(machine)["memory.leak"] == pytest.approx(12.0)
