# SPDX-License-Identifier: Apache-2.0
"""Input elements that tiles of output positions touch, counted one by one."""

from __future__ import annotations

from core_layers import shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.tiles import PositionTile, inputs_by_tiles, stored_extent
from enos_compiler.ir import LayerShape


@settings(deadline=None, max_examples=60)
@given(shapes(), st.data())
def test_tiles_read_the_elements_of_their_boxes(shape: LayerShape, data: st.DataObject) -> None:
    p, q = (data.draw(st.integers(1, bound)) for bound in (shape.p, shape.q))
    height, width = stored_extent(shape)
    rows = columns = 0
    for p0 in range(0, shape.p, p):
        last = (min(p0 + p, shape.p) - 1) * shape.stride[0]
        first = p0 * shape.stride[0] - shape.padding[0]
        box = range(first, last + (shape.r - 1) * shape.dilation[0] - shape.padding[0] + 1)
        rows += sum(1 for i in box if 0 <= i < height)
    for q0 in range(0, shape.q, q):
        last = (min(q0 + q, shape.q) - 1) * shape.stride[1]
        first = q0 * shape.stride[1] - shape.padding[1]
        box = range(first, last + (shape.s - 1) * shape.dilation[1] - shape.padding[1] + 1)
        columns += sum(1 for j in box if 0 <= j < width)
    assert inputs_by_tiles(shape, PositionTile(1, p, q)) == shape.n * rows * columns
