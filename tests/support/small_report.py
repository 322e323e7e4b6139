# SPDX-License-Identifier: Apache-2.0
"""A compiled network with a residual branch, once per test run, and its report."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import enos_compiler
from enos_compiler.compiler import Compiled


class Residual(nn.Module):
    """Two convolutions around a skip, a pooled classifier behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.left = nn.Conv2d(16, 16, 3, padding=1)
        self.right = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        stem = torch.relu(self.stem(x))
        both = torch.relu(self.left(stem) + self.right(stem))
        return self.head(both.mean(dim=(2, 3)))  # type: ignore[no-any-return]


@cache
def compiled_small(target: str = "hybrid") -> Compiled:
    """Return the network compiled for a target."""
    torch.manual_seed(0)
    inputs = (torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
    return enos_compiler.compile(Residual().eval(), inputs, target, name="residual")


def small_report(target: str = "hybrid") -> dict[str, Any]:
    """Return a copy of its report that a test may change."""
    return copy.deepcopy(dict(compiled_small(target).report))
