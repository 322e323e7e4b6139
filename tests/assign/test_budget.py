# SPDX-License-Identifier: Apache-2.0
"""Budgets as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from enos_compiler.assign.budget import Budget
from enos_compiler.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("0.6", "fraction", 0.6),
        ("1", "fraction", 1.0),
        ("1e-1", "fraction", 0.1),
        ("floor", "floor", 0.0),
        ("floor+0.5", "floor", 0.5),
        ("floor + .25", "floor", 0.25),
        ("12.5uJ", "absolute", 12.5e6),
        ("12.5 µJ", "absolute", 12.5e6),
        ("300nJ", "absolute", 300e3),
        ("7pJ", "absolute", 7.0),
        ("2mJ", "absolute", 2e9),
        ("unlimited", "unlimited", 0.0),
        ("baseline", "baseline", 0.0),
    ],
)
def test_forms(text: str, kind: str, value: float) -> None:
    budget = TypeAdapter(Budget).validate_python(text)
    assert (budget.kind, str(budget)) == (kind, text)
    assert budget.value == pytest.approx(value, rel=1e-12)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "cheap", "-0.5", "0", "0uJ", "12 kJ", "floor-0.5", "nan", "inf", "1e999", "5%"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Budget).validate_python(text)
    with pytest.raises(UsageError) as caught:
        Budget.parse(text)
    assert "budget" in str(caught.value)


def test_message_in_full() -> None:
    with pytest.raises(UsageError) as caught:
        Budget.parse("half")
    assert str(caught.value) == (
        "budget: `half` is not a budget; known forms: 0.6 (of the baseline), floor+0.5, 12.5uJ, "
        "unlimited, baseline, edp:0.6, edap:floor+0.5"
    )


@given(share=st.floats(0.001, 1.0), floor=st.floats(1.0, 1e9), above=st.floats(0.0, 1e9))
def test_floor_share_lies_between_floor_and_baseline(
    share: float, floor: float, above: float
) -> None:
    baseline = floor + above
    allowed = Budget.parse(f"floor+{share}").allowed(floor, baseline)
    assert floor <= allowed <= baseline * (1 + 1e-12)
    assert Budget.parse("floor").allowed(floor, baseline) == floor


def test_a_floor_above_the_baseline_is_the_budget() -> None:
    assert Budget.parse("floor+0.5").allowed(10.0, 4.0) == 10.0
