# SPDX-License-Identifier: Apache-2.0
"""The table of published chips: the document shows what the command gives, and that is right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def silicon(shared: Path) -> ModuleType:
    if not (shared / "reference" / "cim" / "published.json").is_file():
        pytest.skip("the published figures are not among the reference data")
    spec = importlib.util.spec_from_file_location("silicon", ROOT / "benchmarks" / "silicon.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_document_shows_what_the_command_gives(silicon: ModuleType) -> None:
    document = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    for line in silicon.table(silicon.chips()).splitlines():
        assert line in document


def test_chips_that_state_their_components_are_met(silicon: ModuleType) -> None:
    """Whole chips, and macros whose figure counts just these parts: within 1 %, one within 10."""
    ratios = {chip.name: chip.ratio for chip in silicon.chips()}
    exact = [n for n in ratios if n.startswith(("Jia", "Dong")) and "datapath" not in n]
    assert len(exact) == 5
    for name in ("ISAAC, whole chip", *exact):
        assert ratios[name] == pytest.approx(1, abs=0.01)
    assert ratios["ISAAC, arrays and registers"] < ratios["ISAAC, whole chip"]


def test_events_of_isaac_are_those_of_its_paper(silicon: ModuleType) -> None:
    """A 16-bit input takes 2048 conversions and 16 reads of a 128x128 array."""
    chip = next(c for c in silicon.chips() if c.name.startswith("ISAAC"))
    cost = chip.cost
    assert cost.events["adc/convert"] == 2048
    assert cost.events["array/read"] == 16
    assert cost.macs == 128 * 16
    assert chip.prices["adc/convert"] == pytest.approx(1.56, abs=0.01)


def test_energy_is_the_sum_of_its_parts_and_the_inverse_of_efficiency(silicon: ModuleType) -> None:
    for chip in silicon.chips():
        assert chip.ours_fj == sum(chip.parts_fj.values())
        assert chip.tops_per_watt == pytest.approx(2000 / chip.ours_fj)
        priced = {n for n in chip.prices if chip.cost.events.get(n)}
        assert priced == set(chip.prices) - {"offset/add"} or priced == set(chip.prices)
