# SPDX-License-Identifier: Apache-2.0
"""The candidates of one layer, run together and weighted by their probabilities.

Every operator that trains is linear in (x, sign x): y = conv(x, A) + conv(sign x, B) with A and B
functions of the weight. So all candidates that read the same width fold into one pair of
convolutions, whatever their number. The plain mixture, one branch per candidate, is the definition.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from enos_compiler import plugins
from enos_compiler.operators.base import Operator
from enos_compiler.search.fake import sign
from enos_compiler.search.forms import Call, add_bias, branch_sum

Branch = tuple[str, int, int]
"""Operator, input bits and weight bits."""
Forms = dict[tuple[str, int], tuple[Tensor | None, Tensor | None]]
"""(A, B) by operator and weight bits."""

REFRESH = 10
"""Steps between two measurements of the candidates' output deviations."""
MEASURED_ROWS = 16
"""Rows of the batch on which they are measured."""


class Mixture(Protocol):
    """Candidates of one layer weighted by probabilities."""

    branches: tuple[Branch, ...]

    def mix(self, call: Call, probabilities: Tensor) -> Tensor:
        """Return the weighted sum over branches, (len(branches),) probabilities."""


class BranchMixture:
    """Every candidate as a branch of its own; outputs scaled to the deviation of the first.

    Args:
        branches: the most precise mac first where there is one: its output sets the scale.
        rescale: divide the branches' deviations out. Right only in front of a normalisation,
            which hides the scale from the layer that is compiled.
    """

    def __init__(self, branches: tuple[Branch, ...], *, rescale: bool) -> None:
        self.branches = branches
        self.rescale = rescale

    def mix(self, call: Call, probabilities: Tensor) -> Tensor:
        """Return the sum over branches of probability x scale x output, bias included."""
        totals = [branch_sum(call, branch, fold=False) for branch in self.branches]
        scales = _scales(totals) if self.rescale else torch.ones(len(totals))
        shares = zip(totals, probabilities * scales, strict=True)
        return add_bias(call, _total([total * share for total, share in shares]))


class FoldedMixture:
    """The same sum with one convolution per input width over x, and one over sign x.

    The deviations that make branches equal are measured every few steps instead of at each.

    Args:
        branches: as for `BranchMixture`.
        rescale: as for `BranchMixture`.
        scales: (branches,), kept and updated in place, so that it can be saved with a checkpoint.
        age: (), steps since the last measurement; negative before the first.
    """

    def __init__(
        self, branches: tuple[Branch, ...], *, rescale: bool, scales: Tensor, age: Tensor
    ) -> None:
        self.branches = branches
        self.rescale = rescale
        self.scales = scales
        self.age = age

    def mix(self, call: Call, probabilities: Tensor) -> Tensor:
        """Return the sum over branches of probability x scale x output, bias included."""
        forms = _forms(call, self.branches)
        if self.rescale:
            self._follow(call, forms)
        shares = probabilities * self.scales
        parts = []
        source = call.layer.inputs[0]
        for bits in dict.fromkeys(input_bits for _, input_bits, _ in self.branches):
            x = call.read(source, bits)
            for half, operand in ((0, lambda x=x: x), (1, lambda x=x: sign(x))):
                weights = [
                    form * share
                    for (operator, input_bits, weight_bits), share in zip(
                        self.branches, shares, strict=True
                    )
                    if input_bits == bits
                    and (form := forms[operator, weight_bits][half]) is not None
                ]
                if weights:
                    parts.append(call.product(operand(), _total(weights), None))
        return add_bias(call, _total(parts))

    def _follow(self, call: Call, forms: Forms) -> None:
        """Measure the branches' deviations where it is time and the network trains."""
        if not torch.is_grad_enabled():
            return
        if not 0 <= int(self.age) < REFRESH:
            with torch.no_grad():
                totals = [self._branch(call, branch, forms) for branch in self.branches]
                self.scales.copy_(_scales(totals))
            self.age.zero_()
        self.age += 1

    @staticmethod
    def _branch(call: Call, branch: Branch, forms: Forms) -> Tensor:
        operator, input_bits, weight_bits = branch
        x = call.read(call.layer.inputs[0], input_bits)[:MEASURED_ROWS]
        plain, signed = forms[operator, weight_bits]
        parts = [] if plain is None else [call.product(x, plain, None)]
        if signed is not None:
            parts.append(call.product(torch.sign(x), signed, None))
        return _total(parts)


def _forms(call: Call, branches: tuple[Branch, ...]) -> Forms:
    if call.weight is None:
        raise ValueError(f"layer {call.layer.name} has no weight to fold")
    forms: Forms = {}
    for name, _, weight_bits in branches:
        if (name, weight_bits) not in forms:
            operator: Operator = plugins.load("operators", name)()
            forms[name, weight_bits] = operator.weight_forms(call.weight, weight_bits)
    return forms


def _scales(totals: list[Tensor]) -> Tensor:
    """Return (branches,) the first output's deviation over each one's, without gradient."""
    with torch.no_grad():
        deviations = torch.stack([total.std() for total in totals]).clamp_min(1e-12)
        return deviations[0] / deviations


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
