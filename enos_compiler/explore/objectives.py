# SPDX-License-Identifier: Apache-2.0
"""What a search may weigh; imports nothing heavy, so that the command can name it at once."""

from __future__ import annotations

from typing import Literal, get_args

from enos_compiler.errors import UsageError, nearest

ObjectiveName = Literal["accuracy", "noise", "energy", "latency", "edp", "memory"]
"""accuracy on validation data, or noise that rounding is expected to leave at the output (no data
needed); energy in pJ, latency in ns, their product, bits of all weights. Only accuracy is the
better the greater."""
OBJECTIVES: tuple[ObjectiveName, ...] = get_args(ObjectiveName)
MethodName = Literal["nsga2", "gradient", "both"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
"""NSGA-II; the front of a search that trains widths by gradients; NSGA-II that starts from it."""
HARDWARE: tuple[ObjectiveName, ...] = ("energy", "latency", "edp", "memory")


def parse_objectives(text: str) -> tuple[ObjectiveName, ...]:
    """Parse `accuracy,edp`.

    Raises:
        UsageError: an unknown name, one twice, or fewer than two.
    """
    found: list[ObjectiveName] = []
    for word in text.split(","):
        name = next((known for known in OBJECTIVES if known == word.strip()), None)
        if name is None:
            raise UsageError(
                f"`{word.strip()}` is no objective",
                place="--objectives",
                remedy=nearest(word.strip(), OBJECTIVES),
            )
        if name in found:
            raise UsageError(f"`{name}` is given twice", place="--objectives")
        found.append(name)
    if len(found) < 2:
        raise UsageError(
            f"`{text}` is one objective, a front needs two",
            place="--objectives",
            remedy="--objectives accuracy,edp",
        )
    return tuple(found)


def parse_bits(text: str) -> tuple[int, ...]:
    """Parse `2..8` or `2,4,8`: the widths to search, rising.

    Raises:
        UsageError: no such list, or a width outside 2..8.
    """
    first, dots, last = text.partition("..")
    try:
        if dots:
            bits = list(range(int(first), int(last) + 1))
        else:
            bits = sorted({int(b) for b in text.split(",")})
    except ValueError:
        raise UsageError(
            f"`{text}` is no range of widths", place="--bits", remedy="--bits 2..8 or 2,4,8"
        ) from None
    outside = [b for b in bits if not 2 <= b <= 8]
    if outside or not bits:
        raise UsageError(
            f"{outside[0]} bits is outside 2..8" if outside else f"`{text}` holds no width",
            place="--bits",
            remedy="--bits 2..8",
        )
    return tuple(bits)
