# SPDX-License-Identifier: Apache-2.0
"""Padded bounds: never worse, counted in full, and worth it where a bound is prime."""

from __future__ import annotations

import pytest

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.padding import map_padded
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


def test_every_bound_within_the_margin_is_tried() -> None:
    shape = LayerShape(n=23, m=8, c=1)
    best = min(
        map_layer(LayerShape(n=n, m=8, c=1), MACHINE).certificate.value for n in range(23, 27)
    )
    found = map_padded(shape, MACHINE)
    assert found.tried == 5
    assert found.result.certificate.value <= best


def test_an_impossible_layer_stays_impossible() -> None:
    tiny = Machine(
        "tiny", MACHINE.compute, (StorageLevel("pe", 16, 4, entries=2), MACHINE.levels[1])
    )
    with pytest.raises(InfeasibleError, match=r"takes 3 .* words, there are 2"):
        map_padded(LayerShape(n=3, m=2, c=2), tiny)
