# SPDX-License-Identifier: Apache-2.0
"""How each operator uses a crossbar: which matrices it stores and which reads it makes.

mac and the ternary case are one read of a signed matrix; bw one read of signs; xnor one read of
signs with one-bit inputs (a second one, subtracted, for the negative inputs); mf two reads that are
digitised apart, because its halves carry different units:
A = sum sign(x) |w|, B = sum sign(w) |x|. ef is mf with signed weights in A and signed inputs in B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.integer import Form, IntegerMatrix, Stored, read, store
from enos_compiler.crossbar.spec import CrossbarSpec

CrossbarOperator = Literal["mac", "bw", "xnor", "mf", "ef"]
CROSSBAR_OPERATORS: tuple[CrossbarOperator, ...] = get_args(CrossbarOperator)


@dataclass(frozen=True, slots=True)
class ReadKind:
    """One read that an operator makes of one stored matrix, without its data."""

    matrix: int
    """Index into the operator's stored matrices."""
    input_bits: int
    inputs_signed: bool
    accumulator: str
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Drive:
    """One read with its row values (rows, B)."""

    kind: ReadKind
    inputs: IntArray


def weight_signs(weights: IntArray) -> IntArray:
    """+1 or -1, +1 at zero: a weight keeps its sign bit however small it is."""
    return np.where(weights < 0, -1, 1).astype(np.int64)


def stored_forms(operator: CrossbarOperator, weight_bits: int) -> tuple[tuple[int, Form], ...]:
    """(bits, form) of each matrix that the operator keeps in cells, in the order of its reads."""
    if operator == "mac":
        return ((weight_bits, "signed"),)
    if operator == "mf":
        return ((weight_bits - 1, "unsigned"), (1, "binary"))
    if operator == "ef":
        return ((weight_bits, "signed"), (1, "binary"))
    return ((1, "binary"),)


def stored_matrices(
    operator: CrossbarOperator,
    weights: IntArray,
    weight_bits: int,
    *,
    signs: IntArray | None = None,
) -> tuple[Stored, ...]:
    """Matrices (outputs, rows) that the operator keeps in cells, in their `stored_forms`.

    Args:
        operator: mac, bw, xnor, mf or ef.
        weights: signed codes; bw and xnor read only their signs.
        weight_bits: width of the codes, sign included (2 for ternary weights).
        signs: explicit sign bits as +-1, where a zero code may stand for minus zero.
    """
    codes: Mapping[Form, IntArray] = {
        "signed": weights,
        "unsigned": np.abs(weights),
        "binary": weight_signs(weights) if signs is None else signs,
    }
    forms = stored_forms(operator, weight_bits)
    return tuple(Stored(codes[form], bits, form) for bits, form in forms)


def read_kinds(
    operator: CrossbarOperator,
    input_bits: int,
    *,
    inputs_signed: bool = False,
    zero_point: bool = False,
) -> tuple[ReadKind, ...]:
    """Reads that the operator makes per input vector.

    mf reads the signs of signed inputs with signed drivers; xnor and ef split them in two reads of
    one bit, so that they need no signed driver.

    Args:
        operator: mac, bw, xnor, mf or ef.
        input_bits: width of the inputs.
        inputs_signed: inputs carry a sign, and rows are driven with it where a value is read.
        zero_point: inputs are unsigned codes around a zero point: values enter as they are, signs
            are those of the code less the zero point.
    """
    if operator in ("mac", "bw"):
        return (ReadKind(0, input_bits, inputs_signed, "sum"),)
    if operator == "mf":
        return (
            ReadKind(0, 1 + inputs_signed, inputs_signed, "A"),
            ReadKind(1, input_bits - inputs_signed, False, "B"),
        )
    name = "A" if operator == "ef" else "sum"
    reads: tuple[ReadKind, ...] = (ReadKind(0, 1, False, name),)
    if inputs_signed or zero_point:
        reads = (*reads, ReadKind(0, 1, False, name, -1))
    return (*reads, ReadKind(1, input_bits, inputs_signed, "B")) if operator == "ef" else reads


def drives(
    operator: CrossbarOperator, x: IntArray, input_bits: int, *, inputs_signed: bool = False
) -> tuple[Drive, ...]:
    """Reads of the operator with their row values for input codes (rows, B)."""
    kinds = read_kinds(operator, input_bits, inputs_signed=inputs_signed)
    return tuple(Drive(k, _row_values(operator, k, x)) for k in kinds)


def _row_values(operator: CrossbarOperator, kind: ReadKind, x: IntArray) -> IntArray:
    if operator in ("mac", "bw") or (operator == "ef" and kind.accumulator == "B"):
        return x
    if operator == "mf":
        return np.sign(x) if kind.accumulator == "A" else np.abs(x)
    return np.asarray(np.maximum(kind.sign * np.sign(x), 0))


def operate(
    matrices: Sequence[IntegerMatrix],
    reads: Sequence[Drive],
    *,
    steps_log2: Mapping[str, int | Sequence[int]] | int = 0,
) -> dict[str, IntArray]:
    """Accumulators (outputs, B) by name: `sum`, or `A` and `B` of mf and ef."""
    out: dict[str, IntArray] = {}
    for drive in reads:
        kind = drive.kind
        steps = steps_log2 if isinstance(steps_log2, int) else steps_log2[kind.accumulator]
        y = kind.sign * read(
            matrices[kind.matrix],
            drive.inputs,
            kind.input_bits,
            inputs_signed=kind.inputs_signed,
            steps_log2=steps,
        )
        out[kind.accumulator] = out.get(kind.accumulator, np.zeros_like(y)) + y
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
