# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from enos_compiler import pass_text, plugins
from enos_compiler.errors import UsageError
from enos_compiler.ir import Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Sample(Pass):
    """Do something for a test.

    In two lines.
    """

    name: ClassVar[str] = "sample"
    bits: tuple[int, ...] = (8, 4)
    """Widths to offer."""
    mode: Literal["fast", "exact"] = "fast"
    limit_s: float | None = None

    def run(self, network: Network, context: Context) -> Network:  # noqa: ARG002 - contract
        return network


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "load", lambda _group, name: {"sample": Sample}[name])


def test_options_are_parsed_by_type() -> None:
    steps = pass_text.parse_passes("sample{bits=2|3 mode=exact limit_s=1.5}, sample")
    assert steps == (Sample(bits=(2, 3), mode="exact", limit_s=1.5), Sample())


@pytest.mark.parametrize(
    "step", [Sample(), Sample(bits=(2,)), Sample(mode="exact", limit_s=2.0), Sample(limit_s=None)]
)
def test_text_round_trip(step: Sample) -> None:
    assert pass_text.parse_passes(pass_text.format_pass(step)) == (step,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sample{bit=2}",
            "pass sample: unknown option `bit`\n  try: bits (known: bits, limit_s, mode)",
        ),
        (
            "sample{bits=two}",
            "pass sample, option bits: `two` is not valid: Input should be a valid integer, "
            "unable to parse string as an integer\n  try: a list of int separated by |",
        ),
        ("sample{bits}", "pass sample: option `bits` is not of the form name=value"),
        ("sample{bits=2 bits=3}", "pass sample: option `bits` is given twice"),
        (
            "sample{{",
            "pass list, character 1: cannot read `sample{{`\n"
            "  try: name{option=value option=value},name,...",
        ),
        ("", "the pass list is empty\n  try: --passes 'canonicalize,...'"),
    ],
)
def test_errors_in_full(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        pass_text.parse_passes(text)
    assert str(caught.value) == message


def test_help_documents_every_option() -> None:
    text = pass_text.help_text("sample")
    assert text.startswith("sample: Do something for a test.")
    assert "bits=8|4  (list of int separated by |)\n      Widths to offer." in text
