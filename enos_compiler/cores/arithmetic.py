# SPDX-License-Identifier: Apache-2.0
"""Energy and area of elementary operations, and what an operator asks of a processing element."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any

from enos_compiler.errors import SpecError
from enos_compiler.ir.choice import Bits
from enos_compiler.spec import ArithmeticSpec

if TYPE_CHECKING:
    from enos_compiler.operators.base import Operator

_NAME = re.compile(r"(multiply|add|shift|xor|register|compare|popcount)(?:_(\d+)(?:x(\d+))?)?")


@cache
def operator(name: str) -> Operator:
    """Return the registered operator `name`.

    Raises:
        UsageError: no operator of that name is registered; names the nearest.
    """
    from enos_compiler import plugins

    loaded: Any = plugins.load("operators", name)
    built: Operator = loaded() if isinstance(loaded, type) else loaded
    return built


def operation_pj(name: str, arithmetic: ArithmeticSpec) -> tuple[float, str]:
    """Return energy in pJ and source of one elementary operation.

    Names: `multiply_<a>x<w>`, `add_<b>`, `shift_<b>`, `xor_<b>`, `register_<b>` (one write),
    `compare_<b>`, `popcount` (one full-adder cell).

    Raises:
        SpecError: a name that the formulas do not cover.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise SpecError(f"no energy is known for the elementary operation `{name}`")
    kind, a, w = match[1], int(match[2] or 1), int(match[3] or 1)
    s = arithmetic
    if kind == "multiply":
        energy = s.multiply_8x8_pj.value * (a * w / 64) ** s.multiply_exponent.value
        return energy, str(s.multiply_8x8_pj.source)
    if kind == "add":
        return s.add_base_pj.value + s.add_per_bit_pj.value * a, str(s.add_per_bit_pj.source)
    if kind == "shift":
        return s.shift_8_pj.value * (a / 8) ** s.shift_exponent.value, str(s.shift_8_pj.source)
    per_bit = {
        "xor": s.xor_per_bit_pj,
        "register": s.register_per_bit_pj,
        "compare": s.compare_per_bit_pj,
        "popcount": s.full_adder_pj,
    }[kind]
    return per_bit.value * a, str(per_bit.source)


def multiplier_um2(a: int, w: int, arithmetic: ArithmeticSpec) -> float:
    """Return the area of an a x w bit multiplier in um^2."""
    exponent = arithmetic.multiply_area_exponent.value
    return float(arithmetic.multiply_8x8_um2.value * (a * w / 64) ** exponent)


def tap_operations(name: str, bits: Bits, taps: int, macs: int) -> dict[str, int]:
    """Return whole elementary operations of `macs` taps of an operator.

    Registers are left out: each core counts its own. Operations that a group of taps shares come
    as fractions of one; their total is rounded up.
    """
    per_tap = operator(name).elementary_operations(bits, taps)
    return {
        operation: ceil(Fraction(count).limit_denominator(1 << 16) * macs)
        for operation, count in per_tap.items()
        if not operation.startswith("register") and count
    }


def accumulators(name: str, bits: Bits, taps: int) -> tuple[int, int]:
    """Return how many partial sums one output has and the width of each in bits.

    They are the widest additions of a tap: one for most operators, two for mf and ef, whose
    halves carry different units.
    """
    per_tap: Mapping[str, float] = operator(name).elementary_operations(bits, taps)
    adds = {int(k[4:]): v for k, v in per_tap.items() if k.startswith("add_")}
    if not adds:
        width = bits.input + bits.weight + ceil_log2(taps)
        return 1, width
    widest = max(adds)
    return max(1, ceil(adds[widest])), widest


def ceil_log2(n: int) -> int:
    """Return the bits that count n different things, 0 for one."""
    return (n - 1).bit_length()


def offered_weight_bits(name: str, requested: tuple[int, ...]) -> tuple[int, ...]:
    """Return the operator's widths that answer to the requested ones, widest first.

    Each request gets the widest width that the operator offers and that does not exceed it: a
    sign-only operator answers 1 to all, shift its 4 bits to a request for 8.
    """
    offered = operator(name).weight_bits
    answers = {max((o for o in offered if o <= r), default=0) for r in requested}
    return tuple(sorted(answers - {0}, reverse=True))
