# SPDX-License-Identifier: Apache-2.0
"""What a crossbar layer does step by step: output positions, row by row."""

from __future__ import annotations

from enos_compiler.cores.base import Homes
from enos_compiler.cores.memory import Array, Chip
from enos_compiler.cores.stepping import SteppedLoop, Stepping
from enos_compiler.cores.steps import STEP_LIMIT, LayerWork, Transfer
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.shape import LayerShape, Tensor


def crossbar_work(
    shape: LayerShape,
    choice: Choice,
    homes: Homes,
    chip: Chip,
    *,
    fetched: int,
    compute_cycles: int,
    reloaded_bits: int = 0,
    writing_cycles: int = 0,
) -> LayerWork:
    """Return the work of a layer whose weights lie in arrays.

    Args:
        shape: of the layer.
        choice: its widths.
        homes: of its input and its output.
        chip: memories and their bandwidths.
        fetched: input elements that come from their home.
        compute_cycles: of the arrays and the input buffer.
        reloaded_bits: of a weight that is read from DRAM in every inference; 0 for resident ones.
        writing_cycles: of those weights, reading included.
    """
    loads = [_transfer(chip, "Inputs", homes.inputs[0].memory, fetched, choice.bits.input)]
    if reloaded_bits:
        weights = _transfer(chip, "Weights", chip.dram, shape.volume("Weights"), reloaded_bits, 0)
        loads.append(weights)
    bits = homes.output_bits or choice.bits.output
    stored = shape.volume("Outputs")
    out = _transfer(chip, "Outputs", homes.output.memory, stored, bits, stores=True)
    rows = (
        SteppedLoop("N", shape.n), SteppedLoop("P", shape.p), SteppedLoop("Q", shape.q),
    )  # fmt: skip
    return LayerWork(
        stepping=Stepping.of((loop for loop in rows if loop.factor > 1), STEP_LIMIT),
        loads=tuple(loads),
        stores=(out,),
        compute_cycles=compute_cycles,
        first_cycles=writing_cycles,
        one_port=homes.inputs[0].memory == homes.output.memory,
    )


def _transfer(
    chip: Chip,
    tensor: Tensor,
    memory: str,
    elements: int,
    bits: int,
    cycles: int | None = None,
    *,
    stores: bool = False,
) -> Transfer:
    """Return the packed words of operands at a memory's full speed, or at none of its time."""
    array: Array = chip.memories[memory]
    count = array.words(elements, bits)
    if cycles is None:
        cycles = -(-count * array.word_bits // chip.bits_per_cycle[memory])
    return Transfer(tensor, array.write if stores else array.read, count, elements, cycles)
