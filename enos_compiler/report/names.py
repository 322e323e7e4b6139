# SPDX-License-Identifier: Apache-2.0
"""Names that fit a column and still tell layers apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

_WORD_END = re.compile(r"[_./]")


def short_names(names: Iterable[str], width: int, gap: str) -> dict[str, str]:
    """Return a label of at most `width` characters for each name.

    Of a longer name the middle gives way to `gap`. Names that this makes alike keep what follows
    the words that they share; if that is too long as well, as much of its two ends as tells most
    of them apart.
    """
    labels = {name: _cut(name, width, gap, (width - len(gap)) // 2) for name in names}
    for alike in _alike(labels):
        labels.update(_told_apart(alike, width, gap))
    return labels


def _alike(labels: dict[str, str]) -> Iterator[list[str]]:
    """Yield the names that share a label."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, label in labels.items():
        owners[label].append(name)
    yield from (names for names in owners.values() if len(names) > 1)


def _told_apart(names: Sequence[str], width: int, gap: str) -> dict[str, str]:
    """Return the labels that tell most names apart, the first such in order of preference."""
    shared = _common_prefix(names)
    start = max((found.end() for found in _WORD_END.finditer(shared)), default=0)
    best: dict[str, str] = {}
    for skipped in dict.fromkeys((start, len(shared))):
        for labels in _attempts(names, skipped, width, gap):
            distinct = len(set(labels.values()))
            if distinct == len(names):
                return labels
            if distinct > len(set(best.values())):
                best = labels
    return best


def _common_prefix(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[:length]


def _attempts(names: Sequence[str], start: int, width: int, gap: str) -> Iterator[dict[str, str]]:
    """Yield labels with the tail behind `start` whole, else cut at each place of its own."""
    room = width - len(gap)
    for head in sorted(range(room - len(gap) + 1), key=lambda kept: abs(2 * kept - room)):
        yield {name: _behind(name, start, width, gap, head) for name in names}


def _behind(name: str, start: int, width: int, gap: str, head: int) -> str:
    room = width - len(gap)
    tail = name[start:]
    if len(tail) <= room:
        return name[: room - len(tail)] + gap + tail
    return gap + _cut(tail, room, gap, head)


def _cut(name: str, width: int, gap: str, head: int) -> str:
    """Return `head` characters, the gap and the end of a name longer than `width`."""
    if len(name) <= width:
        return name
    return name[:head] + gap + name[len(name) - (width - len(gap) - head) :]
