# SPDX-License-Identifier: Apache-2.0
"""Counting a layer's nest with its operand widths."""

from __future__ import annotations

from enos_compiler.ir.shape import TENSORS, LayerShape
from enos_compiler.mapping.count import REFERENCE, CountingRule, count_events
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.problem import Problem


def count_layer(
    shape: LayerShape,
    machine: Machine,
    nest: Nest,
    widths: Widths | None = None,
    *,
    rule: CountingRule = REFERENCE,
) -> NestEvents:
    """Count every event of a layer's nest.

    Outputs are stored at the width of partial sums on every level inside their home, and at their
    home too if a sum ever comes back from there unfinished; else the home holds finished outputs.

    Args:
        shape: the layer.
        machine: levels, fan-outs and limits.
        nest: the mapping.
        widths: operand widths; None lets every operand take one word.
        rule: how reuse is counted.

    Raises:
        MappingError: the nest does not fit the machine.
    """
    problem = Problem.from_shape(shape)
    if widths is None:
        return count_events(problem, machine, nest, rule=rule)
    bits = _bits(machine, nest, widths, finished_at_home=False)
    finished = _bits(machine, nest, widths, finished_at_home=True)
    return count_events(problem, machine, nest, bits=bits, finished=finished, rule=rule)


def _bits(
    machine: Machine, nest: Nest, widths: Widths, *, finished_at_home: bool
) -> list[dict[str, int]]:
    """Width by level and tensor; left out where a tensor only passes a level of shorter words."""
    home = nest.home("Outputs")
    out = []
    for s, (spec, level) in enumerate(zip(machine.levels, nest.levels, strict=True)):
        width = {t: widths.of(t, finished=finished_at_home and s == home) for t in TENSORS}
        out.append({str(t): w for t, w in width.items() if t in level.keep or w <= spec.word_bits})
    return out
