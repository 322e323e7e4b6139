# SPDX-License-Identifier: Apache-2.0
"""A compiler for neural networks on hybrid accelerators.

`compile` takes a PyTorch network to a `Compiled` one; `Data` names its data sets; `load_target`
reads a chip. These names are the stable surface; modules below them may still move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enos_compiler.compiler import Compiled, compile
    from enos_compiler.cores.target import load_target
    from enos_compiler.errors import EnosError
    from enos_compiler.frontend.data import Data

__all__ = ["Compiled", "Data", "EnosError", "compile", "load_target"]

_HOMES = {
    "Compiled": "enos_compiler.compiler",
    "Data": "enos_compiler.frontend.data",
    "EnosError": "enos_compiler.errors",
    "compile": "enos_compiler.compiler",
    "load_target": "enos_compiler.cores.target",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
