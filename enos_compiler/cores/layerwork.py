# SPDX-License-Identifier: Apache-2.0
"""What every layer core does around its array: choices, output requantisation, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from enos_compiler.cores.arithmetic import accumulators, offered_weight_bits, operator
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action
from enos_compiler.ir.network import Layer

REQUANTISE_MULTIPLIER_BITS = 8
"""Width of the odd factor m of the m * 2**e that scales an accumulator; the rest is a shift."""


def operator_refusal(layer: Layer, name: str, *, signed_input: bool) -> str | None:
    """Return why an operator does not take a layer on any core, or None."""
    if layer.shape.activation_product and name != "mac":
        return f"{name} needs weights known beforehand; both operands are activations"
    return operator(name).refusal(layer, signed_input=signed_input)


def layer_widths(layer: Layer, name: str, widths: Iterable[Bits]) -> tuple[Bits, ...]:
    """Return the operator's answer to the requested widths, each once, in request order.

    An activation product reads both operands at the input width.
    """
    answered: dict[Bits, None] = {}
    for bits in widths:
        if layer.shape.activation_product:
            answered[bits._replace(weight=bits.input)] = None
            continue
        for weight in offered_weight_bits(name, (bits.weight,)):
            answered[bits._replace(weight=weight)] = None
    return tuple(answered)


def offer(
    core: str,
    layer: Layer,
    name: str,
    widths: Iterable[Bits],
    options: Iterable[tuple[tuple[str, int], ...]] = ((),),
) -> Iterator[Choice | Refusal]:
    """Yield one choice per width and options, or the refusal that no requested width exists."""
    answered = layer_widths(layer, name, widths)
    if not answered:
        offered = ", ".join(map(str, operator(name).weight_bits))
        yield Refusal(core, name, f"offers weights of {offered} bits, above every requested width")
    options = tuple(options)
    for bits in answered:
        for option in options:
            yield Choice(core, name, bits, option)


def requantisation(core: str, layer: Layer, choice: Choice) -> Counter[Action]:
    """Return the events that turn partial sums into output codes: one scaling and bias per sum."""
    sums, width = accumulators(choice.operator, choice.bits, layer.shape.taps)
    outputs = layer.shape.volume("Outputs")
    return Counter(
        {
            f"{core}.post/multiply_{width}x{REQUANTISE_MULTIPLIER_BITS}": sums * outputs,
            f"{core}.post/add_{width}": sums * outputs,
        }
    )
