# SPDX-License-Identifier: Apache-2.0
"""The stored outputs of two public simulators, case by case."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from enos_compiler.crossbar.pcm import PcmModel
from enos_compiler.crossbar.reference import compare_cases, compare_noise
from enos_compiler.errors import FormatError

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ENOS_SHARED", ROOT / ".." / "shared"))
FOLDER = Path(os.environ.get("ENOS_CIM_REFERENCE", SHARED / "reference" / "cim"))

needs_reference = pytest.mark.skipif(
    not (FOLDER / "crosssim.json").is_file(),
    reason=f"no reference cases in {FOLDER}; set ENOS_CIM_REFERENCE",
)


@needs_reference
def test_cim_reference(say: Callable[[str], None]) -> None:
    results = list(compare_cases(FOLDER))
    say(f"{sum(r.equal for r in results)} of {len(results)} cases equal")
    assert len(results) >= 129
    assert [(r.case, r.note, r.error) for r in results if not r.equal] == []


@needs_reference
def test_noise_statistics_agree() -> None:
    """Largest of 5 means and 5 spreads in each of 14 cases: below 4.5 standard errors."""
    results = list(compare_noise(FOLDER, draws=1500, seed=3))
    assert len(results) == 14
    far = [r for r in results if max(r.mean_errors, r.spread_errors) > 4.5]
    assert far == []


@needs_reference
def test_phase_change_statistics_agree() -> None:
    """Programming within sampling error (4.5 %); drift and read noise 4 % more: remembered law."""
    rows = json.loads((FOLDER / "aihwkit.json").read_text())["weight_noise"]["rows"]
    model, rng = PcmModel(), np.random.default_rng(5)
    for row in rows:
        target = np.tile(np.array(row["target_weight"])[:, None], 8000)
        pair = []
        for g in (np.abs(target), np.zeros_like(target)):
            cell = model.programmed(g, rng)
            if row["seconds_after_programming"] is not None:
                nu = model.exponent(g, rng)
                cell = model.at(cell, row["seconds_after_programming"], nu, rng)
            pair.append(cell)
        weight = np.where(target < 0, -1, 1) * (pair[0] - pair[1])
        slack = 5 * np.array(row["std"]) / np.sqrt(row["draws"])
        assert np.abs(weight.mean(axis=1) - row["mean"]).max() < slack.max()
        ratio = weight.std(axis=1) / np.array(row["std"])
        used = np.abs(row["target_weight"]) > 0
        loose = 0.0 if row["seconds_after_programming"] is None else 0.04
        assert np.abs(ratio[used] - 1).max() < 0.045 + loose


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="crosssim cases cannot be read"):
        list(compare_cases(tmp_path))
