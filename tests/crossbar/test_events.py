# SPDX-License-Identifier: Apache-2.0
"""Events of crossbar layers: counted by the engine itself, and identities of the cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar import adc_energy
from enos_compiler.crossbar.events import (
    CROSSBAR_EVENTS,
    Figure,
    area_um2,
    layer_cost,
    price_events,
    tera_operations_per_second,
    tera_operations_per_watt,
)
from enos_compiler.crossbar.integer import read, store
from enos_compiler.crossbar.operators import drives, stored_matrices
from enos_compiler.crossbar.placement import place_layer
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import LayerShape

PRICES = {name: Figure(0.5 + i, "pJ", "test") for i, name in enumerate(CROSSBAR_EVENTS)}


@st.composite
def layers(draw: st.DrawFn) -> tuple[CrossbarSpec, LayerShape, str, int, int]:
    spec = CrossbarSpec(
        rows=draw(st.integers(4, 24)),
        columns=draw(st.integers(40, 80)),
        cell=CellSpec(bits=draw(st.integers(1, 3))),
        encoding=draw(st.sampled_from(["differential", "offset", "unit_column"])),
        subtract_before_adc=draw(st.booleans()),
        rows_at_once=draw(st.none() | st.integers(1, 4)),
        dac=DacSpec(digit_bits=draw(st.none() | st.integers(1, 3))),
        adc=AdcSpec(
            bits=8, per_digit=draw(st.booleans()), columns_per_adc=draw(st.integers(1, 16))
        ),
    )
    shape = LayerShape(
        g=draw(st.integers(1, 4)),
        n=draw(st.integers(1, 2)),
        m=draw(st.integers(1, 4)),
        c=draw(st.integers(1, 12)),
        p=draw(st.integers(1, 3)),
        r=draw(st.integers(1, 3)),
    )
    operator = draw(st.sampled_from(["mac", "bw", "xnor", "mf", "ef"]))
    return spec, shape, operator, draw(st.integers(2, 8)), draw(st.integers(2, 8))


@settings(deadline=None, max_examples=100)
@given(layer=layers(), signed=st.booleans())
def test_conversions_are_those_that_the_engine_makes(layer: tuple[Any, ...], signed: bool) -> None:
    spec, shape, operator, weight_bits, input_bits = layer
    counted = 0

    def count(values: np.ndarray, *_: int) -> np.ndarray:
        nonlocal counted
        counted += values.size
        return values

    w = np.zeros((shape.m, shape.taps), np.int64)
    x = np.zeros((shape.taps, shape.n * shape.p * shape.q), np.int64)
    matrices = [store(spec, s) for s in stored_matrices(operator, w, weight_bits)]
    for drive in drives(operator, x, input_bits, inputs_signed=signed):
        kind = drive.kind
        read(
            matrices[kind.matrix],
            drive.inputs,
            kind.input_bits,
            inputs_signed=kind.inputs_signed,
            code_hook=count,
        )
    place = place_layer(spec, shape, operator, weight_bits)
    cost = layer_cost(place, input_bits, inputs_signed=signed)
    assert cost.events["adc/convert"] == counted * shape.g
    assert cost.macs == shape.macs


@settings(deadline=None, max_examples=60)
@given(layer=layers())
def test_identities(layer: tuple[Any, ...]) -> None:
    spec, shape, operator, weight_bits, input_bits = layer
    place = place_layer(spec, shape, operator, weight_bits)
    cost = layer_cost(place, input_bits)
    parts = price_events(cost.events, PRICES)
    assert sum(parts.values()) == pytest.approx(
        sum(n * PRICES[e].value for e, n in cost.events.items())
    )
    double = layer_cost(place_layer(spec, replace(shape, n=2 * shape.n), operator, weight_bits), 4)
    single = layer_cost(place, 4)
    assert double.events == {e: 2 * n for e, n in single.events.items()}
    assert double.cycles == 2 * single.cycles
    assert double.programming == single.programming
    more = layer_cost(place, input_bits, copies=3)
    assert more.events == cost.events
    assert more.programming["cell/program"] == 3 * cost.programming["cell/program"]
    assert cost.cycles / 3 <= more.cycles <= cost.cycles
    slow = replace(spec, adc=replace(spec.adc, columns_per_adc=64))
    shared = layer_cost(place_layer(slow, shape, operator, weight_bits), input_bits)
    assert shared.cycles >= cost.cycles
    assert shared.parts["adc"] <= cost.parts["adc"]
    assert shared.events == cost.events


def test_columns_in_use_are_spread_over_the_converters() -> None:
    """40 of 64 columns on 8 converters of 8 columns each take five turns, not eight."""
    spec = CrossbarSpec(rows=16, columns=64, encoding="offset", adc=AdcSpec(columns_per_adc=8))
    place = place_layer(spec, LayerShape(m=5, c=16), "mac", 8)
    assert place.matrices[0].columns_per_read == 40
    assert layer_cost(place, 8).cycles == 8 * 5


def test_one_array_by_hand() -> None:
    """ISAAC's count: 128 columns x 16 input bits = 2048 conversions of one 128 x 128 array."""
    spec = CrossbarSpec(
        rows=128,
        columns=128,
        cell=CellSpec(bits=2),
        encoding="offset",
        adc=AdcSpec(bits=8, columns_per_adc=128),
    )
    place = place_layer(spec, LayerShape(c=128, m=16), "mac", 16)
    cost = layer_cost(place, 16)
    assert place.arrays == 1
    assert place.utilisation == 1
    assert cost.events["adc/convert"] == 2048
    assert cost.events["array/read"] == 16
    assert cost.events["row_driver/drive"] == 128 * 16
    assert cost.events["offset/add"] == 127 + 16
    assert cost.programming == {"cell/program": 128 * 128}
    assert cost.cycles == 2048
    assert cost.parts["adc"] == 1
    latency_ns = cost.cycles / 1.28
    assert tera_operations_per_second(cost.macs, latency_ns) == pytest.approx(2.56e-3)
    assert tera_operations_per_watt(1000, 2000.0) == 1.0


@settings(deadline=None, max_examples=60)
@given(bits=st.integers(5, 13), other=st.integers(5, 13))
def test_wider_converters_cost_more(bits: int, other: int) -> None:
    families: list[Callable[[int], Figure]] = [
        adc_energy.survey_best,
        lambda b: adc_energy.survey_best_at_rate(b, 1e9),
        lambda b: adc_energy.survey_typical(b, 1e8, 45),
        lambda b: adc_energy.survey_best_fifth(b, 1e8, 32),
        lambda b: adc_energy.in_memory_sar(b, 0.9),
    ]
    low, high = sorted((bits, other))
    place = place_layer(CrossbarSpec(rows=16, columns=16), LayerShape(c=9, m=3), "mac", 4)
    events = layer_cost(place, 4).events
    for family in families:
        energies = [
            sum(price_events(events, {**PRICES, "adc/convert": family(b)}).values())
            for b in (low, high)
        ]
        assert energies[0] <= energies[1]


def test_formulas_give_the_printed_figures() -> None:
    at = [adc_energy.survey_best_fifth(b, 1e8, 32).value for b in (6, 8, 10)]
    assert at == pytest.approx([1.06, 1.71, 3.30], rel=0.005)
    assert adc_energy.in_memory_sar(8, 0.9).value == pytest.approx(0.70, rel=0.005)
    assert adc_energy.survey_best(8).value == pytest.approx(0.28, rel=0.02)
    assert adc_energy.survey_typical(8, 1e8, 28).value == pytest.approx(13.7, rel=0.02)
    assert adc_energy.in_memory_dac(1, 0.9).value == 0
    assert adc_energy.survey_best_at_rate(8, 1e6).value == 0.267
    with pytest.raises(SpecError, match="rises again below 5 bits"):
        adc_energy.survey_best_fifth(4, 1e8, 32)


def test_unknown_prices_are_an_error() -> None:
    with pytest.raises(SpecError, match="3 events of adc/convert have no energy"):
        price_events({"adc/convert": 3}, {"array/read": Figure(1, "pJ", "test")})
    with pytest.raises(SpecError, match="the energy of adc/convert is in fJ"):
        price_events({"adc/convert": 3}, {"adc/convert": Figure(1, "fJ", "test")})
    with pytest.raises(SpecError, match="2 x adc have no area"):
        area_um2({"adc": 2}, {})
    assert area_um2({"adc": 2}, {"adc": Figure(1200, "um2", "test")}) == {"adc": 2400}
