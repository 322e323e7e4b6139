# SPDX-License-Identifier: Apache-2.0
"""Placement and packing against counts made another way."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar.operators import CrossbarOperator
from enos_compiler.crossbar.packing import TileRequest, halvings, held_arrays, pack
from enos_compiler.crossbar.placement import place_layer, turns
from enos_compiler.crossbar.spec import CellSpec, CrossbarSpec, Encoding
from enos_compiler.errors import InfeasibleError, RefusalError, SpecError
from enos_compiler.ir.shape import LayerShape

FAST = settings(deadline=None, max_examples=100)


@FAST
@given(
    taps=st.integers(1, 300),
    outputs=st.integers(1, 200),
    rows=st.integers(8, 128),
    columns=st.integers(9, 128),
    cell_bits=st.integers(1, 4),
    weight_bits=st.integers(2, 8),
    encoding=st.sampled_from(["differential", "offset", "unit_column"]),
    interleaved=st.booleans(),
)
def test_dense_layers_follow_the_formula(
    taps: int,
    outputs: int,
    rows: int,
    columns: int,
    cell_bits: int,
    weight_bits: int,
    encoding: str,
    interleaved: bool,
) -> None:
    spec = CrossbarSpec(
        rows=rows,
        columns=columns,
        cell=CellSpec(bits=cell_bits),
        encoding=encoding,  # type: ignore[arg-type]
        interleaved=interleaved,
    )
    place = place_layer(spec, LayerShape(c=taps, m=outputs), "mac", weight_bits)
    pair = encoding == "differential"
    slices = ceil((weight_bits - pair) / cell_bits)
    usable = columns - (slices if encoding == "unit_column" else 0)
    expected = ceil(taps / rows) * ceil(outputs * slices / usable)
    assert place.arrays == expected * (2 if pair and not interleaved else 1)
    cells = taps * outputs * slices * (2 if pair else 1)
    assert sum(m.weight_cells for m in place.matrices) == cells
    assert place.utilisation == pytest.approx(
        cells / (expected * rows * columns * (2 if pair else 1))
    )
    assert place.matrices[0].diagonal_waste == 0


def test_depthwise_layers_lie_on_the_diagonal_and_say_what_they_waste() -> None:
    """32 groups of 9 taps, 7-bit magnitudes in 2-bit cells: 4 columns a group, 7 an array."""
    spec = CrossbarSpec(rows=64, columns=64, cell=CellSpec(bits=2))
    shape = LayerShape(g=32, r=3, s=3, p=8, q=8)
    matrix = place_layer(spec, shape, "mac", 8).matrices[0]
    assert len(matrix.tiles) == 5
    assert matrix.arrays == 10
    assert [t.groups for t in matrix.tiles] == [7, 7, 7, 7, 4]
    assert matrix.weight_cells == 2 * 32 * 9 * 4
    assert matrix.diagonal_waste == 2 * 9 * 4 * (4 * 7 * 6 + 4 * 3)
    assert matrix.reads == 1
    one = place_layer(replace(spec, encoding="offset"), shape, "mac", 8).matrices[0]
    assert one.reads == 7
    few = place_layer(replace(spec, rows_at_once=20), shape, "mac", 8).matrices[0]
    assert few.reads == 4


def test_multiplication_free_layers_hold_two_matrices() -> None:
    spec = CrossbarSpec(rows=64, columns=64, cell=CellSpec(bits=1))
    place = place_layer(spec, LayerShape(c=64, m=8), "mf", 8)
    assert [m.form.slices for m in place.matrices] == [7, 1]
    assert [m.arrays for m in place.matrices] == [1, 2]


@FAST
@given(
    taps=st.integers(1, 60),
    outputs=st.integers(1, 20),
    groups=st.integers(1, 3),
    arrays=st.integers(2, 9),
    pair=st.booleans(),
    operator=st.sampled_from(["mac", "mf"]),
)
def test_turns_are_those_of_tiles_placed_one_by_one(
    taps: int, outputs: int, groups: int, arrays: int, pair: bool, operator: CrossbarOperator
) -> None:
    """A sum that is begun in one turn and goes on in the next is left over once."""
    spec = CrossbarSpec(rows=16, columns=16, encoding="differential" if pair else "offset")
    place = place_layer(spec, LayerShape(g=groups, c=taps, m=outputs), operator, 3)
    found = turns(place, arrays)
    slot = left_over = 0
    slots = arrays // (2 if pair else 1)
    for matrix in place.matrices:
        slices = matrix.form.slices
        if taps <= 16 and outputs * slices <= 16:
            slot += len(matrix.tiles)
            continue
        for _ in range(groups):
            for first in range(0, outputs * slices, 16):
                sums = ceil(min(16, outputs * slices - first) / slices)
                before = None
                for _ in range(0, taps, 16):
                    turn = slot // slots
                    left_over += sums if before is not None and before != turn else 0
                    before, slot = turn, slot + 1
    assert found.count == ceil(slot / slots)
    assert found.unfinished == left_over


def test_what_cannot_lie_in_a_crossbar_is_refused() -> None:
    spec = CrossbarSpec(rows=64, columns=4, encoding="unit_column")
    with pytest.raises(RefusalError, match="4 columns leave none beside a unit column of 8"):
        place_layer(spec, LayerShape(c=4), "mac", 8)
    with pytest.raises(SpecError, match="signed weights of 1 bits have no magnitude"):
        place_layer(spec, LayerShape(c=4), "mac", 1)
    pairs = place_layer(CrossbarSpec(rows=64, columns=64), LayerShape(c=4), "mac", 8)
    with pytest.raises(RefusalError, match="1 array is kept for reloaded weights, a pair of"):
        turns(pairs, 1)
    with pytest.raises(RefusalError, match="both operands are activations"):
        place_layer(spec, LayerShape(c=4, activation_product=True), "mac", 8)


@st.composite
def requests(draw: st.DrawFn, rows: int = 32, columns: int = 48) -> list[TileRequest]:
    return [
        TileRequest(
            f"layer{draw(st.integers(0, 5))}",
            draw(st.integers(1, rows)),
            draw(st.integers(1, columns)),
        )
        for _ in range(draw(st.integers(1, 25)))
    ]


@FAST
@given(tiles=requests())
def test_packings_overlap_nowhere_and_part_the_tiles_of_a_layer(tiles: list[TileRequest]) -> None:
    packing = pack(tiles, 32, 48, len(tiles))
    assert [s.request for s in packing.sites] == tiles
    cells: dict[int, np.ndarray] = {}
    layers: dict[int, list[str]] = {}
    for site in packing.sites:
        array = cells.setdefault(site.array, np.zeros((32, 48), int))
        part = array[
            site.row : site.row + site.request.rows,
            site.column : site.column + site.request.columns,
        ]
        assert part.shape == (site.request.rows, site.request.columns)
        part += 1
        layers.setdefault(site.array, []).append(site.request.layer)
    assert all(a.max() == 1 for a in cells.values())
    assert all(len(names) == len(set(names)) for names in layers.values())
    assert packing.arrays == len(cells)
    filled = sum(int(a.sum()) for a in cells.values())
    assert packing.utilisation == pytest.approx(filled / (len(cells) * 32 * 48))


@FAST
@given(
    rows=st.integers(2, 40),
    columns=st.integers(8, 40),
    layers=st.lists(
        st.tuples(st.integers(1, 90), st.integers(1, 30), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=6,
    ),
)
def test_what_layers_hold_together_is_room_enough(
    rows: int, columns: int, layers: list[tuple[int, int, int, bool]]
) -> None:
    """Their tiles fit as many arrays as the parts that they hold sum to, rounded up."""
    tiles: list[TileRequest] = []
    held = 0.0
    for index, (taps, outputs, copies, pair) in enumerate(layers):
        encoding: Encoding = "differential" if pair else "offset"
        spec = CrossbarSpec(rows=rows, columns=columns, encoding=encoding)
        place = place_layer(spec, LayerShape(c=taps, m=outputs), "mf" if pair else "mac", 4)
        part = held_arrays(place, copies)
        assert place.arrays * copies - 1 < part <= place.arrays * copies
        held += part
        tiles += [
            TileRequest(f"layer{index}", tile.rows, tile.columns)
            for matrix in place.matrices
            for tile in matrix.tiles
            for _ in range(matrix.tile_planes * copies)
        ]
    assert pack(tiles, rows, columns, ceil(held)).arrays <= ceil(held)


def test_parts_are_the_halves_that_hold_a_tile() -> None:
    array = (128, 64)
    halved = {(128, 64): 0, (1, 33): 0, (128, 32): 1, (65, 1): 1, (64, 32): 2, (64, 16): 3}
    assert {tile: halvings(tile, array) for tile in halved} == halved
    assert halvings((1, 1), (1000, 1000)) == 10
    spec = CrossbarSpec(rows=128, columns=64, cell=CellSpec(bits=1), encoding="offset")
    one = place_layer(spec, LayerShape(c=64, m=4), "mac", 8)  # 64 rows by 32 columns
    assert (held_arrays(one), held_arrays(one, copies=3)) == (0.25, 2.25)
    four = [TileRequest(name, 64, 32) for name in "abcd"]
    packing = pack(four, 128, 64, 1)
    assert sorted((s.row, s.column) for s in packing.sites) == [(0, 0), (0, 32), (64, 0), (64, 32)]
    assert packing.utilisation == 1


def test_a_budget_that_is_too_small_is_refused_with_the_numbers() -> None:
    tiles = [TileRequest("conv1", 32, 32)] * 4
    with pytest.raises(InfeasibleError) as caught:
        pack(tiles, 32, 32, 3)
    assert str(caught.value) == (
        "conv1: a 32x32 tile finds no array: the 3 arrays of 32x32 have no part of its size left; "
        "all tiles need 4096 cells\n"
        "  try: more or larger arrays, or fewer layers that stay in them"
    )
    with pytest.raises(InfeasibleError, match="arrays of 16x32 are too small for it"):
        pack(tiles, 16, 32, 9)
