# SPDX-License-Identifier: Apache-2.0
"""Padded bounds: never worse, counted in full, and worth it where a bound is prime."""

from __future__ import annotations

import pytest

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.padding import listed_bounds, map_padded
from enos_compiler.mapping.space import MapSpace

MACHINE = Machine(
    "small",
    ComputeSpec(16, 4, 1.0),
    (
        StorageLevel("pe", 16, 4, entries=12, read_pj=1.0, fill_pj=1.0, update_pj=1.0),
        StorageLevel("memory", read_pj=50.0, update_pj=50.0),
    ),
)


def test_a_prime_bound_is_padded_where_it_pays() -> None:
    shape = LayerShape(n=23, m=8, c=8)
    rows = MapSpace.of_machine(MACHINE, spatial={"memory": ("N", "N")})
    exact = map_layer(shape, MACHINE, space=rows)
    padded = map_padded(shape, MACHINE, space=rows)
    assert padded.padded
    assert padded.result.shape.n == 24
    assert padded.result.certificate.value < 0.8 * exact.certificate.value
    assert padded.result.shape.macs > shape.macs


def test_padding_is_never_worse_and_a_good_bound_stays() -> None:
    for shape in (LayerShape(n=16, m=8, c=8), LayerShape(m=7, c=4, p=5, q=5)):
        exact = map_layer(shape, MACHINE)
        padded = map_padded(shape, MACHINE)
        assert padded.result.certificate.value <= exact.certificate.value
    assert not map_padded(LayerShape(n=16, m=8, c=8), MACHINE).padded


def test_listed_bounds_serve_factors_that_the_bound_does_not_have() -> None:
    """Multiples of each wider spatial factor and of small blocks, none beyond the margin."""
    space = MapSpace.of_machine(MACHINE, spatial={"memory": ("N", "M")})
    # 23 is prime: 24 serves 2, 3, 4 and 8; 25 nothing; 26 twice 13, past which the margin ends
    assert listed_bounds(23, "N", MACHINE, space, 0.15) == [24]
    assert listed_bounds(23, "C", MACHINE, space, 0.15) == [24]
    assert listed_bounds(64, "N", MACHINE, space, 0.5) == []
    assert listed_bounds(6, "M", MACHINE, space, 1.0) == [8, 12]
    for bound in range(1, 200):
        for padded in listed_bounds(bound, "N", MACHINE, space, 0.2):
            assert bound < padded <= 1.2 * bound
            served = [f for f in (*range(2, 5), 8, 16) if padded % f == 0 and bound % f]
            assert served


def test_the_best_listed_bound_is_found() -> None:
    """One padded dimension: the least over the list, each bound mapped on its own."""
    space = MapSpace.of_machine(MACHINE, spatial={"memory": ("N", "N")})
    for n in (5, 7, 11, 13, 23, 29, 37):
        bounds = [n, *listed_bounds(n, "N", MACHINE, space, 0.3)]
        shapes = [LayerShape(n=b, m=8, c=4) for b in bounds]
        values = [map_layer(s, MACHINE, space=space).certificate.value for s in shapes]
        found = map_padded(LayerShape(n=n, m=8, c=4), MACHINE, space=space, margin=0.3)
        assert found.result.certificate.value == min(values)
        assert found.tried >= len(bounds)


def test_busy_elements_are_left_busy() -> None:
    """16 x 8 x 8 fills all elements in every cycle: no other bound is tried, unless for energy."""
    shape = LayerShape(n=16, m=8, c=9)
    assert map_padded(shape, MACHINE, objective="latency").tried == 1
    assert map_padded(shape, MACHINE, objective="energy").tried > 1


def test_an_impossible_layer_stays_impossible() -> None:
    tiny = Machine(
        "tiny", MACHINE.compute, (StorageLevel("pe", 16, 4, entries=2), MACHINE.levels[1])
    )
    with pytest.raises(InfeasibleError, match=r"takes 3 .* words, there are 2"):
        map_padded(LayerShape(n=3, m=2, c=2), tiny)
