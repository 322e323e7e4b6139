# SPDX-License-Identifier: Apache-2.0
"""The errors a user can meet: one small tree, each with place, value and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class EnosError(Exception):
    """Base of every error that the compiler raises on purpose.

    Args:
        message: what is wrong, in one sentence, with the value and the limit and their units.
        place: where: `file:line`, a dotted path into a spec, or a layer name.
        remedy: the way out, as an imperative phrase without the leading "try".
    """

    exit_code = 1

    def __init__(
        self, message: str, *, place: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head}\n  try: {self.remedy}" if self.remedy else head

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that `--json` prints."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "place": self.place,
            "remedy": self.remedy,
        }


class UsageError(EnosError):
    """Wrong command line: an unknown option, pass, target or budget form."""

    exit_code = 2


class FrontendError(EnosError):
    """The user's model cannot be loaded, traced or expressed."""


class SpecError(EnosError):
    """A target file is malformed or contradicts itself."""


class RefusalError(EnosError):
    """No core of the target takes a layer."""


class InfeasibleError(EnosError):
    """No solution exists: demand and bound are known and named."""


class PassError(EnosError):
    """A pass failed or was given a network without the facts it requires."""


class VerifyError(EnosError):
    """The verifier found a broken rule after a pass; a defect of the pass, not of the user."""


class FormatError(EnosError):
    """A saved file is damaged, of another schema, or does not belong to its neighbours."""


class ReplayError(EnosError):
    """A program breaks a rule of the machine: names the instruction and the rule."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a remedy phrase naming the nearest known name and listing all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = ", ".join(known) if known else "none"
    return f"{close[0]} (known: {listing})" if close else f"one of: {listing}"
