# SPDX-License-Identifier: Apache-2.0
"""Every way in which a target file can be wrong, and the whole message that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from enos_compiler import plugins
from enos_compiler.cores.target import build_target, load_target
from enos_compiler.errors import SpecError, UsageError
from enos_compiler.spec import check_target, find_target, parse_document, read_target

HYBRID = find_target("hybrid").read_text()


def message(text: str) -> str:
    """Return the error that a target file gives, its lines counted in `chip.yaml`."""
    with pytest.raises(SpecError) as caught:
        check_target(parse_document(text, "chip.yaml"))
    return str(caught.value)


def changed(old: str, new: str) -> str:
    """Return the hybrid target with the first occurrence of one fragment replaced."""
    assert old in HYBRID, f"the shipped target no longer has {old!r}"
    return HYBRID.replace(old, new, 1)


def line_of(text: str, fragment: str) -> int:
    return text[: text.index(fragment)].count("\n") + 1


def test_unknown_key_names_the_nearest() -> None:
    text = changed("      by_formula: [", "      by_formulas: [")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'by_formulas')}: cores[mac].element.by_formulas is an unknown "
        "key\n  try: by_formula (known: area_um2, by_formula, columns, instances, operand_bits, "
        "operator_pj, sum_bits)"
    )


def test_unknown_top_level_key() -> None:
    text = changed("inferences_per_programming:", "inferences_per_program:")
    assert message(text).startswith(
        f"chip.yaml:{line_of(text, 'inferences_per_program')}: inferences_per_program "
        "is an unknown key\n  try: inferences_per_programming (known: arithmetic, "
    )


def test_wrong_type() -> None:
    text = changed("entries: {value: 128,", "entries: {value: many,")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'value: many')}: cores[mac].levels[accumulators].entries = "
        "'many' is not accepted\n  try: a valid integer"
    )


@pytest.mark.parametrize("value", ["0", "-3"])
def test_out_of_range(value: str) -> None:
    text = changed("entries: {value: 128,", f"entries: {{value: {value},")
    assert message(text) == (
        f"chip.yaml:{line_of(text, f'entries: {{value: {value},')}: "
        f"cores[mac].levels[accumulators].entries = {value} is not accepted\n"
        "  try: greater than or equal to 1"
    )


def test_not_a_number() -> None:
    text = changed("    read_pj: 32.3\n", "    read_pj: .nan\n")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'read_pj: .nan')}: memories[buffer].read_pj = nan is not "
        "accepted\n  try: a finite number"
    )


def test_missing_source() -> None:
    text = changed('    source: "CACTI 7: 128 KiB SRAM, 64-bit words"\n', "")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'word_bits: 64')}: memories[buffer].word_bits = 64 has no "
        'source\n  try: write {value: ..., source: "paper, table"}, or a source: for the block'
    )


@pytest.mark.parametrize("blank", ['""', '"  "', '"\\t\\n"'])
def test_blank_source(blank: str) -> None:
    text = changed('"CACTI 7: 128 KiB SRAM, 64-bit words"', blank)
    assert message(text) == (
        f"chip.yaml:{line_of(text, f'source: {blank}')}: memories[buffer].source = "
        f"{yaml.safe_load(blank)!r} is blank\n"
        '  try: name the paper and table or the tool, or write "design choice"'
    )


def test_blank_source_of_one_constant_under_a_block_that_has_one() -> None:
    text = changed("word_bits: 64", 'word_bits: {value: 64, source: ""}')
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'word_bits: {')}: memories[buffer].word_bits.source = '' is "
        'blank\n  try: name the paper and table or the tool, or write "design choice"'
    )


def test_other_unit() -> None:
    text = changed("area_um2: 430000", "area_um2: {value: 0.43, unit: mm2}")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'area_um2: {')}: memories[buffer].area_um2 has unit = 'mm2', "
        "but this constant is in um2\n  try: convert the value and write unit: um2"
    )


def test_impossible_capacity() -> None:
    text = changed(
        'capacity_bits: {value: 1048576, source: "design choice: 128 KiB"}', "capacity_bits: 32"
    )
    assert message(text) == (
        f"chip.yaml:{line_of(text, '- name: buffer')}: memories[buffer] has capacity_bits = 32, "
        "below one word of 64 bits\n  try: capacity_bits: 64 or more"
    )


def test_words_that_hold_other_codes_than_their_units() -> None:
    text = changed(
        "    sum_packing_bits: {",
        "    packing_bits: {value: 24, source: x}\n    sum_packing_bits: {",
    )
    assert message(text) == (
        f"chip.yaml:{line_of(text, '- name: mac')}: cores[mac] has word_bits = 8, which hold other "
        "codes than units of packing_bits = 24\n  try: words of 24 or 48 bits"
    )


def test_converter_that_cannot_be_lossless() -> None:
    text = changed('rows: {value: 256, source: "design choice"}', "rows: {value: 2048, source: x}")
    assert message(text) == (
        f"chip.yaml:{line_of(text, '- name: xbar')}: cores[xbar] has arrays of 2048 rows, "
        "which need converters of 12 bits; the widest priced one has 10\n"
        "  try: fewer rows, the energy of 12 bits, or `resolutions:` that may lose"
    )


@pytest.mark.parametrize(
    ("key", "what"), [("vector_unit", "vector unit"), ("host", "host"), ("cores", "cores")]
)
def test_missing_part(key: str, what: str) -> None:
    text = HYBRID.replace(f"\n{key}:\n", "\nname_of_nothing:\n", 1)
    kept = "\n".join(
        block for block in text.split("\n\n") if not block.startswith("name_of_nothing:")
    )
    assert message(kept).startswith(f"chip.yaml: the target has no {what}\n  try: ")


@pytest.mark.parametrize("key", ["energy_per_op_pj", "energy_per_byte_pj", "ops_per_ns"])
def test_a_free_host_is_refused(key: str) -> None:
    start = HYBRID.index(f"  {key}: {{value: ") + len(f"  {key}: {{value: ")
    end = HYBRID.index(",", start)
    text = HYBRID[:start] + "0" + HYBRID[end:]
    assert message(text) == (
        f"chip.yaml:{line_of(text, key)}: host.{key} = 0 is not accepted\n  try: greater than 0"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "bits_per_conversion: 2",
            "bits_per_conversion: 9",
            "cores[sampler].words.bits_per_conversion is 9, a weight has 6 bits\n"
            "  try: merge at most the columns of one weight",
        ),
        (
            "whitening: {value: 2,",
            "whitening: {value: 9,",
            "cores[sampler].random.whitening is 9\n  try: 1..8",
        ),
        (
            'word_bits: {value: 64, source: "the words of',
            'word_bits: {value: 48, source: "the words of',
            "cores[mac].outermost.word_bits = 48 does not divide the 64 bits of an access of "
            "buffer\n  try: words of 64 bits",
        ),
    ],
)
def test_what_only_building_a_core_finds_has_its_line(old: str, new: str, said: str) -> None:
    text = changed(old, new)
    with pytest.raises(SpecError) as caught:
        build_target(check_target(parse_document(text, "chip.yaml")))
    assert str(caught.value) == f"chip.yaml:{line_of(text, new)}: {said}"


def test_broken_yaml() -> None:
    text = changed("memories:\n", "memories: [\n")
    assert message(text).startswith("chip.yaml:")
    assert "is not valid YAML" in message(text)


def test_key_given_twice() -> None:
    text = changed("    read_pj: 32.3\n", "    read_pj: 32.3\n    read_pj: 1.0\n")
    line = line_of(text, "read_pj: 32.3")
    assert message(text) == (
        f"chip.yaml:{line + 1}: key `read_pj` stands twice, first in line {line}\n"
        "  try: keep one of the two"
    )


def test_unknown_kind() -> None:
    text = changed("kind: crossbar", "kind: crosbar")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'kind: crosbar')}: cores[xbar].kind = 'crosbar' is no kind of "
        "core\n  try: crossbar (known: crossbar, host, loop-nest, sampler, vector)"
    )


def test_owner_names_clash() -> None:
    text = changed("- name: xbar", "- name: buffer").replace("[mac, xbar]", "[mac, buffer]")
    first = line_of(text, "- name: buffer")
    second = text[: text.rindex("- name: buffer")].count("\n") + 1
    names = sorted([first, second])
    assert message(text) == (
        f"chip.yaml:{names[0]}: memories[buffer].name = 'buffer' is taken by cores.1 in line "
        f"{names[1]}\n  try: give every core, memory and link its own name: events are booked by it"
    )


def test_link_to_nowhere() -> None:
    text = changed("ends: [mac, xbar]", "ends: [mac, xbr]")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'ends:')}: links[bridge].ends = 'xbr' is no core\n"
        "  try: xbar (known: host, mac, sampler, vector, xbar)"
    )


def test_no_dram() -> None:
    text = changed("role: dram", "role: shared")
    assert message(text) == (
        f"chip.yaml:{line_of(text, 'memories:')}: memories has 0 entries of role dram; exactly "
        "one is needed\n  try: network inputs, outputs and weights rest in one memory of role: dram"
    )


def test_dot_in_a_name() -> None:
    text = changed("- name: dram", "- name: dram.low")
    assert message(text) == (
        f"chip.yaml:{line_of(text, '- name: dram.low')}: memories[dram.low].name = 'dram.low' is "
        "not accepted\n  try: letters, digits, _ and -, a letter first"
    )


def test_unknown_target() -> None:
    with pytest.raises(UsageError) as caught:
        load_target("hybird")
    known = ", ".join(sorted(plugins.names("targets")))
    assert str(caught.value) == f"unknown target `hybird`\n  try: hybrid (known: {known})"


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_target(tmp_path / "nowhere.yaml")


def test_a_path_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(HYBRID.replace("name: hybrid", "name: mine", 1))
    assert load_target(file).name == "mine"


@pytest.mark.parametrize("name", sorted(plugins.names("targets")))
def test_comments_and_order_do_not_change_the_hash(name: str) -> None:
    text = find_target(name).read_text()
    again = check_target(parse_document("# another comment\n" + text, "x.yaml"))
    assert again.sha256 == read_target(find_target(name)).sha256
    other = check_target(parse_document(text.replace("value: 1000", "value: 999"), "x.yaml"))
    assert other.sha256 != again.sha256
