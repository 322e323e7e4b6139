# SPDX-License-Identifier: Apache-2.0
"""Crossbars that cannot be are refused where the target file is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import enos_compiler
from enos_compiler.cores.target import load_target
from enos_compiler.errors import EnosError, SpecError
from enos_compiler.spec import find_target


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("energy_pj: {8: 1.56}", "energy_pj: {0: 1.56}", "greater than or equal to 1"),
        ("resolutions: [8]", "resolutions: [0]", "greater than or equal to 1"),
        ("resolutions: [8]", "resolutions: [9]", "a resolution of 9 bits; the widest priced one"),
        ("bits: {value: 2, source", "bits: {value: 0, source", "greater than or equal to 1"),
        ("- rows: {value: 32,", "- rows: {value: 0,", "greater than or equal to 1"),
        ("columns: {value: 32,", "columns: {value: -1,", "greater than or equal to 1"),
        (
            'weight_bits: {value: 8, source: "design choice: half',
            'weight_bits: {value: 1, source: "design choice: half',
            "cells of 2 bits for weights of at most 1",
        ),
        ("columns_per_adc: {value: 128,", "columns_per_adc: {value: 0,", "or equal to 1"),
        ("encoding: offset", "encoding: folded", "'differential'"),
    ],
)
def test_impossible_crossbars_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = find_target("isaac").read_text()
    assert old in text
    file = tmp_path / "chip.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as caught:
        load_target(str(file))
    assert "chip.yaml:" in str(caught.value)
    assert caught.value.remedy


def test_a_layer_larger_than_all_arrays_is_refused_with_its_numbers(tmp_path: Path) -> None:
    """300 x 300 weights of 8 bits in 2-bit cells, one array of each size, none to be rewritten."""
    text = re.sub(r"count: \{value: \d+", "count: {value: 1", find_target("isaac").read_text())
    file = tmp_path / "chip.yaml"
    file.write_text(text)
    net, x = torch.nn.Linear(300, 300).eval(), (torch.rand(2, 300),)
    with pytest.raises(EnosError) as caught:
        enos_compiler.compile(net, x, target=str(file))
    assert (
        "1 x 300 rows by 300 outputs of 8 bits need 10 arrays of 256 x 256, the core has 1, "
        "and reloading is forbidden"
    ) in str(caught.value)
