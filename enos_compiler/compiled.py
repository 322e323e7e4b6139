# SPDX-License-Identifier: Apache-2.0
"""Training's loops compiled by numba: where they may run, and how their work is split over threads.

A kernel is a function in the subset of Python that numba compiles. It takes first the part of the
work that it is to do, from `begin` to before `end`. Compiled forms stand beside plain operations of
PyTorch, which are their definition and run wherever numba is missing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

Kernel = Callable[..., None]

LEAST_PART = 2**21
"""Steps that a part has at least: waking a thread takes as long as some hundred thousand."""
FASTMATH = {"contract"}
"""A product and a sum may become one instruction; nothing else may be reordered or left out."""


@cache
def is_installed() -> bool:
    """Return whether numba is there."""
    return importlib.util.find_spec("numba") is not None


def takes(*tensors: Tensor) -> bool:
    """Return whether compiled kernels read such tensors: float32 in main memory, as it is."""
    return (
        is_installed()
        and not torch.is_autocast_enabled("cpu")
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    )


def call(kernel: Kernel, *arguments: object) -> None:
    """Run a kernel that is not worth several threads; it takes no part."""
    _compiled(kernel)(*arguments)


def run(kernel: Kernel, work: int, size: int, *arguments: object) -> None:
    """Do all work, a part on each of PyTorch's threads.

    Args:
        kernel: takes begin and end of its part and the arguments.
        work: items that parts are made of.
        size: steps of its innermost loops in all: what a thread is worth waking for.
        arguments: the same for every part.
    """
    do = _compiled(kernel)
    _each(lambda begin, end, _: do(begin, end, *arguments), _parts(work, size))


def run_parts(
    kernel: Kernel, work: int, size: int, shape: tuple[int, ...], *arguments: object
) -> Any:
    """Do all work of a kernel whose last argument takes its findings; return all, (parts, *shape).

    The findings are float64 and not initialised. See `run`.
    """
    do, parts = _compiled(kernel), _parts(work, size)
    found = np.empty((len(parts), *shape))
    _each(lambda begin, end, part: do(begin, end, *arguments, found[part]), parts)
    return found


def _parts(work: int, size: int) -> list[tuple[int, int]]:
    threads = min(torch.get_num_threads(), work, max(size // LEAST_PART, 1))
    return list(pairwise(work * t // threads for t in range(threads + 1)))


def _each(do: Callable[[int, int, int], None], parts: list[tuple[int, int]]) -> None:
    """Do every part, the first on this thread."""
    others = [
        _pool(len(parts) - 1).submit(do, *span, part)
        for part, span in enumerate(parts[1:], start=1)
    ]
    do(*parts[0], 0)
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="enos-kernel")


@cache
def _compiled(kernel: Kernel) -> Kernel:
    numba: Any = importlib.import_module("numba")  # slow to import, and optional
    options = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(kernel)  # type: ignore[no-any-return]
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**options)(kernel)  # type: ignore[no-any-return]
