# SPDX-License-Identifier: Apache-2.0
"""What every layer core does around its array: choices, output requantisation, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from enos_compiler.cores.arithmetic import accumulators, offered_weight_bits, operator
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action
from enos_compiler.ir.network import Layer

WIDEST_INPUT_BITS = 16
"""Of operators that state no limit: what words are priced up to."""
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
    widest = getattr(operator(name), "widest_input", WIDEST_INPUT_BITS)
    for bits in widths:
        if bits.input > widest:
            continue
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
    options: Sequence[tuple[tuple[str, int], ...]],
    too_large: Callable[[Choice], str | None],
) -> Iterator[Choice | Refusal]:
    """Yield a choice for each width and each of the core's options that has room for it.

    Widths that no option has room for are refused with the last option's reason; so is an
    operator that offers no requested width.
    """
    answered = layer_widths(layer, name, widths)
    if not answered:
        offered = ", ".join(map(str, operator(name).weight_bits))
        why = f"offers weights of {offered} bits, above every requested width"
        widest = getattr(operator(name), "widest_input", WIDEST_INPUT_BITS)
        if all(bits.input > widest for bits in widths):
            why = f"reads inputs of at most {widest} bits, every requested width is above"
        yield Refusal(core, name, why)
    for bits in answered:
        reason, fits = None, False
        for choice in (Choice(core, name, bits, option) for option in options):
            reason = too_large(choice)
            if reason is None:
                fits = True
                yield choice
        if reason and not fits:
            yield Refusal(core, name, reason)


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
