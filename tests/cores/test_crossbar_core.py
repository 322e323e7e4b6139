# SPDX-License-Identifier: Apache-2.0
"""The crossbar core's counts against cells placed one by one, and its arithmetic without loss."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from core_layers import IN_BUFFER, choices, conv, hybrid, layer, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.crossbar import lay_out, lossless_bits, passes_of
from enos_compiler.ir import Bits, Choice, LayerShape, Refusal

ALL_EIGHT = Bits(8, 8, 8)


def place(shape: LayerShape, per_output: int, rows: int, columns: int) -> dict[str, object]:
    """Put every cell into an array by hand: (array, row, column) of each weight bit."""
    wide = shape.m * per_output
    diagonal = shape.taps <= rows and wide <= columns
    together = min(rows // shape.taps, columns // wide, shape.g) if diagonal else 1
    cells: set[tuple[object, int, int]] = set()
    for g in range(shape.g):
        for tap in range(shape.taps):
            for column in range(wide):
                if diagonal:
                    slot, at = divmod(g, together)
                    cells.add((slot, at * shape.taps + tap, at * wide + column))
                else:
                    array = (g, tap // rows, column // columns)
                    cells.add((array, tap % rows, column % columns))
    assert all(r < rows and c < columns for _, r, c in cells)
    assert len(cells) == shape.g * shape.taps * wide  # nothing lies on anything else
    used = {(a, c) for a, _, c in cells}
    heights = Counter((a, c) for a, _, c in cells)
    per_array = Counter(a for a, _ in used)
    return {
        "arrays": len(per_array),
        "conversions": Counter(heights.values()),
        "driven": len({(a, r) for a, r, _ in cells}),
        "busiest": max(per_array.values()),
    }


@settings(deadline=None, max_examples=80)
@given(shapes(), st.integers(1, 8), st.sampled_from([4, 16, 64]), st.sampled_from([8, 32]))
def test_layout_is_that_of_the_cells(
    shape: LayerShape, per_output: int, rows: int, columns: int
) -> None:
    found, placed = (
        lay_out(shape, per_output, rows, columns),
        place(shape, per_output, rows, columns),
    )
    assert found.arrays == placed["arrays"]
    assert found.busiest_columns == placed["busiest"]
    assert shape.g * shape.taps * found.row_copies == placed["driven"]
    conversions: Counter[int] = Counter()
    for used, blocks in found.blocks:
        conversions[used] += blocks * shape.m * per_output
    assert conversions == placed["conversions"]


@given(st.integers(1, 2000))
def test_converters_tell_every_sum_apart_and_one_bit_less_does_not(rows: int) -> None:
    sums = rows + 1
    assert 2 ** lossless_bits(rows) >= sums > 2 ** (lossless_bits(rows) - 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(1, 40))
def test_passes_compute_the_operators_exactly(seed: int, bits: int, taps: int) -> None:
    """Bit planes and columns, summed as the passes say, are the operators' integer sums."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 2**bits, taps)
    magnitude = random.integers(0, 2 ** (bits - 1), taps)
    sign = random.choice([-1, 1], taps)
    w = random.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), taps)
    inputs = [(x >> i) & 1 for i in range(bits)]
    positive = (sign + 1) // 2
    by_sign = sum(2**i * (2 * (b @ positive) - b.sum()) for i, b in enumerate(inputs))
    assert by_sign == x @ sign
    nonzero = (x > 0).astype(int)
    slices = [(magnitude >> k) & 1 for k in range(bits - 1)]
    assert sum(2**k * (nonzero @ s) for k, s in enumerate(slices)) == nonzero @ magnitude
    twos = [(w >> k) & 1 for k in range(bits)]
    weights = [2**k for k in range(bits - 1)] + [-(2 ** (bits - 1))]
    product = sum(
        2**i * weight * (b @ column)
        for i, b in enumerate(inputs)
        for weight, column in zip(weights, twos, strict=True)
    )
    assert product == x @ w
    widths = Bits(bits, bits, bits)
    counts = {
        name: [(p.columns_per_output, p.steps) for p in passes_of(name, widths, signed_input=False)]
        for name in ("mac", "bw", "xnor", "mf")
    }
    assert counts["mac"] == [(len(twos), len(inputs))]
    assert counts["bw"] == [(1, len(inputs))]
    assert counts["xnor"] == [(1, 1)]
    assert counts["mf"] == [(len(slices), 1), (1, len(inputs))]


@pytest.mark.parametrize(
    ("operator", "reads"), [("mac", 64), ("mf", 15), ("ef", 16), ("bw", 8), ("xnor", 1)]
)
def test_conversions_of_one_output(operator: str, reads: int) -> None:
    """256 taps fill one row block; a converter works once per weight bit and input bit."""
    shape = LayerShape(m=4, c=256)
    offered = choices(hybrid(), "xbar", layer(shape), ALL_EIGHT)
    choice = next(c for c in offered if c.operator == operator and dict(c.options)["rows"] == 256)
    events = hybrid().cores["xbar"].cost(layer(shape), choice, IN_BUFFER).inference.events
    assert events["xbar.adc/convert_9b"] == 4 * reads
    assert events["xbar.array/read_column_256"] == 4 * reads


def test_signed_inputs_cost_ef_a_second_plane() -> None:
    subject = layer(conv(16, 16, 8))
    core = hybrid().cores["xbar"]
    offers = list(core.choices(subject, ["ef", "mf", "xnor"], [ALL_EIGHT], signed_input=True))
    taken = [o for o in offers if isinstance(o, Choice)]
    assert {o.operator for o in offers if isinstance(o, Refusal)} == {"mf", "xnor"}
    assert {o.operator for o in taken} == {"ef"}
    plain = next(o for o in choices(hybrid(), "xbar", subject, ALL_EIGHT) if o.operator == "ef")
    reads = [
        sum(
            n
            for a, n in core.cost(subject, c, IN_BUFFER).inference.events.items()
            if "convert" in a
        )
        for c in (plain, taken[0])
    ]
    assert reads[1] * 16 == reads[0] * 24


def test_weights_are_resident() -> None:
    shape = conv(16, 16, 8)
    for choice in choices(hybrid(), "xbar", layer(shape), ALL_EIGHT):
        found = hybrid().cores["xbar"].cost(layer(shape), choice, IN_BUFFER)
        assert not any(a.startswith("dram") for a in found.inference.events)
        assert found.programming.events["dram.device/read_64b"] > 0
        assert found.detail["arrays"] == next(
            iter(hybrid().cores["xbar"].capacity(choice, layer(shape)).values())
        )


def test_a_layer_too_large_is_refused_with_numbers() -> None:
    subject = layer(LayerShape(m=4096, c=4096))
    core = hybrid().cores["xbar"]
    refusals = [
        o.reason
        for o in core.choices(subject, ["mac"], [ALL_EIGHT], signed_input=False)
        if isinstance(o, Refusal)
    ]
    assert refusals == [
        "1 x 4096 rows by 4096 outputs of 8 bits need 4096 arrays of 256 x 128, the core has 128"
    ]


def test_depthwise_lies_on_the_diagonal_and_counts_its_waste() -> None:
    shape = conv(1, 1, 8, g=32)
    choice = next(
        c
        for c in choices(hybrid(), "xbar", layer(shape), ALL_EIGHT)
        if c.operator == "mac" and dict(c.options)["rows"] == 64
    )
    found = hybrid().cores["xbar"].cost(layer(shape), choice, IN_BUFFER)
    assert found.detail["arrays"] == 5  # 7 groups of 9 rows lie in 64
    assert found.detail["utilisation"] == pytest.approx(32 * 9 * 8 / (5 * 64 * 128))
    assert found.inference.events["xbar.adc/convert_5b"] == 64 * 32 * 64
