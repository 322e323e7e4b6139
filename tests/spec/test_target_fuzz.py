# SPDX-License-Identifier: Apache-2.0
"""Whatever is written at any place of a target file, the answer is a chip or one clear error."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.cores.target import build_target
from enos_compiler.errors import EnosError, SpecError
from enos_compiler.spec import check_target, find_target, parse_document

HYBRID: dict[str, Any] = yaml.safe_load(find_target("hybrid").read_text())
JUNK: tuple[Any, ...] = (
    None,
    -1,
    0,
    1.5,
    10**30,
    "x",
    "",
    [],
    ["x"],
    {},
    {"value": 1},
    {"x": 1},
    True,
    [[1]],
)


def paths(data: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items if isinstance(data, (dict, list)) else ():
        if isinstance(value, (dict, list)):
            yield from paths(value, (*here, key))
        else:
            yield (*here, key)


def clear(text: str) -> bool:
    """Tell whether a file is a chip or gives an error with place and remedy."""
    try:
        build_target(check_target(parse_document(text, "chip.yaml")))
    except SpecError as error:
        return str(error.place).startswith("chip.yaml") and bool(error.remedy)
    return True


PATHS = sorted(set(paths(HYBRID)), key=repr)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(PATHS), st.sampled_from(JUNK))
def test_junk_anywhere_gives_a_chip_or_a_spec_error(path: tuple[Any, ...], junk: Any) -> None:
    data = copy.deepcopy(HYBRID)
    block = data
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = junk
    text = yaml.safe_dump(data, sort_keys=False)
    assert clear(text)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([p for p in PATHS if isinstance(p[-1], str)]))
def test_a_key_taken_away_gives_a_chip_or_a_spec_error(path: tuple[Any, ...]) -> None:
    data = copy.deepcopy(HYBRID)
    block = data
    for key in path[:-1]:
        block = block[key]
    del block[path[-1]]
    text = yaml.safe_dump(data, sort_keys=False)
    assert clear(text)


@pytest.mark.parametrize(
    "text", ["", "5", "- a", "a: [", "\t", "? {a: 1}\n: 2", "&a [*a]", "a: !!x 1"]
)
def test_what_is_no_target_at_all(text: str) -> None:
    with pytest.raises(EnosError) as caught:
        check_target(parse_document(text, "chip.yaml"))
    assert str(caught.value).startswith("chip.yaml")
