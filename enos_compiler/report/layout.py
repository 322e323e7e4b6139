# SPDX-License-Identifier: Apache-2.0
"""Where each operation of a network stands in a drawing: a rank along the flow, a lane across it.

Source: Sugiyama, Tagawa and Toda, 1981 (remembered): ranks by longest path, waypoints on edges that
span several, order within a rank by barycentres; lanes then by weighted least squares under a
minimum distance (pool adjacent violators).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_SWEEPS = 6
_STRAIGHT = 8.0
"""Weight of a waypoint's wish to stay in line, against 1 of an operation's."""
_THIN = 0.4
"""Lanes that a waypoint takes, against 1 of an operation."""


@dataclass(slots=True)
class _Drawing:
    """Points by rank; a point is an operation or the waypoint of an edge (`edge`, `rank`)."""

    rank: dict[Any, int] = field(default_factory=dict)
    before: dict[Any, list[Any]] = field(default_factory=lambda: defaultdict(list))
    behind: dict[Any, list[Any]] = field(default_factory=lambda: defaultdict(list))
    rows: list[list[Any]] = field(default_factory=list)


def lay_out(graph: Mapping[str, Any], free: Iterable[str] = ()) -> dict[str, Any]:
    """Return ranks and lanes of a report's graph section.

    Args:
        graph: `inputs`, `outputs` and `nodes` with what each reads.
        free: operations that are not drawn; who reads them reads what they read.

    Returns:
        `nodes`: name, rank and lane of inputs and operations; `edges`: ends and the lane at each
        rank from the one to the other; `hidden`: how many operations are not drawn.
    """
    reads = _without(graph, frozenset(free))
    drawing = _ranked(reads)
    chains = _waypoints(drawing, reads)
    _order(drawing)
    lanes = _lanes(drawing)
    hidden = len(graph["nodes"]) + len(graph["inputs"]) - len(reads)
    return {
        "nodes": [{"name": n, "rank": drawing.rank[n], "lane": lanes[n]} for n in reads],
        "edges": [
            {"from": a, "to": b, "lanes": [lanes[p] for p in chain]}
            for (a, b), chain in chains.items()
        ],
        "hidden": hidden,
    }


def _without(graph: Mapping[str, Any], free: frozenset[str]) -> dict[str, list[str]]:
    """Return what each drawn operation reads, hidden ones replaced by what they read."""
    stands_for: dict[str, list[str]] = {name: [name] for name in graph["inputs"]}
    reads: dict[str, list[str]] = {name: [] for name in graph["inputs"]}
    for node in graph["nodes"]:
        sources = [s for name in node["reads"] for s in stands_for.get(name, ())]
        sources = list(dict.fromkeys(sources))
        if node["name"] in free:
            stands_for[node["name"]] = sources
        else:
            reads[node["name"]] = sources
            stands_for[node["name"]] = [node["name"]]
    return reads


def _ranked(reads: Mapping[str, Sequence[str]]) -> _Drawing:
    drawing = _Drawing()
    for name, sources in reads.items():
        drawing.rank[name] = max((drawing.rank[s] + 1 for s in sources), default=0)
    drawing.rows = [[] for _ in range(max(drawing.rank.values(), default=-1) + 1)]
    for name, rank in drawing.rank.items():
        drawing.rows[rank].append(name)
    return drawing


def _waypoints(
    drawing: _Drawing, reads: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], list[Any]]:
    """Break edges at every rank that they pass; return the points of each."""
    chains: dict[tuple[str, str], list[Any]] = {}
    for name, sources in reads.items():
        for source in sources:
            between = range(drawing.rank[source] + 1, drawing.rank[name])
            chain: list[Any] = [source, *(((source, name), rank) for rank in between), name]
            for rank, point in zip(between, chain[1:-1], strict=True):
                drawing.rank[point] = rank
                drawing.rows[rank].append(point)
            for first, second in pairwise(chain):
                drawing.behind[first].append(second)
                drawing.before[second].append(first)
            chains[source, name] = chain
    return chains


def _order(drawing: _Drawing) -> None:
    """Sort each rank by the mean place of its neighbours, forwards and backwards in turn."""
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = drawing.before if forwards else drawing.behind
        rows = drawing.rows if forwards else drawing.rows[::-1]
        place: dict[Any, float] = {}
        for row in rows:
            own = {point: float(i) for i, point in enumerate(row)}
            wish = {p: _mean([place[n] for n in neighbours[p]], own[p]) for p in row}
            row.sort(key=lambda p, w=wish, o=own: (w[p], o[p]))  # type: ignore[misc]  # bound now
            place.update({point: i - len(row) / 2 for i, point in enumerate(row)})


def _lanes(drawing: _Drawing) -> dict[Any, float]:
    """Return a lane for each point, apart within a rank, near those of its neighbours."""
    lane = {p: i - (len(row) - 1) / 2 for row in drawing.rows for i, p in enumerate(row)}
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = drawing.before if forwards else drawing.behind
        for row in drawing.rows if forwards else drawing.rows[::-1]:
            wishes = [_mean([lane[n] for n in neighbours[p]], lane[p]) for p in row]
            weights = [_STRAIGHT if isinstance(p, tuple) else 1.0 for p in row]
            sizes = [_THIN if isinstance(p, tuple) else 1.0 for p in row]
            lane.update(zip(row, apart(wishes, weights, sizes), strict=True))
    least = min(lane.values(), default=0.0)
    return {point: round(value - least, 3) for point, value in lane.items()}


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def apart(wishes: Sequence[float], weights: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Return places of least weighted squared distance to wishes, in order and not overlapping.

    Neighbours keep half of their two sizes between them.
    """
    offsets = [0.0]
    for first, second in pairwise(sizes):
        offsets.append(offsets[-1] + (first + second) / 2)
    blocks: list[tuple[float, float, int]] = []
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, total, count = wish - offset, weight, 1
        while blocks and blocks[-1][0] >= mean:
            other, other_weight, other_count = blocks.pop()
            mean = (mean * total + other * other_weight) / (total + other_weight)
            total += other_weight
            count += other_count
        blocks.append((mean, total, count))
    flat = [mean for mean, _, count in blocks for _ in range(count)]
    return [place + offset for place, offset in zip(flat, offsets, strict=True)]
