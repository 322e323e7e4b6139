# SPDX-License-Identifier: Apache-2.0
"""Steps cover a layer once, move what they should, and take the time that their places allow."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product
from math import prod

from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.stepping import (
    Box,
    SteppedLoop,
    Stepping,
    fresh,
    growth,
    last_visits,
    operand_box,
    returns,
)
from enos_compiler.cores.steps import (
    LayerWork,
    StepCycles,
    Transfer,
    evenly,
    layer_steps,
    pipeline,
    work_cycles,
)
from enos_compiler.ir.shape import DIMS, TENSORS, Dim, LayerShape


@st.composite
def _stepped(draw: st.DrawFn) -> tuple[LayerShape, Stepping]:
    """Return a layer and loops over it; inner ones of a dimension lie inside its outer ones."""
    bounds = {d: draw(st.integers(1, 6)) for d in DIMS}
    order = draw(st.lists(st.sampled_from(DIMS), max_size=4))
    strides = dict.fromkeys(DIMS, 1)
    loops = []
    for dim in order:
        factor = draw(st.integers(2, 3))
        loops.append(SteppedLoop(dim, factor, strides[dim]))
        strides[dim] *= factor
    for dim in set(order):
        bounds[dim] = max(1, strides[dim] - draw(st.integers(0, strides[dim] - 1)))
    shape = LayerShape(
        **{d.lower(): n for d, n in bounds.items()},  # type: ignore[arg-type]
        stride=draw(st.sampled_from([(1, 1), (2, 1), (2, 2)])),
        dilation=draw(st.sampled_from([(1, 1), (1, 2)])),
        padding=draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0)])),
    )
    return shape, Stepping.of(reversed(loops), draw(st.integers(1, 16)))


def _elements(box: Box) -> set[tuple[int, ...]]:
    return set(product(*(range(first, end) for first, end in box)))


@settings(deadline=None)
@given(_stepped())
def test_steps_cover_every_product_once(case: tuple[LayerShape, Stepping]) -> None:
    shape, stepping = case
    seen: Counter[tuple[int, ...]] = Counter()
    for ranges in stepping.ranges(shape):
        seen.update(product(*(range(*ranges[d]) for d in DIMS)))
    assert set(seen.values()) == {1}
    assert len(seen) == shape.macs
    assert len(stepping.sizes()) == len(stepping.ranges(shape))


@settings(deadline=None)
@given(_stepped())
def test_new_operands_are_those_of_sets(case: tuple[LayerShape, Stepping]) -> None:
    shape, stepping = case
    for tensor in TENSORS:
        boxes = [operand_box(shape, tensor, one) for one in stepping.ranges(shape)]
        sets = [_elements(box) for box in boxes]
        before: set[tuple[int, ...]] = set()
        for i, mine in enumerate(sets):
            assert fresh(boxes)[i] == len(mine - (sets[i - 1] if i else set()))
            assert growth(boxes)[i] == len(mine - before)
            before |= mine
            if tensor == "Outputs":
                again = any(mine == other for other in sets[:i])
                later = any(mine == other for other in sets[i + 1 :])
                assert returns(boxes)[i] == (len(mine) if again else 0)
                assert last_visits(boxes)[i] == (0 if later else len(mine))


@settings(deadline=None)
@given(_stepped())
def test_inputs_are_those_that_products_read(case: tuple[LayerShape, Stepping]) -> None:
    """Rows and columns of a step's box are the part inside the input of what its outputs span."""
    shape, stepping = case
    whole = operand_box(shape, "Inputs", {d: (0, n) for d, n in shape.bounds.items()})
    for ranges in stepping.ranges(shape):
        box = operand_box(shape, "Inputs", ranges)
        axes: tuple[tuple[int, Dim, Dim, int], ...] = ((0, "P", "R", 3), (1, "Q", "S", 4))
        for axis, outputs, taps, at in axes:
            read = {
                p * shape.stride[axis] + r * shape.dilation[axis] - shape.padding[axis]
                for p in range(*ranges[outputs])
                for r in range(*ranges[taps])
            }
            if not read:
                assert box[at][0] == box[at][1]
                continue
            span = range(min(read), max(read) + 1)
            inside = [row for row in span if 0 <= row < whole[at][1]]
            assert list(range(*box[at])) == inside


_CYCLES = st.lists(st.builds(StepCycles, *[st.integers(0, 9)] * 3), min_size=1, max_size=9)


@settings(deadline=None)
@given(_CYCLES, st.booleans())
def test_a_pipeline_keeps_its_rules_and_wastes_nothing(
    cycles: list[StepCycles], one_port: bool
) -> None:
    starts, length = pipeline(cycles, one_port=one_port)
    ends = [
        StepCycles(*(a + b for a, b in zip(s, c, strict=True)))
        for s, c in zip(starts, cycles, strict=True)
    ]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        assert end.load <= start.compute
        assert end.compute <= start.store
        if i:
            assert all(ends[i - 1][k] <= start[k] for k in range(3))
        if i >= 2:
            assert ends[i - 2].compute <= start.load
            assert ends[i - 2].store <= start.compute
    if one_port:
        port = sorted(
            (s[k], e[k]) for s, e in zip(starts, ends, strict=True) for k in (0, 2) if s[k] < e[k]
        )
        assert all(a[1] <= b[0] for a, b in pairwise(port))
    busiest = max(sum(c[k] for c in cycles) for k in range(3))
    whole = sum(sum(c) for c in cycles)
    assert busiest <= length <= whole
    assert length == max(end.store for end in ends)
    if not one_port:
        assert length == _by_time(cycles)


def _by_time(cycles: list[StepCycles]) -> int:
    """Play the three engines cycle by cycle, each starting its next step as soon as it may."""
    done: list[list[int | None]] = [[None] * len(cycles) for _ in range(3)]
    now, started = 0, [0, 0, 0]

    def over(engine: int, step: int) -> bool:
        return step < 0 or ((end := done[engine][step]) is not None and end <= now)

    while any(end is None for end in done[2]):
        moved = True
        while moved:
            moved = False
            for engine in range(3):
                step = started[engine]
                if step >= len(cycles) or not over(engine, step - 1):
                    continue
                before = engine == 0 or over(engine - 1, step)
                place = engine == 2 or over(engine + 1, step - 2)
                if before and place:
                    done[engine][step] = now + cycles[step][engine]
                    started[engine] += 1
                    moved = True
        now += 1
    return max(end for end in done[2] if end is not None)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 99)),
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
)
def test_parts_sum_to_the_whole(total: dict[str, int], shares: list[int]) -> None:
    parts = evenly(total, shares)
    assert len(parts) == len(shares)
    for name, count in total.items():
        assert sum(part.get(name, 0) for part in parts) == count
        assert all(part.get(name, 0) >= 0 for part in parts)
        done = 0
        for i, part in enumerate(parts):
            done += part.get(name, 0)
            if sum(shares):
                assert done * sum(shares) >= count * sum(shares[: i + 1])


@settings(deadline=None)
@given(_stepped(), st.data())
def test_events_of_steps_are_the_layers(
    case: tuple[LayerShape, Stepping], data: st.DataObject
) -> None:
    shape, stepping = case
    counts = st.integers(0, 50)

    def transfer(tensor: str, action: str) -> Transfer:
        box = operand_box(shape, tensor, whole)  # type: ignore[arg-type]
        volume = prod([end - first for first, end in box])
        elements = data.draw(st.integers(volume, 9 * volume))
        return Transfer(tensor, action, data.draw(counts), elements, data.draw(counts))  # type: ignore[arg-type]

    whole = {d: (0, n) for d, n in shape.bounds.items()}
    work = LayerWork(
        stepping,
        (transfer("Inputs", "m.a/read"), transfer("Weights", "d.a/read")),
        (transfer("Outputs", "m.a/write"),),
        compute_cycles=data.draw(counts),
        first_cycles=data.draw(counts),
        one_port=data.draw(st.booleans()),
    )
    moved = {t.action: t.count for t in (*work.loads, *work.stores)}
    events = {**moved, "core.pe/mac": data.draw(counts)}
    steps = layer_steps(shape, work, events)
    total: Counter[str] = Counter()
    for step in steps:
        for part in (step.load, step.compute, step.store):
            total.update(part)
        assert set(step.load) <= {"m.a/read", "d.a/read"}
        assert set(step.store) <= {"m.a/write"}
    assert total == Counter({a: n for a, n in events.items() if n})
    busiest = max(
        work.compute_cycles + work.first_cycles, *(t.cycles for t in (*work.loads, *work.stores))
    )
    assert work_cycles(shape, work) >= busiest
    assert LayerWork.from_detail(work.as_detail()) == work
