# SPDX-License-Identifier: Apache-2.0
"""Element-by-element simulation of small nests: who holds which elements, step by step.

Independent of the counting rules: buffers are sets of elements, every loop really runs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.problem import Problem, TensorSpec

Element = tuple[int, ...]
Tile = frozenset[Element]
Index = dict[str, int]


def simulate(problem: Problem, nest: Nest) -> Counter[tuple[int, str, str]]:
    """Total reads, fills and updates by (level, tensor, kind), over all instances."""
    counts: Counter[tuple[int, str, str]] = Counter()
    for tensor in problem.tensors:
        keepers = [s for s, level in enumerate(nest.levels) if tensor.name in level.keep]
        for child, parent in itertools.pairwise([-1, *keepers]):
            _exchange(problem, nest, tensor, child, parent, counts)
    return counts


def _loops(nest: Nest, problem: Problem) -> list[tuple[int, bool, str, int, int]]:
    """(level, spatial, dim, factor, stride), outer to inner."""
    stride = dict.fromkeys(problem.dims, 1)
    out = []
    for s, level in enumerate(nest.levels):
        for spatial, loops in ((True, level.spatial), (False, level.temporal)):
            for dim, factor in reversed(loops):
                out.append((s, spatial, dim, factor, stride[dim]))
                stride[dim] *= factor
    return out[::-1]


def _walk(loops: list[tuple[int, bool, str, int, int]]) -> Iterator[Index]:
    for point in itertools.product(*[range(loop[3]) for loop in loops]):
        index: Index = {}
        for (_, _, dim, _, stride), i in zip(loops, point, strict=True):
            index[dim] = index.get(dim, 0) + i * stride
        yield index


def _add(a: Index, b: Index) -> Index:
    return {dim: a.get(dim, 0) + b.get(dim, 0) for dim in {*a, *b}}


def _tile(tensor: TensorSpec, origin: Index, box: dict[str, int]) -> Tile:
    """All elements of the bounding box of the tile at `origin`."""
    spans = []
    for rank in tensor.ranks:
        low = sum(t.coefficient * origin.get(t.dim, 0) for t in rank)
        high = sum(t.coefficient * (origin.get(t.dim, 0) + box[t.dim] - 1) for t in rank)
        spans.append(range(low, high + 1))
    return frozenset(itertools.product(*spans))


def _exchange(
    problem: Problem,
    nest: Nest,
    tensor: TensorSpec,
    child: int,
    parent: int,
    counts: Counter[tuple[int, str, str]],
) -> None:
    """Count what passes between instances of `child` (-1: the MACs) and of `parent`."""
    loops = _loops(nest, problem)
    box = dict.fromkeys(problem.dims, 1)
    for s, _, dim, factor, _ in loops:
        if s <= child:
            box[dim] *= factor
    times = list(_walk([x for x in loops if x[0] > child and not x[1]]))
    parents = list(_walk([x for x in loops if x[0] > parent and x[1]]))
    between = [
        list(_walk([x for x in loops if x[0] == s and x[1]])) for s in range(parent, child, -1)
    ]
    for outside in parents:
        arrived: set[Element] = set()
        held: dict[tuple[int, ...], Tile] = {}
        seen: dict[tuple[int, ...], set[Element]] = {}
        for now in times:
            new: dict[tuple[int, ...], Tile] = {}
            for path in itertools.product(*[range(len(x)) for x in between]):
                origin = _add(now, outside)
                for step, i in zip(between, path, strict=True):
                    origin = _add(origin, step[i])
                tile = _tile(tensor, origin, box)
                if child < 0:
                    new[path] = tile
                    continue
                new[path] = tile - held.get(path, frozenset())
                held[path] = tile
                before = seen.setdefault(path, set())
                returning = len(new[path] & before) if tensor.read_write else len(new[path])
                counts[child, tensor.name, "fills"] += returning
                before |= new[path]
            for request in _requests(new, [len(x) for x in between]):
                if tensor.read_write:
                    counts[parent, tensor.name, "updates"] += len(request)
                    counts[parent, tensor.name, "reads"] += len(request & arrived)
                    arrived |= request
                else:
                    counts[parent, tensor.name, "reads"] += len(request)


def _requests(new: dict[tuple[int, ...], Tile], widths: list[int]) -> list[Tile]:
    """Distinct requests that reach the parent: equal ones merge where wires meet."""

    def gather(prefix: tuple[int, ...]) -> tuple[Tile, ...]:
        if len(prefix) == len(widths):
            return (new[prefix],) if new[prefix] else ()
        branches = {gather((*prefix, i)) for i in range(widths[len(prefix)])}
        return tuple(sorted((tile for branch in branches for tile in branch), key=sorted))

    return list(gather(()))
