# SPDX-License-Identifier: Apache-2.0
"""What `enos-map` prints, and every way to ask it wrongly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enos_compiler.cli.enos_map import main, parse_shape
from enos_compiler.cores import map_cache
from enos_compiler.cores.base import Homes
from enos_compiler.cores.target import load_target
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Home, Layer
from enos_compiler.ir.shape import DIMS, LayerShape
from enos_compiler.mapping.engine import numba_version

SQUARE = ["M=16", "C=8", "P=8", "Q=8", "R=3", "S=3"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ENOS_CACHE_DIR", str(tmp_path / "cache"))
    map_cache.forget()
    yield
    map_cache.forget()


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main([*words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("target", ["eyeriss", "simba"])
@pytest.mark.parametrize(
    "shape", [SQUARE, ["M=1000", "C=2048"], ["G=960", "P=112", "Q=112", "R=3", "S=3", "stride=2"]]
)
def test_a_mapping_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], target: str, shape: list[str]
) -> None:
    assert main([*shape, "--target", target]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^optimal: [\d,]+ of [\d,]+ spatial choices opened", text, re.MULTILINE)
    assert "bound:     no nest of the mapspace is below" in text
    assert "counted by the reference rule (Timeloop's)" in text
    assert re.search(r"^runner-up: [\d.e+]+ \(\+[\d.]+ %\), over ", text, re.MULTILINE)
    for level in load_target(target).cores["array"].machine.levels:  # type: ignore[attr-defined]
        assert re.search(rf"^{level.name}( \(.*\))?: tile ", text, re.MULTILINE)  # the nest
        assert re.search(rf"^  {level.name} +(Weights|Inputs|Outputs) ", text, re.MULTILINE)
    assert re.search(r"^  memory +#+ +[\d.]+ % +[\d.]+ [num]J", text, re.MULTILINE)


def test_json_is_the_layers_cost(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, *SQUARE, "--bits", "8/4/8")
    target = load_target("eyeriss")
    events, parts = found["events"], found["components_pj"]
    assert isinstance(events, dict)
    assert isinstance(parts, dict)
    assert found["energy_pj"] == pytest.approx(
        sum(n * target.energy_pj(action) for action, n in events.items()), rel=1e-12
    )
    assert found["energy_pj"] == pytest.approx(sum(parts.values()), rel=1e-12)
    assert found["latency_ns"] == found["cycles"] * target.clock_ns  # type: ignore[operator]
    assert found["bits"] == {"input": 8, "weight": 4, "output": 8}


def test_a_nest_that_was_found_costs_the_same_when_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = answer(capsys, *SQUARE)
    file = tmp_path / "nest.json"
    for content in (found, found["mapping"], found["mapping"]["levels"]):  # type: ignore[index]
        file.write_text(json.dumps(content))
        given_nest = answer(capsys, *SQUARE, "--nest", str(file))
        for key in ("energy_pj", "cycles", "events"):
            assert given_nest[key] == found[key]
    assert main([*SQUARE, "--nest", str(file)]) == 0
    text = capsys.readouterr().out
    assert "the nest given" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_objective_is_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = {o: answer(capsys, *SQUARE, "--objective", o) for o in ("energy", "latency", "edp")}
    cycles = {o: a["cycles"] for o, a in found.items()}
    assert cycles["latency"] <= cycles["edp"] <= cycles["energy"]  # type: ignore[operator]
    for objective, data in found.items():
        mapping = data["mapping"]
        assert isinstance(mapping, dict)
        assert mapping["certificate"]["objective"] == objective
        assert mapping["certificate"]["optimal"] is True


def test_awkward_bounds_are_padded_unless_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["M=8", "C=16", "P=17", "Q=17"]
    assert main([*words, "--padding", "0"]) == 0
    assert capsys.readouterr().out.startswith("M8 C16 P17 Q17 on array: ")
    assert main(words) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "M8 C16 P17 Q17, its bounds padded"
    assert "Q18 on array: " in second


def test_the_reference_folder_is_counted(
    capsys: pytest.CaptureFixture[str], shared: Path, tmp_path: Path
) -> None:
    folder = shared / "reference" / "timeloop"
    lines = (folder / "model.jsonl").read_text().splitlines()[:20]
    (tmp_path / "machines").symlink_to(folder / "machines")
    (tmp_path / "model.jsonl").write_text("\n".join(lines))
    assert main(["--reference", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "20 of 20 cases equal\n"
    case = json.loads(lines[3])
    case["results"]["cycles"] += 1
    (tmp_path / "model.jsonl").write_text("\n".join([*lines[:3], json.dumps(case), *lines[4:]]))
    assert main(["--reference", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "19 of 20 cases equal\n"
    assert f"first in {case['id']}: cycles: " in captured.err


@given(
    bounds=st.dictionaries(st.sampled_from(DIMS), st.integers(1, 99), max_size=8),
    stride=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_shapes_are_read_as_written(bounds: dict[str, int], stride: tuple[int, int]) -> None:
    items = [f"{dim}={n}" for dim, n in bounds.items()]
    fields: dict[str, Any] = {dim.lower(): n for dim, n in bounds.items()}
    expected = LayerShape(**fields, stride=stride)
    assert parse_shape([*items, f"stride={stride[0]}x{stride[1]}"]) == expected
    square = LayerShape(**fields, stride=(stride[0], stride[0]))
    assert parse_shape([*(i.lower() for i in items), f"stride={stride[0]}"]) == square


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "no layer is named\n  try: enos-map M=64 C=64 P=56 Q=56 R=3 S=3"),
        (["X=3"], 2, "`X=3` names no dimension\n  try: one of: C, "),
        (["M=0"], 2, "`M=0` has no whole number above zero\n  try: M=2"),
        (["M=-1"], 2, "`M=-1` has no whole number above zero"),
        (["M"], 2, "`M` has no whole number above zero"),
        (["M=2x3"], 2, "`M=2x3` has no whole number above zero"),
        (["M=2", "m=3"], 2, "`m=3` is given twice"),
        (["M=2", "strid=2"], 2, "`strid=2` names no dimension\n  try: stride (known: "),
        (["M=2", "--bits", "8"], 2, "--bits: `8` is not input/weight/output bits"),
        (["M=2", "--bits", "8/0/8"], 2, "--bits: `8/0/8` is not input/weight/output bits"),
        (["M=2", "--target", "eyris"], 2, "unknown target `eyris`\n  try: eyeriss (known: "),
        (["M=2", "--target", "cim"], 2, "--target: cim has no core that runs loop nests"),
        (["M=2", "--core", "aray"], 2, "--core: `aray` is no loop-nest core of eyeriss\n  try: ar"),
        (["M=2", "--operator", "mca"], 1, "does not take it with mca: its elements have"),
        (["M=2", "--objective", "speed"], 2, "argument --objective: invalid choice"),
        (["M=2", "--nest", "missing.json"], 1, "missing.json: cannot be read: No such file"),
        (["M=2", "--padding", "-1"], 2, "--padding: -1 is below 0\n  try: --padding 15"),
        (["--reference", "/nowhere"], 1, "/nowhere: no model.jsonl\n  try: name a reference"),
    ],
)
def test_wrong_questions_get_one_message(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    assert main(words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("error: ")


@pytest.mark.parametrize("content", ["", "5", "[]", "[{}]", '{"mapping": 3}', '[{"keep": 1}]'])
def test_a_file_that_is_no_nest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    file = tmp_path / "nest.json"
    file.write_text(content)
    assert main(["M=2", "--nest", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["error"] in ("FormatError", "MappingError")
    assert found["message"]


def test_nests_are_counted_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """One loop of 6 on three levels that may hold it, in any split: few enough to list by hand."""
    words = ["M=6", "--padding", "0"]
    found = answer(capsys, *words, "--count")["nests"]
    assert main([*words, "--count"]) == 0
    assert f" tiles, {found:,} nests" in capsys.readouterr().out
    # 6 = pad x columns x buffer x memory, 1 to 3 or 6 each: every ordered split in four
    assert found == 16


def test_whoever_maps_in_plain_numpy_is_told_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing compiled"))
    monkeypatch.delenv("ENOS_MAPPER_ENGINE", raising=False)
    if not numba_version():
        pytest.skip("numba is not installed, so there is nothing to compile")
    assert main([*SQUARE, "-v"]) == 0
    assert capsys.readouterr().err.count("enos-map --compile") == 1
    assert main(SQUARE) == 0  # no terminal: nothing but the result
    assert capsys.readouterr().err == ""


def test_homes_and_weights_that_stay_are_those_of_the_compiler(
    capsys: pytest.CaptureFixture[str],
) -> None:
    core = load_target("hybrid").cores["mac"]
    subject = Layer("layer", "conv", ("input",), "output", shape=parse_shape(SQUARE), weight="w")
    memories = ("buffer", "dram")
    for resident in (False, True):
        choice = Choice("mac", "mac", Bits(8, 8, 8), (("resident", 1),) if resident else ())
        for source, sink in product(memories, memories):
            words = [*SQUARE, "--target", "hybrid", "--homes", f"{source}/{sink}"]
            found = answer(capsys, *words, *(["--resident"] if resident else []))
            cost = core.cost(subject, choice, Homes((Home(source),), Home(sink)))
            assert found["events"] == dict(cost.inference.events)


@pytest.mark.parametrize("homes", ["buffer", "dram/sram", "a/b/c", ""])
def test_homes_that_are_none(capsys: pytest.CaptureFixture[str], homes: str) -> None:
    assert main([*SQUARE, "--target", "hybrid", "--homes", homes]) == 2
    assert capsys.readouterr().err == (
        f"error: --homes: `{homes}` does not name the homes of input and output on hybrid\n"
        "  try: --homes buffer/dram (known: buffer, dram)\n"
    )


def test_weights_cannot_stay_without_a_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SQUARE, "--target", "eyeriss", "--resident"]) == 1
    assert "offers nothing for mac at 8/8/8 with weights that stay" in capsys.readouterr().err
