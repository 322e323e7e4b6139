# SPDX-License-Identifier: Apache-2.0
"""The compiled form of `kernels`: where it may run, and how its rows are split over threads.

It runs on float32 tensors of some size in main memory where numba is installed. Everywhere else the
plain operations of PyTorch do the same, which are its definition.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST = 2**17
"""Elements from which on the compiled form runs: below it calls cost more than they save."""
WIDTH = 256
"""Numbers that a row has at most: its constants stay in the fastest memory."""
FASTMATH = {"contract"}
"""A product and a sum may become one instruction; nothing else may be reordered or left out."""


@cache
def is_installed() -> bool:
    """Return whether numba is there."""
    return importlib.util.find_spec("numba") is not None


def takes(*tensors: Tensor) -> bool:
    """Return whether images of this kind are worth the compiled form: all alike, channels last."""
    first = tensors[0]
    return (
        first.dim() == 4
        and first.numel() >= LEAST
        and is_installed()
        and not torch.is_autocast_enabled("cpu")
        and all(
            t.dtype == torch.float32
            and t.device.type == "cpu"
            and t.shape == first.shape
            and t.is_contiguous(memory_format=torch.channels_last)
            for t in tensors
        )
    )


def rows_of(tensor: Tensor) -> Any:
    """Return images, channels last, as a numpy view (rows, width) of whole pixels."""
    n, channels, height, width = tensor.shape
    repeats = _repeats(n * height * width, channels)
    flat = tensor.detach().permute(0, 2, 3, 1).reshape(-1, repeats * channels)
    return flat.numpy()


def repeated(constants: Tensor, width: int) -> Any:
    """Return (..., channels) float32 constants repeated along the last axis of `rows_of`."""
    times = width // constants.shape[-1]
    return constants.float().repeat(*(1,) * (constants.dim() - 1), times).contiguous().numpy()


@cache
def _repeats(pixels: int, channels: int) -> int:
    """Return how many pixels lie in a row: a divisor of their number."""
    return max(n for n in range(1, max(WIDTH // channels, 1) + 1) if pixels % n == 0)


def run(name: str, rows: int, *arguments: object) -> None:
    """Run a kernel over all rows, a part on each of PyTorch's threads."""
    kernel = _compiled(name)
    parts = spans(rows)
    if len(parts) == 1:
        kernel(0, rows, *arguments)
        return
    list(_pool(len(parts)).map(lambda part: kernel(*part, *arguments), parts))


def run_sums(name: str, rows: int, shape: tuple[int, int], *arguments: object) -> Any:
    """Run a kernel that finds sums; return those of each part of the rows, (parts, *shape)."""
    kernel = _compiled(name)
    parts = spans(rows)
    found = np.empty((len(parts), *shape))
    if len(parts) == 1:
        kernel(0, rows, *arguments, found[0])
    else:
        jobs = zip(parts, found, strict=True)
        list(_pool(len(parts)).map(lambda job: kernel(*job[0], *arguments, job[1]), jobs))
    return found


def spans(rows: int) -> list[tuple[int, int]]:
    """Return the rows of each thread, first and behind the last."""
    threads = min(torch.get_num_threads(), rows)
    ends = [rows * t // threads for t in range(threads + 1)]
    return list(pairwise(ends))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="enos-kernel")


@cache
def _compiled(name: str) -> Callable[..., None]:
    from enos_compiler.search import kernels

    numba: Any = importlib.import_module("numba")  # slow to import, and optional
    options = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}
    plain = getattr(kernels, name)
    try:
        return numba.njit(cache=True, **options)(plain)  # type: ignore[no-any-return]
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**options)(plain)  # type: ignore[no-any-return]
