# SPDX-License-Identifier: Apache-2.0
"""Every candidate of a weight as a table over the weight's integer code.

A weight is divided by the root mean square r of its output channel and cut into steps of 1/128;
the step it lies in is its code. An elementwise operator is then a look-up, so any number of
candidates costs one look-up of their weighted sum, and the gradients of their shares are dot
products of their tables with the histogram of the weights' gradients over the codes.

The tables are read off the operator itself: its own `weight_forms` on a channel of normal weights,
values and slopes. A half that grows with the square of r (mf's magnitudes) keeps its power.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enos_compiler import compiled, plugins
from enos_compiler.operators.base import Operator
from enos_compiler.search import kernels

LEAST = 2**11
"""Weights from which on a compiled look-up pays."""
RESOLUTION = int(kernels.RESOLUTION)
"""Codes per root mean square, none astride 0: an 8-bit step of a normal channel is four."""
REACH = 5
"""Codes end at this multiple of the root mean square; weights beyond are read as there."""
ENTRIES = 2 * REACH * RESOLUTION
SAMPLES = 2**15
"""Weights of the normal channel that the tables are read from: quantiles out to 4.2."""
REFERENCE_RMS = 0.125
"""Root mean square of that channel: about that of trained weights."""

Candidate = tuple[str, int, int]
"""Operator, weight bits and kernel extent; 0 stands for the whole kernel."""
_HALVES = ("plain", "signed", "squared")
"""What a row of a bank holds values and slopes of: A ~ r, B ~ r, B ~ r**2."""


@dataclass(frozen=True, slots=True)
class Bank:
    """The tables of several candidates, side by side.

    Args:
        rows: (candidates, 6 * ENTRIES): values and slopes of A, of the part of B that grows with
            r and of the part that grows with r**2.
        used: which of the three parts any candidate has.
    """

    rows: Tensor
    used: tuple[bool, bool, bool]

    def mixed(self, shares: Tensor) -> Tensor:
        """Return the weighted sum of the candidates' tables, (6, ENTRIES)."""
        mixed: Tensor = shares @ self.rows
        return mixed.view(6, ENTRIES)


@cache
def bank(arithmetics: tuple[tuple[str, int], ...]) -> Bank:
    """Return the tables of (operator, weight bits) candidates."""
    rows = torch.stack([_row(*arithmetic) for arithmetic in arithmetics])
    parts = rows.view(len(arithmetics), 6, ENTRIES)
    used = tuple(bool(parts[:, 2 * part].any()) for part in range(3))
    return Bank(rows, (used[0], used[1], used[2]))


def is_tabulated(operator: str) -> bool:
    """Return whether each weight form is a function of that weight and its channel's size."""
    return bool(getattr(plugins.load("operators", operator), "elementwise", False))


class _Compose(torch.autograd.Function):
    """Weights and shares to (A, B); gradients by slopes and by histograms."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, shares: Tensor, tables: Bank) -> tuple[Tensor, Tensor]:
        """Return A and B in the memory order of the weight; B is empty where none has it."""
        rows = _rows(weight)
        rms = channel_rms(rows)
        with torch.autocast(weight.device.type, enabled=False):
            mixed = tables.mixed(shares)
        a, b, codes = _looked_up(rows, rms, mixed, tables.used)
        ctx.save_for_backward(rms, codes, mixed)
        ctx.tables, ctx.shape = tables, weight.shape
        none = weight.new_zeros(())
        return (
            none if a is None else _restored(a, weight.shape),
            none if b is None else _restored(b, weight.shape),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Return the gradients of weights and shares."""
        rms, codes, mixed = ctx.saved_tensors
        tables: Bank = ctx.tables
        on_a, on_b = (_rows(half) if half.dim() else None for half in gradients)
        on_weight, histograms = _looked_back(on_a, on_b, rms, mixed, tables.used, codes)
        on_shares = tables.rows @ histograms.view(-1) if ctx.needs_input_grad[1] else None
        return _restored(on_weight, ctx.shape), on_shares, None


def _looked_up(
    rows: Tensor, rms: Tensor, mixed: Tensor, used: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Return A, B (None where no part makes them) and the codes of weights, each (M, taps)."""
    if _is_compiled(rows, mixed):
        codes = torch.empty(rows.shape, dtype=torch.int32)
        a = torch.empty_like(rows) if used[0] else None
        b = torch.empty_like(rows) if used[1] or used[2] else None
        arrays = [_numpy(tensor) for tensor in (rows, rms, mixed, codes, a, b)]
        compiled.call(kernels.look_up, *arrays[:3], used, *arrays[3:])
        return a, b, codes
    codes = weight_codes(rows, rms)
    halves: list[Tensor | None] = [None, None]
    for part in range(3):
        if used[part]:
            found = _look_up(mixed[2 * part], codes).mul_(rms if part < 2 else rms * rms)
            before = halves[min(part, 1)]
            halves[min(part, 1)] = found if before is None else before + found
    return halves[0], halves[1], codes


def _looked_back(
    on_a: Tensor | None,
    on_b: Tensor | None,
    rms: Tensor,
    mixed: Tensor,
    used: tuple[bool, bool, bool],
    codes: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of weights, (M, taps), and of the tables of values, (6, ENTRIES)."""
    on_weight = torch.zeros_like(codes, dtype=mixed.dtype)
    histograms = torch.zeros_like(mixed)
    if _is_compiled(on_weight, mixed):
        arrays = [_numpy(t) for t in (on_a, on_b, rms, mixed, codes, on_weight, histograms)]
        compiled.call(kernels.look_back, *arrays[:4], used, *arrays[4:])
        return on_weight, histograms
    for part, half in enumerate((on_a, on_b, on_b)):
        if used[part] and half is not None:
            gradient = half * rms if part == 2 else half
            on_weight.addcmul_(gradient, _look_up(mixed[2 * part + 1], codes))
            histograms[2 * part].index_add_(0, codes.view(-1), (gradient * rms).view(-1))
    return on_weight, histograms


def _is_compiled(rows: Tensor, mixed: Tensor) -> bool:
    return rows.numel() >= LEAST and compiled.takes(rows, mixed)


def _numpy(tensor: Tensor | None) -> Any:
    """Return a tensor's memory as numpy sees it; of what is not there, an empty table."""
    return np.empty((0, 0), np.float32) if tensor is None else tensor.detach().numpy()


def _rows(weight: Tensor) -> Tensor:
    """Return the weights as (M, taps): those of a 2-D convolution with the channels last."""
    weight = weight.detach()
    ordered = weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight
    rows: Tensor = ordered.reshape(len(weight), -1)
    return rows


def _restored(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return (M, taps) of `_rows` in the shape of the weight."""
    if len(shape) != 4:
        return rows.view(shape)
    m, c, r, s = shape
    return rows.view(m, r, s, c).permute(0, 3, 1, 2)


def _look_up(table: Tensor, codes: Tensor) -> Tensor:
    return table.index_select(0, codes.view(-1)).view(codes.shape)


def compose(weight: Tensor, shares: Tensor, tables: Bank) -> tuple[Tensor | None, Tensor | None]:
    """Return (A, B) of a weighted sum of candidates: sum over k of share k x conv(x, A_k) + ...

    Args:
        weight: (M, ...) float parameter.
        shares: (candidates,) probability x scale of each.
        tables: of the same candidates.
    """
    a, b = _Compose.apply(weight, shares, tables)  # type: ignore[no-untyped-call]
    return (a if tables.used[0] else None), (b if tables.used[1] or tables.used[2] else None)


def channel_rms(rows: Tensor) -> Tensor:
    """Return the root mean square of each output channel of (M, taps) weights, (M, 1); never 0."""
    rms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True) / rows.shape[1] ** 0.5
    return rms.clamp_min_(torch.finfo(rows.dtype).tiny)


def weight_codes(rows: Tensor, rms: Tensor) -> Tensor:
    """Return the table index of every weight, (M, taps)."""
    steps = (rows / rms).mul_(RESOLUTION).floor_().add_(ENTRIES // 2)
    # An undefined weight leaves its mark through the size of its channel.
    return steps.nan_to_num_().clamp_(0, ENTRIES - 1).int()


@cache
def _row(operator: str, bits: int) -> Tensor:
    """Return values and slopes of the three parts, (6 * ENTRIES,)."""
    made: Operator = plugins.load("operators", operator)()
    grid = (torch.arange(ENTRIES, dtype=torch.float64) + 0.5) / RESOLUTION - REACH
    quantiles = torch.special.ndtri((torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES)
    quantiles = quantiles / quantiles.square().mean().sqrt()
    nearest = _nearest(quantiles, grid)
    parts = torch.zeros(6, ENTRIES, dtype=torch.float64)
    at_one, at_two = (_halves(made, bits, quantiles * r * REFERENCE_RMS) for r in (1, 2))
    for half, (one, two) in enumerate(zip(at_one, at_two, strict=True)):
        if one is None or two is None:
            continue
        values, slopes = one
        growth = float((two[0].square().sum() / values.square().sum()).sqrt())
        power = round(torch.tensor(growth).log2().item())
        if power not in (1, 2) or (half == 0 and power != 1):
            raise ValueError(f"{operator}: {_HALVES[half]} grows with rms to the {power}")
        part = half + power - 1
        parts[2 * part] = values[nearest] / REFERENCE_RMS**power
        parts[2 * part + 1] = slopes[nearest] / REFERENCE_RMS ** (power - 1)
    return parts.view(-1).float()


def _halves(operator: Operator, bits: int, weights: Tensor) -> list[tuple[Tensor, Tensor] | None]:
    """Return values and slopes of both weight forms on one channel of weights, None if absent."""
    found: list[tuple[Tensor, Tensor] | None] = []
    with torch.enable_grad():
        channel = weights[None].clone().requires_grad_()
        for form in operator.weight_forms(channel, bits):
            if form is None:
                found.append(None)
                continue
            (slopes,) = torch.autograd.grad(form.sum(), channel, retain_graph=True)
            found.append((form.detach()[0], slopes[0]))
    return found


def _nearest(sorted_values: Tensor, wanted: Tensor) -> Tensor:
    """Return the index of the nearest of some ascending values to each wanted one."""
    right = torch.searchsorted(sorted_values, wanted).clamp_(1, len(sorted_values) - 1)
    left = right - 1
    closer = wanted - sorted_values[left] <= sorted_values[right] - wanted
    return torch.where(closer, left, right)
