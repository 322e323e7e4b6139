# SPDX-License-Identifier: Apache-2.0
"""Accuracies that were measured, line by line, so that an interrupted run loses none of them.

The first line names the run that the file belongs to: everything that an accuracy depends on.
Every measurement adds a line, flushed to disk. Costs on hardware are exact and cheap and are not
kept. A search repeats itself exactly, so that one that finds its measurements here goes on where
it was interrupted.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from enos_compiler.errors import FormatError, UsageError
from enos_compiler.explore.plan import Genome, as_genome

SCHEMA = "enos-explore-journal/1"
Key = tuple[str, Genome]
"""Tier and bits."""


@dataclass(slots=True)
class Journal:
    """The measured accuracies of one run; see `open_journal`."""

    path: Path | None = None
    """None keeps them in memory only."""
    known: dict[Key, float] = field(default_factory=dict)

    def add(self, tier: str, genome: Genome, accuracy: float) -> None:
        """Keep a measurement, on disk before it returns."""
        self.known[tier, genome] = accuracy
        if self.path is not None:
            _append(self.path, {"tier": tier, "bits": genome, "accuracy": accuracy})


def open_journal(path: Path, run: str, *, resume: bool) -> Journal:
    """Return the journal at `path`, begun if it is not there.

    A last line that an interruption cut short is dropped.

    Args:
        path: of the file.
        run: hash of all that an accuracy depends on.
        resume: go on with measurements that are there.

    Raises:
        UsageError: there are measurements, and `resume` is not asked for.
        FormatError: the file is of another run, or damaged.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, {"schema": SCHEMA, "run": run})
        return Journal(path)
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.decode(errors="replace").splitlines()
    journal = Journal(path, _read(path, lines, run))
    if not resume:
        raise UsageError(
            f"holds {len(journal.known)} measurements of an earlier run",
            place=str(path),
            remedy="--resume goes on with them, another -o starts afresh",
        )
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return journal


def _read(path: Path, lines: list[str], run: str) -> dict[Key, float]:
    known: dict[Key, float] = {}
    number = 1
    try:
        head = json.loads(lines[0])
        schema, found = head["schema"], head["run"]
        for line in lines[1:]:
            number += 1
            entry = json.loads(line)
            known[str(entry["tier"]), as_genome(entry["bits"])] = float(entry["accuracy"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(
            f"is damaged: {type(error).__name__}: {error}",
            place=f"{path}:{number}",
            remedy="delete this line, or start afresh with another -o",
        ) from error
    if schema != SCHEMA or found != run:
        raise FormatError(
            "belongs to another run: the network, its weights, the data or the way accuracies are "
            "measured differ",
            place=str(path),
            remedy="the same command as before with --resume, or another -o",
        )
    return known


def _append(path: Path, entry: dict[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())
