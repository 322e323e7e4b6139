# SPDX-License-Identifier: Apache-2.0
"""The loop nest of a layer: one eight-dimensional shape for every compute layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Tensor = Literal["Weights", "Inputs", "Outputs"]
Dim = Literal["G", "N", "M", "C", "P", "Q", "R", "S"]

TENSORS: tuple[Tensor, ...] = ("Weights", "Inputs", "Outputs")
DIMS: tuple[Dim, ...] = ("G", "N", "M", "C", "P", "Q", "R", "S")
RELEVANT: dict[Tensor, tuple[Dim, ...]] = {
    "Weights": ("G", "M", "C", "R", "S"),
    "Inputs": ("G", "N", "C", "P", "Q", "R", "S"),
    "Outputs": ("G", "N", "M", "P", "Q"),
}
"""The dimensions that index each tensor; a loop over any other dimension reuses it."""


@dataclass(frozen=True, slots=True, order=True)
class LayerShape:
    """Bounds of the nest `for G, N, M, C, P, Q, R, S: Out[g,n,m,p,q] += In * W[g,m,c,r,s]`.

    The input element read is `In[g, n, c, p * stride + r * dilation, q * stride + s * dilation]`.
    A linear layer has N rows, C inputs, M outputs and P = Q = R = S = 1. A 1-D convolution has
    Q = S = 1. In an activation product (attention) G is batch x heads, N the rows of the left
    operand, C the contracted extent and M the columns of the right operand, which takes the place
    of Weights.
    """

    g: int = 1
    """Groups."""
    n: int = 1
    """Batch, or rows."""
    m: int = 1
    """Output channels per group."""
    c: int = 1
    """Input channels per group."""
    p: int = 1
    """Output rows."""
    q: int = 1
    """Output columns."""
    r: int = 1
    """Kernel rows."""
    s: int = 1
    """Kernel columns."""
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Rows above, columns left, rows below, columns right that lie outside the stored input."""
    activation_product: bool = False
    """Both operands are activations: the right one is never resident."""

    def __post_init__(self) -> None:
        """Refuse bounds, strides and dilations below one and negative padding."""
        for name in ("g", "n", "m", "c", "p", "q", "r", "s"):
            if getattr(self, name) < 1:
                raise ValueError(f"LayerShape.{name} = {getattr(self, name)} is below 1")
        if min(*self.stride, *self.dilation) < 1:
            raise ValueError(f"stride {self.stride} or dilation {self.dilation} is below 1")
        if min(self.padding) < 0:
            raise ValueError(f"padding {self.padding} is negative")

    @property
    def bounds(self) -> dict[Dim, int]:
        """The eight bounds by dimension name."""
        return {d: getattr(self, d.lower()) for d in DIMS}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole nest, padding included."""
        return prod(self.bounds.values())

    @property
    def taps(self) -> int:
        """Products summed into one output element, C * R * S."""
        return self.c * self.r * self.s

    @property
    def input_extent(self) -> tuple[int, int]:
        """Rows and columns of the input box that the nest touches, padding included."""
        return (
            (self.p - 1) * self.stride[0] + (self.r - 1) * self.dilation[0] + 1,
            (self.q - 1) * self.stride[1] + (self.s - 1) * self.dilation[1] + 1,
        )

    def volume(self, tensor: Tensor) -> int:
        """Elements of `tensor`; inputs are counted as their bounding box, padding included."""
        if tensor == "Weights":
            return self.g * self.m * self.c * self.r * self.s
        if tensor == "Outputs":
            return self.g * self.n * self.m * self.p * self.q
        return self.g * self.n * self.c * prod(self.input_extent)

    def __str__(self) -> str:
        parts = [f"{d}{v}" for d, v in self.bounds.items() if v > 1]
        for name, default in (("stride", (1, 1)), ("dilation", (1, 1))):
            value = getattr(self, name)
            if value != default:
                parts.append(f"{name}{value[0]}x{value[1]}")
        return " ".join(parts) or "scalar"
