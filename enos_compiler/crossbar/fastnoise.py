# SPDX-License-Identifier: Apache-2.0
"""Noise of the torch path: cheap seeded normals, and the power of a block's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from enos_compiler.crossbar.adc_errors import ConverterErrors
from enos_compiler.ir.shape import LayerShape

if TYPE_CHECKING:
    from torch import Tensor

POOL = 1 << 19
"""Normals in each of the two pools; the longest run that is drawn from one pair of places."""
POOL_SEED = 0x5EED


@cache
def _pools() -> tuple[Tensor, Tensor]:
    """Two fixed sets of normals of mean 0 and variance 1/2, each followed by itself."""
    import torch

    found = []
    for part in np.random.SeedSequence(POOL_SEED).spawn(2):
        values = np.random.default_rng(part).standard_normal(POOL)
        values = (values - values.mean()) / (values.std() * 2**0.5)
        found.append(torch.from_numpy(np.tile(values.astype(np.float32), 2)))
    return found[0], found[1]


class NormalStream:
    """Standard normals in float32 from a seed, the same whatever the number of threads.

    Drawing 32-bit normals one by one costs more than all other arithmetic of a noisy crossbar. A
    run here is the sum of two runs of fixed normals, each from a random place of its own pool: the
    sum of two normals of variance 1/2. Within a run values are independent; two runs share half
    of their variance in a shifted copy only where one of the places falls near, and all of it only
    where both do (2^-38 per pair and shift).
    """

    def __init__(self, seed: int | tuple[int, ...]) -> None:
        self._places = np.random.default_rng(seed)

    def draw(self, count: int) -> Tensor:
        """Return `count` normals."""
        a, b = self.halves(count)
        return a + b

    def halves(self, count: int) -> tuple[Tensor, Tensor]:
        """Return two tensors whose sum are `count` normals: read, never write them."""
        import torch

        lengths = [POOL] * (count // POOL) + ([count % POOL] if count % POOL else [])
        parts = []
        for pool in _pools():
            places = self._places.integers(0, POOL, len(lengths)).tolist()
            runs = [pool[p : p + n] for p, n in zip(places, lengths, strict=True)]
            parts.append(runs[0] if len(runs) == 1 else torch.cat(runs))
        return parts[0], parts[1]


class FastConverters:
    """Errors of a layer's converters on tensors of its column sums.

    Args:
        errors: one per group.
        parts: planes that are converted apart.
    """

    def __init__(self, errors: Sequence[ConverterErrors], parts: int) -> None:
        import torch

        self._top, self._both = errors[0].top, errors[0].both

        def channels(name: str) -> Tensor:
            """Per block, in the order (groups, parts, slices, columns)."""
            stacked = np.stack([getattr(e, name)[:, :, :parts] for e in errors])
            turned = stacked.transpose(1, 0, 3, 2, 4).reshape(stacked.shape[1], -1, 1, 1)
            return torch.from_numpy(np.ascontiguousarray(turned, np.float32))

        self._offset, self._bow, self._ess = (channels(n) for n in ("offset", "bow", "ess"))

    def distort(self, sums: Tensor, block: int) -> Tensor:
        """Return the sums of a block, in steps, as its converters see them."""
        t = sums / self._top if self._both else 2 * sums / self._top - 1
        t.clamp_(-1, 1)
        curve = (self._bow[block] + self._ess[block] * t).mul_(1 - t * t)
        return curve.add_(sums).add_(self._offset[block])


class RowPower:
    """Sum of squared row values of one block at every output position.

    Channels that lie in the block as a whole are summed first. Where there are no others, the sum
    over the kernel is a product with a 0/1 matrix from the left and from the right, which hold
    stride, dilation and padding; else it is a convolution in which the channels at the block's two
    ends have masks of their own.

    Args:
        mask: (G, channels, R, S), 1 where a row belongs to the block; the same for every group.
        shape: the layer's nest.
    """

    def __init__(self, mask: Tensor, shape: LayerShape) -> None:
        import torch

        self._shape = shape
        whole = mask[0].flatten(1).all(1).tolist()
        inner = [i for i, w in enumerate(whole) if w]
        self._inner = slice(inner[0], inner[-1] + 1) if inner else None
        self._edges = [i for i, w in enumerate(whole) if not w]
        lines = [inner[0], *self._edges] if inner else self._edges
        self._weight = torch.cat([mask[:, i : i + 1] for i in lines], dim=1)
        self._bands: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def __call__(
        self,
        values: Tensor,
        conv: Callable[[Tensor, Tensor], Tensor],
        padding: Sequence[int],
    ) -> Tensor:
        """Return (N, G, P, Q).

        Args:
            values: (N, G * channels, H, W), float32; overwritten.
            conv: the layer's own convolution, of lines and weights.
            padding: rows and columns that it adds on both sides.
        """
        import torch

        groups = len(self._weight)
        square = values.mul_(values)
        square = square.view(len(square), groups, -1, *square.shape[2:])
        whole: Tensor | None = None
        if self._inner is not None:
            whole = _channel_sum(square[:, :, self._inner])
            if not self._edges:
                left, right = self._band_pair(values.shape[2:], padding)
                return torch.matmul(left, torch.matmul(whole, right))
        lines = [square[:, :, i] for i in self._edges]
        if whole is not None:
            lines.insert(0, whole)
        return conv(torch.stack(lines, dim=2).flatten(1, 2), self._weight)

    def _band_pair(self, extent: Sequence[int], padding: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return (P, H) and (W, Q), 1 where an input line is under the kernel."""
        key = (*extent, *padding)
        if key not in self._bands:
            shape = self._shape
            taps = (shape.r, shape.s)
            rows, columns = (
                _band(size, taps[i], shape.stride[i], shape.dilation[i], padding[i])
                for i, size in enumerate(extent)
            )
            self._bands[key] = rows, columns.T.contiguous()
        return self._bands[key]


def _channel_sum(square: Tensor) -> Tensor:
    """Return (N, G, H, W), the sum over channels (N, G, C, H, W): a product where C lies inside."""
    import torch

    if square.shape[1] == 1 and square.stride(2) == 1:
        ones = square.new_ones(square.shape[2])
        return torch.matmul(square[:, 0].permute(0, 2, 3, 1), ones).unsqueeze(1)
    return square.sum(2)


def _band(size: int, taps: int, stride: int, dilation: int, padding: int) -> Tensor:
    """Return (outputs, size), 1 where an output reads an input."""
    import torch

    outputs = (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    first = torch.arange(outputs)[:, None] * stride - padding
    offset = torch.arange(size)[None, :] - first
    under = (offset >= 0) & (offset <= dilation * (taps - 1)) & (offset % dilation == 0)
    return under.to(torch.float32)
