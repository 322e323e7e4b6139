# SPDX-License-Identifier: Apache-2.0
"""The placement of a layer on crossbars as plain data: what `CoreCost.detail` holds.

rows, columns      size of one array, in lines
adc_bits           resolution of a conversion
digit_bits, cell_bits, encoding
copies             replicas of the weights that share the output positions
resident           whether the weights stay; else they are written in every inference
rounds             turns in which the arrays are filled and read, 1 where all are there at once
arrays             physical arrays that one copy of the weights asks for
matrices           one per sum that is digitised apart:
    accumulator    `sum`, or `A` (signs of inputs) and `B` (inputs) of mf and ef
    form           signed, unsigned or binary weights
    slices, planes columns a weight takes, and cells of each (2 for a pair)
    arrays         physical arrays
    reads          accesses one after another per input digit
    digits         input digits, over all reads of the operator
    conversions    column values converted per output position and digit
    tiles          [{rows, columns, groups, unit_columns, count}]: rectangles of lines,
                   `count` equal ones; `planes` arrays each where a pair lies in two arrays
weight_cells       cells that hold weights
diagonal_waste     cells inside the rectangles that groups cannot share
cells              cells of all arrays
utilisation        weight_cells / cells
work               what each step loads, computes and stores, see `cores.steps`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from enos_compiler.crossbar.blocks import digit_widths
from enos_compiler.crossbar.operators import ReadKind, stored_forms
from enos_compiler.crossbar.packing import TileRequest
from enos_compiler.crossbar.placement import LayerPlacement, MatrixPlacement


def placement_data(
    placement: LayerPlacement,
    kinds: Iterable[ReadKind],
    *,
    copies: int,
    rounds: int,
    resident: bool,
) -> dict[str, Any]:
    """Return a layer's placement in the form that the module describes."""
    spec, reads = placement.spec, tuple(kinds)
    forms = stored_forms(placement.operator, placement.weight_bits)
    return {
        "rows": spec.rows,
        "columns": spec.columns,
        "adc_bits": spec.adc.bits,
        "digit_bits": spec.dac.digit_bits,
        "cell_bits": spec.cell.bits,
        "encoding": spec.encoding,
        "copies": copies,
        "resident": resident,
        "rounds": rounds,
        "arrays": placement.arrays,
        "matrices": [
            _matrix(matrix, [k for k in reads if k.matrix == i], forms[i][1])
            for i, matrix in enumerate(placement.matrices)
        ],
        "weight_cells": sum(m.weight_cells for m in placement.matrices),
        "diagonal_waste": sum(m.diagonal_waste for m in placement.matrices),
        "cells": sum(m.cells for m in placement.matrices),
        "utilisation": placement.utilisation,
    }


def _matrix(matrix: MatrixPlacement, kinds: list[ReadKind], form: str) -> dict[str, Any]:
    width = matrix.spec.dac.digit_bits
    tiles = Counter(matrix.tiles)
    return {
        "accumulator": kinds[0].accumulator,
        "form": form,
        "slices": matrix.form.slices,
        "planes": matrix.form.planes,
        "arrays": matrix.arrays,
        "reads": matrix.reads,
        "digits": sum(len(digit_widths(k.input_bits, width or k.input_bits)) for k in kinds),
        "conversions": matrix.conversions,
        "tiles": [
            {
                "rows": tile.rows,
                "columns": tile.columns,
                "groups": tile.groups,
                "unit_columns": tile.unit_columns,
                "count": count,
            }
            for tile, count in tiles.items()
        ],
    }


def tile_requests(name: str, detail: Mapping[str, Any]) -> tuple[TileRequest, ...]:
    """Return the rectangles that a layer's detail asks for, one per physical array."""
    return tuple(
        TileRequest(name, tile["rows"], tile["columns"])
        for matrix in detail["matrices"]
        for tile in matrix["tiles"]
        for _ in range(tile["count"] * detail["copies"] * _arrays_per_tile(matrix))
    )


def _arrays_per_tile(matrix: Mapping[str, Any]) -> int:
    return int(matrix["arrays"]) // sum(int(tile["count"]) for tile in matrix["tiles"])
