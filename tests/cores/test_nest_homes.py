# SPDX-License-Identifier: Apache-2.0
"""Loop nests on a chip with a shared buffer: where they end, what stays, what operators take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from core_layers import BUFFER, DRAM, IN_BUFFER, choices, conv, hybrid, layer, shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nest_oracle import simulate

from enos_compiler.cores import map_cache
from enos_compiler.cores.arithmetic import accumulators, operation_pj
from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.loopnest import LoopNestCore
from enos_compiler.cores.nest_homes import RESIDENT
from enos_compiler.cores.target import Target, build_target
from enos_compiler.errors import SpecError
from enos_compiler.ir import Bits, Choice, LayerShape, Refusal
from enos_compiler.ir.packing import words
from enos_compiler.mapping.nest import MappingError, Nest
from enos_compiler.mapping.problem import Problem
from enos_compiler.spec import check_target, find_target, parse_document

EIGHT = Bits(8, 8, 8)
SQUARE = conv(16, 32, 8)
SETTINGS = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.differing_executors]
)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENOS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        map_cache.forget()
        yield
    map_cache.forget()


def core(target: Target | None = None) -> LoopNestCore:
    found: Any = (target or hybrid()).cores["mac"]
    assert isinstance(found, LoopNestCore)
    return found


def offered(shape: LayerShape, bits: Bits = EIGHT) -> dict[tuple[str, bool], Choice]:
    """Choices by operator and residency."""
    found = choices(hybrid(), "mac", layer(shape), bits)
    return {(c.operator, c.options == RESIDENT): c for c in found}


def mac(bits: Bits = EIGHT, *, resident: bool = False) -> Choice:
    return Choice("mac", "mac", bits, RESIDENT if resident else ())


def cost(shape: LayerShape, choice: Choice, homes: Homes = IN_BUFFER) -> CoreCost:
    return core().cost(layer(shape), choice, homes)


def edited(**changes: Any) -> Target:
    """The digital chip with keys of its core changed."""
    data = yaml.safe_load(find_target("digital").read_text())
    data["cores"][0].update(changes)
    return build_target(check_target(parse_document(yaml.safe_dump(data), "chip.yaml")))


def levels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(find_target("digital").read_text())["cores"][0][
        "levels"
    ]
    return found


# Homes


@SETTINGS
@given(shape=shapes(4), resident=st.booleans())
def test_a_value_in_the_buffer_never_touches_dram(shape: LayerShape, resident: bool) -> None:
    """Weights alone come from DRAM, or nothing does; outputs are written once, finished."""
    events = cost(shape, mac(resident=resident)).inference.events
    dram = {a: n for a, n in events.items() if a.startswith("dram.")}
    if resident:
        assert not dram
        assert events["mac.weight_memory/read_64b"] >= words(shape.volume("Weights"), 8, 64)
    else:
        assert set(dram) == {"dram.device/read_64b"}
        assert dram["dram.device/read_64b"] >= words(shape.volume("Weights"), 8, 64)
        assert not any("weight_memory" in action for action in events)
    assert events["buffer.array/write_64b"] == words(shape.volume("Outputs"), 8, 64)
    assert events["buffer.array/read_64b"] > 0


@SETTINGS
@given(shape=shapes(4))
def test_a_value_in_dram_never_touches_the_buffer(shape: LayerShape) -> None:
    events = cost(shape, mac(), Homes((DRAM,), DRAM)).inference.events
    assert not any(action.startswith("buffer.") for action in events)
    assert events["dram.device/write_64b"] >= words(shape.volume("Outputs"), 8, 64)


def test_each_value_goes_to_its_own_home() -> None:
    into = cost(SQUARE, mac(resident=True), Homes((DRAM,), BUFFER)).inference.events
    assert "buffer.array/read_64b" not in into
    assert "dram.device/write_64b" not in into
    assert into["buffer.array/write_64b"] == SQUARE.volume("Outputs") // 8
    out = cost(SQUARE, mac(resident=True), Homes((BUFFER,), DRAM)).inference.events
    assert "dram.device/read_64b" not in out
    assert "buffer.array/write_64b" not in out


def test_the_levels_of_a_nest_are_those_it_uses() -> None:
    def names(choice: Choice, homes: Homes) -> list[str]:
        return [lv["level"] for lv in cost(SQUARE, choice, homes).detail["levels"]][4:]

    assert names(mac(), IN_BUFFER) == ["shared", "memory"]
    assert names(mac(resident=True), IN_BUFFER) == ["weight_memory", "shared"]
    assert names(mac(), Homes((DRAM,), DRAM)) == ["memory"]
    detail = cost(SQUARE, mac(), Homes((DRAM,), BUFFER)).detail
    assert detail["homes"] == {"weights": "memory", "inputs": "memory", "outputs": "shared"}
    kept = {lv["level"]: lv["keep"] for lv in detail["levels"]}
    assert kept["shared"] == ["Outputs"]
    assert kept["memory"] == ["Inputs", "Weights"]


def test_a_sum_too_large_for_the_core_is_finished_before_it_leaves() -> None:
    """With banks of two sums the reduction runs innermost: no sum rests in the buffer."""
    small = levels()
    small[1]["entries"]["value"] = 1
    subject = core(edited(levels=small))
    found = subject.cost(layer(conv(64, 64, 8)), mac(), IN_BUFFER)
    assert found.inference.events["buffer.array/write_64b"] == 64 * 64 // 8
    assert "finished Outputs only" in found.detail["certificate"]["space"]


def test_a_nest_that_ends_elsewhere_is_refused() -> None:
    subject = core()
    nest = Nest.from_reference(cost(SQUARE, mac()).detail["levels"])
    given_nest = subject.cost_of_nest(layer(SQUARE), mac(), nest, IN_BUFFER)
    assert given_nest.inference == cost(SQUARE, mac()).inference
    with pytest.raises(MappingError, match="a nest of 6 levels on 5"):
        subject.cost_of_nest(layer(SQUARE), mac(), nest)
    with pytest.raises(MappingError, match="Inputs rest in DRAM, and the nest does not keep"):
        subject.cost_of_nest(layer(SQUARE), mac(), nest, Homes((DRAM,), BUFFER))


def test_an_activation_product_reads_its_right_operand_from_its_home() -> None:
    shape = LayerShape(g=4, n=16, c=8, m=16, activation_product=True)
    homes = Homes((BUFFER, BUFFER), BUFFER)
    found = cost(shape, mac(), homes)
    assert "dram.device/read_64b" not in found.inference.events
    assert found.inference.events["buffer.array/read_64b"] >= (4 * 16 * 8 + 4 * 8 * 16) // 8
    assert not found.programming.events
    assert {c.operator for c in choices(hybrid(), "mac", layer(shape), EIGHT)} == {"mac"}
    assert all(not c.options for c in choices(hybrid(), "mac", layer(shape), EIGHT))


def test_a_network_output_leaves_as_sums_of_32_bits() -> None:
    shape = LayerShape(m=10, c=64)
    events = cost(shape, mac(), Homes((BUFFER,), DRAM, output_bits=32)).inference.events
    assert events["dram.device/write_64b"] == 5


@pytest.mark.parametrize(("bits", "per_word"), [(8, 8), (6, 10), (5, 12), (4, 16), (2, 32)])
def test_words_are_packed_whole_codes(bits: int, per_word: int) -> None:
    shape = conv(32, 32, 8)
    events = cost(shape, mac(Bits(8, bits, bits))).inference.events
    assert events["dram.device/read_64b"] == -(-shape.volume("Weights") // per_word)
    assert events["buffer.array/write_64b"] == -(-shape.volume("Outputs") // per_word)


# Residency


def test_resident_weights_are_programmed_and_not_reloaded() -> None:
    weights = SQUARE.volume("Weights")
    found = cost(SQUARE, mac(resident=True))
    assert found.programming.events == {
        "mac.weight_memory/write_64b": weights // 8,
        "dram.device/read_64b": weights // 8,
    }
    assert found.programming.cycles == weights // 8
    subject = core()
    assert subject.capacity(mac(resident=True), layer(SQUARE)) == {"weight_words": weights // 8}
    assert subject.capacity(mac(), layer(SQUARE)) == {}
    assert subject.capacities() == {"weight_words": 2097152 // 64}
    assert not cost(SQUARE, mac()).programming.events


def test_weights_that_do_not_fit_are_reloaded_only() -> None:
    large = layer(conv(256, 256, 8))
    (only,) = core().choices(large, ["mac"], [EIGHT], signed_input=False)
    assert isinstance(only, Choice)
    assert only.options == ()


# Operators


@pytest.mark.parametrize("operator", ["mac", "bw", "mf", "ef", "shift", "xnor"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_taps_are_priced_by_the_sourced_formulas(operator: str, bits: int) -> None:
    """Every elementary operation of a tap is an event, priced and sourced by the arithmetic."""
    target = hybrid()
    choice = offered(SQUARE, Bits(bits, bits, bits))[operator, False]
    found = cost(SQUARE, choice)
    taps = {a: n for a, n in found.inference.events.items() if ".element/" in a}
    assert taps
    for action, count in taps.items():
        name = action.partition("/")[2]
        energy, source = operation_pj(name, target.chip.arithmetic)
        assert (target.energy_pj(action), target.source(action)) == (energy, source)
        assert count in (SQUARE.macs, 2 * SQUARE.macs, -(-SQUARE.macs // SQUARE.taps))
    whole = sum(n * target.energy_pj(a) for a, n in taps.items())
    tap_pj = core().element.tap_pj(choice, SQUARE.taps)
    assert whole == pytest.approx(tap_pj * SQUARE.macs, rel=1e-4)


def test_the_price_of_a_mac_follows_both_widths() -> None:
    prices = [
        core().element.tap_pj(mac(Bits(i, w, 8)), SQUARE.taps)
        for i, w in ((2, 2), (4, 2), (4, 4), (8, 4), (8, 8))
    ]
    assert prices == sorted(prices)
    assert len(set(prices)) == len(prices)


@pytest.mark.parametrize("resident", [False, True])
def test_operators_differ_in_the_energy_of_taps_only_where_their_words_are_alike(
    resident: bool,
) -> None:
    """mac and ef at 64 channels pack alike but for their sums: one search serves what is equal."""
    shape = conv(64, 16, 8)
    by_name = {name: c for (name, kept), c in offered(shape).items() if kept == resident}
    target = hybrid()
    one, two = cost(shape, by_name["mf"]), cost(shape, by_name["ef"])
    assert one.detail["levels"] == two.detail["levels"]
    for found, choice in ((one, by_name["mf"]), (cost(shape, by_name["mac"]), by_name["mac"])):
        detail = found.detail
        taps_pj = core().element.tap_pj(choice, shape.taps) * shape.macs
        assert detail["mapper"]["energy_pj"] > taps_pj
        assert detail["certificate"]["value"] == detail["mapper"]["energy_pj"]
        nest = found.inference.energy_pj(target.energy_pj)
        post = found.inference.components_pj(target.energy_pj)["mac.post"]
        assert detail["mapper"]["energy_pj"] == pytest.approx(nest - post, rel=0.05)


@pytest.mark.parametrize("operator", ["mac", "bw", "mf", "ef"])
@pytest.mark.parametrize("shape", [conv(2, 4, 4), conv(8, 4, 3), conv(4, 2, 4, stride=2)], ids=str)
def test_sums_are_counted_element_by_element(operator: str, shape: LayerShape) -> None:
    """mf and ef keep two sums side by side: twice the field, in traffic and in room."""
    choice = offered(shape)[operator, False]
    found = cost(shape, choice)
    nest = Nest.from_reference(found.detail["levels"])
    seen: Counter[tuple[int, str, str]] = simulate(Problem.from_shape(shape), nest)
    sums, width = accumulators(operator, choice.bits, shape.taps)
    assert sums == (2 if operator in ("mf", "ef") else 1)
    per_word = 64 // (sums * (16 if width <= 16 else 32))
    banks = nest.instances(1)
    events = found.inference.events
    for kind in ("read", "update"):
        elements = seen[1, "Outputs", f"{kind}s"]
        assert elements % banks == 0
        expected = banks * -(-(elements // banks) // per_word)
        assert events.get(f"mac.accumulators/{kind}_outputs", 0) == expected
    tile = found.detail["levels"][1]["tiles"]["Outputs"]
    assert found.detail["levels"][1]["words"]["Outputs"] == -(-tile // per_word)


def test_two_sums_take_twice_the_words_of_one() -> None:
    shape = conv(64, 16, 8)  # 576 taps: 26 bits of mac, twice 18 of mf
    by_name = {name: c for (name, kept), c in offered(shape).items() if not kept}
    nest = Nest.from_reference(cost(shape, by_name["mf"]).detail["levels"])
    one, two = (
        core().cost_of_nest(layer(shape), by_name[name], nest, IN_BUFFER).inference.events
        for name in ("mac", "mf")
    )
    for action in ("mac.accumulators/read_outputs", "mac.accumulators/update_outputs"):
        assert two[action] == 2 * one[action]


# Refusals


def test_sums_wider_than_the_adders_are_refused() -> None:
    long = layer(LayerShape(m=1, c=1 << 17))
    (only,) = core().choices(long, ["mac"], [EIGHT], signed_input=False)
    assert isinstance(only, Refusal)
    assert only.reason == (
        "partial sums of 131072 taps at 8 x 8 bits need 33 bits, the adders have 32"
    )


def test_sums_wider_than_a_word_are_refused() -> None:
    narrow = levels()
    narrow[1]["word_bits"]["value"] = 32
    subject = core(edited(levels=narrow))
    (only,) = subject.choices(layer(conv(64, 16, 8)), ["mf"], [EIGHT], signed_input=False)
    assert isinstance(only, Refusal)
    assert only.reason == (
        "partial sums of 576 taps at 8 x 8 bits need 2 x 18 bits, a word of accumulators has 32"
    )


def test_what_cannot_fit_names_level_tensor_needed_and_available() -> None:
    small = levels()
    small[3]["loops"] = []
    small[3]["entries"]["value"] = 1
    small[0]["loops"] = {"P": 8, "Q": 8}
    with pytest.raises(MappingError) as caught:
        core(edited(levels=small)).cost(layer(SQUARE), mac(), IN_BUFFER)
    error = caught.value
    assert (error.level, error.tensor) == ("input_buffer", "Inputs")
    assert error.needed > error.available == 1


def test_words_that_a_memory_does_not_have_are_refused() -> None:
    outermost = {"word_bits": {"value": 48, "source": "test"}}
    with pytest.raises(SpecError, match="does not divide the 64 bits of an access of"):
        edited(outermost=outermost)
