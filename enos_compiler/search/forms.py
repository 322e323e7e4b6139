# SPDX-License-Identifier: Apache-2.0
"""How one layer computes while it is trained: in float, as one choice, or as a mixture.

A form receives the layer's stored operands and a `Reader` that narrows them; it returns the sum
before any fused normalisation and activation, which the network module applies behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from enos_compiler import plugins
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.operators.base import Operator, TrainsItself
from enos_compiler.operators.mac import Mac
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
    attributes: Mapping[str, Any]
    """Of the canonical function, e.g. stride and padding."""
    inputs: tuple[Tensor, ...]
    """As stored."""
    weight: Tensor | None
    bias: Tensor | None
    gain_of: Callable[[], Tensor | None]
    """Returns (M,) gamma / sigma of the fused normalisation by its running statistics, detached."""
    read: Reader
    read_mixed: Callable[[str, Mapping[int, Tensor]], Tensor]
    """(value name, shares by bits) -> the sum of shares times what `read` returns."""
    read_format: Callable[[str, int], ValueFormat]
    """(value name, bits) -> the format of what `read` returns."""

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


@dataclass(slots=True)
class FoldedMac:
    """Mac weights as quantisation rounds them, in the scale of the live network.

    They are rounded times the gain of the fused normalisation, which is then divided out again, so
    that the live normalisation may follow. Without gradients they are kept while nothing changes.
    """

    weight_bits: int
    _kept: tuple[Tensor, Tensor | None, int, Tensor] | None = None

    def __call__(self, call: Call, weight: Tensor, input_bits: int) -> Tensor:
        """Return the rounded weights, in the shape of `weight`."""
        input_max = call.read_format(call.layer.inputs[0], input_bits).max_abs
        gain = call.gain_of()
        if torch.is_grad_enabled():
            self._kept = None
            return self._rounded(call, weight, gain, input_max)
        if self._kept is None or not self._same(weight, gain, input_max):
            rounded = self._rounded(call, weight, gain, input_max)
            self._kept = (weight.clone(), gain, input_max, rounded)
        return self._kept[3]

    def _rounded(
        self, call: Call, weight: Tensor, of_norm: Tensor | None, input_max: int
    ) -> Tensor:
        gain = torch.ones(()) if of_norm is None else of_norm.view(call.weight_axes)
        gain = torch.where(gain == 0, torch.ones_like(gain), gain)
        plain, _ = Mac().weight_forms(weight * gain, self.weight_bits, input_max=input_max)
        if plain is None:
            raise ValueError("mac has a plain form")
        return plain / gain

    def _same(self, weight: Tensor, gain: Tensor | None, input_max: int) -> bool:
        if self._kept is None:
            return False
        before, its_gain, its_max, _ = self._kept
        if its_max != input_max or not torch.equal(before, weight):
            return False
        if gain is None or its_gain is None:
            return gain is its_gain
        return torch.equal(gain, its_gain)


def branch_sum(
    call: Call, arithmetic: tuple[str, int, int], *, fold: FoldedMac | None = None
) -> Tensor:
    """Return the sum of one operator at its input and weight bits, without bias.

    Args:
        call: one execution of the layer.
        arithmetic: operator, input bits and weight bits.
        fold: rounds the weights of mac; None rounds them without the normalisation.
    """
    name, input_bits, weight_bits = arithmetic
    if call.weight is None:
        left, right = call.layer.inputs
        return call.product(call.read(left, input_bits), call.read(right, weight_bits))
    x = call.read(call.layer.inputs[0], input_bits)
    if fold is not None and issubclass(plugins.load("operators", name), Mac):
        return call.product(x, fold(call, call.weight, input_bits), None)
    return operator_sum(call, x, (name, input_bits, weight_bits))


def operator_sum(call: Call, x: Tensor, arithmetic: tuple[str, int, int]) -> Tensor:
    """Return the sum of one operator over an input as it is read, without bias."""
    name, input_bits, weight_bits = arithmetic
    if call.weight is None:
        raise ValueError(f"layer {call.layer.name} has no weight")
    operator: Operator = _operator(name)
    if isinstance(operator, TrainsItself):
        fmt = call.read_format(call.layer.inputs[0], input_bits)
        return operator.train_sum(x, call.weight, call.layer, weight_bits, fmt)
    plain, signed = operator.weight_forms(call.weight, weight_bits)
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
    fold: FoldedMac | None = None
    """Rounds mac weights with the normalisation folded in; not where layers share weights."""

    def __call__(self, call: Call) -> Tensor:
        """Return the operator's sum of fake-quantised operands."""
        return add_bias(call, branch_sum(call, self.arithmetic.branch, fold=self.fold))


def assigned_forms(layers: Mapping[str, Layer]) -> dict[str, LayerForm]:
    """Return the form of every layer's assigned choice."""
    forms: dict[str, LayerForm] = {}
    readers = Counter(layer.weight_key for layer in layers.values())
    for name, layer in layers.items():
        if layer.choice is None:
            raise ValueError(f"layer {name} is not assigned")
        forms[name] = ChoiceForm(
            Arithmetic(layer.choice.operator, layer.choice.bits),
            fold=FoldedMac(layer.choice.bits.weight) if readers[layer.weight_key] == 1 else None,
        )
    return forms


def _operator(name: str) -> Any:
    return plugins.load("operators", name)()
