# SPDX-License-Identifier: Apache-2.0
"""The number of mappings against counting them."""

from __future__ import annotations

import random

from nest_brute import Brute
from small_machines import four_levels, random_shape, random_space, three_levels

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.size import count_mappings
from enos_compiler.mapping.space import MapSpace


def counted(shape: LayerShape, machine: Machine, space: MapSpace, widths: Widths | None) -> int:
    try:
        return count_mappings(shape, machine, space=space, widths=widths)
    except InfeasibleError:
        return 0


def test_number_of_mappings_equals_enumeration() -> None:
    total = 0
    for seed in range(40):
        rng = random.Random(seed)
        machine = three_levels(rng, limited=False) if seed % 2 else four_levels(rng)
        shape = random_shape(rng, 36)
        space = random_space(rng, machine, shape)
        widths = Widths(4, 4, 2, 8) if seed % 3 == 1 and machine.name == "three" else None
        number = sum(1 for _ in Brute(shape, machine, space, widths).nests())
        assert counted(shape, machine, space, widths) == number, seed
        total += number
    assert total > 1000


def test_large_numbers_are_exact() -> None:
    """One level and no limits: factors are forced, all orders of seven loops count."""
    machine = four_levels(random.Random(0))
    outer = Machine("one", machine.compute, machine.levels[-1:])
    space = MapSpace.of_machine(outer, spatial={"memory": ("", "")})
    shape = LayerShape(n=2, m=3, c=5, p=7, q=11, r=13, s=17)
    assert count_mappings(shape, outer, space=space) == 5040
