# SPDX-License-Identifier: Apache-2.0
"""The core problem gives the minimum over all columns, however deep the first cut."""

from __future__ import annotations

import random
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.assign import core_problem
from enos_compiler.assign.core_problem import assemble, minimise

Groups = list[list[tuple[int, int]]]
"""Items (cost, weight) by group; one of each group is taken."""


def _check(groups: Groups, share: float) -> None:
    """The least cost within a limit on the weight equals enumeration."""
    least = sum(min(w for _, w in group) for group in groups)
    most = sum(max(w for _, w in group) for group in groups)
    limit = least + share * (most - least)
    items = [item for group in groups for item in group]
    rows, start = [], 0
    for group in groups:
        rows.append((dict.fromkeys(range(start, start + len(group)), 1.0), 1.0, 1.0))
        start += len(group)
    rows.append(({i: float(w) for i, (_, w) in enumerate(items)}, -np.inf, limit))
    objective = np.array([float(c) for c, _ in items])
    found = minimise(objective, assemble(rows, len(items)), len(items), 30.0)
    best = min(
        sum(c for c, _ in picks)
        for picks in product(*groups)
        if sum(w for _, w in picks) <= limit + 1e-9
    )
    assert found is not None
    assert objective @ np.round(found.x) == best
    assert found.gap == 0.0


_ITEM = st.tuples(st.integers(0, 40), st.integers(0, 40))


@settings(deadline=None, max_examples=40)
@given(
    groups=st.lists(st.lists(_ITEM, min_size=1, max_size=5), min_size=1, max_size=5),
    share=st.floats(0.0, 1.0),
)
def test_equals_enumeration(groups: Groups, share: float) -> None:
    _check(groups, share)


@pytest.mark.parametrize("first_cut", [1e-9, 0.02])
def test_a_first_cut_that_is_too_deep_is_repaired(
    first_cut: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_problem, "_FIRST_CUT", first_cut)
    rng = random.Random(0)
    for _ in range(60):
        groups = [[(rng.randrange(99), rng.randrange(99)) for _ in range(6)] for _ in range(5)]
        _check(groups, share=0.3)


def test_impossible_problems_have_no_solution() -> None:
    rows = [({0: 1.0, 1: 1.0}, 1.0, 1.0), ({0: 2.0, 1: 2.0}, -np.inf, 1.0)]
    assert minimise(np.ones(2), assemble(rows, 2), 2, 30.0) is None
    halves = [({0: 1.0, 1: 1.0}, 1.0, 1.0), ({0: 1.0, 1: -1.0}, 0.0, 0.0)]
    assert minimise(np.ones(2), assemble(halves, 2), 2, 30.0) is None


@pytest.mark.parametrize(("needed_s", "gap"), [(4.0, 0.0), (40.0, 1.0)])
def test_a_loaded_machine_takes_longer_and_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, needed_s: float, gap: float
) -> None:
    """The solver's limit is wall time, ours processor time: a quarter of a core gets four times."""
    clock = SimpleNamespace(wall=0.0, spent=0.0)
    now = SimpleNamespace(monotonic=lambda: clock.wall, process_time=lambda: clock.spent)
    limits: list[float] = []

    def solve(*_: object, options: dict[str, float], **__: object) -> SimpleNamespace:
        limits.append(options["time_limit"])
        worked = min(needed_s, limits[-1] / 4)
        clock.spent += worked
        clock.wall += 4 * worked
        done = worked == needed_s
        x = np.array([1.0, 0.0] if done else [0.0, 1.0])
        return SimpleNamespace(x=x, status=0 if done else 1, mip_gap=0.0 if done else 0.5)

    monkeypatch.setattr(core_problem, "time", now)
    monkeypatch.setattr(core_problem, "milp", solve)
    monkeypatch.setattr(core_problem, "_FIRST_CUT", 10.0)
    rows = assemble([({0: 1.0, 1: 1.0}, 1.0, 1.0)], 2)
    found = minimise(np.array([1.0, 2.0]), rows, 2, 5.0)
    assert limits == [5.0, 20.0]
    assert found is not None
    assert found.gap == pytest.approx(gap)


def test_an_expired_time_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = assemble([({0: 1.0, 1: 1.0}, 1.0, 1.0)], 2)
    nothing = SimpleNamespace(x=None, status=1)
    monkeypatch.setattr(core_problem, "milp", lambda *_, **__: nothing)
    with pytest.raises(TimeoutError, match="no assignment was found within"):
        minimise(np.array([1.0, 2.0]), rows, 2, 5.0)
    poor = SimpleNamespace(x=np.array([0.0, 1.0]), status=1, mip_gap=0.5)
    monkeypatch.setattr(core_problem, "_FIRST_CUT", 10.0)
    monkeypatch.setattr(core_problem, "milp", lambda *_, **__: poor)
    found = minimise(np.array([1.0, 2.0]), rows, 2, 5.0)
    assert found is not None
    assert found.gap == pytest.approx(1.0)
