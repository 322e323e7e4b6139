# SPDX-License-Identifier: Apache-2.0
"""Where a layer's weights lie: row and column blocks, diagonal groups, waste."""

from __future__ import annotations

from dataclasses import dataclass

from enos_compiler.crossbar.blocks import split
from enos_compiler.crossbar.integer import Layout, layout
from enos_compiler.crossbar.operators import CrossbarOperator, stored_forms
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.errors import RefusalError
from enos_compiler.ir.shape import LayerShape


@dataclass(frozen=True, slots=True)
class Tile:
    """What one array (or pair of arrays) holds: a rectangle of lines, partly filled.

    `rows` and `columns` are lines in use, unit columns included; `groups` blocks lie on its
    diagonal, each `rows / groups` by `(columns - unit) / groups`.
    """

    rows: int
    columns: int
    groups: int = 1
    unit_columns: int = 0

    @property
    def data_columns(self) -> int:
        """Columns that hold weights."""
        return self.columns - self.unit_columns

    @property
    def weight_cells(self) -> int:
        """Cells per plane that hold weights: those on the diagonal."""
        return self.rows * self.data_columns // self.groups

    @property
    def idle_cells(self) -> int:
        """Cells per plane inside the rectangle that hold no weight: those off the diagonal."""
        return self.rows * self.data_columns - self.weight_cells


@dataclass(frozen=True, slots=True)
class MatrixPlacement:
    """One stored matrix of a layer on arrays of one size."""

    spec: CrossbarSpec
    form: Layout
    tiles: tuple[Tile, ...]
    tile_planes: int
    """Arrays per tile: 2 where the cells of a pair lie in two arrays."""
    reads: int
    """Accesses one after another that every tile needs per input digit."""
    columns_per_read: int
    """Columns that one access converts, in the fullest tile."""
    conversions: int
    """Column values converted per output position and conversion step, over all tiles."""

    @property
    def arrays(self) -> int:
        """Physical arrays."""
        return len(self.tiles) * self.tile_planes

    @property
    def weight_cells(self) -> int:
        """Cells that hold weights, both signs and all slices counted."""
        return self.form.planes * sum(t.weight_cells for t in self.tiles)

    @property
    def written_cells(self) -> int:
        """Cells that programming touches: the whole rectangles, unit columns included."""
        return self.form.planes * sum(t.rows * t.columns for t in self.tiles)

    @property
    def diagonal_waste(self) -> int:
        """Cells lost inside the rectangles because groups share no inputs."""
        return self.form.planes * sum(t.idle_cells for t in self.tiles)

    @property
    def cells(self) -> int:
        """Cells of all arrays."""
        per_array = self.spec.rows * self.spec.columns
        pairs = self.form.planes if self.spec.interleaved else 1
        return self.arrays * per_array * pairs

    @property
    def utilisation(self) -> float:
        """Cells that hold weights over cells of the arrays, 0..1."""
        return self.weight_cells / self.cells


@dataclass(frozen=True, slots=True)
class LayerPlacement:
    """All stored matrices of one layer (two for mf and ef)."""

    spec: CrossbarSpec
    shape: LayerShape
    operator: CrossbarOperator
    weight_bits: int
    matrices: tuple[MatrixPlacement, ...]

    @property
    def arrays(self) -> int:
        """Physical arrays."""
        return sum(m.arrays for m in self.matrices)

    @property
    def utilisation(self) -> float:
        """Cells that hold weights over cells of the arrays, 0..1."""
        return sum(m.weight_cells for m in self.matrices) / sum(m.cells for m in self.matrices)

    @property
    def written_cells(self) -> int:
        """Cells that one programming of the layer touches."""
        return sum(m.written_cells for m in self.matrices)

    @property
    def positions(self) -> int:
        """Input vectors per inference: output positions times batch."""
        return self.shape.n * self.shape.p * self.shape.q


@dataclass(frozen=True, slots=True)
class Turns:
    """How a layer that is written anew passes through arrays that are fewer than its own."""

    count: int
    unfinished: int
    """Sums per output position that one turn leaves to the next, over all turns."""


def turns(placement: LayerPlacement, arrays: int) -> Turns:
    """Fill `arrays` arrays again and again until all tiles of a layer had their turn.

    The row blocks of one column block follow each other, so that most sums end in the turn in which
    they begin. The arrays of a pair are filled together.

    Raises:
        RefusalError: the arrays do not hold a pair.
    """
    planes = max(matrix.tile_planes for matrix in placement.matrices)
    slots = arrays // planes
    if not slots:
        raise RefusalError(
            f"{arrays} array is kept for reloaded weights, a pair of cells lies in {planes}",
            place=str(placement.shape),
            remedy="more `swap` arrays",
        )
    placed = unfinished = 0
    row_blocks = -(-placement.shape.taps // placement.spec.rows)
    for matrix in placement.matrices:
        columns = len(matrix.tiles) // (row_blocks * placement.shape.g) or len(matrix.tiles)
        for block in range(len(matrix.tiles) // row_blocks):
            sums = -(-matrix.tiles[block % columns].data_columns // matrix.form.slices)
            last = placed + row_blocks - 1
            unfinished += (last // slots - placed // slots) * sums
            placed = last + 1
    return Turns(-(-placed // slots), unfinished)


def place_layer(
    spec: CrossbarSpec, shape: LayerShape, operator: CrossbarOperator, weight_bits: int
) -> LayerPlacement:
    """Cut a layer's matrices into arrays of `spec`'s size.

    A matrix of R rows and C columns (slices counted) takes ceil(R / rows) * ceil(C / columns)
    arrays, twice that for differential pairs that are not interleaved; a unit column takes one
    column per slice from every array. Groups that fit whole are packed along the diagonal.

    Raises:
        RefusalError: an activation product (nothing is resident), or an array too narrow for its
            unit column.
    """
    if shape.activation_product:
        raise RefusalError(
            "both operands are activations, so nothing can stay in a crossbar",
            place=str(shape),
            remedy="a digital core for this layer",
        )
    matrices = tuple(
        _place_matrix(spec, shape, layout(spec, bits, form))
        for bits, form in stored_forms(operator, weight_bits)
    )
    return LayerPlacement(spec, shape, operator, weight_bits, matrices)


def _place_matrix(spec: CrossbarSpec, shape: LayerShape, form: Layout) -> MatrixPlacement:
    unit = form.slices if spec.encoding == "unit_column" and form.offset else 0
    usable = spec.columns - unit
    if usable < 1:
        raise RefusalError(
            f"{spec.columns} columns leave none beside a unit column of {unit} slices",
            place=str(shape),
            remedy="wider arrays, cells of more bits, or another encoding",
        )
    columns, taps = shape.m * form.slices, shape.taps
    row_reads = -(-min(taps, spec.rows) // spec.read_rows)
    if taps <= spec.rows and columns <= usable:
        per_tile = min(spec.rows // taps, usable // columns, shape.g)
        sizes = [s.stop - s.start for s in split(shape.g, per_tile)]
        tiles = [Tile(n * taps, n * columns + unit, n, unit) for n in sizes]
        at_once = _groups_at_once(spec, form, per_tile, taps)
        reads = row_reads * -(-per_tile // at_once)
        widest = at_once * columns + unit
    else:
        row_sizes = [s.stop - s.start for s in split(taps, spec.rows)]
        column_sizes = [s.stop - s.start for s in split(columns, usable)]
        tiles = [Tile(r, c + unit, 1, unit) for r in row_sizes for c in column_sizes] * shape.g
        reads, widest = row_reads, column_sizes[0] + unit
    conversions = sum(
        (t.data_columns + unit * t.groups) * -(-(t.rows // t.groups) // spec.read_rows)
        for t in tiles
    )
    apart = form.planes == 2 and not spec.subtract_before_adc
    planes = 1 if spec.interleaved else form.planes
    return MatrixPlacement(
        spec, form, tuple(tiles), planes, reads, widest, conversions * (2 if apart else 1)
    )


def _groups_at_once(spec: CrossbarSpec, form: Layout, groups: int, taps: int) -> int:
    """Groups of a tile that one access reads.

    Empty cells add nothing, so a pair (or unsigned weights) reads as many groups at once as the
    drivers allow; with an offset every cell off the diagonal would add, so groups take turns.
    """
    return 1 if form.offset else max(1, min(groups, spec.read_rows // taps))
