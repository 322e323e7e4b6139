# SPDX-License-Identifier: Apache-2.0
"""A part of a layer: the slices of its operands and its result, and what it adds to the sums.

Geometry is worked out here from the layer's shape and from the values that are really stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import ReplayError
from enos_compiler.ir.executable import LayerKernel
from enos_compiler.ir.formats import IntArray, QuantizedLayer
from enos_compiler.ir.shape import DIMS, Dim, LayerShape
from enos_compiler.semantics.reference import layer_total
from enos_compiler.simulate.kernels import as_layer

Index = tuple[Any, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Stored rows or columns under a range of outputs, and the padding on both sides of them."""

    first: int
    end: int
    before: int
    behind: int

    @classmethod
    def of(
        cls,
        outputs: tuple[int, int],
        taps: tuple[int, int],
        stride: int,
        dilation: int,
        padding: int,
        stored: int,
    ) -> Window:
        """Return what outputs first..end read through taps first..end of a padded axis."""
        low = outputs[0] * stride + taps[0] * dilation - padding
        high = (outputs[1] - 1) * stride + (taps[1] - 1) * dilation - padding + 1
        first = min(max(low, 0), stored)
        end = max(first, min(high, stored))
        behind = max(0, high - stored) if end > first else high - low
        return cls(first, end, high - low - (end - first) - behind, behind)


@dataclass(frozen=True, slots=True)
class Part:
    """Ranges of a layer's dimensions, each within its bounds."""

    kernel: LayerKernel
    ranges: Mapping[Dim, tuple[int, int]]

    @classmethod
    def of(cls, kernel: LayerKernel, cut: Mapping[Dim, tuple[int, int]]) -> Part:
        """Return the part that covers `cut`, and all of the dimensions that it leaves out.

        Raises:
            ReplayError: a range leaves the bounds.
        """
        ranges: dict[Dim, tuple[int, int]] = {}
        for dim, bound in kernel.shape.bounds.items():
            first, end = cut.get(dim, (0, bound))
            if not 0 <= first <= end <= bound:
                raise ReplayError(f"covers {dim} {first}..{end} of a layer with {dim} = {bound}")
            ranges[dim] = (first, end)
        for dim in cut:
            if dim not in DIMS:
                raise ReplayError(f"covers `{dim}`, which is no dimension of a layer")
        return cls(kernel, ranges)

    @property
    def empty(self) -> bool:
        """Whether it covers nothing: a step beyond the bounds."""
        return any(first == end for first, end in self.ranges.values())

    @property
    def taps(self) -> int:
        """Products that it adds to each of its sums."""
        return prod(self.ranges[d][1] - self.ranges[d][0] for d in ("C", "R", "S"))

    def channels(self, inner: Dim) -> IntArray:
        """Return the channels of its groups, M for outputs and C for inputs."""
        bound = self.kernel.shape.bounds[inner]
        groups = np.arange(*self.ranges["G"])
        found: IntArray = (groups[:, None] * bound + np.arange(*self.ranges[inner])).reshape(-1)
        return found

    # Where its operands and its result lie

    def operand(self, which: int, stored: Shape) -> tuple[Shape, Index]:
        """Return the form in which an operand is indexed, and the index of this part of it."""
        rows, reduced, columns = (slice(*self.ranges[d]) for d in ("N", "C", "M"))
        if self.kernel.op == "matmul":
            form = (-1, *stored[-2:])
            inner = (rows, reduced) if which == 0 else (reduced, columns)
            return form, (slice(*self.ranges["G"]), *inner)
        if self.kernel.op == "linear":
            return (-1, stored[-1]), (rows, reduced)
        windows = tuple(slice(w.first, w.end) for w in self.windows(stored))
        return stored, (rows, _span(self.channels("C")), *windows)

    def touched(self, which: int, stored: Shape) -> tuple[Shape, Index]:
        """Return the form and the index of what its products really read of an operand.

        Where windows are further apart than they reach, rows and columns between are not read.
        """
        form, index = self.operand(which, stored)
        if self.kernel.op != "conv":
            return form, index
        shape = self.kernel.shape
        pairs: tuple[tuple[Dim, Dim], ...] = (("P", "R"), ("Q", "S"))
        lines = [np.arange(*self.ranges["N"]), self.channels("C")]
        for i, (outputs, taps) in enumerate(pairs[: len(stored) - 2]):
            first = np.arange(*self.ranges[outputs]) * shape.stride[i] - shape.padding[i]
            read = np.unique(first[:, None] + np.arange(*self.ranges[taps]) * shape.dilation[i])
            lines.append(read[(read >= 0) & (read < stored[2 + i])])
        return form, np.ix_(*lines)

    def windows(self, stored: Shape) -> tuple[Window, ...]:
        """Return what it reads of each spatial axis of a stored convolution input."""
        shape, axes = self.kernel.shape, len(stored) - 2
        pairs: tuple[tuple[Dim, Dim], ...] = (("P", "R"), ("Q", "S"))
        return tuple(
            Window.of(
                self.ranges[outputs],
                self.ranges[taps],
                shape.stride[i],
                shape.dilation[i],
                shape.padding[i],
                stored[2 + i],
            )
            for i, (outputs, taps) in enumerate(pairs[:axes])
        )

    def result(self, stored: Shape) -> tuple[Shape, Index]:
        """Return the form in which the output is indexed, and the index of this part of it."""
        rows, columns = slice(*self.ranges["N"]), slice(*self.ranges["M"])
        if self.kernel.op == "matmul":
            return (-1, *stored[-2:]), (slice(*self.ranges["G"]), rows, columns)
        if self.kernel.op == "linear":
            return (-1, stored[-1]), (rows, columns)
        axes: tuple[Dim, ...] = ("P", "Q")
        spatial = tuple(slice(*self.ranges[d]) for d in axes[: len(stored) - 2])
        return stored, (rows, _span(self.channels("M")), *spatial)

    def weights(self) -> tuple[Shape, Index]:
        """Return the form (G, M, C, R, S) of the layer's weights and the index of this part."""
        dims: tuple[Dim, ...] = ("G", "M", "C", "R", "S")
        bounds = self.kernel.shape.bounds
        return tuple(bounds[d] for d in dims), tuple(slice(*self.ranges[d]) for d in dims)

    # What it computes

    def sums(self, operands: tuple[IntArray, ...], stored: Shape) -> IntArray:
        """Return what it adds to its sums, in the form of `result`.

        Args:
            operands: as `operand` indexes them, in the formats that the layer reads.
            stored: shape of the first operand as a whole.
        """
        layer = as_layer(self.kernel)
        cut = replace(layer, shape=self._shape(stored), quantized=self._quantized())
        return layer_total(cut, operands)

    def _shape(self, stored: Shape) -> LayerShape:
        extents: dict[str, Any] = {
            d.lower(): end - first for d, (first, end) in self.ranges.items()
        }
        shape = replace(self.kernel.shape, **extents)
        if self.kernel.op != "conv":
            return shape
        windows = (*self.windows(stored), Window(0, 0, 0, 0))[:2]
        padding = tuple(w.before for w in windows) + tuple(w.behind for w in windows)
        return replace(shape, padding=(padding[0], padding[1], padding[2], padding[3]))

    def _quantized(self) -> QuantizedLayer:
        """Return the integers of its channels and taps; the first taps bring the bias.

        Raises:
            ReplayError: it cuts sums or channels that only converters of whole columns form.
        """
        whole, shape = self.kernel.quantized, self.kernel.shape
        bounds = shape.bounds
        uncut = [d for d in ("G", "M", "C", "R", "S") if self.ranges[d] != (0, bounds[d])]
        if not uncut:
            return whole
        if whole.array is not None:
            raise ReplayError(f"cuts {', '.join(uncut)} of a layer whose columns are converted")
        if self.kernel.op == "matmul":
            return whole  # both operands are codes; nothing of it belongs to a channel
        channels = self.channels("M")
        inner = tuple(slice(*self.ranges[d]) for d in ("C", "R", "S"))
        tensors = {
            name: array[channels][(slice(None), *inner[: array.ndim - 1])]
            for name, array in whole.tensors.items()
        }
        return replace(whole, tensors=tensors, **self._per_channel(whole, channels))

    def _per_channel(self, whole: QuantizedLayer, channels: IntArray) -> dict[str, Any]:
        first = all(self.ranges[d][0] == 0 for d in ("C", "R", "S"))
        bias = whole.bias[channels]
        return {
            "bias": bias if first else np.zeros_like(bias),
            "unit_exponent": whole.unit_exponent[channels],
        }


def _span(channels: IntArray) -> slice | NDArray[np.int64]:
    """Return neighbouring channels as a slice."""
    if channels.size and channels[-1] - channels[0] + 1 == channels.size:
        return slice(int(channels[0]), int(channels[-1]) + 1)
    return channels
