# SPDX-License-Identifier: Apache-2.0
"""The sweep of ResNet-20: it resumes, keeps networks apart, and the document shows its results."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest

from enos_compiler.evaluate.study import wilson

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sweep() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    return importlib.import_module("resnet20_crossbar")


@pytest.fixture(scope="module")
def tables(sweep: ModuleType) -> ModuleType:
    del sweep
    return importlib.import_module("resnet20_tables")


def line(task: object, correct: int, network: str = "n") -> str:
    setting = asdict(task.setting)  # type: ignore[attr-defined]
    row = {"network": network, "setting": setting, "device": task.device, "block": task.block}  # type: ignore[attr-defined]
    return json.dumps({**row, "correct": correct}) + "\n"


def test_finished_tasks_are_not_run_again(sweep: ModuleType, tmp_path: Path) -> None:
    every = sweep.tasks(2)
    assert len(set(every)) == len(every)
    file = tmp_path / "results.jsonl"
    assert sweep.read_results(file) == {}
    file.write_text("".join(line(task, 450) for task in every[:7]))
    done = sweep.read_results(file, "n")
    assert [t for t in every if t not in done] == every[7:]
    with pytest.raises(ValueError, match="results of network n, this is other"):
        sweep.read_results(file, "other")


def test_settings_are_the_ranges_around_one_centre(sweep: ModuleType) -> None:
    points = sweep.settings()
    assert {p.adc_bits for p in points} == set(range(3, 11))
    assert {p.size for p in points} == {32, 64, 128, 256}
    assert {p.cell_bits for p in points} == {1, 2, 4}
    assert {p.variation for p in points} == {0.0, 0.05, 0.1, 0.15, 0.2}
    assert all(p.devices == (5 if p.variation else 1) for p in points)


def test_points_use_the_images_that_all_devices_answered(
    sweep: ModuleType, tables: ModuleType
) -> None:
    setting = next(s for s in sweep.settings() if s.variation)
    correct = {(0, 0): 400, (1, 0): 450, (0, 1): 500}
    results = {sweep.Task(setting, d, b): n for (d, b), n in correct.items()}
    point = tables.points(results)[setting]
    assert point.images == 500
    assert point.devices == 2
    assert point.mean == pytest.approx(0.85)
    assert point.low < wilson(0.85, 500, 0.95)[0]
    assert 0 <= point.low < point.high <= 1


def test_the_document_shows_the_results(tables: ModuleType, shared: Path) -> None:
    if not (shared / "reference" / "cim" / "published.json").is_file():
        pytest.skip("the published figures are not among the reference data")
    document = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    found = tables.points(tables.read_results(tables.RESULTS))
    for text in tables.tables(found).splitlines():
        assert text in document


def test_energy_grows_with_converter_bits_and_falls_with_cell_bits(
    sweep: ModuleType, tables: ModuleType, shared: Path
) -> None:
    if not (shared / "reference" / "cim" / "published.json").is_file():
        pytest.skip("the published figures are not among the reference data")
    by_bits = [tables.energy_uj(sweep.Setting(adc_bits=b)) for b in sweep.ADC_BITS]
    assert by_bits == sorted(by_bits)
    by_cell = [tables.energy_uj(sweep.Setting(cell_bits=c)) for c in sweep.CELL_BITS]
    assert by_cell == sorted(by_cell, reverse=True)
    shapes = tables.resnet20_shapes()
    assert len(shapes) == 20
    assert sum(s.macs for s in shapes) == 40_551_040
    assert sum(s.volume("Weights") for s in shapes) == 268_336
