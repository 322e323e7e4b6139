# SPDX-License-Identifier: Apache-2.0
"""Codes lie packed where they should, and only what was written can be read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.errors import ReplayError
from enos_compiler.ir.packing import packed_bytes, word_bytes, words
from enos_compiler.ir.program import Buffer, Memory, Program
from enos_compiler.simulate.memory import Store, pack, unpack


@settings(deadline=None)
@given(data=st.data())
def test_packing_is_the_definition(data: st.DataObject) -> None:
    """Code i lies in word i // k at bit (i % k) * bits, where k codes fit a word."""
    word_bits = data.draw(st.sampled_from([8, 16, 24, 32, 64, 100]))
    bits = data.draw(st.integers(1, min(word_bits, 32)))
    signed = data.draw(st.booleans())
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    codes = np.array(
        data.draw(st.lists(st.integers(least, most), min_size=1, max_size=40)), np.int64
    )
    packed = pack(codes, bits, word_bits)
    assert packed.size == packed_bytes(codes.size, bits, word_bits)
    per_word = word_bits // bits
    step = word_bytes(word_bits)
    for i, code in enumerate(codes):
        start = i // per_word * step
        word = int.from_bytes(packed[start : start + step].tobytes(), "little")
        assert (word >> (i % per_word * bits)) % 2**bits == code % 2**bits
    assert unpack(packed, codes.size, bits, word_bits, signed=signed).tolist() == codes.tolist()


def test_codes_wider_than_a_word_take_several() -> None:
    codes = np.array([-1, 2**40, 7], np.int64)
    assert words(3, 64, 32) == 6
    packed = pack(codes, 64, 32)
    assert packed.size == 24
    assert unpack(packed, 3, 64, 32, signed=True).tolist() == codes.tolist()


def _store() -> Store:
    memory = Memory(64, 16, "m.array/read", "m.array/write")
    buffers = (
        Buffer("a", "m", 0, 4, 4, 8),
        Buffer("b", "m", 2, 4, 6, 5),
        Buffer("c", "m", 6, 2, 1, 16),
    )
    return Store(Program((), buffers, (), {"m": memory}, 1.0))


def test_a_value_ends_where_another_is_written() -> None:
    store = _store()
    store.write("a", np.array([1, 2, 3, 4]))
    store.write("c", np.array([-7]))
    assert store.read("a", (2, 2), signed=False).tolist() == [[1, 2], [3, 4]]
    store.write("b", np.array([31, 0, 1, 2, 3, 4]))
    assert store.read("b", (6,), signed=False).tolist() == [31, 0, 1, 2, 3, 4]
    assert store.read("c", (1,), signed=True).tolist() == [-7]
    with pytest.raises(ReplayError, match=r"reads a at m\[0\], which is not written yet or over"):
        store.read("a", (4,), signed=False)


@pytest.mark.parametrize("name", ["a", "b"])
def test_elements_are_there_once_written(name: str) -> None:
    store = _store()
    count = store.buffers[name].elements
    store.write(name, np.array([5, 6]), np.s_[1, :], shape=(count // 2, 2))
    with pytest.raises(ReplayError, match=f"of which {count - 2} of {count} elements are not"):
        store.read(name, (count,), signed=False)
    assert store.read(name, (count // 2, 2), np.s_[1, :], signed=False).tolist() == [5, 6]
    rest = np.arange(count - 2).reshape(-1, 2)
    store.write(
        name, rest, np.array([i for i in range(count // 2) if i != 1]), shape=(count // 2, 2)
    )
    assert store.read(name, (count,), signed=False)[2:4].tolist() == [5, 6]


def test_codes_wider_than_their_buffer_are_refused() -> None:
    store = _store()
    for wrong in ([0, 0, 0, 0, 0, 32], [-1, 0, 0, 0, 0, 16], [-17, 0, 0, 0, 0, 0]):
        with pytest.raises(ReplayError, match="into b, whose elements have 5 bits"):
            store.write("b", np.array(wrong))
