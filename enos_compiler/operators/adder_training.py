# SPDX-License-Identifier: Apache-2.0
"""adder while it trains: minus the l1 distance of every input window to every kernel.

Source: AdderNet, arXiv 1912.13200 (its repository seen): d/dw = x - w, not its sign, and
d/dx = clip(w - x, -1, 1). Its rule for the length of a layer's gradient is left out: Adam's step
does not depend on it.

Large layers run as compiled loops where numba is installed; `torch.cdist` on unfolded windows does
the same elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name that PyTorch's own documents use)
from torch.nn.grad import conv2d_weight

from enos_compiler import compiled
from enos_compiler.ir.network import Layer
from enos_compiler.operators import adder_kernels

LEAST = 2**20
"""Differences from which on the compiled form pays."""
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


class _WindowDistance(torch.autograd.Function):
    """Padded images (N, G*C, H, W) and weights (G*M, C, R, S) to minus the distances."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, layer: Layer) -> Tensor:
        """Return (N, G*M, P, Q), channels last."""
        windows = _Windows(images, weight, layer)
        n, m = len(images), len(weight)
        out = images.new_empty((n, windows.height, windows.width, m))
        places = (windows.origins, windows.offsets)
        flat = out.view(n, -1, m).numpy()
        compiled.run(
            adder_kernels.distances, n, windows.size, windows.flat, windows.kernels, *places, flat
        )
        ctx.save_for_backward(images, weight)
        ctx.windows, ctx.layer = windows, layer
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the surrogate gradients of images and weights."""
        images, weight = ctx.saved_tensors
        windows: _Windows = ctx.windows
        upstream = gradients[0].permute(0, 2, 3, 1).contiguous()
        n, m = len(images), len(weight)
        on_images = torch.zeros((n, images[0].numel()))
        places = (windows.origins, windows.offsets, upstream.view(n, -1, m).numpy())
        short = -windows.kernels.shape[1] % adder_kernels.TOGETHER
        kernels = np.pad(windows.kernels, ((0, 0), (0, short), (0, 0)))
        into = on_images.numpy()
        compiled.run(adder_kernels.pull_back, n, windows.size, windows.flat, kernels, *places, into)
        shape = ctx.layer.shape
        products = conv2d_weight(  # type: ignore[no-untyped-call]
            images,
            list(weight.shape),
            gradients[0],
            stride=shape.stride,
            dilation=shape.dilation,
            groups=shape.g,
        )
        on_weight = products - upstream.sum((0, 1, 2)).view(-1, 1, 1, 1) * weight
        _, channels, height, width = images.shape
        return on_images.view(n, height, width, channels).permute(0, 3, 1, 2), on_weight, None


class _Windows:
    """The windows of a convolution over padded images, as the kernels take them."""

    def __init__(self, images: Tensor, weight: Tensor, layer: Layer) -> None:
        shape, (n, channels, height, width) = layer.shape, images.shape
        rows = images.detach().permute(0, 2, 3, 1).contiguous()  # channels last, in fact
        self.flat = rows.view(n, -1).numpy()
        self.kernels = (
            weight.detach().contiguous().view(shape.g, len(weight) // shape.g, -1).numpy()
        )
        _, per_group, r, s = weight.shape
        (sy, sx), (dy, dx) = shape.stride, shape.dilation
        self.height, self.width = _windows_along(images, weight, layer)
        pixels = np.arange(height * width).reshape(height, width) * channels
        origins = pixels[::sy, ::sx][: self.height, : self.width].ravel()
        taps = pixels[: (r - 1) * dy + 1 : dy, : (s - 1) * dx + 1 : dx].ravel()
        depths = np.arange(channels).reshape(shape.g, per_group, 1)
        offsets = (depths + taps).reshape(shape.g, -1)
        self.size = n * origins.size * weight.numel()
        # An index that might be negative costs a fifth of the time.
        self.origins, self.offsets = origins.astype(np.uint64), offsets.astype(np.uint64)


def distance_sum(x: Tensor, weight: Tensor, layer: Layer) -> Tensor:
    """Return -sum |x - w| for every output of a layer, differentiably.

    Args:
        x: (N, G*C, H, W) or (N, G*C, L) of a convolution, (..., C) of a linear layer.
        weight: on the same scale; padding is a real zero and contributes -|w|.
        layer: for its kind, stride, padding, dilation and groups.
    """
    if layer.op != "conv":
        rows = x.reshape(-1, x.shape[-1])
        return _distances(rows, weight).view(*x.shape[:-1], len(weight))
    if x.dim() == 3:
        return distance_sum(x[..., None], weight[..., None], layer)[..., 0]
    shape = layer.shape
    top, left, bottom, right = shape.padding
    padded = F.pad(x, (left, right, top, bottom))
    height, width = _windows_along(padded, weight, layer)
    if len(x) * height * width * weight.numel() >= LEAST and compiled.takes(padded, weight):
        found: Tensor = _WindowDistance.apply(padded, weight, layer)  # type: ignore[no-untyped-call]
        return found
    extents = weight.shape[2:]
    parts = []
    for inputs, kernels in zip(padded.chunk(shape.g, 1), weight.chunk(shape.g), strict=True):
        windows = F.unfold(inputs, extents, dilation=shape.dilation, stride=shape.stride)
        rows = windows.transpose(1, 2).reshape(-1, windows.shape[1])
        flat = _distances(rows, kernels.flatten(1))
        parts.append(flat.view(len(x), height, width, len(kernels)).permute(0, 3, 1, 2))
    return torch.cat(parts, 1)


def _distances(rows: Tensor, kernels: Tensor) -> Tensor:
    found: Tensor = _Distance.apply(rows, kernels)  # type: ignore[no-untyped-call]
    return found


def _windows_along(padded: Tensor, weight: Tensor, layer: Layer) -> tuple[int, int]:
    """Return the height and width of a convolution's output."""
    height, width = (
        (length - (extent - 1) * dilation - 1) // stride + 1
        for length, extent, dilation, stride in zip(
            padded.shape[2:],
            weight.shape[2:],
            layer.shape.dilation,
            layer.shape.stride,
            strict=True,
        )
    )
    return height, width
