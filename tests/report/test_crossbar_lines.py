# SPDX-License-Identifier: Apache-2.0
"""What the terminal says of crossbars."""

from __future__ import annotations

from typing import Any

from enos_compiler.report.crossbars import crossbar_lines

SIZE = {"core": "xbar", "rows": 256, "columns": 128, "count": 112, "used": 37, "utilisation": 0.806}
ROWS = [
    {"layer": "a", "conversions": 1000, "saturated": 0},
    {"layer": "b", "conversions": 2000, "saturated": 7},
]


def said(**sections: Any) -> dict[str, str]:
    return dict(crossbar_lines({"sections": sections}))


def test_nothing_is_said_where_no_layer_lies_on_crossbars() -> None:
    assert said() == {}
    assert said(**{"map-cim": {"layers": {}, "crossbars": []}}) == {}


def test_sizes_stand_below_each_other() -> None:
    crowded = {**SIZE, "rows": 64, "used": 113}
    assert said(**{"map-cim": {"crossbars": [crowded, SIZE]}}) == {
        "crossbars": "xbar 64x128: 113 of 112 arrays, more than there are, 81% full\n"
        "xbar 256x128: 37 of 112 arrays, 81% full"
    }


def test_clipped_conversions_are_told() -> None:
    assert said(converters={"onnx": "hardware", "inputs": 8, "layers": ROWS}) == {
        "converters": "change the sums of 2 layers; 7 of 3,000 conversions clipped, on 8 inputs"
    }
    assert said(converters={"onnx": "plain", "inputs": 0, "layers": []}) == {
        "converters": "change sums of some layers; what they clip was not counted; model.onnx "
        "leaves them out"
    }
