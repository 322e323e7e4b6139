# SPDX-License-Identifier: Apache-2.0
"""Noise of the torch path: seeded normals drawn in parallel, and the power of a block's rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Generator, Tensor

STREAMS = 4
"""Independent generators of one stream; fixed, so that no result depends on the machine."""
SERIAL_BELOW = 1 << 14
"""Draws too few to be worth a second thread."""


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that draw: torch's generators are serial and release the interpreter's lock."""
    return ThreadPoolExecutor(STREAMS, thread_name_prefix="crossbar-noise")


def _fill(part: Tensor, generator: Generator) -> None:
    import torch

    with torch.inference_mode():
        part.normal_(generator=generator)


class NormalStream:
    """Standard normals in float32 from a seed, the same whatever the number of threads."""

    def __init__(self, seed: int) -> None:
        import torch

        state = np.random.SeedSequence(seed).generate_state(STREAMS, np.uint32)
        self._generators = [torch.Generator().manual_seed(int(s)) for s in state]

    def draw(self, count: int) -> Tensor:
        """Return `count` normals."""
        import torch

        out = torch.empty(count)
        parts = out.chunk(STREAMS)
        if count < SERIAL_BELOW or torch.get_num_threads() == 1:
            for part, generator in zip(parts, self._generators, strict=False):
                _fill(part, generator)
        else:
            list(_pool().map(_fill, parts, self._generators))
        return out


class RowPower:
    """Sum of squared row values of one block at every output position.

    Channels that lie in the block as a whole are summed before the convolution; at its two ends a
    channel goes through it with its own mask.

    Args:
        mask: (G, channels, R, S), 1 where a row belongs to the block; the same for every group.
    """

    def __init__(self, mask: Tensor) -> None:
        import torch

        whole = mask[0].flatten(1).all(1).tolist()
        inner = [i for i, w in enumerate(whole) if w]
        self._inner = slice(inner[0], inner[-1] + 1) if inner else None
        self._edges = [i for i, w in enumerate(whole) if not w]
        lines = [inner[0], *self._edges] if inner else self._edges
        self._weight = torch.cat([mask[:, i : i + 1] for i in lines], dim=1)

    def __call__(self, values: Tensor, conv: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return (N, G, P, Q) for values (N, G * channels, H, W); `conv` is the layer's own."""
        import torch

        groups = len(self._weight)
        square = (values * values).view(len(values), groups, -1, *values.shape[2:])
        lines = [square[:, :, i : i + 1] for i in self._edges]
        if self._inner is not None:
            lines.insert(0, square[:, :, self._inner].sum(2, keepdim=True))
        joint = lines[0] if len(lines) == 1 else torch.cat(lines, dim=2)
        return conv(joint.flatten(1, 2), self._weight)
