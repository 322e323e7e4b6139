# SPDX-License-Identifier: Apache-2.0
"""Lowers padding: zeros by `pad`, other numbers by an addition, edges by cuts and joints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from enos_compiler.frontend.lower_movement import cut
from enos_compiler.frontend.lowering import Builder, lowers


@lowers("pad", "constant_pad_nd")
def pad(
    b: Builder,
    input: fx.Node,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> fx.Node:
    """Pad axes from the last on; negative amounts cut."""
    rank = len(input.meta["shape"])
    amounts = [(0, 0)] * rank
    for index in range(len(pad) // 2):
        amounts[rank - 1 - index] = (int(pad[2 * index]), int(pad[2 * index + 1]))
    x = input
    for axis, (before, after) in enumerate(amounts):
        extent = x.meta["shape"][axis]
        if min(before, after) < 0:
            x = cut(b, x, axis, max(-before, 0), extent - max(-after, 0))
    amounts = [(max(before, 0), max(after, 0)) for before, after in amounts]
    if mode != "constant":
        return _edges(b, x, amounts, mode)
    return _constant(b, x, amounts, float(value or 0.0))


def _constant(b: Builder, x: fx.Node, amounts: Sequence[tuple[int, int]], value: float) -> fx.Node:
    """Pad with one number: zeros, and its addition on the border where it is another."""
    begins, ends = tuple(a for a, _ in amounts), tuple(e for _, e in amounts)
    if not any(begins + ends):
        return x
    y = b.emit("pad", x, pads=begins + ends, value=0.0)
    if value == 0.0:
        return y
    border = torch.full([1, *y.meta["shape"][1:]], value)
    inside = tuple(
        slice(begin, begin + extent)
        for begin, extent in zip(begins[1:], x.meta["shape"][1:], strict=True)
    )
    border[(slice(None), *inside)] = 0.0
    return b.emit("add", y, b.constant("border", border))


def _edges(b: Builder, x: fx.Node, amounts: Sequence[tuple[int, int]], mode: str) -> fx.Node:
    """Pad with the tensor's own rows: reflected, replicated or circular."""
    for axis, (before, after) in enumerate(amounts):
        n = x.meta["shape"][axis]
        if mode == "reflect":
            first, last = list(range(before, 0, -1)), list(range(n - 2, n - 2 - after, -1))
        elif mode == "replicate":
            first, last = [0] * before, [n - 1] * after
        elif mode == "circular":
            first, last = list(range(n - before, n)), list(range(after))
        else:
            raise b.error(f"padding mode `{mode}` is not known", "use zeros, or reflect")
        if first or last:
            rows = {i: cut(b, x, axis, i, i + 1) for i in dict.fromkeys(first + last)}
            x = b.emit("concat", *(rows[i] for i in first), x, *(rows[i] for i in last), dim=axis)
    return x
