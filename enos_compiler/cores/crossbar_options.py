# SPDX-License-Identifier: Apache-2.0
"""What a choice on crossbars says beside operator and widths: copies, reloading, zero points.

`rows` names the height of the array and `adc_bits` the converters' resolution where several are
offered; both are looked up by `cores.crossbar` alone.
"""

from __future__ import annotations

from dataclasses import replace

from enos_compiler.ir.choice import Choice

ZERO_POINT = ("zero_point", 1)
"""Option of ef on inputs around a zero point: their signs take two reads, one per sign."""
RELOAD = ("reload", 1)
"""Option of a layer whose weights are written anew in every inference."""
STAGED = ("staged", 1)
"""Option of a reloaded layer whose weights stay in the core's weight memory."""
_COPIES = "copies"


def reloads(choice: Choice) -> bool:
    """Return whether weights are written in every inference."""
    return RELOAD in choice.options


def copies_of(choice: Choice) -> int:
    """Return the replicas of the weights that a choice keeps."""
    return dict(choice.options).get(_COPIES, 1)


def copies_option(copies: int) -> tuple[tuple[str, int], ...]:
    """Return the options that say how many replicas there are: none for one."""
    return ((_COPIES, copies),) if copies > 1 else ()


def with_copies(choice: Choice, copies: int) -> Choice:
    """Return the choice with another number of replicas."""
    others = (option for option in choice.options if option[0] != _COPIES)
    return replace(choice, options=tuple(sorted((*others, *copies_option(copies)))))
