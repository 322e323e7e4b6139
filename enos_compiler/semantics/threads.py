# SPDX-License-Identifier: Apache-2.0
"""One thread where the work is many small operations: waking a second one costs more than it does.

On a machine that is busy with something else, threads that wait for each other at the end of every
small operation are up to ten times slower than one that does not wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread(*, wanted: bool = True) -> Iterator[None]:
    """Run torch on one thread inside the block, if `wanted`; the number before comes back."""
    import torch

    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
