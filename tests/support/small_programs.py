# SPDX-License-Identifier: Apache-2.0
"""A small network on two cores, with a narrower copy and a view, for tests of programs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from enos_compiler.compiler import Hooks, run_passes
from enos_compiler.cores.target import Target, load_target
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Layer, Network
from enos_compiler.pass_text import parse_passes

_BEFORE = (
    "canonicalize,calibrate,attach-choices{operators=mac weight_bits=8 activation_bits=8|6},"
    "sensitivity,assign{budget=baseline}"
)
_BEHIND = "quantize,map-digital,map-cim,schedule"


class Branches(nn.Module):
    """Two branches meet in an addition; a view feeds the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.right = nn.Conv2d(8, 8, 1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.left(x) + self.right(x)
        return self.head(self.pool(x).flatten(1))  # type: ignore[no-any-return]


@cache
def branches(target: str = "hybrid") -> tuple[Network, Target]:
    """Return `Branches` scheduled: where it can be, the left branch on another core at 6 bits."""
    torch.manual_seed(1)
    chip = load_target(target)
    user = UserModel.from_module(Branches().eval(), (torch.rand(3, 3, 8, 8),), name="branches")
    network, *_ = run_passes(trace(user, batch=1), parse_passes(_BEFORE), chip, Hooks(), user=user)
    network = network.with_layers({n: _moved(v) for n, v in network.layers.items()})
    network, *_ = run_passes(network, parse_passes(_BEHIND), chip, Hooks(), user=user)
    return network, chip


def _moved(layer: Layer) -> Layer:
    """Return the second layer on the last core that takes it, reading 6 bits; the rest as is."""
    if layer.shape.bounds["R"] == 1 or layer.first_or_last:
        return layer
    offers = [c for c in layer.choices if (c.bits.input, c.bits.output) == (6, 8)]
    choice: Choice = offers[-1]
    return replace(layer, choice=choice)


def branch_inputs(rows: int = 1) -> tuple[NDArray[np.float32]]:
    """Return inputs of `Branches`."""
    return (np.random.default_rng(0).random((rows, 3, 8, 8), dtype=np.float32),)
