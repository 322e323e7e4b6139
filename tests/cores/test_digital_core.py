# SPDX-License-Identifier: Apache-2.0
"""The digital core's counts against a walk through its loop nest, one access at a time."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from core_layers import DRAM, IN_BUFFER, choices, conv, hybrid, layer, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.arithmetic import accumulators
from enos_compiler.cores.base import Homes
from enos_compiler.cores.digital import RESIDENT
from enos_compiler.cores.tiles import PositionTile, inputs_by_tiles, position_tiles, stored_extent
from enos_compiler.ir import Bits, Choice, LayerShape

ALL_EIGHT = Bits(8, 8, 8)


def mac(shape: LayerShape, bits: Bits = ALL_EIGHT) -> Choice:
    return next(c for c in choices(hybrid(), "mac", layer(shape), bits) if c.operator == "mac")


def walk(shape: LayerShape, tile: dict[str, int], rows: int, columns: int) -> Counter[str]:
    """Count accesses by walking the nest of `cores/digital.py` element by element."""
    seen: Counter[str] = Counter()
    spans = [range(0, b, tile[d]) for d, b in (("N", shape.n), ("P", shape.p), ("Q", shape.q))]
    for _group, n0, p0, q0 in product(range(shape.g), *spans):
        positions = [
            (n, p, q)
            for n in range(n0, min(n0 + tile["N"], shape.n))
            for p in range(p0, min(p0 + tile["P"], shape.p))
            for q in range(q0, min(q0 + tile["Q"], shape.q))
        ]
        for m0 in range(0, shape.m, columns):
            outputs = range(m0, min(m0 + columns, shape.m))
            for t0 in range(0, shape.taps, rows):
                taps = range(t0, min(t0 + rows, shape.taps))
                seen["weight registers"] += len(outputs) * len(taps)
                for _ in positions:
                    seen["cycles"] += 1
                    seen["input registers"] += len(taps)
                    seen["input words"] += -(-len(taps) // 8)
                    seen["macs"] += len(taps) * len(outputs)
                    seen["sums"] += len(outputs)
    return seen


@settings(deadline=None, max_examples=60)
@given(shapes())
def test_counts_are_those_of_the_nest(shape: LayerShape) -> None:
    core = hybrid().cores["mac"]
    found = core.cost(layer(shape), mac(shape), IN_BUFFER)
    events = found.inference.events
    seen = walk(shape, dict(found.detail["position_tile"]), 8, 16)
    width = accumulators("mac", ALL_EIGHT, shape.taps)[1]
    assert events["mac.pe/multiply_8x8"] == seen["macs"] == shape.macs
    assert events[f"mac.pe/add_{width}"] == seen["macs"]
    assert events["mac.pe/register_8"] == seen["input registers"] + seen["weight registers"]
    assert events["mac.input_buffer/read_64b"] == seen["input words"]
    assert events["mac.accumulators/write_32b"] == seen["sums"]
    assert events["mac.accumulators/read_32b"] == seen["sums"]
    assert found.detail["cycles"]["array"] == seen["cycles"] <= found.inference.cycles


@settings(deadline=None, max_examples=60)
@given(shapes(), st.data())
def test_tiles_read_the_elements_of_their_boxes(shape: LayerShape, data: st.DataObject) -> None:
    tile = data.draw(st.sampled_from(list(position_tiles(shape, 10**6))))
    height, width = stored_extent(shape)
    rows = columns = 0
    for p0 in range(0, shape.p, tile.p):
        last = (min(p0 + tile.p, shape.p) - 1) * shape.stride[0]
        first = p0 * shape.stride[0] - shape.padding[0]
        box = range(first, last + (shape.r - 1) * shape.dilation[0] - shape.padding[0] + 1)
        rows += sum(1 for i in box if 0 <= i < height)
    for q0 in range(0, shape.q, tile.q):
        last = (min(q0 + tile.q, shape.q) - 1) * shape.stride[1]
        first = q0 * shape.stride[1] - shape.padding[1]
        box = range(first, last + (shape.s - 1) * shape.dilation[1] - shape.padding[1] + 1)
        columns += sum(1 for j in box if 0 <= j < width)
    assert inputs_by_tiles(shape, tile) == shape.n * rows * columns


@settings(deadline=None, max_examples=60)
@given(shapes(), st.integers(1, 40))
def test_position_tiles_fit_and_cover(shape: LayerShape, limit: int) -> None:
    tiles = list(position_tiles(shape, limit))
    assert PositionTile(1, 1, 1) in tiles
    for tile in tiles:
        assert tile.positions <= limit
        assert tile.count(shape) * tile.positions >= shape.n * shape.p * shape.q


def test_weights_come_once_where_all_positions_fit_the_banks() -> None:
    """256 positions are one 1 KiB bank: a 16 x 16 map loads its weights once."""
    shape = conv(16, 16, 16)
    found = hybrid().cores["mac"].cost(layer(shape), mac(shape), IN_BUFFER)
    assert found.detail["position_tiles"] == 1
    assert found.inference.events["dram.device/read_64b"] == shape.volume("Weights") // 8


@pytest.mark.parametrize(("bits", "per_word"), [(8, 8), (6, 10), (5, 12), (4, 16), (2, 32)])
def test_words_are_packed_whole_codes(bits: int, per_word: int) -> None:
    shape = conv(32, 32, 8)
    choice = mac(shape, Bits(8, bits, bits))
    events = hybrid().cores["mac"].cost(layer(shape), choice, IN_BUFFER).inference.events
    assert events["dram.device/read_64b"] == -(-shape.volume("Weights") // per_word)
    assert events["buffer.array/write_64b"] == -(-shape.volume("Outputs") // per_word)


def test_a_network_output_leaves_as_sums_of_32_bits() -> None:
    shape = LayerShape(m=10, c=64)
    homes = Homes((DRAM,), DRAM, output_bits=32)
    events = hybrid().cores["mac"].cost(layer(shape), mac(shape), homes).inference.events
    assert events["dram.device/write_64b"] == 5


def test_an_activation_product_reads_its_right_operand_from_its_home() -> None:
    shape = LayerShape(g=4, n=16, c=8, m=16, activation_product=True)
    homes = Homes((IN_BUFFER.output, IN_BUFFER.output), IN_BUFFER.output)
    found = hybrid().cores["mac"].cost(layer(shape), mac(shape), homes)
    assert "dram.device/read_64b" not in found.inference.events
    assert found.inference.events["buffer.array/read_64b"] == (4 * 8 * 16 + 4 * 16 * 8) // 8
    assert not found.programming.events


def test_only_mac_takes_an_activation_product() -> None:
    subject = layer(LayerShape(g=4, n=16, c=8, m=16, activation_product=True))
    offered = choices(hybrid(), "mac", subject, ALL_EIGHT)
    assert {c.operator for c in offered} == {"mac"}
    offers = hybrid().cores["xbar"].choices(subject, ["mac"], [ALL_EIGHT], signed_input=False)
    assert [o.reason for o in offers if not isinstance(o, Choice)] == [
        "crossbars keep their weights; here both operands are activations"
    ]


def test_two_partial_sums_are_two_accesses() -> None:
    shape = conv(16, 16, 8)
    by_name = {c.operator: c for c in choices(hybrid(), "mac", layer(shape), ALL_EIGHT)}
    core = hybrid().cores["mac"]
    writes = {
        name: core.cost(layer(shape), c, IN_BUFFER).inference.events["mac.accumulators/write_32b"]
        for name, c in by_name.items()
    }
    assert writes["mf"] == writes["ef"] == 2 * writes["mac"]
    assert writes["bw"] == writes["xnor"] == writes["shift"] == writes["mac"]


def test_the_slowest_part_sets_the_pace() -> None:
    """One row of a linear layer is bound by its weights, a convolution by the array."""
    core = hybrid().cores["mac"]
    linear = LayerShape(m=256, c=256)
    found = core.cost(layer(linear), mac(linear), IN_BUFFER)
    assert found.inference.cycles == 2 * linear.volume("Weights") // 8  # written, then read
    square = conv(16, 16, 16)
    found = core.cost(layer(square), mac(square), IN_BUFFER)
    assert found.detail["utilisation"] == 1
    assert found.detail["cycles"]["array"] == square.macs // 128
    by_name = {c.operator: c for c in choices(hybrid(), "mac", layer(square), ALL_EIGHT)}
    two_sums = core.cost(layer(square), by_name["mf"], IN_BUFFER)
    assert two_sums.detail["cycles"]["array"] == 2 * square.macs // 128


def test_resident_weights_are_programmed_and_not_reloaded() -> None:
    core = hybrid().cores["mac"]
    shape = conv(16, 16, 8)
    subject, weights = layer(shape), shape.volume("Weights")
    reloaded, kept = (
        c for c in choices(hybrid(), "mac", subject, ALL_EIGHT) if c.operator == "mac"
    )
    assert (reloaded.options, kept.options) == ((), RESIDENT)
    found = core.cost(subject, kept, IN_BUFFER)
    assert "dram.device/read_64b" not in found.inference.events
    assert found.inference.events["mac.weight_memory/read_64b"] == weights // 8
    assert found.programming.events == {
        "mac.weight_memory/write_64b": weights // 8,
        "dram.device/read_64b": weights // 8,
    }
    assert core.capacity(kept, subject) == {"weight_words": weights // 8}
    assert core.capacity(reloaded, subject) == {}
    assert not core.cost(subject, reloaded, IN_BUFFER).programming.events


def test_weights_that_do_not_fit_are_reloaded_only() -> None:
    large = layer(conv(256, 256, 8))
    (only,) = hybrid().cores["mac"].choices(large, ["mac"], [ALL_EIGHT], signed_input=False)
    assert isinstance(only, Choice)
    assert only.options == ()


def test_sums_wider_than_the_adders_are_refused() -> None:
    long = layer(LayerShape(m=1, c=1 << 17))
    (only,) = hybrid().cores["mac"].choices(long, ["mac"], [ALL_EIGHT], signed_input=False)
    assert not isinstance(only, Choice)
    assert only.reason == (
        "partial sums of 131072 taps at 8 x 8 bits need 33 bits, the adders have 32"
    )
