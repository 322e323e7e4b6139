# SPDX-License-Identifier: Apache-2.0
"""Loop-nest cores: events against the counting rule, against sums in the open, and their cache."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from core_layers import DRAM, choices, conv, layer, shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import enos_compiler
from enos_compiler.cores import map_cache, nest_search
from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.loopnest import LoopNestCore
from enos_compiler.cores.loopnest_spec import packed_bits, packs_evenly
from enos_compiler.cores.nest_data import read_mapping
from enos_compiler.cores.steps import LayerWork, work_cycles
from enos_compiler.cores.target import Target, build_target, load_target
from enos_compiler.errors import InfeasibleError, SpecError
from enos_compiler.ir import Bits, Choice, LayerShape, Refusal
from enos_compiler.ir.packing import words
from enos_compiler.mapping.count import count_events
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import MappingError, Nest
from enos_compiler.mapping.problem import Problem
from enos_compiler.spec import check_target, find_target, parse_document

EIGHT = Bits(8, 8, 8)
IN_DRAM = Homes((DRAM,), DRAM)
CHIPS = ("eyeriss", "simba")
UNITS = {"eyeriss": 16, "simba": 16, "eyeriss-w8": 8, "simba-w8": 8}
"""Words of each chip, in bits."""
SUMS = ("psum_spad", "accum_buffer")
"""Levels whose words hold one exact sum each."""
SQUARE = conv(16, 32, 8)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENOS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        map_cache.forget()
        yield
    map_cache.forget()


@cache
def chip(name: str) -> Target:
    """A shipped chip that takes bounds as they are."""
    target = load_target(name)
    subject: Any = target.cores["array"]
    subject.padding_percent = 0
    return target


def core(name: str) -> LoopNestCore:
    found: Any = chip(name).cores["array"]
    assert isinstance(found, LoopNestCore)
    return found


def mac(bits: Bits = EIGHT) -> Choice:
    return Choice("array", "mac", bits)


def cost(name: str, shape: LayerShape, bits: Bits = EIGHT) -> CoreCost:
    return core(name).cost(layer(shape), mac(bits), IN_DRAM)


def edited(name: str, **changes: Any) -> Target:
    """A shipped chip with keys of its core changed, as a file of its own."""
    data = yaml.safe_load(find_target(name).read_text())
    data["cores"][0].pop("padding_percent")
    data["cores"][0].update(changes)
    return build_target(check_target(parse_document(yaml.safe_dump(data), "chip.yaml")))


@pytest.mark.parametrize("name", CHIPS)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.differing_executors])
@given(shape=shapes(4))
def test_events_are_whole_numbers_with_price_and_source(name: str, shape: LayerShape) -> None:
    target = chip(name)
    found = cost(name, shape)
    for action, count in found.inference.events.items():
        assert type(count) is int
        assert count > 0
        assert target.energy_pj(action) >= 0
        assert target.source(action)
    assert type(found.inference.cycles) is int
    assert found.inference.cycles > 0
    assert found.inference.events["array.element/mac"] == shape.macs
    assert not found.programming.events
    assert json.loads(json.dumps(found.detail)) == found.detail


@pytest.mark.parametrize("name", CHIPS)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.differing_executors])
@given(shape=shapes(4))
def test_energy_is_the_counted_nests_energy(name: str, shape: LayerShape) -> None:
    """The events times the file's prices are what the counting rule says of the nest."""
    target, subject = chip(name), core(name)
    found = cost(name, shape)
    nest = Nest.from_reference(found.detail["levels"])
    task = subject.task(layer(shape), mac())
    machine = subject.hierarchy(task.homes).priced(task.tap_pj)
    counted = subject.count(task, nest)
    parts = found.inference.components_pj(target.energy_pj)
    post = parts.pop("array.post")
    assert sum(parts.values()) == pytest.approx(counted.energy_pj(machine), rel=1e-12)
    assert post > 0
    work = LayerWork.from_detail(found.detail["work"])
    assert found.inference.cycles == work_cycles(shape, work)  # fill and drain included
    ports: Counter[str] = Counter()
    for direction in ("loads", "stores"):
        for one in getattr(work, direction):
            port = "" if work.one_port else direction
            ports[f"{one.memory} {port}"] += one.cycles
    steady = max(work.compute_cycles, *ports.values())
    tensors = len(work.loads) + len(work.stores)  # each ends with a cycle of its own
    assert counted.cycles <= steady <= counted.cycles + tensors


@pytest.mark.parametrize("shape", [SQUARE, conv(1, 1, 8, g=16), conv(8, 16, 4)])
def test_wires_addresses_and_clusters_inside_are_counted_for_all_instances(
    shape: LayerShape,
) -> None:
    levels = yaml.safe_load(find_target("simba").read_text())["cores"][0]["levels"]
    source = {"source": "test"}
    levels[3]["wires"] = {
        "hop_pj": {"value": 0.3, **source},
        "router_pj": {"value": 0.7, **source},
    }
    levels[2]["address_pj"] = {"value": 0.5, **source}
    levels[2]["cluster_size"] = {"value": 2, **source}
    target = edited("simba", levels=levels)
    subject: Any = target.cores["array"]
    found = subject.cost(layer(shape), mac(), IN_DRAM)
    nest = Nest.from_reference(found.detail["levels"])
    task = subject.task(layer(shape), mac())
    counted = subject.count(task, nest)
    machine = subject.hierarchy(task.homes).priced(task.tap_pj)
    parts = found.inference.components_pj(target.energy_pj)
    del parts["array.post"]
    assert sum(parts.values()) == pytest.approx(counted.energy_pj(machine), rel=1e-12)
    assert found.inference.events["array.weight_buffer/address"] > 0
    assert found.inference.events["array.input_buffer_wires/half_hop"] > 0
    assert counted.levels[3].instances > 1


@pytest.mark.parametrize("name", CHIPS)
def test_a_given_nest_costs_at_least_the_best(name: str) -> None:
    subject = core(name)
    task = subject.task(layer(SQUARE), mac())
    best = subject.map(task)
    other = subject.map(task, without=best.nest)
    assert other.certificate.value >= best.certificate.value
    assert best.certificate.optimal
    given_nest = subject.cost_of_nest(layer(SQUARE), mac(), best.nest).inference
    assert given_nest == cost(name, SQUARE).inference


@pytest.mark.parametrize("name", CHIPS)
def test_objectives_reach_what_they_ask_for(name: str) -> None:
    subject = core(name)
    task = subject.task(layer(SQUARE), mac())
    found = {o: subject.map(task, objective=o) for o in ("energy", "latency", "edp")}
    assert found["energy"].energy_pj == min(r.energy_pj for r in found.values())
    assert found["latency"].cycles == min(r.cycles for r in found.values())
    product = {o: r.energy_pj * r.cycles for o, r in found.items()}
    assert product["edp"] <= min(product.values()) * (1 + 1e-9)


@pytest.mark.parametrize("name", CHIPS)
def test_the_detail_holds_the_mapping(name: str) -> None:
    detail = cost(name, SQUARE).detail
    found = read_mapping(SQUARE, detail)
    subject = core(name)
    again = subject.map(subject.task(layer(SQUARE), mac()))
    assert found == again
    assert detail["certificate"]["optimal"] is True
    for level in detail["levels"]:
        if level["capacity_words"] is not None:
            assert sum(level["words"].values()) <= level["capacity_words"]


def reference_machine(name: str) -> Machine:
    """The shipped chip in plain words, as in the reference's machine."""
    machine, unit = core(name).machine, UNITS[name]
    levels = []
    for level in machine.levels:
        parts = level.word_bits // unit
        if level.name in SUMS:
            levels.append(level)
            continue
        limits = {
            limit: None if (value := getattr(level, limit)) is None else value * parts
            for limit in ("read_bandwidth", "write_bandwidth", "shared_bandwidth")
        }
        entries = None if level.entries is None else level.entries * parts
        levels.append(
            replace(
                level,
                word_bits=unit,
                block_size=level.block_size * parts,
                entries=entries,
                **limits,  # type: ignore[arg-type]
            )
        )
    return replace(machine, levels=tuple(levels))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("eyeriss", "eyeriss_like"),
        ("simba", "simba_like_w16"),
        ("eyeriss-w8", "eyeriss_like_w8"),
        ("simba-w8", "simba_like"),
    ],
)
def test_the_hierarchy_is_the_references(shared: Path, name: str, file: str) -> None:
    folder = shared / "reference" / "timeloop" / "machines"
    data = json.loads((folder / f"{file}.json").read_text())
    theirs, ours = Machine.from_reference(data), reference_machine(name)
    assert (ours.compute.instances, ours.compute.mesh_x) == (
        theirs.compute.instances,
        theirs.compute.mesh_x,
    )
    for mine, other in zip(ours.levels, theirs.levels, strict=True):
        for field in ("instances", "mesh_x", "entries", "block_size", "reduction_supported"):
            if field == "entries" and mine.name in SUMS:
                # room for as many exact sums, or for as many as the reference has words
                assert mine.entries in (other.entries, 16)
                continue
            assert getattr(mine, field) == getattr(other, field), (mine.name, field)
        for field in ("read_bandwidth", "write_bandwidth", "shared_bandwidth"):
            assert getattr(mine, field) == getattr(other, field), (mine.name, field)
        assert mine.word_bits == other.word_bits or mine.name in SUMS


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_block_accesses_are_those_of_plain_words(name: str, bits: int) -> None:
    """Pairs and fours of words pack and count as the words do; only wide sums need them."""
    subject, shape = core(name), SQUARE
    nest = Nest.from_reference(cost(name, shape, Bits(bits, bits, bits)).detail["levels"])
    widths = dict.fromkeys(("Weights", "Inputs", "Outputs"), bits)
    problem = Problem.from_shape(shape)
    theirs = count_events(problem, reference_machine(name), nest, bits=widths)
    packed = dict.fromkeys(widths, packed_bits(bits, UNITS[name]))
    ours = count_events(problem, subject.machine, nest, bits=packed)
    for mine, other in zip(ours.levels, theirs.levels, strict=True):
        for tensor in ("Weights", "Inputs", "Outputs"):
            if mine.name in SUMS:
                continue
            for field in ("vector_reads", "vector_fills", "vector_updates"):
                assert getattr(mine.tensors[tensor], field) == getattr(other.tensors[tensor], field)


@given(bits=st.integers(1, 40), elements=st.integers(1, 500))
def test_packed_codes_take_the_words_that_codes_take(bits: int, elements: int) -> None:
    packed = packed_bits(bits, 16)
    assert packed >= bits
    assert words(elements, packed, 16) == words(elements, bits, 16)
    if bits <= 16:
        assert 32 // packed == 2 * (16 // bits)


def test_words_of_several_units_may_pack_otherwise() -> None:
    assert packs_evenly(16, 16)
    assert packs_evenly(32, 16)
    assert not packs_evenly(24, 16)
    assert not packs_evenly(64, 16)  # 21 codes of 3 bits, 4 x 5 in four units


def test_sums_have_their_own_width_until_they_are_finished() -> None:
    widths = core("eyeriss").widths(conv(64, 64, 8), mac())
    assert (widths.weights, widths.inputs, widths.outputs, widths.partial_sums) == (8, 8, 8, 32)
    narrow = core("eyeriss").widths(LayerShape(m=4, c=16), mac(Bits(4, 4, 4)))
    assert narrow.partial_sums == 16
    public: Any = edited("eyeriss", partial_sums="output").cores["array"]
    assert public.widths(SQUARE, mac()).partial_sums == 8


def test_a_network_output_leaves_as_sums_of_32_bits() -> None:
    shape = LayerShape(m=10, c=64)
    found = core("eyeriss").cost(layer(shape), mac(), Homes((DRAM,), DRAM, output_bits=32))
    assert found.inference.events["dram.device/write_64b"] == 5
    assert cost("eyeriss", shape).inference.events["dram.device/write_64b"] == 2


def test_six_seven_and_eight_bits_cost_the_same() -> None:
    """Two codes fit a 16-bit word at each of them, and four at 4 bits."""
    shape = LayerShape(m=64, c=64)
    by_width = {b: cost("eyeriss", shape, Bits(8, b, 8)).inference.events for b in (4, 6, 7, 8)}
    reads = {b: e["dram.device/read_64b"] for b, e in by_width.items()}
    assert reads[6] == reads[7] == reads[8]
    assert reads[8] - reads[4] == 64 * 64 // 8 - 64 * 64 // 16


@pytest.mark.parametrize("name", UNITS)
def test_layers_cost_by_the_codes_in_a_word(name: str) -> None:
    """Widths that pack alike are one question with one answer; a code more in a word saves."""
    shape = LayerShape(m=64, c=64, n=4)
    energy = chip(name).energy_pj
    by_codes: dict[int, set[tuple[int, float]]] = {}
    for bits in range(2, 9):
        parts = cost(name, shape, Bits(8, bits, 8)).inference.components_pj(energy)
        spent = sum(e for part, e in parts.items() if part != "array.post")
        sums = core(name).widths(shape, mac(Bits(8, bits, 8))).partial_sums
        assert sums is not None
        by_codes.setdefault(UNITS[name] // bits, set()).add((sums, spent))
    for found in by_codes.values():
        assert len(found) == len({sums for sums, _ in found})
    spent_most = [max(e for _, e in by_codes[codes]) for codes in sorted(by_codes)]
    assert spent_most == sorted(spent_most, reverse=True)
    assert spent_most[0] > spent_most[-1]


@pytest.mark.parametrize("name", CHIPS)
def test_groups_lie_on_the_array(name: str) -> None:
    detail = cost(name, conv(1, 1, 16, g=64)).detail
    spread = [dim for lv in detail["levels"] for dim, _ in lv["spatial_x"] + lv["spatial_y"]]
    assert "G" in spread
    assert detail["utilisation"] > 0.05


@pytest.mark.parametrize("name", CHIPS)
def test_a_kernel_taller_than_the_array_folds(name: str) -> None:
    shape = LayerShape(m=8, c=3, p=4, q=4, r=16, s=16, stride=(16, 16))
    assert cost(name, shape).inference.cycles > 0


def test_refusals_say_why() -> None:
    def reasons(name: str, subject: LayerShape, operator: str, bits: Bits) -> list[str]:
        offers = core(name).choices(layer(subject), [operator], [bits], signed_input=False)
        return [o.reason for o in offers if isinstance(o, Refusal)]

    assert reasons("eyeriss", SQUARE, "bw", EIGHT) == ["its elements have an energy for mac only"]
    assert reasons("eyeriss", LayerShape(m=1, c=1 << 17), "mac", EIGHT) == [
        "partial sums of 131072 taps at 8 x 8 bits need 33 bits, a word of psum_spad has 32"
    ]
    assert reasons("simba", SQUARE, "mac", Bits(16, 8, 8)) == [
        "operands of 16 x 8 bits, the elements take 8"
    ]
    assert not reasons("eyeriss", SQUARE, "mac", Bits(16, 8, 8))


def test_an_operator_with_a_stated_energy_is_taken() -> None:
    element = yaml.safe_load(find_target("eyeriss").read_text())["cores"][0]["element"]
    element["operator_pj"]["bw"] = {"value": 0.1, "source": "test"}
    target = edited("eyeriss", element=element)
    offered = choices(target, "array", layer(SQUARE), EIGHT)
    assert {c.operator for c in offered} == {"mac", "bw"}
    (binary,) = (c for c in offered if c.operator == "bw")
    events = target.cores["array"].cost(layer(SQUARE), binary, IN_DRAM).inference.events
    assert events["array.element/bw"] == SQUARE.macs
    assert (
        events["dram.device/read_64b"]
        < cost("eyeriss", SQUARE).inference.events["dram.device/read_64b"]
    )


def test_a_larger_buffer_is_never_worse() -> None:
    """At equal energy per access, every nest that fitted still fits."""
    levels = yaml.safe_load(find_target("eyeriss").read_text())["cores"][0]["levels"]
    values = []
    for entries in (8, 64, 512):
        larger = json.loads(json.dumps(levels))
        larger[3]["entries"]["value"] = entries
        subject: Any = edited("eyeriss", levels=larger).cores["array"]
        found = subject.map(subject.task(layer(conv(16, 16, 16)), mac()))
        values.append(found.certificate.value)
    assert values[0] >= values[1] >= values[2]
    assert values[0] > values[2]


def test_padded_bounds_divide_better_and_are_paid() -> None:
    prime = LayerShape(m=8, c=16, p=17, q=17)
    plain = cost("eyeriss", prime).inference
    target = edited("eyeriss", padding_percent={"value": 15, "source": "test"})
    found = target.cores["array"].cost(layer(prime), mac(), IN_DRAM)
    padded = read_mapping(prime, found.detail).shape
    assert padded.q == 18  # 9 of the array's columns at a time
    assert found.inference.events["array.element/mac"] == padded.macs > prime.macs
    assert all(padded.bounds[d] >= n for d, n in prime.bounds.items())
    product = [c.energy_pj(target.energy_pj) * c.cycles for c in (found.inference, plain)]
    assert product[0] < product[1]


def test_a_padded_nest_is_priced_as_it_was_found() -> None:
    """Its bounds are its own, as far as the core pads; further it is no nest of the layer."""
    prime = LayerShape(m=8, c=16, p=17, q=17)
    subject: Any = load_target("eyeriss").cores["array"]
    found = subject.cost(layer(prime), mac(), IN_DRAM)
    result = read_mapping(prime, found.detail)
    assert result.shape != prime
    again = subject.cost_of_nest(layer(prime), mac(), result.nest)
    assert again.inference == found.inference
    assert again.detail["shape"] == found.detail["shape"]
    for small in (replace(prime, q=15), replace(prime, q=19)):
        with pytest.raises(MappingError, match="factors of Q multiply to 18, its bound is 1"):
            subject.cost_of_nest(layer(small), mac(), result.nest)


def test_what_cannot_fit_is_named() -> None:
    levels = yaml.safe_load(find_target("eyeriss").read_text())["cores"][0]["levels"]
    levels[3]["entries"]["value"] = 1
    subject = edited("eyeriss", levels=levels).cores["array"]
    with pytest.raises(InfeasibleError, match="shared_glb: the smallest tile"):
        subject.cost(layer(SQUARE), mac(), IN_DRAM)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("levels", 0, "columns", "value"), 13, "13 does not divide instances = 168"),
        (("levels", 3, "name"), "psum_spad", "a level named psum_spad, which is taken"),
        (("levels", 3, "word_bits", "value"), 64, "word_bits = 64, which hold other codes than"),
        (("levels", 3, "spread_x"), ["X"], "levels[shared_glb].spread_x.X"),
        (("levels", 3, "spread_x"), {"M": [4, 2]}, "factors [4, 2] of M"),
        (("levels", 3, "spread_x"), 5, "spread_x = 5 is not accepted"),
        (("element", "operator_pj"), {}, "neither operator_pj nor by_formula"),
        (("element", "by_formula"), ["mac"], "operator_pj.mac beside by_formula: mac"),
    ],
)
def test_a_wrong_core_is_one_clear_error(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = yaml.safe_load(find_target("eyeriss").read_text())
    block = data["cores"][0]
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    with pytest.raises(SpecError) as caught:
        check_target(parse_document(yaml.safe_dump(data), "chip.yaml"))
    assert message in str(caught.value)
    assert str(caught.value.place).startswith("chip.yaml:")
    assert caught.value.remedy


def test_loops_stand_where_the_file_allows_them() -> None:
    """Row-stationary elements loop over channels and filters; positions stay outside."""
    subject = core("eyeriss")
    assert subject.space.describe(subject.machine).splitlines() == [
        "psum_spad: keeps Outputs; loops G = 1, N = 1, P = 1, Q = 1, rest free",
        "weights_spad: keeps Weights; no loops of its own",
        "ifmap_spad: keeps Inputs; no loops of its own",
        "shared_glb: keeps Inputs Outputs; loops free; X over Q M G; Y over S C G",
        "memory: keeps Weights Inputs Outputs; loops free",
    ]
    for shape in (SQUARE, conv(1, 1, 8, g=16), LayerShape(m=48, c=96, n=4)):
        levels = cost("eyeriss", shape).detail["levels"]
        assert {dim for dim, _ in levels[0]["temporal"]} <= set("MCRS")
        assert levels[1]["temporal"] == levels[2]["temporal"] == []


def test_fixed_factors_are_kept() -> None:
    levels = yaml.safe_load(find_target("eyeriss").read_text())["cores"][0]["levels"]
    levels[3]["spread_x"] = {"M": 4, "Q": [1, 2]}
    target = edited("eyeriss", levels=levels)
    detail = target.cores["array"].cost(layer(SQUARE), mac(), IN_DRAM).detail
    spread = dict(map(tuple, detail["levels"][3]["spatial_x"]))
    assert spread["M"] == 4
    assert spread.get("Q", 1) <= 2


def test_bandwidth_beyond_the_memory_is_refused() -> None:
    outermost = yaml.safe_load(find_target("eyeriss").read_text())["cores"][0]["outermost"]
    outermost["read_words_per_cycle"]["value"] = 5
    with pytest.raises(SpecError, match="asks for 288 bits per cycle, dram moves 256"):
        edited("eyeriss", outermost=outermost)


# The cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ENOS_CACHE_DIR", str(tmp_path))
    map_cache.forget()
    yield tmp_path
    map_cache.forget()


def test_results_are_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cost("eyeriss", SQUARE)
    (file,) = folder.rglob("*.json")
    assert not list(folder.rglob("*.part"))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("mapped again")

    monkeypatch.setattr(nest_search, "map_layer", never)
    assert cost("eyeriss", SQUARE) == first
    map_cache.forget()
    assert cost("eyeriss", SQUARE) == first
    file.unlink()
    assert cost("eyeriss", SQUARE) == first  # this process knows it
    map_cache.forget()
    with pytest.raises(AssertionError, match="mapped again"):
        cost("eyeriss", SQUARE)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"form": "other/1", "answer": {}}', "\x00"])
def test_a_damaged_file_is_worked_out_again(folder: Path, damage: str) -> None:
    first = cost("eyeriss", SQUARE)
    (file,) = folder.rglob("*.json")
    file.write_text(damage)
    map_cache.forget()
    assert cost("eyeriss", SQUARE) == first
    assert json.loads(file.read_text())["form"] == map_cache.FORM


def test_what_a_nest_depends_on_is_told_apart(folder: Path) -> None:
    shapes_ = (SQUARE, replace(SQUARE, padding=(0, 0, 0, 0)))
    padded, bare = (cost("eyeriss", shape) for shape in shapes_)
    assert padded.detail == bare.detail
    assert padded.inference.events == bare.inference.events
    work = LayerWork.from_detail(bare.detail["work"])
    for found, shape in zip((padded, bare), shapes_, strict=True):  # the border is not loaded
        assert found.inference.cycles == work_cycles(shape, work)
    assert len(list(folder.rglob("*.json"))) == 1  # padding is part of the box
    cost("eyeriss", SQUARE, Bits(7, 6, 8))
    assert len(list(folder.rglob("*.json"))) == 1  # packed like 8 bits
    cost("eyeriss", SQUARE, Bits(8, 4, 8))
    cost("simba", SQUARE)
    cost("eyeriss", replace(SQUARE, stride=(2, 2)))
    edited("eyeriss", objective="energy").cores["array"].cost(layer(SQUARE), mac(), IN_DRAM)
    assert len(list(folder.rglob("*.json"))) == 5


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENOS_CACHE_DIR", str(tmp_path / "file"))
    map_cache.forget()
    assert cost("eyeriss", SQUARE).inference.events
    map_cache.forget()


def test_many_writers_leave_one_whole_file(folder: Path) -> None:
    question = {"x": 1}
    answers = {"events": {str(i): i for i in range(2000)}}

    def write(_: int) -> dict[str, Any]:
        map_cache.forget()
        return map_cache.recall(question, lambda: answers)

    with ThreadPoolExecutor(8) as pool:
        assert all(found == answers for found in pool.map(write, range(64)))
    (file,) = folder.rglob("*.json")
    assert json.loads(file.read_text())["answer"] == answers
    assert not list(folder.rglob("*.part"))


def test_two_processes_share_the_folder(folder: Path) -> None:
    code = (
        "from enos_compiler.cores import map_cache\n"
        "answers = {'events': {str(i): i for i in range(20000)}}\n"
        "for n in range(20):\n"
        "    map_cache.forget()\n"
        "    file = map_cache.cache_folder()\n"
        "    assert map_cache.recall({'n': n}, lambda: answers) == answers\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert len(list(folder.rglob("*.json"))) == 20


# End to end


def network() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    ).eval()
    return model, (torch.rand(4, 1, 12, 12),)


@pytest.mark.parametrize("search", ["none", "sensitivity"])
@pytest.mark.parametrize("name", CHIPS)
def test_compiles_a_network_end_to_end(name: str, search: str, tmp_path: Path) -> None:
    model, inputs = network()
    compiled = enos_compiler.compile(model, inputs, target=name, search=search)
    report = compiled.report
    assert report["checks"]["onnx_max_steps"] == 0
    totals = report["totals"]
    parts = ("layers_pj", "edges_pj", "vector_pj", "host_pj", "programming_pj", "leakage_pj")
    assert totals["energy_pj"] == pytest.approx(sum(totals[p] for p in parts), rel=1e-12)
    assert totals["layers_pj"] == pytest.approx(sum(row["energy_pj"] for row in report["layers"]))
    target = load_target(name)
    for row in report["layers"]:
        assert all(type(n) is int and n > 0 for n in row["events"].values())
        price = sum(n * target.energy_pj(a) for a, n in row["events"].items())
        assert row["energy_pj"] == pytest.approx(price, rel=1e-12)
        mapping = compiled.network.layers[row["name"]].mapping
        assert mapping is not None
        assert mapping["certificate"]["optimal"] is True
    assert {v.home.memory for v in compiled.network.values.values() if v.home} == {"dram"}
    if search == "sensitivity":
        assert totals["energy_pj"] <= report["budget"]["energy_pj"] * (1 + 1e-9)
        assert totals["energy_pj"] < report["baseline"]["energy_pj"]
    outputs = compiled.run(*(x.numpy() for x in inputs))
    assert all(np.isfinite(y).all() for y in outputs)
    compiled.save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == report
