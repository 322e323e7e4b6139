# SPDX-License-Identifier: Apache-2.0
"""How a value is stored as integers, and the integer form of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """Unsigned codes with a power-of-two scale: real = 2**exponent * (code - zero_point)."""

    exponent: int
    zero_point: int
    """Even: 0 where the value is never negative, else 2**(bits - 1)."""
    bits: int
    """Width in 2..8; codes lie in a uint8 container."""
    low: int = 0
    """Least code that the producer emits."""
    high: int = -1
    """Greatest code that the producer emits; -1 stands for 2**bits - 1."""

    def __post_init__(self) -> None:
        """Fill the default upper code."""
        if self.high == -1:
            object.__setattr__(self, "high", 2**self.bits - 1)

    @property
    def scale(self) -> float:
        """Real value of one code step."""
        return float(2.0**self.exponent)

    @property
    def signed(self) -> bool:
        """Whether codes below the zero point exist."""
        return self.zero_point > 0

    @property
    def max_abs(self) -> int:
        """Largest magnitude of code - zero_point."""
        return max(self.zero_point - self.low, self.high - self.zero_point)

    def narrowed(self, bits: int) -> ValueFormat:
        """Return the format of the copy that a narrower consumer reads.

        The step grows by the dropped bits and the zero point moves to the middle of the new range.
        """
        if bits >= self.bits:
            return self
        drop = self.bits - bits
        return ValueFormat(
            exponent=self.exponent + drop,
            zero_point=2 ** (bits - 1) if self.signed else 0,
            bits=bits,
        )


@dataclass(frozen=True, slots=True, eq=False)
class ArrayRead:
    """How cells keep the weights of one of a layer's sums, and how its columns are converted."""

    form: Literal["signed", "unsigned", "binary"]
    """Two's complement short of its lowest value; 0 and up; or -1 and +1."""
    bits: int
    """Width of the stored weights."""
    steps: IntArray
    """(slices, 1), or (slices, columns of all groups): a converter's step is 2**steps accumulator
    units of its slice."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayForm:
    """An array whose converters change a layer's sums: they are cut, rounded and clipped.

    Rows of a sum are cut into blocks of `rows`, these into groups of `rows_at_once` that are
    converted together; weights into slices of `cell_bits`, inputs into digits of `digit_bits`.
    """

    arithmetic: str
    """What computes it: an entry point of the group `enos_compiler.arithmetics`."""
    rows: int
    rows_at_once: int
    cell_bits: int
    encoding: Literal["differential", "offset", "unit_column"]
    subtract_before_adc: bool
    digit_bits: int
    adc_bits: int
    reads: tuple[ArrayRead, ...]
    """One per sum of the layer's operator, in the order of its terms."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedLayer:
    """The integers of a layer: what it computes is defined by its operator's `accumulate`.

    The operator returns `total`, int64, in units of 2**unit_exponent[channel]; the layer's output
    code is round_half_even(total * 2**(unit_exponent - output.exponent)) + zero_point, clamped.
    """

    tensors: Mapping[str, IntArray]
    """Weight codes and constants, named by the operator; (M, C, R, S), groups in M, or (M, C)."""
    bias: IntArray
    """(M,) int64, in units of 2**unit_exponent."""
    unit_exponent: IntArray
    """(M,) int64."""
    input_formats: tuple[ValueFormat, ...]
    """What the layer reads: after the narrowing on its edge; two for an activation product."""
    bound: int
    """Largest |total| that any input can reach over channels; below 2**24 floats are exact."""
    options: Mapping[str, int] = field(default_factory=dict)
    array: ArrayForm | None = None
    """Where converters change the sums: how. None: the operator's own integers."""
