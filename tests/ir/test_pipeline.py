# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from enos_compiler.cores.target import Target, load_target
from enos_compiler.errors import PassError, VerifyError
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import load_user_model
from enos_compiler.ir import Fact, Network
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pass, Pipeline

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"


@dataclass(frozen=True, slots=True)
class Breaks(Pass):
    """Return a network that breaks a rule, or raise."""

    name: ClassVar[str] = "breaks"
    requires: ClassVar[frozenset[Fact]] = frozenset({"shaped"})

    how: str = "order"

    def run(self, network: Network, context: Context) -> Network:  # noqa: ARG002 - contract
        if self.how == "raise":
            raise KeyError("a bug")
        return replace(network, order=network.order[1:])


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("hybrid")


@pytest.fixture(scope="module")
def traced() -> Network:
    return trace(load_user_model(str(DIGITS)))


def test_calibrate_is_inserted_and_said(traced: Network, target: Target) -> None:
    said: list[str] = []
    steps = parse_passes("canonicalize,attach-choices{operators=mac weight_bits=8}")
    pipeline = Pipeline(steps)
    network = pipeline.run(traced, Context(target=target, say=said.append))
    assert [r.text.partition("{")[0] for r in pipeline.records] == [
        "canonicalize",
        "calibrate",
        "attach-choices",
    ]
    assert said[0] == "attach-choices needs ranges: calibrate runs first"
    assert network.facts == {"shaped", "calibrated", "choices"}


def test_a_missing_fact_names_the_passes_that_ensure_it(traced: Network, target: Target) -> None:
    with pytest.raises(PassError) as caught:
        Pipeline(parse_passes("quantize")).run(traced, Context(target=target))
    assert str(caught.value).startswith("pass quantize: requires calibrated, assigned, which no")
    assert "assign" in str(caught.value.remedy)


def test_a_pass_that_ensures_a_fact_drops_what_comes_later(traced: Network, target: Target) -> None:
    context = Context(target=target)
    steps = "canonicalize,calibrate,attach-choices{operators=mac weight_bits=8},sensitivity,assign"
    network = Pipeline(parse_passes(steps)).run(traced, context)
    assert all(layer.choice for layer in network.layers.values())
    again = Pipeline(parse_passes("calibrate")).run(network, context)
    assert again.facts == {"shaped", "calibrated"}
    assert not any(layer.choice or layer.choices or layer.scores for layer in again.layers.values())
    assert all(value.home is None for value in again.values.values())


def test_a_broken_rule_names_pass_place_and_rule(traced: Network, target: Target) -> None:
    steps = (*parse_passes("canonicalize"), Breaks())
    with pytest.raises(VerifyError) as caught:
        Pipeline(steps).run(traced, Context(target=target))
    assert str(caught.value) == (
        "after pass breaks: order: must list every layer and vector node exactly once"
    )


def test_a_bug_in_a_pass_says_so_and_what_ran_before(traced: Network, target: Target) -> None:
    steps = (*parse_passes("canonicalize"), Breaks("raise"))
    with pytest.raises(PassError) as caught:
        Pipeline(steps).run(traced, Context(target=target))
    assert str(caught.value) == (
        "pass breaks: KeyError: 'a bug' (passes before it: canonicalize)\n"
        "  try: this is a defect; run with -v for the trace and report it"
    )


def test_a_terminal_sees_a_bar(
    traced: Network, target: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = parse_passes("canonicalize,attach-choices{operators=mac weight_bits=8}")
    Pipeline(steps).run(traced, Context(target=target, progress=True))
    assert "pricing" in capfd.readouterr().err
    Pipeline(steps).run(traced, Context(target=target))
    assert capfd.readouterr().err == ""
