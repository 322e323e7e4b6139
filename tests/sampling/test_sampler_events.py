# SPDX-License-Identifier: Apache-2.0
"""Counts of a sampling program against a walk through what one step does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.errors import InfeasibleError
from enos_compiler.sampling.codes import step_weights
from enos_compiler.sampling.events import (
    Units,
    Widths,
    chains_in,
    refresh_events,
    refreshes,
    run_cycles,
    run_events,
    step_cycles,
    step_events,
)
from enos_compiler.sampling.form import SamplerForm

FORM = SamplerForm()


def _walk(form: SamplerForm, components: int, dimensions: int) -> Counter[str]:
    """Count array, converter, random and multiplier events of one step, one by one."""
    seen: Counter[str] = Counter()
    for _ in range(dimensions):
        for _ in step_weights(form.proposal_bits):
            seen["random/bit"] += 1
        if form.correction == "sign-flip":
            seen["random/bit"] += form.whitening
        seen["dac/convert"] += 1
    for _ in range(form.uniform_bits):
        seen["random/bit"] += form.whitening
    for _ in range(components):
        for _ in range(dimensions):
            place = 0
            while place < form.weight_bits:
                merged = min(form.bits_per_conversion, form.weight_bits - place)
                seen["array/cell"] += dimensions * merged
                seen["adc/convert"] += 1
                place += merged
            seen["multiply"] += 1
        seen["table/read"] += 2
    return seen


@settings(deadline=None, max_examples=40)
@given(
    components=st.integers(1, 8),
    dimensions=st.integers(1, 8),
    weight=st.integers(2, 10),
    merged=st.integers(1, 10),
    whitening=st.integers(1, 3),
    flip=st.booleans(),
)
def test_a_step_is_what_the_walk_counts(
    components: int, dimensions: int, weight: int, merged: int, whitening: int, flip: bool
) -> None:
    form = replace(
        FORM,
        weight_bits=weight,
        bits_per_conversion=min(merged, weight),
        whitening=whitening,
        correction="sign-flip" if flip else "none",
    )
    found, seen = step_events(form, components, dimensions), _walk(form, components, dimensions)
    for name in ("random/bit", "dac/convert", "array/cell", "adc/convert", "table/read"):
        assert found[name] == seen[name], name
    width = Widths.of(form, components, dimensions)
    assert found[f"gradient/multiply_{form.proposal_bits}x{width.gradient}"] == seen["multiply"]
    assert min(found.values()) > 0


@settings(deadline=None, max_examples=30)
@given(steps=st.integers(1, 400), refresh=st.sampled_from([0, 1, 7, 64]), chains=st.integers(1, 9))
def test_a_run_is_its_steps_and_its_refreshes(steps: int, refresh: int, chains: int) -> None:
    form = replace(FORM, refresh=refresh, chains=chains)
    counted = 1 + sum(1 for now in range(1, steps) if refresh and now % refresh == 0)
    assert refreshes(form, steps) == counted
    expected: Counter[str] = Counter()
    for _ in range(steps):
        expected.update(step_events(form, 3, 2))
    for _ in range(counted):
        expected.update(refresh_events(form, 3, 2))
    total = run_events(form, 3, 2, steps=steps)
    assert total == Counter({name: count * chains for name, count in expected.items()})


def test_more_units_never_cost_cycles() -> None:
    few = Units(converters=1, multipliers=1, table_ports=1, read_cycles=1, conversion_cycles=1)
    many = Units(converters=32, multipliers=4, table_ports=4, read_cycles=1, conversion_cycles=1)
    # 2 components x 2 dimensions x 8 columns; 4 products; 4 exponentials; decision
    assert step_cycles(FORM, 2, 2, few) == 1 + 32 + 4 + 4 + 1
    assert step_cycles(FORM, 2, 2, many) == 1 + 1 + 1 + 1 + 1
    assert run_cycles(replace(FORM, refresh=0), 2, 2, many, steps=500) == 500 * 5 + 3


def test_an_array_too_small_is_refused_with_the_sizes() -> None:
    assert chains_in(FORM, 2, 2, rows=16, columns=256) == 8
    with pytest.raises(InfeasibleError, match="need 2 rows and 512 columns, an array has 16 x 256"):
        chains_in(FORM, 32, 2, rows=16, columns=256)
    with pytest.raises(InfeasibleError, match="17 dimensions"):
        chains_in(FORM, 1, 17, rows=16, columns=4096)
