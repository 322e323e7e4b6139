# SPDX-License-Identifier: Apache-2.0
"""One row block of a fast crossbar convolution: its levels, scales, noise and converters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.fastint8 import QuantizedConvolution
from enos_compiler.crossbar.fastnoise import RowPower
from enos_compiler.crossbar.integer import IntegerMatrix
from enos_compiler.ir.shape import LayerShape

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]
TOP_LEVEL = 127
"""Largest level of an int8 product."""


@dataclass(slots=True)
class Block:
    """Rows that are converted together, as a convolution over the channels that they lie in.

    Output channels are ordered (groups, parts, slices, columns).
    """

    first: int
    last: int
    """The channels, of every group."""
    levels: Tensor
    """(outputs, channels, R, S) in float32; whole numbers unless cells are perturbed."""
    scale: Tensor
    """(outputs,): ADC steps of one unit of `levels`."""
    power: RowPower
    squares: Tensor
    """(outputs, channels, R, S): conductances squared, both planes added, for proportional noise,
    in squared cell steps."""
    reach: float
    """Largest sum of a column's absolute levels, in cell steps."""
    whole_reach: float
    """The same in units of `levels`."""
    quantized: QuantizedConvolution | None = None

    def weight(self, kind: Any) -> Tensor:
        """Return the levels in ADC steps."""
        return self.levels.to(kind) * self.scale.to(kind)[:, None, None, None]


def make_block(
    matrices: Sequence[IntegerMatrix],
    index: int,
    shape: LayerShape,
    steps: IntArray,
    *,
    parts: int,
    rounded: bool,
) -> Block:
    """Return block `index` of a layer's groups.

    Args:
        matrices: one per group.
        index: of the block.
        shape: the layer's nest.
        steps: ADC steps (groups, slices, columns), as powers of two.
        parts: planes converted apart: 1 takes a pair's difference.
        rounded: round perturbed levels to 127 steps of the largest of their column.
    """
    import torch

    rows = matrices[0].blocks[index].rows
    kernel = shape.r * shape.s
    first, last = rows.start // kernel, ceil(rows.stop / kernel)
    groups, squares = [], []
    for matrix in matrices:
        levels = np.stack(matrix.blocks[index].levels, axis=1)  # (planes, slices, rows, columns)
        groups.append(levels[:1] - levels[1:] if parts < len(levels) else levels)
        energy = levels**2
        squares.append(energy.sum(0, keepdims=True) if parts < len(levels) else energy)
    stacked = np.stack(groups)
    unit = np.ones((*stacked.shape[:3], 1, stacked.shape[-1]))
    if rounded and not np.array_equal(stacked, np.rint(stacked)):
        unit = np.abs(stacked).max(axis=3, keepdims=True) / TOP_LEVEL
        unit[unit == 0] = 1.0
        stacked = np.rint(stacked / unit)
    offset = rows.start - first * kernel
    taps = (last - first, shape.r, shape.s)

    def spread(values: Floats) -> Tensor:
        full = np.zeros((*values.shape[:3], (last - first) * kernel, values.shape[-1]))
        full[..., offset : offset + values.shape[3], :] = values
        turned = np.moveaxis(full, 4, 3).reshape(-1, *taps)
        return torch.from_numpy(turned.astype(np.float32))

    scale = unit[..., 0, :] * np.exp2(-steps)[:, None]
    mask = np.ones((shape.g, 1, 1, rows.stop - rows.start, 1))
    return Block(
        first,
        last,
        spread(stacked),
        torch.from_numpy(scale.reshape(-1).astype(np.float32)),
        RowPower(spread(mask), shape),
        spread(np.stack(squares)),
        float((np.abs(stacked) * unit).sum(axis=3).max(initial=0.0)),
        float(np.abs(stacked).sum(axis=3).max(initial=0.0)),
    )
