# SPDX-License-Identifier: Apache-2.0
"""Reads the arrays that a user gives as inputs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enos_compiler.errors import FrontendError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file by name, or that of an npy file without one.

    Pickled objects are never loaded.

    Raises:
        FrontendError: the file is missing or damaged, or holds something else than arrays.
    """
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise FrontendError(
            f"cannot be read as arrays: {reason}",
            place=str(path),
            remedy="write it with numpy.savez, an array per input",
        ) from error
