# SPDX-License-Identifier: Apache-2.0
"""Placement, packing and replication against counts made another way."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar.packing import (
    ArrayPool,
    ReplicaDemand,
    TileRequest,
    pack,
    pack_rounds,
    replicate,
    tile_requests,
)
from enos_compiler.crossbar.placement import place_layer
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec
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


def test_what_cannot_lie_in_a_crossbar_is_refused() -> None:
    spec = CrossbarSpec(rows=64, columns=4, encoding="unit_column")
    with pytest.raises(RefusalError, match="4 columns leave none beside a unit column of 8"):
        place_layer(spec, LayerShape(c=4), "mac", 8)
    with pytest.raises(SpecError, match="signed weights of 1 bits have no magnitude"):
        place_layer(spec, LayerShape(c=4), "mac", 1)
    with pytest.raises(RefusalError, match="both operands are activations"):
        place_layer(spec, LayerShape(c=4, activation_product=True), "mac", 8)


@st.composite
def requests(draw: st.DrawFn) -> list[TileRequest]:
    return [
        TileRequest(f"layer{i}", draw(st.integers(1, 32)), draw(st.integers(1, 32)))
        for i in range(draw(st.integers(1, 25)))
    ]


@FAST
@given(tiles=requests(), share=st.booleans())
def test_packings_overlap_nowhere(tiles: list[TileRequest], share: bool) -> None:
    pools = [ArrayPool("small", 16, 16, 6), ArrayPool("large", 32, 48, 40)]
    packing = pack(tiles, pools, share=share)
    assert [s.request for s in packing.sites] == tiles
    size = {p.name: (p.rows, p.columns) for p in pools}
    cells: dict[tuple[str, int], np.ndarray] = {}
    for site in packing.sites:
        rows, columns = size[site.pool]
        array = cells.setdefault((site.pool, site.array), np.zeros((rows, columns), int))
        part = array[
            site.row : site.row + site.request.rows,
            site.column : site.column + site.request.columns,
        ]
        assert part.shape == (site.request.rows, site.request.columns)
        part += 1
        assert share or array.max() == array[site.row, site.column]
    assert all(a.max() == 1 for a in cells.values())
    assert sum(packing.arrays_used.values()) == len(cells)
    for pool in pools:
        assert packing.arrays_used[pool.name] <= pool.count


@FAST
@given(tiles=requests())
def test_rounds_hold_every_tile_once_in_order(tiles: list[TileRequest]) -> None:
    pools = [ArrayPool("only", 32, 32, 2)]
    rounds = pack_rounds(tiles, pools)
    assert [s.request for r in rounds for s in r.sites] == tiles
    assert all(r.arrays_used["only"] <= 2 for r in rounds)


def test_a_budget_that_is_too_small_says_by_how_much() -> None:
    spec = CrossbarSpec(rows=32, columns=32, cell=CellSpec(bits=1), adc=AdcSpec(bits=6))
    place = place_layer(spec, LayerShape(c=64, m=8), "mac", 5)
    tiles = tile_requests("conv1", place)
    assert len(tiles) == place.arrays == 4
    with pytest.raises(InfeasibleError, match=r"all tiles need 4096 cells, the budget has 3072"):
        pack(tiles, [ArrayPool("a", 32, 32, 3)])
    assert len(pack_rounds(tiles, [ArrayPool("a", 32, 32, 3)])) == 2
    with pytest.raises(InfeasibleError, match="finds no array"):
        pack_rounds(tiles, [ArrayPool("a", 16, 32, 3)])


@settings(deadline=None, max_examples=40)
@given(
    layers=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=3
    ),
    arrays=st.integers(1, 14),
)
def test_the_bottleneck_of_a_pipeline_is_least(
    layers: list[tuple[int, int, int]], arrays: int
) -> None:
    demands = [ReplicaDemand(f"l{i}", *v) for i, v in enumerate(layers)]
    options = [
        copies
        for copies in itertools.product(*(range(1, 7) for _ in demands))
        if sum(c * d.arrays for c, d in zip(copies, demands, strict=True)) <= arrays
    ]
    if not options:
        with pytest.raises(InfeasibleError, match="one copy of every layer needs"):
            replicate(demands, arrays, objective="max")
        return
    best = min(max(d.cycles(c) for c, d in zip(copies, demands, strict=True)) for copies in options)
    ours = replicate(demands, arrays, objective="max")
    assert max(d.cycles(ours[d.layer]) for d in demands) == best
    assert sum(d.arrays * ours[d.layer] for d in demands) <= arrays
    summed = replicate(demands, arrays)
    assert sum(d.arrays * summed[d.layer] for d in demands) <= arrays
    one = sum(d.cycles(1) for d in demands)
    assert sum(d.cycles(summed[d.layer]) for d in demands) <= one
