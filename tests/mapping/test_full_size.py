# SPDX-License-Identifier: Apache-2.0
"""The optimum of full-size layers on a row-stationary array, against every nest there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nest_brute import Brute

from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.objective import OBJECTIVES
from enos_compiler.mapping.size import count_mappings

pytest.importorskip("numba")
from row_stationary import exhaust, machine, space


def check(shape: LayerShape) -> tuple[int, int]:
    """Compare every objective with the least of all nests; return how many, and how many priced."""
    best = exhaust(shape)
    least = {
        "energy": best.energy,
        "latency": best.cycles,
        "edp": best.edp,
        "accesses": best.accesses,
    }
    for objective in OBJECTIVES:
        found = map_layer(shape, machine(), space=space(), objective=objective)
        assert found.certificate.value == pytest.approx(least[objective], rel=1e-9), objective
        assert found.certificate.lower_bound == pytest.approx(least[objective], rel=1e-9)
    assert best.nests == count_mappings(shape, machine(), space=space())
    return best.nests, best.priced


@pytest.mark.parametrize(
    "shape",
    [
        LayerShape(m=6, c=2, p=2, q=3, r=3),
        LayerShape(m=2, c=4, q=4, s=3, stride=(1, 2)),
        LayerShape(m=4, p=4, r=3, q=2, stride=(2, 1), dilation=(2, 1)),
    ],
    ids=str,
)
def test_the_enumeration_is_that_of_every_nest(shape: LayerShape) -> None:
    """Where every nest can be listed as it is, merging orders changes neither least nor number."""
    best = exhaust(shape)
    least, count = Brute(shape, machine(), space()).best()
    assert count == best.nests
    assert best.energy == pytest.approx(least["energy"], rel=1e-12)
    assert best.cycles == pytest.approx(least["latency"], rel=1e-12)
    assert best.edp == pytest.approx(least["edp"], rel=1e-12)
    assert best.accesses == pytest.approx(least["accesses"], rel=1e-12)


def test_optimum_of_a_whole_linear_layer(say: Callable[[str], None]) -> None:
    nests, _ = check(LayerShape(m=1000, c=512))
    say(f"ResNet-18's last layer: the least of {nests:,} nests")


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        LayerShape(m=512, c=512, p=7, q=7, r=3, s=3),  # ResNet-18
        LayerShape(m=128, c=128, p=28, q=28),  # MobileNet
        LayerShape(m=96, c=3, p=55, q=55, r=11, s=11, stride=(4, 4)),  # AlexNet
    ],
    ids=str,
)
def test_optimum_of_whole_convolutions(shape: LayerShape, say: Callable[[str], None]) -> None:
    nests, priced = check(shape)
    say(f"{shape}: the least of {nests:,} nests, {priced:,} priced")
