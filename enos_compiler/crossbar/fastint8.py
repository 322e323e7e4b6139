# SPDX-License-Identifier: Apache-2.0
"""OneDNN's quantised convolution as array and converter, and whether it is exact here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class QuantizedConvolution:
    """Byte inputs times int8 levels, scaled by 2^-step per output channel.

    The result is float32 (column sums in ADC steps), or int8 or uint8: rounded half to even and
    clipped to that type, which is what a converter of eight bits does.

    Args:
        levels: integer levels (outputs, inputs per group, R, S), any dtype, within +-127.
        scales: factor per output channel, powers of two.
        stride: of the convolution.
        padding: rows and columns of zeros on both sides.
        dilation: of the kernel.
        groups: of the convolution.
    """

    def __init__(
        self,
        levels: Tensor,
        scales: Tensor,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        import torch

        self._levels, self._scales = levels.to(torch.int8), scales
        self._zeros = torch.zeros(len(levels), dtype=torch.int32)
        self._geometry = (list(stride), list(padding), list(dilation), groups)
        self._packed: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, x: Tensor, kind: Any) -> Tensor:
        """Convolve bytes (N, C, H, W), channels last, into `kind`."""
        import torch

        key = tuple(x.shape)
        if key not in self._packed:
            self._packed[key] = torch.ops.onednn.qconv_prepack(
                self._levels, self._scales, 1.0, 0, *self._geometry, list(key)
            )
        out: Tensor = torch.ops.onednn.qconv2d_pointwise(
            *(x, 1.0, 0, self._packed[key], self._scales, self._zeros, None),
            *(*self._geometry, 1.0, 0, kind, "none", [], ""),
        )
        return out


@cache
def exact_here(level: int, digit: int) -> bool:
    """Whether products of levels up to `level` and inputs up to `digit` come out exactly.

    Processors without dot-product instructions add neighbouring products in 16 bits and saturate
    there; where `2 * level * digit` exceeds that, one convolution of extremes decides. False as
    well where this build of torch has no such convolution.
    """
    import torch

    try:
        x = torch.full((1, 64, 3, 3), digit, dtype=torch.uint8)
        conv = QuantizedConvolution(
            torch.full((16, 64, 3, 3), level), torch.ones(16), (1, 1), (0, 0), (1, 1), 1
        )
        y = conv(x.contiguous(memory_format=torch.channels_last), torch.float32)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((y == 576 * level * digit).all())
