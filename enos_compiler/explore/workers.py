# SPDX-License-Identifier: Apache-2.0
"""Evaluations on other processes or machines, through joblib; those that die are repeated.

Results come as they are found, in any order. Where a worker dies, joblib gives up what is under
way (loky), or moves it to another worker (Dask); in both cases what has no result yet is asked
again, so that a run ends with every result or with the error of the evaluation itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from enos_compiler.errors import EnosError, UsageError

Backend = Literal["serial", "loky", "dask"]
BACKENDS: tuple[Backend, ...] = ("serial", "loky", "dask")
ATTEMPTS = 3
"""Times in a row that a pool may die without giving a single result."""
CONNECT_S = 20
"""How long a Dask scheduler may take to answer."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Workers:
    """Where evaluations run."""

    backend: Backend = "serial"
    count: int = 1
    """Processes of `loky`; a Dask cluster has its own."""

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Yield (item, result) as results come; items are distinct and hashable.

        Raises:
            EnosError: the evaluation's own, as it was raised; or workers died again and again.
        """
        if self.backend == "serial":
            for item in items:
                yield item, function(item)
            return
        left = dict.fromkeys(items)
        attempts = 0
        while left:
            before = len(left)
            try:
                for item, result in self._once(function, list(left)):
                    if item in left:
                        del left[item]
                        yield item, result
            except EnosError:
                raise
            except _deaths() as error:
                attempts = 0 if len(left) < before else attempts + 1
                if attempts >= ATTEMPTS:
                    raise EnosError(
                        f"workers died {attempts} times without a result: "
                        f"{type(error).__name__}: {error}",
                        place=f"--workers {self.backend}",
                        remedy="fewer workers, if memory is short; --resume goes on from here",
                    ) from error

    def _once(self, function: Callable[[T], R], items: list[T]) -> Iterator[tuple[T, R]]:
        settings: dict[str, Any] = {"return_as": "generator_unordered"}
        if self.backend == "loky":
            settings |= {"backend": "loky", "n_jobs": self.count}
        yield from Parallel(**settings)(delayed(_paired)(function, item) for item in items)


def _paired(function: Callable[[T], R], item: T) -> tuple[T, R]:
    return item, function(item)


def _deaths() -> tuple[type[BaseException], ...]:
    """Return the errors that say that a worker, not an evaluation, failed."""
    from concurrent.futures import BrokenExecutor

    from joblib.externals.loky.process_executor import TerminatedWorkerError

    found: list[type[BaseException]] = [BrokenExecutor, TerminatedWorkerError]
    try:
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError
    except ImportError:
        return tuple(found)
    return (*found, KilledWorker, CommClosedError)


def parse_workers(text: str) -> tuple[Workers, str | None]:
    """Parse `serial`, `loky`, `loky:4`, `dask` or `dask:tcp://host:8786`; the second is an address.

    Raises:
        UsageError: another word, or no number of processes.
    """
    name, _, rest = text.partition(":")
    backend = next((known for known in BACKENDS if known == name), None)
    if backend == "loky" and (not rest or (rest.isdecimal() and int(rest))):
        return Workers("loky", int(rest) if rest else cpu_count()), None
    if backend == "dask":
        return Workers("dask"), rest or None
    if backend == "serial" and not rest:
        return Workers(), None
    raise UsageError(
        f"`{text}` names no workers",
        place="--workers",
        remedy="serial, loky, loky:4, dask (a cluster on this machine) or dask:tcp://host:8786",
    )


@contextmanager
def connected(workers: Workers, address: str | None) -> Iterator[None]:
    """Keep a Dask cluster at hand inside the block: the one at `address`, else one of this machine.

    Raises:
        UsageError: Dask is not installed, or nothing answers at the address.
    """
    if workers.backend != "dask":
        with nullcontext():
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "Dask is not installed",
            place="--workers dask",
            remedy="pip install 'enos-compiler[cluster]', or --workers loky",
        ) from error
    with _client(Client, address), parallel_config(backend="dask"):
        yield


def _client(client: Any, address: str | None) -> AbstractContextManager[Any]:
    try:
        if address is None:
            found = client(processes=True, threads_per_worker=1, dashboard_address=None)
        else:
            found = client(address, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"no cluster answers within {CONNECT_S} s: {type(error).__name__}: {error}",
            place=f"--workers dask:{address}" if address else "--workers dask",
            remedy="start one with `dask scheduler` and `dask worker`, or --workers loky",
        ) from error
    return found  # type: ignore[no-any-return]
