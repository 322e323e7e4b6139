# SPDX-License-Identifier: Apache-2.0
"""Blocks of later networks: ConvNeXt, squeeze-and-excitation, shifted windows, encoders."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class ConvNeXt(nn.Module):
    """Depthwise 7x7, then layer norm and a perceptron over the last axis, scaled and added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.linspace(0.1, 1.0, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Channels scaled by gates computed from their global averages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        return x * self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))).sigmoid()


class Windows(nn.Module):
    """Attention within shifted 2x2 windows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = torch.roll(x.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = self.embed(x)
        x = (x @ x.transpose(-2, -1)).softmax(-1) @ x
        return x.view(n, h // 2, w // 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, 4)


class Encoder(nn.Module):
    """torch's own transformer encoder under a causal mask, batch first or second."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        if self.batch_first:
            return self.layers(x, mask=mask)
        return self.layers(x.transpose(0, 1), mask=mask).transpose(0, 1)


class Queries(nn.Module):
    """Learnt queries that read the input by cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.linspace(-1, 1, 24).view(3, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.queries.expand(x.shape[0], -1, -1), x, x)[0]


MODERN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convnext": (ConvNeXt, (3, 3, 8, 8)),
    "excite": (SqueezeExcite, (3, 3, 8, 8)),
    "windows": (Windows, (3, 3, 8, 8)),
    "encoder": (lambda: Encoder(batch_first=True), (3, 5, 8)),
    "encoder_second": (lambda: Encoder(batch_first=False), (3, 5, 8)),
    "queries": (Queries, (3, 5, 8)),
}
"""Constructor and shape of the example inputs, by name."""
