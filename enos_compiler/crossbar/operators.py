# SPDX-License-Identifier: Apache-2.0
"""How each operator uses a crossbar: which matrices it stores and which reads it makes.

mac and the ternary case are one read of a signed matrix; bw one read of signs; xnor one read of
signs with one-bit inputs (a second one, subtracted, for the negative inputs); mf two reads that are
digitised apart, because its halves carry different units:
A = sum sign(x) |w|, B = sum sign(w) |x|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.integer import IntegerMatrix, Stored, read, store
from enos_compiler.crossbar.spec import CrossbarSpec

CrossbarOperator = Literal["mac", "bw", "xnor", "mf"]
CROSSBAR_OPERATORS: tuple[CrossbarOperator, ...] = ("mac", "bw", "xnor", "mf")


@dataclass(frozen=True, slots=True)
class Drive:
    """One read: which stored matrix, which row values, and where the result goes."""

    matrix: int
    inputs: IntArray
    input_bits: int
    inputs_signed: bool
    accumulator: str
    sign: int = 1


def weight_signs(weights: IntArray) -> IntArray:
    """+1 or -1, +1 at zero: a weight keeps its sign bit however small it is."""
    return np.where(weights < 0, -1, 1).astype(np.int64)


def stored_matrices(
    operator: CrossbarOperator,
    weights: IntArray,
    weight_bits: int,
    *,
    signs: IntArray | None = None,
) -> tuple[Stored, ...]:
    """Matrices (outputs, rows) that the operator keeps in cells.

    Args:
        operator: mac, bw, xnor or mf.
        weights: signed codes; bw and xnor read only their signs.
        weight_bits: width of the codes, sign included (2 for ternary weights).
        signs: explicit sign bits as +-1, where a zero code may stand for minus zero.
    """
    binary = Stored(weight_signs(weights) if signs is None else signs, 1, "binary")
    if operator == "mac":
        return (Stored(weights, weight_bits),)
    if operator == "mf":
        return Stored(np.abs(weights), weight_bits - 1, "unsigned"), binary
    return (binary,)


def drives(
    operator: CrossbarOperator, x: IntArray, input_bits: int, *, inputs_signed: bool = False
) -> tuple[Drive, ...]:
    """Reads that the operator makes for input codes (rows, B).

    mf reads its halves of signed inputs with signed drivers; xnor splits them in two reads of one
    bit, so it needs no signed driver.
    """
    if operator in ("mac", "bw"):
        return (Drive(0, x, input_bits, inputs_signed, "sum"),)
    sign = np.sign(x)
    if operator == "mf":
        return (
            Drive(0, sign, 1 + inputs_signed, inputs_signed, "A"),
            Drive(1, np.abs(x), input_bits - inputs_signed, False, "B"),
        )
    reads = [Drive(0, np.maximum(sign, 0), 1, False, "sum")]
    if inputs_signed:
        reads.append(Drive(0, np.maximum(-sign, 0), 1, False, "sum", -1))
    return tuple(reads)


def operate(
    matrices: Sequence[IntegerMatrix],
    reads: Sequence[Drive],
    *,
    steps_log2: Mapping[str, int | Sequence[int]] | int = 0,
) -> dict[str, IntArray]:
    """Accumulators (outputs, B) by name: `sum`, or `A` and `B` of mf."""
    out: dict[str, IntArray] = {}
    for drive in reads:
        steps = steps_log2 if isinstance(steps_log2, int) else steps_log2[drive.accumulator]
        y = drive.sign * read(
            matrices[drive.matrix],
            drive.inputs,
            drive.input_bits,
            inputs_signed=drive.inputs_signed,
            steps_log2=steps,
        )
        out[drive.accumulator] = out.get(drive.accumulator, np.zeros_like(y)) + y
    return out


def crossbar_product(
    spec: CrossbarSpec,
    operator: CrossbarOperator,
    weights: IntArray,
    x: IntArray,
    weight_bits: int,
    input_bits: int,
    *,
    inputs_signed: bool = False,
    signs: IntArray | None = None,
    steps_log2: Mapping[str, int | Sequence[int]] | int = 0,
) -> dict[str, IntArray]:
    """Accumulators of weights (outputs, rows) applied to inputs (rows, B) on `spec`."""
    stored = stored_matrices(operator, weights, weight_bits, signs=signs)
    matrices = [store(spec, s) for s in stored]
    reads = drives(operator, x, input_bits, inputs_signed=inputs_signed)
    return operate(matrices, reads, steps_log2=steps_log2)
