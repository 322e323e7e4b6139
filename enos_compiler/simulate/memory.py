# SPDX-License-Identifier: Apache-2.0
"""The bytes of a program's memories, with what each of them means at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import ReplayError
from enos_compiler.ir.formats import IntArray
from enos_compiler.ir.packing import word_bytes, words
from enos_compiler.ir.program import Buffer, Memory, Program

Bytes = NDArray[np.uint8]

_NATIVE_WORDS = (8, 16, 32, 64)
"""Words that numpy shifts and masks as they are; codes in others are taken apart bit by bit."""


def pack(codes: IntArray, bits: int, word_bits: int) -> Bytes:
    """Return the bytes of codes, packed into words, least bit first.

    Args:
        codes: flat; two's complement where negative.
        bits: of one code.
        word_bits: of one word; no code straddles words unless it is wider than one.
    """
    if bits == 8 and word_bits % 8 == 0:
        out = np.zeros(words(codes.size, 8, word_bits) * word_bits // 8, np.uint8)
        out[: codes.size] = codes.astype(np.uint8)
        return out
    per_word, slot = _slots(bits, word_bits)
    count = -(-codes.size // per_word)
    if word_bits in _NATIVE_WORDS and bits < word_bits:
        fields = np.zeros(count * per_word, f"<u{word_bits // 8}")
        fields[: codes.size] = codes & (2**bits - 1)
        placed = fields.reshape(count, per_word) << _shifts(bits, per_word, fields.dtype)
        joined: Bytes = np.bitwise_or.reduce(placed, axis=1).view(np.uint8)
        return joined
    raw = np.ascontiguousarray(codes, dtype="<i8").view(np.uint8).reshape(-1, 8)
    single = np.unpackbits(raw, axis=1, bitorder="little")[:, :bits]
    held = np.zeros((count * per_word, bits), np.uint8)
    held[: codes.size] = single
    whole = np.zeros((count, 8 * word_bytes(word_bits) * slot), np.uint8)
    whole[:, : per_word * bits] = held.reshape(count, per_word * bits)
    return np.packbits(whole, axis=1, bitorder="little").reshape(-1)


def unpack(data: Bytes, elements: int, bits: int, word_bits: int, *, signed: bool) -> IntArray:
    """Return the codes that `pack` packed, flat, int64."""
    if bits == 8 and word_bits % 8 == 0:
        plain = data[:elements]
        return plain.view(np.int8).astype(np.int64) if signed else plain.astype(np.int64)
    per_word, slot = _slots(bits, word_bits)
    if word_bits in _NATIVE_WORDS and bits < word_bits:
        whole = data.view(f"<u{word_bits // 8}")[:, None]
        slots = (whole >> _shifts(bits, per_word, whole.dtype)).reshape(-1)[:elements]
        flat: IntArray = (slots & (2**bits - 1)).astype(np.int64)
        if signed:
            sign = 1 << (bits - 1)
            flat = (flat ^ sign) - sign
        return flat
    single = np.unpackbits(
        data.reshape(-1, word_bytes(word_bits) * slot), axis=1, bitorder="little"
    )
    codes = single[:, : per_word * bits].reshape(-1, bits)[:elements]
    wide = np.zeros((elements, 64), np.uint8)
    wide[:, :bits] = codes
    if signed:
        wide[:, bits:] = codes[:, -1:]
    found: IntArray = np.packbits(wide, axis=1, bitorder="little").view("<i8").reshape(-1)
    return found.astype(np.int64)


def _shifts(bits: int, per_word: int, word: np.dtype[Any]) -> NDArray[Any]:
    """Return the bit where each code of a word starts, in the word's type."""
    return (np.arange(per_word) * bits).astype(word)


def _slots(bits: int, word_bits: int) -> tuple[int, int]:
    """Return the codes of one slot and the words of one slot."""
    return (1, -(-bits // word_bits)) if bits > word_bits else (word_bits // bits, 1)


class Store:
    """Memories of the stated sizes, and which value last wrote which bytes.

    A value is there from its first write until anything else writes a byte of it; each of its
    elements may be read once written.
    """

    def __init__(self, program: Program) -> None:
        self.memories: Mapping[str, Memory] = program.memories
        self.buffers = {buffer.name: buffer for buffer in program.buffers}
        self._bytes = {name: _room(name, program) for name in program.memories}
        self._written: dict[str, NDArray[np.bool_]] = {}
        self._unpacked: dict[str, IntArray] = {}

    def write(self, name: str, codes: IntArray, where: Any = ..., *, shape: Any = None) -> None:
        """Write codes into a buffer; `where` indexes its elements in `shape`, all by default.

        Raises:
            ReplayError: a code does not fit the buffer's width.
        """
        buffer = self.buffers[name]
        self._take(buffer)
        _check_width(buffer, codes)
        shape = codes.shape if shape is None else shape
        self._written[name].reshape(shape)[where] = True
        self._unpacked.pop(name, None)
        data, word_bits = self._slice(buffer), self.memories[buffer.memory].word_bits
        if buffer.bits == 8 and word_bits % 8 == 0:
            data[: buffer.elements].reshape(shape)[where] = codes.astype(np.uint8)
            return
        whole = unpack(data, buffer.elements, buffer.bits, word_bits, signed=True)
        whole.reshape(shape)[where] = codes
        data[:] = pack(whole, buffer.bits, word_bits)

    def read(
        self, name: str, shape: tuple[int, ...], where: Any = ..., *, signed: bool
    ) -> IntArray:
        """Return codes of a buffer, those that `where` indexes in `shape`; not to be changed.

        Raises:
            ReplayError: some have not been written, or other values have been written over them.
        """
        self._require(name, shape, where)
        buffer = self.buffers[name]
        if name not in self._unpacked:
            word_bits = self.memories[buffer.memory].word_bits
            self._unpacked[name] = unpack(
                self._slice(buffer), buffer.elements, buffer.bits, word_bits, signed=signed
            )
        found: IntArray = self._unpacked[name].reshape(shape)[where]
        return found

    def place(self, name: str) -> None:
        """Note that a buffer's content is there from the start."""
        self._take(self.buffers[name])
        self._written[name][...] = True

    def written(self, name: str) -> NDArray[np.bool_]:
        """Return which elements of a buffer are there, flat; none where it is overwritten."""
        found = self._written.get(name)
        return np.zeros(self.buffers[name].elements, np.bool_) if found is None else found

    def _require(self, name: str, shape: tuple[int, ...], where: Any) -> None:
        buffer = self.buffers[name]
        place = f"{name} at {buffer.memory}[{buffer.address}]"
        if name not in self._written:
            raise ReplayError(f"reads {place}, which is not written yet or overwritten by now")
        part = self._written[name].reshape(shape)[where]
        if not part.all():
            missing = int(part.size - part.sum())
            raise ReplayError(
                f"reads {place}, of which {missing} of {part.size} elements are not written yet"
            )

    def _take(self, buffer: Buffer) -> None:
        """Note that a value lies in its bytes from now on, and no other one does."""
        if buffer.name in self._written:
            return
        end = buffer.address + buffer.size_bytes
        for other in list(self._written):
            its = self.buffers[other]
            apart = its.address >= end or its.address + its.size_bytes <= buffer.address
            if its.memory == buffer.memory and not apart:
                del self._written[other]
                self._unpacked.pop(other, None)
        self._written[buffer.name] = np.zeros(buffer.elements, np.bool_)

    def _slice(self, buffer: Buffer) -> Bytes:
        return self._bytes[buffer.memory][buffer.address : buffer.address + buffer.size_bytes]


def _room(name: str, program: Program) -> Bytes:
    """Return the bytes that the program's buffers reach; the rest of the memory is untouched."""
    reach = [b.address + b.size_bytes for b in program.buffers if b.memory == name]
    try:
        return np.zeros(max(reach, default=0), np.uint8)
    except (MemoryError, ValueError) as error:
        raise ReplayError(
            f"buffers reach {max(reach)} bytes, which this machine cannot hold",
            place=f"memory {name}",
            remedy="replay on a machine with more memory",
        ) from error


def _check_width(buffer: Buffer, codes: IntArray) -> None:
    if not codes.size:
        return
    low, high = int(codes.min()), int(codes.max())
    least, most = -(2 ** (buffer.bits - 1)), 2**buffer.bits - 1
    if low < least or high > most or (low < 0 and high > -least - 1):
        raise ReplayError(
            f"writes {low}..{high} into {buffer.name}, whose elements have {buffer.bits} bits"
        )
