# SPDX-License-Identifier: Apache-2.0
"""Training by several processes, each on its share of every batch.

`torchrun --nproc-per-node 2 -m enos_compiler.cli.enosc ...` starts them; without it everything
here is a copy of what it was given. Gradients, batch statistics and ranges are those of the whole
batch, so that n processes compute what one would, within float tolerance.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

Item = TypeVar("Item")


def start() -> None:
    """Join the processes that torchrun started, if it did and they are not joined yet."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ and not is_parallel():
        dist.init_process_group("gloo")  # all tensors lie in main memory


def is_parallel() -> bool:
    """Return whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Return whether this process is the one that writes files."""
    return not is_parallel() or dist.get_rank() == 0


def share_of(batch: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of a batch; every part is as long, a remainder is left out."""
    if not is_parallel():
        return batch
    size = len(batch) // dist.get_world_size()
    start_at = dist.get_rank() * size
    return batch[start_at : start_at + size]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over all processes."""
    if not is_parallel():
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def mean_of(value: float) -> float:
    """Return the mean of a number over all processes."""
    if not is_parallel():
        return value
    whole = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(whole)
    return float(whole) / dist.get_world_size()


def mean_over(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, entry by entry."""
    if not is_parallel():
        return tensor
    whole = tensor.clone()
    dist.all_reduce(whole)
    return whole / dist.get_world_size()


def normal_rows(like: Tensor) -> Tensor:
    """Return standard normal numbers for this process's rows of a batch, shaped as `like`.

    Every process draws those of the whole batch, so that n draw what one would. Channels lie last
    in memory where `like` has four axes.
    """
    rows = len(like)
    parts = dist.get_world_size() if is_parallel() else 1
    mine = dist.get_rank() * rows if is_parallel() else 0
    if like.dim() == 4:
        n, c, h, w = like.shape
        return torch.randn(parts * n, h, w, c)[mine : mine + rows].permute(0, 3, 1, 2)
    return torch.randn(parts * rows, *like.shape[1:])[mine : mine + rows]


def extremes_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and greatest over all processes."""
    if not is_parallel():
        return low, high
    both = torch.stack((-low, high))
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return -both[0], both[1]


def from_first(tensor: Tensor) -> Tensor:
    """Return the first process's tensor."""
    if is_parallel():
        dist.broadcast(tensor, 0)
    return tensor


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient, because each process's loss is its own."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        """Return the sum over processes."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        """Return the sum of the gradients."""
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return mean and variance per channel over all processes, differentiable, and the count.

    Args:
        x: (N, C, ...).
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    count = float(x.numel() // x.shape[1] * dist.get_world_size())
    sums = torch.stack((x.sum(axes), x.square().sum(axes)))
    mean, square = (_Sum.apply(sums) / count).unbind()  # type: ignore[no-untyped-call]
    return mean, square - mean.square(), count
