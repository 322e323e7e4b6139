# SPDX-License-Identifier: Apache-2.0
"""No worse than timeloop-mapper on its own ground."""

from __future__ import annotations

import json

import pytest
from test_timeloop_reference import FOLDER, needs_reference

from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.peer import compare_mapping


def compare(numbers: list[int]) -> None:
    for number, line in enumerate((FOLDER / "mapper.jsonl").read_text().splitlines()):
        if number not in numbers:
            continue
        case = json.loads(line)
        path = FOLDER / "machines" / f"{case['machine']}.json"
        found = compare_mapping(case, Machine.from_reference(json.loads(path.read_text())))
        assert found.result.certificate.optimal
        # both nests by the full rule: neighbours forward, accesses are rounded to blocks
        assert found.ratio >= 1, found.case
        # which departs from the mapper's own price by the distance of coinciding inputs at most
        assert found.ours == pytest.approx(found.result.certificate.value, rel=6e-3)


@needs_reference
def test_no_worse_than_timeloop_mapper_on_some_layers() -> None:
    compare([1, 6, 10, 13, 18])


@needs_reference
@pytest.mark.slow
def test_no_worse_than_timeloop_mapper() -> None:
    compare(list(range(24)))
