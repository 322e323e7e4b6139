# SPDX-License-Identifier: Apache-2.0
"""Which form of the kernel runs: compiled where the compiled form is cached, else plain numpy.

Compiling takes many seconds, so it happens only where `compile_kernel` is called; until then, and
where numba is missing, the same source runs as plain numpy, with equal results.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np

from enos_compiler.errors import EnosError, UsageError, nearest
from enos_compiler.mapping import kernel

Engine = Literal["numpy", "numba"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


class Solver(Protocol):
    """The kernel in one form."""

    solve: Callable[..., Any]
    first_bound: Callable[..., float]
    local_lattice: Callable[..., Any]
    local_tiles: Callable[..., Any]


def cache_folder() -> Path:
    """Folder of compiled kernels, one for each source, numba and processor kind."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "enos-compiler" / "kernel" / _key()


@cache
def _key() -> str:
    source = Path(str(kernel.__file__)).read_bytes()
    parts = (platform.machine(), platform.processor(), platform.python_version(), np.__version__)
    return hashlib.sha256(source + "|".join((*parts, numba_version())).encode()).hexdigest()[:16]


def numba_version() -> str:
    """Version of numba, empty where it is not installed."""
    if importlib.util.find_spec("numba") is None:
        return ""
    from importlib.metadata import version

    return version("numba")


def available() -> Engine:
    """The engine that runs without compiling anything now, or the one that the user names.

    Raises:
        UsageError: ENOS_MAPPER_ENGINE names no engine.
    """
    forced = os.environ.get("ENOS_MAPPER_ENGINE")
    if forced is not None:
        if forced not in ENGINES:
            raise UsageError(
                f"`{forced}` is no engine of the mapper",
                place="ENOS_MAPPER_ENGINE",
                remedy=nearest(forced, ENGINES),
            )
        return forced
    return "numba" if numba_version() and (cache_folder() / "complete").is_file() else "numpy"


def advice() -> str | None:
    """Return one line for whoever maps in plain numpy and need not; None where there is none."""
    forced = "ENOS_MAPPER_ENGINE" in os.environ
    if forced or not numba_version() or available() == "numba":
        return None
    return (
        "mapping with plain numpy; `enos-map --compile`, once, takes about half a minute and makes "
        "it twice as fast"
    )


def solver(engine: Engine | None = None) -> Solver:
    """The kernel in the given form; None takes what is available."""
    chosen = engine or available()
    return cast("Solver", kernel if chosen == "numpy" else _compiled())


def compile_kernel(run: Callable[[], object]) -> Path:
    """Compile the kernel, if need be, and leave it in the cache.

    Args:
        run: maps something with the engine "numba", so that the kernel meets its arguments.
    """
    folder = cache_folder()
    run()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "complete").touch()
    return folder


@cache
def _compiled() -> ModuleType:
    """A second copy of the kernel whose functions numba compiles on their first call."""
    if not numba_version():
        raise EnosError("numba is not installed", remedy="pip install 'enos-compiler[numba]'")
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    numba: Any = importlib.import_module("numba")  # slow to import, and optional
    numba.config.reload_config()  # it may be imported already
    name = "enos_compiler.mapping.compiled_kernel"
    spec = importlib.util.spec_from_file_location(name, str(kernel.__file__))
    if spec is None or spec.loader is None:
        raise EnosError("the kernel's source is not found", place=str(kernel.__file__))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # loading from the cache imports the functions' module by its name
    spec.loader.exec_module(module)
    module.advance_axis = module.advance_axis_compiled  # type: ignore[attr-defined]
    for function in kernel.FUNCTIONS:
        setattr(module, function, numba.njit(cache=True)(getattr(module, function)))
    return module
