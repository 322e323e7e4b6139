# SPDX-License-Identifier: Apache-2.0
"""What a mapspace says of itself, and what it refuses."""

from __future__ import annotations

import pytest

from enos_compiler.errors import SpecError
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.space import LevelSpace, MapSpace

MACHINE = Machine(
    "small",
    ComputeSpec(4, 2, 1.0),
    (
        StorageLevel("pe", 4, 2, entries=8, keeps=frozenset({"Weights"})),
        StorageLevel("sums", 4, 2, entries=8, keeps=frozenset({"Outputs"})),
        StorageLevel("memory"),
    ),
)


def test_description() -> None:
    space = MapSpace.of_machine(MACHINE, spatial={"memory": ("CQ", "M")})
    space = space.with_level(0, temporal={"M": (1, 1), "C": (2, None), "P": (1, 4)})
    assert space.describe(MACHINE) == (
        "pe: keeps Weights; loops M = 1, C at least 2, P 1 to 4, rest free\n"
        "sums: keeps Outputs; no loops of its own\n"
        "memory: keeps Weights Inputs Outputs; loops free; X over C Q; Y over M"
    )


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="no tensor Weight\n  try: Weights"):
        LevelSpace(frozenset({"Weight"}))
    with pytest.raises(SpecError, match="no dimension K"):
        LevelSpace(frozenset(), {"K": (1, 1)})
    with pytest.raises(SpecError, match="factors of M from 3 to 2 are an empty range"):
        LevelSpace(frozenset(), {"M": (3, 2)})
    with pytest.raises(SpecError, match="no storage level buffer"):
        MapSpace.of_machine(MACHINE, spatial={"buffer": ("M", "")})
    with pytest.raises(SpecError, match="Inputs may not be stored at sums"):
        MapSpace.of_machine(MACHINE, homes={"Inputs": "sums"})
