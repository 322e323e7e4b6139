# SPDX-License-Identifier: Apache-2.0
"""Results of the mapper by content: once in a process, and on disk for the next one.

A result is found by the hash of everything that it depends on, the mapper's own source included,
so nothing is ever stale. Files are JSON, written beside their place and renamed into it: processes
that write the same one at a time write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from enos_compiler import mapping
from enos_compiler.errors import UsageError

FORM = "enos-mapping/2"
"""Form of the stored results; part of every key."""


def cache_folder() -> Path:
    """Return the folder of stored mappings: under ENOS_CACHE_DIR, else the user's cache."""
    named = os.environ.get("ENOS_CACHE_DIR")
    if named:
        return Path(named) / "mappings"
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "enos-compiler" / "mappings"


def made_folder(path: str | Path) -> Path:
    """Return a folder that the user names, made where it is missing.

    Raises:
        UsageError: it cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(
            f"mappings cannot be kept in {folder}: {error.strerror}",
            place="--mapping-cache",
            remedy="a folder that can be written",
        ) from error
    return folder


_TELLING = ("nest_*.py", "step*.py", "tiles.py", "loopnest_spec.py")
"""Files beside this one that turn a nest into an answer: its events, its widths, its steps."""


@cache
def _source_hash() -> str:
    """Hash of the source of the mapper and of what tells its nests: others may say otherwise."""
    digest = hashlib.sha256()
    mapper, here = Path(str(mapping.__file__)).parent, Path(__file__).parent
    telling = (file for pattern in _TELLING for file in sorted(here.glob(pattern)))
    for file in (*sorted(mapper.glob("*.py")), *telling):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def content_key(question: Mapping[str, Any]) -> str:
    """Return the key of a question, given as JSON-able data."""
    content = {"form": FORM, "source": _source_hash(), **question}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


_KNOWN: dict[str, dict[str, Any]] = {}
"""Answers of this process; a key says all that an answer depends on."""


def recall(
    question: Mapping[str, Any],
    answer: Callable[[], dict[str, Any]],
    folder: Path | None = None,
) -> dict[str, Any]:
    """Return the answer to a question from this process, from disk, or by working it out.

    Args:
        question: all that the answer depends on, JSON-able.
        answer: works it out; its result is JSON-able.
        folder: where answers are stored; None: `cache_folder()`.
    """
    key = content_key(question)
    if key not in _KNOWN:
        file = (folder or cache_folder()) / key[:2] / f"{key}.json"
        found = _read(file)
        if found is None:
            found = json.loads(json.dumps(answer()))
            _write(file, found)
        _KNOWN[key] = found
    return _KNOWN[key]


def forget() -> None:
    """Drop the answers of this process; those on disk stay."""
    _KNOWN.clear()


def _read(file: Path) -> dict[str, Any] | None:
    """Return a stored answer; None where there is none or the file is damaged."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(stored, dict) and stored.get("form") == FORM
    answer = stored.get("answer") if whole else None
    return answer if isinstance(answer, dict) else None


def _write(file: Path, answer: dict[str, Any]) -> None:
    """Store an answer; where the folder cannot be written, the next process works it out again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as part:
                json.dump({"form": FORM, "answer": answer}, part)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
