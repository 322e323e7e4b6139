# SPDX-License-Identifier: Apache-2.0
"""Every count of the reference set, case by case."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from enos_compiler.errors import FormatError
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.reference import compare_case, compare_folder

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ENOS_SHARED", str(ROOT.parent / "shared")))
FOLDER = Path(os.environ.get("ENOS_TIMELOOP_REFERENCE", str(SHARED / "reference" / "timeloop")))

needs_reference = pytest.mark.skipif(
    not (FOLDER / "model.jsonl").is_file(),
    reason=f"no reference set at {FOLDER}; set ENOS_TIMELOOP_REFERENCE",
)


@needs_reference
def test_timeloop_reference(say: Callable[[str], None]) -> None:
    """All counts, capacities and cycles exactly; all energies within 1e-6."""
    results = list(compare_folder(FOLDER))
    wrong = [f"{r.case}: {r.differences[0]}" for r in results if not r.equal]
    say(f"{len(results) - len(wrong)} of {len(results)} cases equal")
    assert results
    assert wrong == []


@needs_reference
def test_a_changed_number_is_found() -> None:
    with (FOLDER / "model.jsonl").open() as lines:
        case = json.loads(next(lines))
    path = FOLDER / "machines" / f"{case['machine']}.json"
    machine = Machine.from_reference(json.loads(path.read_text()))
    assert compare_case(case, machine).equal
    case["results"]["storage"][0]["tensors"]["Outputs"]["updates"] += 1
    found = compare_case(case, machine)
    assert len(found.differences) == 1
    assert "psum_spad.Outputs.updates" in found.differences[0]


def test_a_folder_without_cases_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no model\.jsonl"):
        list(compare_folder(tmp_path))


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.jsonl").write_text('{"machine": "none"}\n')
    with pytest.raises(FormatError, match=r"model\.jsonl:1"):
        list(compare_folder(tmp_path))
