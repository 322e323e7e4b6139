# SPDX-License-Identifier: Apache-2.0
"""Where in the user's own code something happened."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

_PACKAGE = str(Path(__file__).resolve().parents[1])


@cache
def _foreign() -> tuple[str, ...]:
    """Folders whose frames are never the user's: this package, torch, the standard library."""
    import torch

    folders = [_PACKAGE, str(Path(torch.__file__).resolve().parent)]
    folders += [sysconfig.get_path(key) for key in ("stdlib", "platstdlib")]
    return tuple(folder + "/" for folder in folders)


@cache
def is_users(filename: str) -> bool:
    """Whether a source file is the user's: not ours, torch's or Python's own.

    Packages in site-packages count as the user's: a model may come from one.
    """
    if filename.startswith("<"):
        return False
    path = str(Path(filename).resolve())
    if "/site-packages/" in path:
        return not path.startswith(_foreign()[:2])
    return not path.startswith(_foreign())


def place_of_error(error: BaseException) -> str | None:
    """Return `file:line` of the innermost user frame of an exception's traceback."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    return _innermost((frame.filename, frame.lineno or 0) for frame in reversed(frames))


def place_of_caller(boundary: CodeType) -> str | None:
    """Return `file:line` of the innermost user frame that is running now.

    Args:
        boundary: code of our own function that calls the user's model.
    """
    return _innermost(_running(sys._getframe(1), boundary))


def _running(frame: FrameType | None, boundary: CodeType) -> Iterator[tuple[str, int]]:
    """Yield (file, line) of running frames from the innermost to `boundary`."""
    while frame is not None and frame.f_code is not boundary:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


def _innermost(frames: Iterable[tuple[str, int]]) -> str | None:
    """Return the first frame of the user's own folders, else the first of an installed package."""
    installed = None
    for filename, line in frames:
        if not is_users(filename):
            continue
        if "/site-packages/" not in filename:
            return f"{filename}:{line}"
        installed = installed or f"{filename}:{line}"
    return installed
