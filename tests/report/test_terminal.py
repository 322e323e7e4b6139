# SPDX-License-Identifier: Apache-2.0
"""The terminal summary, word for word."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.report.names import short_names
from enos_compiler.report.terminal import print_summary


def _layer(name: str, operator: str = "mac", core: str = "mac") -> dict[str, Any]:
    return {
        "name": name,
        "operator": operator,
        "core": core,
        "bits": {"input": 8, "weight": 8, "output": 8},
        "energy_pj": 400.0,
        "latency_ns": 10.0,
    }


def _report(**changes: Any) -> dict[str, Any]:
    """Return what a summary reads, of a network of two layers; `sections` are added to."""
    sections = {
        "offers": {"mac": ["mac"], "xbar": ["mac"]},
        "pricing": {
            "set_up": {"energy_pj": 0.0, "latency_ns": 0.0},
            "inferences_per_programming": 1000,
        },
        **changes.pop("sections", {}),
    }
    parts = ("edges_pj", "vector_pj", "host_pj", "programming_pj", "leakage_pj")
    return {
        "model": "net",
        "target": "chip",
        "batch": 1,
        "totals": {"energy_pj": 800.0, "latency_ns": 20.0, **dict.fromkeys(parts, 0.0)},
        "baseline": {"name": "all-mac", "energy_pj": 1000.0, "latency_ns": 20.0},
        "budget": None,
        "layers": [_layer("first"), _layer("second", core="xbar")],
        "host": [],
        "refusals": [],
        "accuracy": None,
        "checks": {"level": "full", "onnx_max_steps": 0},
        "sections": sections,
        **changes,
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("edp", "6e+09 pJ ns; edp 5.5e+09 pJ ns, least 1e+09 pJ ns, all-MAC 1e+10 pJ ns"),
        ("latency", "6.00 s; latency 5.50 s, least 1.00 s, all-MAC 10.0 s"),
        ("area", "6000 mm2; area 5500 mm2, least 1000 mm2, all-MAC 10000 mm2"),
        ("memory", "715 MiB; memory 656 MiB, least 119 MiB, all-MAC 1192 MiB"),
    ],
)
def test_a_measure_other_than_energy_stands_beside_its_bound(name: str, said: str) -> None:
    held = {"name": name, "allowed": 6e9, "floor": 1e9, "baseline": 1e10, "value": 5.5e9}
    found = _fact("budget", sections={"assign": {"budget": f"{name}:0.6", "measure": held}})
    assert " ".join(" ".join(found).split()) == f"budget {name}:0.6 = {said}"


def test_a_stream_has_its_rate_and_what_sets_it() -> None:
    frames = {
        "frames": 8,
        "interval_ns": 12.5,
        "per_second": 8e7,
        "limit": "xbar",
        "total_ns": 107.5,
        "energy_pj": 790.0,
    }
    lines = _fact("stream", sections={"schedule": {"frames": frames}})
    assert " ".join(" ".join(lines).split()) == (
        "stream 8 frames, one every 12.5 ns (80,000,000 a second, xbar allows no more); "
        "108 ns in all, 790 pJ each"
    )
    assert _fact("stream", sections={"schedule": {}}) == []


def _refusal(layer: str, operator: str, core: str, reason: str) -> dict[str, str]:
    return {"layer": layer, "core": core, "operator": operator, "reason": reason}


def _text(**changes: Any) -> str:
    file = io.StringIO()
    print_summary(_report(**changes), None, file)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return text


def _fact(name: str, **changes: Any) -> list[str]:
    """Return the lines of one fact, or none."""
    found: list[str] = []
    for line in _text(**changes).splitlines():
        if line.startswith(name + " ") or (found and line.startswith("   ")):
            found.append(line)
        elif found:
            break
    return found


def _refused(**changes: Any) -> list[str]:
    return _text(**changes).partition("\nRefused\n")[2].splitlines()


def test_the_whole_of_a_plain_summary() -> None:
    assert _text() == (
        "compiled net for chip: 800 pJ, 20.0 ns an inference\n"
        "\n"
        "layer  operator core bits  energy latency share\n"
        "first  mac      mac  8/8/8 400 pJ 10.0 ns 50.0% ####\n"
        "second mac      xbar 8/8/8 400 pJ 10.0 ns 50.0% ####\n"
        "\n"
        "energy    800 pJ against 1.00 nJ of all-mac, -20.0%\n"
        "latency   20.0 ns against 20.0 ns of all-mac, +0.0%\n"
        "accuracy  not measured: the model file has no test data\n"
        "checks    ONNX Runtime equals the integer reference (full)\n"
    ).replace("####", "████")


def test_what_a_core_refuses_every_layer_is_one_line() -> None:
    refusals = [
        _refusal(layer, operator, core, f"{operator} is no sum")
        for layer in ("b", "c", "d")
        for operator, core in (("adder", "mac"), ("adder", "xbar"), ("shift", "xbar"))
    ]
    offers = {"mac": ["mac", "shift"], "xbar": ["mac"], "sampler": []}
    assert _fact("not offered", refusals=refusals, sections={"offers": offers}) == [
        "not offered  adder; shift on xbar  (why: refusals in report.json)"
    ]
    assert _refused(refusals=refusals, sections={"offers": offers}) == []
    offers = {"mac": ["mac"], "xbar": ["mac", "shift"]}
    assert _fact("not offered", refusals=refusals, sections={"offers": offers}) == [
        "not offered  adder  (why: refusals in report.json)"
    ]
    assert _refused(refusals=refusals, sections={"offers": offers}) == [
        "  shift for 3 layers on xbar: shift is no sum"
    ]


def test_operators_that_the_same_cores_lack_stand_together() -> None:
    refusals = [_refusal("b", o, "mac", "no") for o in ("mf", "bw", "ef")]
    refusals += [_refusal("b", "shift", "xbar", "no")]
    assert _fact("not offered", refusals=refusals) == [
        "not offered  bw, ef, mf on mac; shift on xbar  (why: refusals in report.json)"
    ]


def test_reasons_that_differ_in_numbers_are_one_line() -> None:
    refusals = [
        _refusal(
            f"conv3x3_{i}",
            "mac",
            "xbar",
            f"1 x {rows} rows by 64 outputs of 8 bits need {need} arrays of 256 x 128, "
            "the core has 128",
        )
        for i, (rows, need) in enumerate(((576, 144), (2304, 576), (1152, 288)))
    ]
    assert _refused(refusals=refusals) == [
        "  mac for 3 layers on xbar: 1 x 576..2304 rows by 64 outputs of 8 bits need",
        "  144..576 arrays of 256 x 128, the core has 128",
    ]
    assert _refused(refusals=refusals[:2])[0].startswith("  mac for conv3x3_0, conv3x3_1 on xbar:")
    assert _refused(refusals=refusals[:1]) == [
        "  mac for conv3x3_0 on xbar: 1 x 576 rows by 64 outputs of 8 bits need 144",
        "  arrays of 256 x 128, the core has 128",
    ]


def test_a_name_with_digits_is_no_number() -> None:
    refusals = [_refusal(f"l{i}", "mac", "xbar", f"reads conv2d_{i}, 1.5{i} V") for i in (1, 2)]
    assert _refused(refusals=refusals) == [
        "  mac for l1 on xbar: reads conv2d_1, 1.51 V",
        "  mac for l2 on xbar: reads conv2d_2, 1.52 V",
    ]


@pytest.mark.parametrize(("groups", "more"), [(8, []), (11, ["  and 3 more in report.json"])])
def test_at_most_eight_groups_are_listed(groups: int, more: list[str]) -> None:
    refusals = [_refusal("b", "mac", "xbar", f"reason {chr(97 + i)}") for i in range(groups)]
    listed = [f"  mac for b on xbar: reason {letter}" for letter in "abcdefgh"]
    assert _refused(refusals=refusals) == listed + more


def test_the_reason_that_shuts_out_most_layers_comes_first() -> None:
    refusals = [_refusal("a", "mac", "mac", "alone")]
    refusals += [_refusal(layer, "mac", "mac", "shared") for layer in ("b", "c")]
    assert _refused(refusals=refusals) == [
        "  mac for b, c on mac: shared",
        "  mac for a on mac: alone",
    ]


def test_a_fixed_batch_says_why() -> None:
    note = "the batch is fixed at 4: rows of output 0 change with the batch, " + "as they may " * 3
    assert _fact("batch", batch=4, sections={"canonicalize": {"note": note.strip()}}) == [
        "batch     fixed at 4: rows of output 0 change with the batch, as they may as",
        "          they may as they may",
    ]
    kept = "kept the example inputs' batch of 4: the graph has other operations"
    assert _fact("batch", batch=4, sections={"canonicalize": {"note": kept}}) == [
        "batch     fixed at 4: kept the example inputs' batch of 4: the graph has other",
        "          operations",
    ]
    assert _fact("batch", batch=4, sections={"canonicalize": {"note": ""}}) == []


def test_energy_of_a_batch_is_also_per_image() -> None:
    assert _text(batch=4).splitlines()[0] == (
        "compiled net for chip: 800 pJ, 20.0 ns an inference of batch 4, 200 pJ an image"
    )
    fixed = {"canonicalize": {"note": "the batch is fixed at 4: rows change"}}
    assert _text(batch=4, sections=fixed).splitlines()[0] == (
        "compiled net for chip: 800 pJ, 20.0 ns an inference of batch 4, 200 pJ a row"
    )


def test_accuracy_that_was_not_measured_says_so() -> None:
    noise = {"output-noise": {"snr_db": 38.17, "inputs": 16}}
    assert _fact("accuracy", sections=noise) == [
        "accuracy  not measured: the model file has no test data; outputs have a",
        "          signal-to-noise ratio of 38.2 dB against the float network on 16",
        "          example inputs",
    ]
    noise["output-noise"]["inputs"] = 1
    assert _fact("accuracy", sections=noise)[1:] == [
        "          signal-to-noise ratio of 38.2 dB against the float network on 1",
        "          example input",
    ]
    measured = {"reference": 0.99, "compiled": 0.994, "images": 500}
    assert _fact("accuracy", sections=noise, accuracy=measured) == [
        "accuracy  99.00% before, 99.40% compiled, on 500 images"
    ]


def test_operators_that_nothing_trained_are_named() -> None:
    layers = [_layer("a"), *(_layer(n, "bw") for n in "bcde"), _layer("f", "mf"), _layer("g", "ef")]
    sensitivity = {"needs_training": ["b", "c", "d", "e", "f"]}
    assert _fact("untrained", layers=layers, sections={"sensitivity": sensitivity}) == [
        "untrained  bw for 4 layers, mf for 1 layer: these operators need training (give",
        "           the file a data() function)",
    ]
    measured = {"reference": 0.99, "compiled": 0.1, "images": 500}
    assert _fact(
        "untrained", layers=layers[:3], accuracy=measured, sections={"sensitivity": sensitivity}
    ) == [
        "untrained  bw for 2 layers: these operators need training (let --search single",
        "           or --finetune train them)",
    ]


@pytest.mark.parametrize(
    "sections",
    [
        {"sensitivity": {"needs_training": []}},
        {"sensitivity": {"needs_training": ["a"]}, "finetune": {}},
        {"sensitivity": {"needs_training": ["a"]}, "search": {"trained": True}},
        {},
    ],
)
def test_trained_operators_are_not_complained_of(sections: dict[str, Any]) -> None:
    assert _fact("untrained", layers=[_layer("a", "bw")], sections=sections) == []


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (
            ("stem_convolution_with_a_long_name", "exactly_21_characters", "head"),
            ("stem_convo…_long_name", "exactly_21_characters", "head"),
        ),
        (
            ("encoder_first_attention_layer", "encoder_fifth_attention_layer"),
            ("…first_atte…ion_layer", "…fifth_atte…ion_layer"),
        ),
        (
            ("encoder_layers_0_self_attn_q_proj", "encoder_layers_0_self_attn_k_proj"),
            ("encoder_la…ttn_q_proj", "encoder_la…ttn_k_proj"),
        ),
        (
            tuple(f"encoder_layers_{i}_self_attn_{x}_proj" for i in (0, 1) for x in "qk"),
            tuple(f"en…{i}_self_attn_{x}_proj" for i in (0, 1) for x in "qk"),
        ),
        (
            tuple(
                f"transformer_layers_{i}_self_attention_{x}_projection_layer"
                for i in (0, 1)
                for x in ("query", "key")
            ),
            tuple(f"…{i}_self_attention_{x}…r" for i in (0, 1) for x in "qk"),
        ),
    ],
)
def test_long_names_keep_the_part_that_differs(
    names: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    assert tuple(short_names(names, 21, "…").values()) == labels
    assert max(map(len, labels)) <= 21


@given(st.sets(st.text("ab_", min_size=1, max_size=50), min_size=1, max_size=12), st.booleans())
@settings(deadline=None)
def test_labels_fit_and_short_names_stay(names: set[str], ascii_only: bool) -> None:
    labels = short_names(names, 21, ".." if ascii_only else "…")
    assert set(labels) == names
    for name, label in labels.items():
        assert len(label) <= 21
        assert label == name or len(name) > 21


def test_long_names_stay_apart_in_the_table() -> None:
    names = ("encoder_first_attention_layer", "encoder_fifth_attention_layer")
    assert _text(layers=[_layer(n) for n in names]).splitlines()[2:5] == [
        "layer                 operator core bits  energy latency share",
        "…first_atte…ion_layer mac      mac  8/8/8 400 pJ 10.0 ns 50.0% ████",
        "…fifth_atte…ion_layer mac      mac  8/8/8 400 pJ 10.0 ns 50.0% ████",
    ]
