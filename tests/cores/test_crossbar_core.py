# SPDX-License-Identifier: Apache-2.0
"""The crossbar core: what it offers and refuses, and the identities of its costs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import ceil, log2
from typing import Any

import pytest
from core_layers import IN_BUFFER, choices, conv, hybrid, layer, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.base import CoreCost
from enos_compiler.cores.crossbar import CrossbarCore
from enos_compiler.cores.target import Target, build_target
from enos_compiler.errors import SpecError
from enos_compiler.ir import Bits, Choice, Layer, LayerShape, Refusal
from enos_compiler.spec import check_target, find_target, parse_document

ALL_EIGHT = Bits(8, 8, 8)
CIM = find_target("cim").read_text()


@cache
def variant(*changes: tuple[str, str]) -> Target:
    """Return the chip of crossbars alone with fragments of its file replaced."""
    text = CIM
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return build_target(check_target(parse_document(text, "chip.yaml")))


def core_of(target: Target) -> CrossbarCore:
    core = target.cores["xbar"]
    assert isinstance(core, CrossbarCore)
    return core


def offer(target: Target, subject: Layer, operator: str, bits: Bits, **options: int) -> Choice:
    found = core_of(target).choices(subject, [operator], [bits], signed_input=False)
    wanted = tuple(sorted(options.items()))
    return next(o for o in found if isinstance(o, Choice) and o.options == wanted)


def events(cost: CoreCost, part: str) -> int:
    return sum(n for action, n in cost.inference.events.items() if part in action)


@pytest.mark.parametrize(
    ("operator", "reads"), [("mac", 64), ("mf", 15), ("ef", 16), ("bw", 8), ("xnor", 1)]
)
def test_conversions_of_one_output(operator: str, reads: int) -> None:
    """256 taps fill one row block; a converter works once per weight bit and input bit."""
    subject = layer(LayerShape(m=4, c=256))
    choice = offer(hybrid(), subject, operator, ALL_EIGHT, rows=256)
    found = core_of(hybrid()).cost(subject, choice, IN_BUFFER)
    assert found.inference.events["xbar.adc/convert_9b"] == 4 * reads
    assert found.inference.events["xbar.array/read_column_256"] == 4 * reads


def least_part(detail: Mapping[str, Any], rows: int) -> float:
    """The least of a half, a quarter, ... of an array that holds the smallest tile."""
    held = []
    for tile in (tile for matrix in detail["matrices"] for tile in matrix["tiles"]):
        extent, part, columns = rows, 1.0, 128
        while part > 2**-10:
            narrow = (extent, columns // 2) if log2(part) % 2 == 0 else (extent // 2, columns)
            if tile["rows"] > narrow[0] or tile["columns"] > narrow[1]:
                break
            (extent, columns), part = narrow, part / 2
        held.append(part)
    return min(held)


@settings(deadline=None, max_examples=60)
@given(shapes(), st.sampled_from(["mac", "bw", "mf", "ef", "xnor"]), st.integers(2, 8))
def test_crossbars_are_row_blocks_times_column_blocks(
    shape: LayerShape, operator: str, bits: int
) -> None:
    """ceil(rows / R) * ceil(columns * slices / C) per matrix, groups that fit sharing arrays."""
    slices = {"mac": [bits], "mf": [bits - 1, 1], "ef": [bits, 1]}.get(operator, [1])
    target, subject = hybrid(), layer(shape)
    for choice in core_of(target).choices(
        subject, [operator], [Bits(8, bits, 8)], signed_input=False
    ):
        assert isinstance(choice, Choice)
        rows, expected = dict(choice.options)["rows"], 0
        for width in slices:
            row_blocks = ceil(shape.taps / rows)
            column_blocks = ceil(shape.m * width / 128)
            together = 1
            if row_blocks == column_blocks == 1:
                together = min(rows // shape.taps, 128 // (shape.m * width))
            expected += ceil(shape.g / together) * row_blocks * column_blocks
        detail = core_of(target).cost(subject, choice, IN_BUFFER).detail
        assert detail["arrays"] == expected
        if ("reload", 1) not in choice.options:
            part = core_of(target).capacity(choice, subject)[f"arrays_{rows}"] - (expected - 1)
            assert part == least_part(detail, rows)


def test_a_differential_pair_takes_two_arrays() -> None:
    subject = layer(LayerShape(m=128, c=256))
    single = offer(hybrid(), subject, "bw", ALL_EIGHT, rows=256)
    pair = variant(("encoding: offset", "encoding: differential"))
    for target, arrays in ((hybrid(), 1), (pair, 2)):
        assert core_of(target).cost(subject, single, IN_BUFFER).detail["arrays"] == arrays


def test_signed_inputs_cost_ef_a_second_plane() -> None:
    subject, core = layer(conv(16, 16, 8)), core_of(hybrid())
    offers = list(core.choices(subject, ["ef", "mf", "xnor"], [ALL_EIGHT], signed_input=True))
    taken = [o for o in offers if isinstance(o, Choice)]
    assert {o.operator for o in offers if isinstance(o, Refusal)} == {"mf", "xnor"}
    assert {o.operator for o in taken} == {"ef"}
    plain = next(o for o in choices(hybrid(), "xbar", subject, ALL_EIGHT) if o.operator == "ef")
    reads = [events(core.cost(subject, c, IN_BUFFER), "convert") for c in (plain, taken[0])]
    assert reads[1] * 16 == reads[0] * 24


@settings(deadline=None, max_examples=25)
@given(shapes())
def test_components_sum_to_the_layer_and_energy_is_power_times_time(shape: LayerShape) -> None:
    target, subject = hybrid(), layer(shape)
    for choice in choices(target, "xbar", subject, ALL_EIGHT, Bits(4, 3, 4)):
        cost = core_of(target).cost(subject, choice, IN_BUFFER).inference
        energy_pj = cost.energy_pj(target.energy_pj)
        assert sum(cost.components_pj(target.energy_pj).values()) == pytest.approx(energy_pj)
        power_mw = energy_pj / cost.latency_ns
        assert power_mw * cost.latency_ns == pytest.approx(energy_pj)
        assert cost.latency_ns == cost.cycles * target.clock_ns


def test_energy_and_area_rise_with_the_converters_bits() -> None:
    chosen = variant(
        ("      range: full\n", "      range: full\n      resolutions: [5, 6, 7, 8, 9, 10]\n")
    )
    subject = layer(conv(32, 32, 8))
    found = [
        core_of(chosen).cost(
            subject, offer(chosen, subject, "mac", ALL_EIGHT, rows=128, adc_bits=bits), IN_BUFFER
        )
        for bits in range(5, 11)
    ]
    energies = [c.inference.energy_pj(chosen.energy_pj) for c in found]
    assert energies == sorted(set(energies))
    assert {c.inference.cycles for c in found} == {found[0].inference.cycles}
    assert [c.detail["adc_bits"] for c in found] == list(range(5, 11))


def test_copies_share_the_positions() -> None:
    """Twice the arrays and the programming, half the cycles of computing, the same events.

    Computing takes longer than moving, so only the first step's load and the last one's store
    stand alone: of 16 half rows, 2 x 5 of the 64 pixels come in first and the last 4 leave, each
    pixel 16 bytes over a port of 32 bytes a cycle.
    """
    copies = "    copies: [{value: 1, source: x}, {value: 2, source: x}]\n"
    chosen = variant(("    encoding: offset\n", "    encoding: offset\n" + copies))
    subject, core = layer(conv(16, 16, 8)), core_of(chosen)
    one, two = (
        offer(chosen, subject, "mac", ALL_EIGHT, **options)
        for options in ({"rows": 64}, {"rows": 64, "copies": 2})
    )
    a, b = (core.cost(subject, c, IN_BUFFER) for c in (one, two))
    assert a.inference.events == b.inference.events
    positions, input_bits, columns_per_adc, conversion = 8 * 8, 8, 8, 10 / 2
    computing = positions * input_bits * columns_per_adc * conversion
    fill_and_drain = 2 * 5 * 16 // 32 + 4 * 16 // 32
    assert a.inference.cycles == computing + fill_and_drain
    assert b.inference.cycles == computing / 2 + fill_and_drain
    assert (
        b.programming.events["xbar.cell/program"] == 2 * a.programming.events["xbar.cell/program"]
    )
    assert a.detail["arrays"] == b.detail["arrays"] == 3  # each over all columns: no half holds it
    assert core.capacity(two, subject)["arrays_64"] == 2 * 3
    assert core.capacity(one, subject)["arrays_64"] == 3


def test_weights_are_resident_or_written_in_every_inference() -> None:
    subject, core = layer(conv(16, 16, 8)), core_of(hybrid())
    kept, reloaded = (
        core.cost(subject, offer(hybrid(), subject, "mac", ALL_EIGHT, **options), IN_BUFFER)
        for options in ({"rows": 256}, {"rows": 256, "reload": 1})
    )
    assert not events(kept, "dram")
    assert not events(kept, "program")
    written = kept.programming.events
    assert written["dram.device/read_64b"] > 0
    assert written["xbar.cell/program"] == 144 * 128
    assert not reloaded.programming.events
    assert {a: reloaded.inference.events[a] for a in written} == dict(written)
    assert reloaded.inference.cycles == kept.inference.cycles + kept.programming.cycles
    assert (
        core.capacity(offer(hybrid(), subject, "mac", ALL_EIGHT, rows=256, reload=1), subject) == {}
    )


def test_staged_weights_come_from_the_cores_memory() -> None:
    """DRAM is read once per programming; the memory's words are a scarce resource."""
    memory = CIM[CIM.index("    input_buffer:") : CIM.index("vector_unit:")]
    kept = memory.replace("input_buffer", "weight_memory").rstrip() + "\n\n"
    chosen = variant((memory, memory.rstrip() + "\n" + kept))
    subject, core = layer(conv(16, 16, 8)), core_of(chosen)
    choice = offer(chosen, subject, "mac", ALL_EIGHT, reload=1, rows=256, staged=1)
    found = core.cost(subject, choice, IN_BUFFER)
    words = 144 * 16 // 8
    assert core.capacity(choice, subject) == {"weight_words": words}
    assert core.capacities()["weight_words"] == 1024
    assert not events(found, "dram")
    assert found.inference.events["xbar.weight_memory/read_64b"] == words
    assert found.inference.events["xbar.cell/program"] == 144 * 128
    assert dict(found.programming.events) == {
        "dram.device/read_64b": words,
        "xbar.weight_memory/write_64b": words,
    }
    large = layer(conv(64, 64, 8))
    offered = core.choices(large, ["mac"], [ALL_EIGHT], signed_input=False)
    assert all(("staged", 1) not in o.options for o in offered if isinstance(o, Choice))


def test_a_layer_larger_than_all_crossbars_takes_turns_or_is_refused() -> None:
    subject, core = layer(LayerShape(m=4096, c=4096)), core_of(hybrid())
    offered = list(core.choices(subject, ["mac"], [ALL_EIGHT], signed_input=False))
    assert [o.options for o in offered if isinstance(o, Choice)] == [(("reload", 1), ("rows", 256))]
    (choice,) = (o for o in offered if isinstance(o, Choice))
    detail = core.cost(subject, choice, IN_BUFFER).detail
    assert (detail["arrays"], detail["rounds"]) == (4096, 256)
    swap = CIM[CIM.index("        swap:") : CIM.index("    input_buffer:")]
    fixed = core_of(variant((swap, "")))
    refused = list(fixed.choices(subject, ["mac"], [ALL_EIGHT], signed_input=False))
    assert [o.reason for o in refused if isinstance(o, Refusal)] == [
        "1 x 4096 rows by 4096 outputs of 8 bits need 4096 arrays of 256 x 128, the core has 128, "
        "and reloading is forbidden"
    ]


def test_every_turn_reads_the_inputs_again_and_leaves_sums_in_the_outputs_home() -> None:
    """4 x 2 tiles pass through 3 arrays: in 3 turns, each column block's 16 sums split once."""
    few = variant(("swap: {value: 16,", "swap: {value: 3,"))
    many = variant(("swap: {value: 16,", "swap: {value: 8,"))
    subject = layer(LayerShape(m=32, c=1024, n=2))
    split, whole = (
        core_of(target).cost(
            subject, offer(target, subject, "mac", ALL_EIGHT, rows=256, reload=1), IN_BUFFER
        )
        for target in (few, many)
    )
    assert (split.detail["rounds"], whole.detail["rounds"]) == (3, 1)
    inputs, sums, outputs = 2 * 1024 // 8, 2 * 32 * 4 // 8, 2 * 32 // 8  # words of 8 bytes
    read, written = "buffer.array/read_64b", "buffer.array/write_64b"
    assert whole.inference.events[read] == inputs
    assert whole.inference.events[written] == outputs
    assert split.inference.events[read] == 3 * inputs + sums
    assert split.inference.events[written] == outputs + sums
    port = "xbar.input_buffer/read_64b"
    assert split.inference.events[port] == 3 * whole.inference.events[port]
    assert split.inference.events["xbar.cell/program"] == 1024 * 32 * 8


def test_widths_that_the_arrays_do_not_take_are_refused_and_their_widest_offered() -> None:
    ternary = variant(
        ('weight_bits: {value: 8, source: "design choice"}', "weight_bits: {value: 2, source: x}"),
        ('input_bits: {value: 8, source: "design choice"}', "input_bits: {value: 7, source: x}"),
    )
    subject = layer(conv(16, 16, 8))
    offered = list(core_of(ternary).choices(subject, ["mac"], [ALL_EIGHT], signed_input=False))
    assert [o.reason for o in offered if isinstance(o, Refusal)] == [
        "inputs of 8 bits, the arrays take 7; weights of 8 bits, the arrays take 2"
    ]
    assert {o.bits for o in offered if isinstance(o, Choice)} == {Bits(7, 2, 8)}


def test_depthwise_lies_on_the_diagonal_and_counts_its_waste() -> None:
    subject = layer(conv(1, 1, 8, g=32))
    choice = offer(hybrid(), subject, "mac", ALL_EIGHT, rows=64)
    found = core_of(hybrid()).cost(subject, choice, IN_BUFFER)
    assert found.detail["arrays"] == 5  # 7 groups of 9 rows lie in 64
    assert found.detail["utilisation"] == pytest.approx(32 * 9 * 8 / (5 * 64 * 128))
    assert found.detail["diagonal_waste"] == 4 * (63 * 56 - 7 * 72) + (36 * 32 - 4 * 72)
    assert found.inference.events["xbar.adc/convert_5b"] == 64 * 32 * 64


def test_an_unscaled_mix_of_processes_is_refused() -> None:
    fit = "      node_nm: 45\n      vdd_v: {value: 0.9, source: \"the chip's"
    assert fit in CIM
    text = CIM.replace(fit, fit.replace("45", "32"))
    line = text[: text.index("    converters:")].count("\n") + 1
    with pytest.raises(SpecError) as caught:
        check_target(parse_document(text, "chip.yaml"))
    assert str(caught.value) == (
        f"chip.yaml:{line}: cores[xbar].converters has figures of 32 nm, 0.9 V on a chip of 45 nm, "
        "0.9 V\n  try: scale the figures, for logic times 1.56 (Stillmaker and Baas), say so in "
        "their source, and give the chip's process"
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("5: 1.775, 6: 2.019", "5: 3.775, 6: 2.019", "fall with the resolution"),
        ("energy_pj: {5", "family: in-memory-sar\n      energy_pj: {5", "no single source"),
        ('bits: {value: 1, source: "SRAM"}', "bits: {value: 0, source: x}", "greater than"),
        ("swap: {value: 16,", "swap: {value: 160,", "swap = 160 of 128 arrays"),
        ("range: full", "range: full\n      resolutions: [12]", "the widest priced one has 10"),
        ("value: 3.74", "value: -3.74", "greater than or equal to 0"),
    ],
)
def test_impossible_specifications(old: str, new: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        variant((old, new))


ENERGIES = "energy_pj: {5: 1.775, 6: 2.019, 7: 2.488, 8: 3.248, 9: 4.435, 10: 6.272}"


@pytest.mark.parametrize(
    ("family", "published"),
    [
        ("in-memory-sar", "ZigZag"),
        ("survey-best", "envelope"),
        ("survey-best-at-rate", "fit with rate"),
        ("survey-best-fifth", "best fifth"),
        ("survey-typical", "regression"),
    ],
)
def test_a_family_prices_converters_that_have_no_figures(family: str, published: str) -> None:
    """Every width has a price, from the family, that never falls with it."""
    target = variant((ENERGIES, f"family: {family}\n      widest: 10"))
    prices = [target.energy_pj(f"xbar.adc/convert_{bits}b") for bits in range(1, 11)]
    assert prices == sorted(prices)
    assert prices[0] > 0
    assert published in target.source("xbar.adc/convert_8b")
    if family == "in-memory-sar":
        assert prices[7] == pytest.approx((800 + 0.001 * 4**8) * 0.81e-3)
