# SPDX-License-Identifier: Apache-2.0
"""adder while it trains: minus the l1 distance of every input window to every kernel.

Source: AdderNet, arXiv 1912.13200 (its repository seen): d/dw = x - w, not its sign, and
d/dx = clip(w - x, -1, 1). Its rule for the length of a layer's gradient is left out: Adam's step
does not depend on it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name that PyTorch's own documents use)

from enos_compiler.ir.network import Layer

_CHUNK_ELEMENTS = 2**22
"""Entries of the clipped differences that are held at a time."""


class _Distance(torch.autograd.Function):
    """(rows, taps) and (channels, taps) to minus their l1 distances (rows, channels)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, kernels: Tensor) -> Tensor:
        """Return minus the distances."""
        ctx.save_for_backward(rows, kernels)
        return torch.cdist(rows, kernels, p=1.0).neg_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the surrogate gradients of rows and kernels."""
        rows, kernels = ctx.saved_tensors
        upstream = gradients[0]
        on_kernels = upstream.T @ rows - upstream.sum(0)[:, None] * kernels
        on_rows = torch.empty_like(rows)
        step = max(1, _CHUNK_ELEMENTS // kernels.numel())
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            differences = (kernels - rows[part, None]).clamp_(-1, 1)
            on_rows[part] = torch.einsum("lm,lmt->lt", upstream[part], differences)
        return on_rows, on_kernels


def distance_sum(x: Tensor, weight: Tensor, layer: Layer) -> Tensor:
    """Return -sum |x - w| for every output of a layer, differentiably.

    Args:
        x: (N, G*C, H, W) or (N, G*C, L) of a convolution, (..., C) of a linear layer.
        weight: on the same scale; padding is a real zero and contributes -|w|.
        layer: for its kind, stride, padding, dilation and groups.
    """
    if layer.op != "conv":
        rows = x.reshape(-1, x.shape[-1])
        flat: Tensor = _Distance.apply(rows, weight)  # type: ignore[no-untyped-call]
        return flat.view(*x.shape[:-1], len(weight))
    if x.dim() == 3:
        return distance_sum(x[..., None], weight[..., None], layer)[..., 0]
    shape = layer.shape
    top, left, bottom, right = shape.padding
    padded = F.pad(x, (left, right, top, bottom))
    extents = weight.shape[2:]
    height, width = (
        (padded.shape[2 + a] - (extents[a] - 1) * shape.dilation[a] - 1) // shape.stride[a] + 1
        for a in range(2)
    )
    parts = []
    for inputs, kernels in zip(padded.chunk(shape.g, 1), weight.chunk(shape.g), strict=True):
        windows = F.unfold(inputs, extents, dilation=shape.dilation, stride=shape.stride)
        rows = windows.transpose(1, 2).reshape(-1, windows.shape[1])
        found: Tensor = _Distance.apply(rows, kernels.flatten(1))  # type: ignore[no-untyped-call]
        parts.append(found.view(len(x), height, width, len(kernels)).permute(0, 3, 1, 2))
    return torch.cat(parts, 1)
