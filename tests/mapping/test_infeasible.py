# SPDX-License-Identifier: Apache-2.0
"""Every way in which a layer has no mapping: level, tensor, needed and available are named."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from nest_brute import Brute
from small_machines import random_shape, random_space, three_levels

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.nest import LevelNest, MappingError, Nest
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.space import MapSpace

MACHINE = Machine(
    "chip",
    ComputeSpec(12, 4, 1.0),
    (
        StorageLevel("pe", 12, 4, entries=16, word_bits=16),
        StorageLevel("memory", word_bits=32),
    ),
)
SPACE = MapSpace.of_machine(MACHINE)
CONV = LayerShape(m=8, c=4, p=6, q=6, r=3, s=3)


def level(machine: Machine, index: int, **changes: Any) -> Machine:
    levels = list(machine.levels)
    levels[index] = replace(levels[index], **changes)
    return replace(machine, levels=tuple(levels))


def refused(
    shape: LayerShape, machine: Machine, space: MapSpace, widths: Widths | None = None
) -> MappingError:
    with pytest.raises(MappingError) as caught:
        map_layer(shape, machine, space=space, widths=widths)
    return caught.value


@pytest.mark.parametrize(
    ("machine", "space", "found", "message"),
    [
        pytest.param(
            level(MACHINE, 0, entries=2),
            SPACE,
            ("pe", "Weights", 3, 2),
            "the smallest tile that the constraints allow (one element) takes 3 (Weights 1, "
            "Inputs 1, Outputs 1) words, there are 2",
            id="a layer that fits no level",
        ),
        pytest.param(
            level(MACHINE, 0, tensor_entries={"Weights": 8}),
            SPACE.with_level(1, temporal={"R": (1, 1), "S": (1, 1)}, spatial_x={}, spatial_y={}),
            ("pe", "Weights", 9, 8),
            "the smallest tile that the constraints allow (R3 S3) takes 9 words, there are 8",
            id="a part that is set aside",
        ),
        pytest.param(
            MACHINE,
            SPACE.with_level(0, temporal={"C": (4, 4), "R": (3, 3)}),
            ("pe", "Weights", 25, 16),
            "the smallest tile that the constraints allow (C4 R3) takes 25 (Weights 12, "
            "Inputs 12, Outputs 1) words, there are 16",
            id="fixed loops",
        ),
        pytest.param(
            MACHINE,
            SPACE.with_level(1, spatial_x={"M": (8, 8)}),
            ("memory", None, 8, 4),
            "M is to be spread over at least 8 in X, the fan-out has 4",
            id="a fan-out beyond the mesh",
        ),
        pytest.param(
            MACHINE,
            SPACE.with_level(1, spatial_x={"M": (2, None), "C": (4, 4)}),
            ("memory", None, 8, 4),
            "the fan-out in X must serve at least M 2  C 4 = 8, it has 4",
            id="dimensions beside each other",
        ),
        pytest.param(
            MACHINE,
            SPACE.with_level(1, spatial_y={"P": (3, 3)}, temporal={"Q": (4, 4)}),
            ("memory", None, 4, 6),
            "Q is to have a factor of 4 in its loops, but no such factor divides 6",
            id="a factor that divides nothing",
        ),
        pytest.param(
            MACHINE,
            SPACE.with_level(0, temporal={"C": (1, 1)}).with_level(
                1, temporal={"C": (1, 1)}, spatial_x={"C": (1, 2)}, spatial_y={}
            ),
            ("chip", None, 4, 2),
            "the factors that C may have multiply to 2 at most, its bound is 4",
            id="an empty mapspace",
        ),
    ],
)
def test_the_first_level_that_asks_for_too_much_is_named(
    machine: Machine,
    space: MapSpace,
    found: tuple[str, str | None, int, int],
    message: str,
) -> None:
    error = refused(CONV, machine, space)
    assert (error.level, error.tensor, error.needed, error.available) == found
    assert error.message == message
    assert error.remedy
    assert error.as_dict()["needed"] == found[2]


def test_operands_wider_than_a_word_are_named() -> None:
    error = refused(CONV, MACHINE, SPACE, Widths(8, 8, 8, partial_sums=20))
    assert (error.level, error.tensor, error.needed, error.available) == ("pe", "Outputs", 20, 16)


def test_narrow_operands_need_fewer_words() -> None:
    """Three operands of 8 bits take a 16-bit word each; two codes of one tensor share one."""
    space = SPACE.with_level(0, temporal={"C": (4, 4), "R": (3, 3)})
    assert refused(CONV, MACHINE, space).needed == 25
    assert map_layer(CONV, MACHINE, space=space, widths=Widths(8, 8, 8)).nest


def test_a_nest_without_a_home_says_so() -> None:
    nest = Nest((LevelNest(frozenset({"Inputs"})), LevelNest(frozenset({"Inputs", "Outputs"}))))
    with pytest.raises(MappingError, match="no level keeps Weights"):
        nest.home("Weights")


def test_an_error_is_raised_where_enumeration_finds_nothing() -> None:
    """And names an unmet need wherever one level alone already cannot serve the layer."""
    named = 0
    for seed in range(400):
        rng = random.Random(seed)
        machine = level(three_levels(rng, limited=False), 0, entries=rng.choice((1, 2, 3)))
        shape = random_shape(rng, 24)
        space = random_space(rng, machine, shape)
        tight = space.with_level(0, temporal={rng.choice("MCPQ"): rng.choice(((2, 2), (3, 3)))})
        if next(Brute(shape, machine, tight).nests(), None) is not None:
            assert map_layer(shape, machine, space=tight).certificate.optimal
            continue
        with pytest.raises(InfeasibleError) as caught:
            map_layer(shape, machine, space=tight)
        if isinstance(caught.value, MappingError):
            named += 1
            lacking = caught.value.needed > caught.value.available
            assert lacking or "no such factor divides" in caught.value.message
    assert named > 50
