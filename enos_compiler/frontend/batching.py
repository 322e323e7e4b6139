# SPDX-License-Identifier: Apache-2.0
"""Whether a network may run at another batch, found by running it there and comparing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from enos_compiler.frontend.record import Recording

SHAPE_CALLS = (
    *("view", "reshape", "expand", "expand_as", "broadcast_to", "unflatten", "flatten"),
    *("view_as", "reshape_as"),
)
"""Calls whose extents may differ between batches: they are lowered from their result's shape."""

ROW_TOLERANCE = 1e-3
"""Largest difference of a row between batches, relative to the output's largest magnitude.

Sums in another order differ by float32 rounding, far less; rows that read each other by far more.
"""


@dataclass(frozen=True, slots=True)
class Batching:
    """The batch a network is compiled for, whether it may be symbolic, and why not."""

    batch: int
    is_symbolic: bool
    note: str = ""


def with_rows(tensor: Tensor, rows: int) -> Tensor:
    """Return the tensor with `rows` leading entries, repeating its own in turn."""
    return tensor[torch.arange(rows) % tensor.shape[0]]


def rows_agree(native: Sequence[Tensor], other: Sequence[Tensor], batch: int) -> str:
    """Return how outputs at another batch contradict the original ones; "" where they agree."""
    if len(native) != len(other):
        return f"there are {len(other)} outputs, not {len(native)}"
    for index, (expected, result) in enumerate(zip(native, other, strict=True)):
        if not result.dim() or result.shape[0] != batch:
            return f"output {index} of shape {tuple(result.shape)} does not lead with the batch"
        if not expected.dim() or result.shape[1:] != expected.shape[1:]:
            return f"output {index} changes its shape to {tuple(result.shape)}"
        rows = with_rows(expected, batch)
        limit = ROW_TOLERANCE * max(float(expected.abs().max()), 1e-6)
        if not bool(((result - rows).abs() <= limit).all()):
            return f"rows of output {index} change with the batch"
    return ""


def compare(at: Recording, grown: Recording, rows: int, batch: int) -> str:
    """Note in `at` how its shapes grow with the batch; return why they do not, or "".

    Extents are affine in the batch, so two runs give them at every batch: each node gets
    meta["shape"] at `batch` and meta["grown"] at `batch` + 1. A constant that repeats one row for
    every entry of the batch is cut to that row and marked meta["is_row_of_batch"].

    Args:
        at: recorded at `rows` >= 2, where no extent of the batch is mistaken for a broadcast one.
        grown: recorded at `rows` + 1.
        rows: the smaller batch.
        batch: the batch to compile for.
    """
    left, right = list(at.graph.nodes), list(grown.graph.nodes)
    if len(left) != len(right):
        return "the graph has other operations"
    cut: dict[str, Tensor] = {}
    for a, b in zip(left, right, strict=True):
        if (a.op, str(a.target)) != (b.op, str(b.target)):
            return f"the graph has other operations ({a.name}, {b.name})"
        call = a.meta.get("call", "")
        is_free = a.op == "output" or call in SHAPE_CALLS
        if not (is_free or _same(a.args, b.args)) or not _same(a.kwargs, b.kwargs):
            return f"`{call}` has other arguments"
        if a.op == "get_attr" and a.target in at.constants:
            row = _common_row(at.constants[a.target], grown.constants[b.target], rows)
            if row is None:
                return "a constant has other contents"
            cut[str(a.target)] = row
    for a, b in zip(left, right, strict=True):
        if "shape" not in a.meta:
            continue
        here, there = a.meta["shape"], b.meta["shape"]
        if a.op == "get_attr" and here != there:
            a.meta["is_row_of_batch"] = True
            here = there = tuple(cut[str(a.target)].shape)
        a.meta["shape"] = _at_batch(here, there, batch - rows)
        a.meta["grown"] = _at_batch(here, there, batch + 1 - rows)
    at.constants.update(cut)
    return ""


def _at_batch(here: Any, there: Any, steps: int) -> Any:
    """Return extents `steps` batches on from `here`, where one step leads to `there`."""
    if isinstance(here, int):
        return here + steps * (there - here)
    return tuple(_at_batch(a, b, steps) for a, b in zip(here, there, strict=True))


def _common_row(a: Tensor, b: Tensor, batch: int) -> Tensor | None:
    """Return what a constant holds at either batch: itself, or the row that both repeat."""
    if a.shape == b.shape:
        return a if torch.equal(a, b) else None
    axes = [i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=False)) if m != n]
    if (
        a.dim() != b.dim()
        or len(axes) != 1
        or (a.shape[axes[0]], b.shape[axes[0]])
        != (
            batch,
            batch + 1,
        )
    ):
        return None
    row = a.narrow(axes[0], 0, 1)
    repeats = torch.equal(row.expand_as(a), a) and torch.equal(row.expand_as(b), b)
    return row.clone() if repeats else None


def _same(a: Any, b: Any) -> bool:
    """Whether two recorded arguments are equal, nodes compared by name."""
    if isinstance(a, fx.Node) or isinstance(b, fx.Node):
        return isinstance(a, fx.Node) and isinstance(b, fx.Node) and a.name == b.name
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, slice) and isinstance(b, slice):
        return _same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    return bool(a == b) and type(a) is type(b)
