# SPDX-License-Identifier: Apache-2.0
"""How one layer computes while it is trained: in float, as one choice, or as a mixture.

A form receives the layer's stored operands and a `Reader` that narrows them; it returns the sum
before any fused normalisation and activation, which the network module applies behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from enos_compiler import plugins
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Layer
from enos_compiler.operators.base import Operator
from enos_compiler.search.fake import sign

Product = Callable[..., Tensor]
Reader = Callable[[str, int], Tensor]
"""(value name, bits) -> the value as a consumer of that width reads it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of a layer: its canonical function and what it is applied to."""

    layer: Layer
    product: Product
    """The canonical function with its attributes bound: (input, weight, bias) -> sum."""
    inputs: tuple[Tensor, ...]
    """As stored."""
    weight: Tensor | None
    bias: Tensor | None
    gain: Tensor | None
    """(M,) gamma / sigma of the fused normalisation by its running statistics, detached."""
    read: Reader

    @property
    def weight_axes(self) -> tuple[int, ...]:
        """Shape that broadcasts a per-channel factor against the weight."""
        if self.weight is None:
            raise ValueError(f"layer {self.layer.name} has no weight")
        return (-1, *(1,) * (self.weight.dim() - 1))


class LayerForm(Protocol):
    """What stands in the place of a layer's multiply-accumulate."""

    def __call__(self, call: Call) -> Tensor:
        """Return the layer's sum, bias included."""


class FloatForm:
    """Multiply-accumulate in float32."""

    def __call__(self, call: Call) -> Tensor:
        """Return the canonical function of the stored operands."""
        if call.weight is None:
            return call.product(*call.inputs)
        return call.product(call.inputs[0], call.weight, call.bias)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What decides the numbers of a choice: choices that differ elsewhere compute the same."""

    operator: str
    bits: Bits

    @property
    def branch(self) -> tuple[str, int, int]:
        """Operator, input bits and weight bits; the output width acts behind the layer."""
        return (self.operator, self.bits.input, self.bits.weight)


def weight_forms(
    operator: Operator, call: Call, weight_bits: int, *, fold: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the operator's weights (A, B), in the layer's weight shape.

    With `fold`, mac weights are rounded as quantisation rounds them: times the gain of the fused
    normalisation, which is divided out again so that the live normalisation may follow.
    """
    weight = call.weight
    if weight is None:
        raise ValueError(f"layer {call.layer.name} has no weight")
    if fold and operator.name == "mac" and call.gain is not None:
        gain = torch.where(call.gain == 0, torch.ones_like(call.gain), call.gain)
        gain = gain.view(call.weight_axes)
        plain, signed = operator.weight_forms(weight * gain, weight_bits)
        return None if plain is None else plain / gain, signed
    return operator.weight_forms(weight, weight_bits)


def branch_sum(call: Call, arithmetic: tuple[str, int, int], *, fold: bool) -> Tensor:
    """Return the sum of one operator at its input and weight bits, without bias."""
    name, input_bits, weight_bits = arithmetic
    if call.weight is None:
        left, right = call.layer.inputs
        return call.product(call.read(left, input_bits), call.read(right, weight_bits))
    operator: Operator = _operator(name)
    plain, signed = weight_forms(operator, call, weight_bits, fold=fold)
    x = call.read(call.layer.inputs[0], input_bits)
    parts = []
    if plain is not None:
        parts.append(call.product(x, plain, None))
    if signed is not None:
        parts.append(call.product(sign(x), signed, None))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def add_bias(call: Call, total: Tensor) -> Tensor:
    """Add the layer's bias along its channel axis: 1 of a convolution, the last of a linear."""
    if call.bias is None:
        return total
    if call.layer.op == "conv":
        return total + call.bias.view(-1, *(1,) * (total.dim() - 2))
    return total + call.bias


@dataclass(frozen=True, slots=True)
class ChoiceForm:
    """One choice, with exactly the rounding that its integers will have."""

    arithmetic: Arithmetic

    def __call__(self, call: Call) -> Tensor:
        """Return the operator's sum of fake-quantised operands."""
        return add_bias(call, branch_sum(call, self.arithmetic.branch, fold=True))


class Mixture(Protocol):
    """Candidates of one layer weighted by probabilities; a form that the search can read."""

    branches: tuple[tuple[str, int, int], ...]

    def mix(self, call: Call, probabilities: Tensor) -> Tensor:
        """Return the weighted sum over branches, (len(branches),) probabilities."""


class BranchMixture:
    """Every candidate as a branch of its own; outputs scaled to the deviation of the first.

    Args:
        branches: (operator, input bits, weight bits), the most precise mac first where there is
            one: its output sets the scale.
        rescale: divide the branches' deviations out. Right only in front of a normalisation,
            which hides the scale from the layer that is compiled.
    """

    def __init__(self, branches: tuple[tuple[str, int, int], ...], *, rescale: bool) -> None:
        self.branches = branches
        self.rescale = rescale

    def mix(self, call: Call, probabilities: Tensor) -> Tensor:
        """Return the sum over branches of probability x scale x output, bias included."""
        totals = [branch_sum(call, branch, fold=False) for branch in self.branches]
        if self.rescale and len(totals) > 1:
            totals = _equal_deviation(totals)
        mixed = totals[0] * probabilities[0]
        for total, probability in zip(totals[1:], probabilities[1:], strict=True):
            mixed = mixed + total * probability
        return add_bias(call, mixed)


def _equal_deviation(totals: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        deviations = [total.std().clamp_min(1e-12) for total in totals]
        scales = [deviations[0] / deviation for deviation in deviations]
    return [total * scale for total, scale in zip(totals, scales, strict=True)]


def float_forms(layers: Mapping[str, Layer]) -> dict[str, LayerForm]:
    """Return float forms for every layer."""
    return {name: FloatForm() for name in layers}


def assigned_forms(layers: Mapping[str, Layer]) -> dict[str, LayerForm]:
    """Return the form of every layer's assigned choice."""
    forms: dict[str, LayerForm] = {}
    for name, layer in layers.items():
        if layer.choice is None:
            raise ValueError(f"layer {name} is not assigned")
        forms[name] = ChoiceForm(Arithmetic(layer.choice.operator, layer.choice.bits))
    return forms


def _operator(name: str) -> Any:
    return plugins.load("operators", name)()
