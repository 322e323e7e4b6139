# SPDX-License-Identifier: Apache-2.0
"""Writing results so that nothing of the user's is ever lost: temporary sibling, then rename."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from enos_compiler.errors import EnosError


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be made or written, before any work is done.

    Raises:
        EnosError: names the folder and the cause.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise EnosError("is a file, not a folder", place=str(existing), remedy="another -o DIR")
    try:
        Path(tempfile.mkdtemp(dir=existing)).rmdir()
    except OSError as error:
        raise EnosError(
            f"cannot be written: {error.strerror or error}",
            place=str(existing),
            remedy="another -o DIR",
        ) from error


@contextmanager
def staged_outputs(folder: Path, last: str, stale: Collection[str] = ()) -> Iterator[Path]:
    """Yield a temporary sibling of `folder`; on success move its entries into `folder`.

    Each entry replaces its namesake by rename, the one named `last` at the very end; entries named
    in `stale` that were not made again go, other files in `folder` stay. If the body fails,
    `folder` is as it was and the sibling is gone; if the process is killed, `folder` is as it was
    and the next one sweeps the sibling away.

    Raises:
        EnosError: the disk is full or the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        prefix = f".{folder.name}-{os.getpid()}-"
        stage = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    except OSError as error:
        raise _write_error(error, folder) from error
    try:
        yield stage
        check_writable(folder)
        folder.mkdir(exist_ok=True)
        for name in stale:
            if (folder / name).exists() and not (stage / name).exists():
                (folder / name).rename(stage / f"{name}.old")
        for entry in sorted(_made(stage), key=lambda p: (p.name == last, p.name)):
            _replace(entry, folder / entry.name)
    except OSError as error:
        raise _write_error(error, folder) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left beside `folder`: siblings whose process is no more."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}-(\d+)-\w+")
    for sibling in folder.parent.iterdir():
        found = pattern.fullmatch(sibling.name)
        if found and not _is_running(int(found[1])):
            shutil.rmtree(sibling, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _made(stage: Path) -> list[Path]:
    return [entry for entry in stage.iterdir() if entry.suffix != ".old"]


def _replace(new: Path, old: Path) -> None:
    """Rename `new` over `old`; a folder is moved aside first, since renames do not merge."""
    if old.is_dir() and not old.is_symlink():
        aside = new.with_name(f"{new.name}.old")
        old.rename(aside)
    new.replace(old)


def _write_error(error: OSError, folder: Path) -> EnosError:
    return EnosError(
        f"cannot write: {error.strerror or error}",
        place=str(error.filename or folder),
        remedy="free some space or choose another folder with -o",
    )


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write; on success it replaces `path` by rename.

    Raises:
        EnosError: the disk is full or the folder cannot be written.
    """
    check_writable(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            yield made
            made.replace(path)
    except OSError as error:
        raise _write_error(error, path) from error


def replace_text(path: Path, text: str) -> None:
    """Write a text file so that it is never seen half written; see `replaced_file`.

    Raises:
        EnosError: as there, and where the folder is missing.
    """
    if not path.parent.is_dir():
        raise EnosError("cannot write: there is no such folder", place=str(path.parent))
    with replaced_file(path) as made:
        made.write_text(text, encoding="utf-8")
