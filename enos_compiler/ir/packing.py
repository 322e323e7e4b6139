# SPDX-License-Identifier: Apache-2.0
"""How codes lie in the words of a memory: the one rule that costs, addresses and replay share."""

from __future__ import annotations


def words(elements: int, bits: int, word_bits: int) -> int:
    """Return the words that hold `elements` packed codes: floor(word / bits) in a word.

    A code never straddles words; one wider than a word takes ceil(bits / word) of them.
    """
    if bits > word_bits:
        return elements * -(-bits // word_bits)
    return -(-elements // (word_bits // bits))


def word_bytes(word_bits: int) -> int:
    """Return the bytes between the addresses of neighbouring words."""
    return -(-word_bits // 8)


def packed_bytes(elements: int, bits: int, word_bits: int) -> int:
    """Return the bytes of address space that packed codes take: whole words."""
    return words(elements, bits, word_bits) * word_bytes(word_bits)
