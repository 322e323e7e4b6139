# SPDX-License-Identifier: Apache-2.0
"""Laws that every core's costs obey."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_layers import IN_BUFFER, choices, hybrid, layer, shapes
from hypothesis import given, settings

from enos_compiler.cores.target import load_target
from enos_compiler.errors import SpecError
from enos_compiler.ir import Bits, Choice, LayerShape
from enos_compiler.mapping.nest import Nest

WIDTHS = (Bits(8, 8, 8), Bits(4, 4, 8), Bits(5, 3, 2))


@settings(deadline=None, max_examples=25)
@given(shapes(4))
def test_every_event_is_a_whole_number_with_price_and_source(shape: LayerShape) -> None:
    target, subject = hybrid(), layer(shape)
    for name, core in target.cores.items():
        for choice in choices(target, name, subject, *WIDTHS):
            found = core.cost(subject, choice, IN_BUFFER)
            for cost in (found.inference, found.programming):
                for action, count in cost.events.items():
                    assert type(count) is int
                    assert count > 0
                    assert target.energy_pj(action) >= 0  # reading a register is free
                    assert target.source(action)
                parts = cost.components_pj(target.energy_pj)
                assert sum(parts.values()) == pytest.approx(cost.energy_pj(target.energy_pj))
                assert type(cost.cycles) is int
                assert cost.cycles >= 0
            assert found.inference.cycles > 0


@settings(deadline=None, max_examples=25)
@given(shapes(4))
def test_twice_the_batch_is_twice_the_work(shape: LayerShape) -> None:
    target = hybrid()
    once, twice = layer(shape), layer(replace(shape, n=2 * shape.n))
    for name, core in target.cores.items():
        for choice in choices(target, name, once, WIDTHS[0]):
            one = core.cost(once, choice, IN_BUFFER).inference
            two = core.cost(twice, choice, IN_BUFFER).inference
            work = [a for a in one.events if any(k in a for k in ("/multiply", "/add", "/conv"))]
            assert work
            for action in work:
                assert abs(two.events[action] - 2 * one.events[action]) <= 1
            assert core.cost(twice, choice, IN_BUFFER).programming == (
                core.cost(once, choice, IN_BUFFER).programming
            )


@settings(deadline=None, max_examples=25)
@given(shapes(4))
def test_narrower_operands_are_never_dearer(shape: LayerShape) -> None:
    """On crossbars in events; of loop nests in what the mapper proves, before whole words count."""
    target, subject = hybrid(), layer(shape)

    def price_pj(choice: Choice) -> float:
        found = target.cores[choice.core].cost(subject, choice, IN_BUFFER)
        if choice.core == "mac":
            return float(found.detail["certificate"]["value"])
        return found.inference.energy_pj(target.energy_pj)

    for name in target.cores:
        wide = choices(target, name, subject, Bits(8, 4, 8))
        narrow = {(c.operator, c.options): c for c in choices(target, name, subject, Bits(4, 2, 4))}
        for choice in wide:
            other = narrow[choice.operator, choice.options]
            assert price_pj(other) <= price_pj(choice) * (1 + 1e-12)


@settings(deadline=None, max_examples=25)
@given(shapes(4))
def test_a_nest_is_never_dearer_at_narrower_operands(shape: LayerShape) -> None:
    target, subject = hybrid(), layer(shape)
    core: Any = target.cores["mac"]
    narrow = {(c.operator, c.options): c for c in choices(target, "mac", subject, Bits(4, 2, 4))}
    for choice in choices(target, "mac", subject, Bits(8, 4, 8)):
        found = core.cost(subject, choice, IN_BUFFER)
        nest = Nest.from_reference(found.detail["levels"])
        other = narrow[choice.operator, choice.options]
        same = core.cost_of_nest(subject, other, nest, IN_BUFFER)
        assert same.inference.energy_pj(target.energy_pj) <= (
            found.inference.energy_pj(target.energy_pj) * (1 + 1e-12)
        )


@pytest.mark.parametrize(
    "action",
    [
        "mac.adc/convert_8b",
        "xbar.adc/convert_4b",
        "nobody.pe/add_8",
        "dram.device/read_32b",
        "bridge.wire/transfer_byte",
        "vector.lanes/divide",
        "mac.pe/divide_8",
    ],
)
def test_an_unknown_event_is_an_error_and_never_free(action: str) -> None:
    with pytest.raises(SpecError, match="no energy is known for"):
        hybrid().energy_pj(action)


@pytest.mark.parametrize("name", ["digital", "cim", "hybrid"])
def test_the_whole_is_the_sum_of_its_parts(name: str) -> None:
    target = load_target(name)
    assert target.leakage_mw() == pytest.approx(sum(target.leakage_by_owner().values()))
    density = target.spec.technology.leakage_pw_per_um2.value
    assert target.leakage_mw() == pytest.approx(target.area_um2() * density * 1e-9)


def test_inferences_can_be_overridden() -> None:
    assert load_target("cim").inferences_per_programming == 1000
    assert load_target("cim", inferences=7).inferences_per_programming == 7
    with pytest.raises(SpecError, match="inferences = 0 is below 1"):
        load_target("cim", inferences=0)
