# SPDX-License-Identifier: Apache-2.0
"""Imports a user's Python code: a file by its path, or a module by its dotted name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from enos_compiler.errors import FrontendError, nearest
from enos_compiler.frontend.place import place_of_error


def existing_file(path: Path) -> Path:
    """Return the resolved path of a file; name the nearest one in its folder if it is missing."""
    if path.is_file():
        return path.resolve()
    siblings = (
        [str(p) for p in path.parent.glob("*.py") if p.stem != "__init__"]
        if path.parent.is_dir()
        else []
    )
    raise FrontendError(
        "this file does not exist" if not path.is_dir() else "this is a folder, not a file",
        place=str(path),
        remedy=nearest(str(path), siblings) if siblings else "give the path of a Python file",
    )


def import_file(path: Path) -> ModuleType:
    """Import a file under its own name, its folder importable while it loads."""
    spec = importlib.util.spec_from_file_location(f"enos_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FrontendError("this is no Python file", place=str(path), remedy="give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with importable(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise FrontendError(
            f"the file cannot be imported: {type(error).__name__}: {error}",
            place=place_of_error(error) or str(path),
            remedy=f"make `python {path.name}` run without an error",
        ) from error
    return module


def import_module(name: str) -> ModuleType:
    """Import a module by its dotted name, the current folder importable."""
    try:
        with importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise FrontendError(
                f"there is no module {error.name}",
                place=name,
                remedy="give file.py, file.py:function or package.module:callable",
            ) from error
        raise FrontendError(
            f"the module cannot be imported: {error}",
            place=place_of_error(error) or name,
            remedy=f"install {error.name}",
        ) from error
    except Exception as error:
        raise FrontendError(
            f"the module cannot be imported: {type(error).__name__}: {error}",
            place=place_of_error(error) or name,
            remedy=f"make `python -m {name}` run without an error",
        ) from error


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Put a folder first on the import path for a while."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def seed_generators(seed: int) -> None:
    """Seed every generator that a user's code may draw from, so that a run can be repeated."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (users' code draws from the global generator)
    torch.manual_seed(seed)
