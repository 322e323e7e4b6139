# SPDX-License-Identifier: Apache-2.0
"""The candidates of one layer, run together and weighted by their probabilities.

Every operator that is linear in (x, sign x) gives y = conv(x, A) + conv(sign x, B) with A and B
elementwise functions of the weight. So all candidates of operator, weight width and kernel extent
fold into one pair of convolutions, whatever their number, and all input widths into one mixed
input. The plain mixture, one branch per candidate, is the definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from enos_compiler import plugins
from enos_compiler.ir.kernels import inside
from enos_compiler.search.forms import Call, add_bias, branch_sum, operator_sum
from enos_compiler.search.parallel import from_first
from enos_compiler.search.sign_product import probe_signs, sign_product
from enos_compiler.search.tables import Bank, Candidate, bank, compose, is_tabulated

Branch = tuple[str, int, int]
"""Operator, input bits and weight bits, of a layer without weights."""

REFRESH = 50
"""Steps between two measurements of the candidates' output deviations."""
MEASURED_ROWS = 8
"""Rows of the batch on which they are measured."""
PROBED_ROWS = 8
"""Rows of the batch that tell what a sum over signs would have changed where it is left out."""
LEAST_ODDS = 0.05
"""Odds of a drawing count as at least this, so that no gradient is multiplied by much more."""
NEGLIGIBLE = 0.01
"""The sum over signs is left out below this probability of all candidates that have one."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How a layer's probability is spread."""

    candidates: Tensor
    """(candidates,) probability of each."""
    inputs: Tensor
    """(input widths,) probability of each."""
    odds: Tensor | None = None
    """(candidates,) with which the only candidate was drawn, where one was."""

    @property
    def certain(self) -> tuple[int, int] | None:
        """The candidate and input width that alone are there, where nothing learns from them."""
        if self.candidates.requires_grad or float(self.candidates.detach().max()) < 1.0:
            return None
        return int(self.candidates.argmax()), int(self.inputs.argmax())


class Mixture(Protocol):
    """Candidates of one layer weighted by probabilities."""

    def mix(self, call: Call, shares: Shares) -> Tensor:
        """Return the weighted sum over candidates."""


class BranchMixture:
    """Every pair of operand widths of an activation product as a branch of its own.

    Args:
        branches: mac at (input bits, weight bits).
    """

    def __init__(self, branches: tuple[Branch, ...]) -> None:
        self.branches = branches

    def mix(self, call: Call, shares: Shares) -> Tensor:
        """Return the sum over branches of probability x output."""
        totals = [branch_sum(call, branch) for branch in self.branches]
        return total_of([t * p for t, p in zip(totals, shares.candidates, strict=True)])


class CompositeMixture:
    """All candidates of a layer with weights in one pair of convolutions.

    The scales that give every candidate the first one's output deviation are measured on a few
    rows every REFRESH steps. Input widths are a factor of their own: the input is the weighted sum
    of its copies, and its sign that of the mixed copy.

    Args:
        candidates: the most precise mac first where there is one: its output sets the scale.
        input_bits: widths of the input.
        rescale: divide the candidates' deviations out. Right only in front of a normalisation,
            which hides the scale from the layer that is compiled.
        scales: (candidates,), kept and updated in place, so that it can be saved with a checkpoint.
        age: (), steps since the last measurement; negative before the first.
    """

    def __init__(
        self,
        candidates: tuple[Candidate, ...],
        input_bits: tuple[int, ...],
        *,
        rescale: bool,
        scales: Tensor,
        age: Tensor,
    ) -> None:
        self.candidates = candidates
        self.input_bits = input_bits
        self.rescale = rescale
        self.scales = scales
        self.age = age
        self.sign_rows: slice | None = None
        """Rows that estimate the gradient of the sum over signs; None takes all."""
        self.probe_signs = False
        """Estimate that gradient also where the sum over signs is left out."""
        rows = range(len(candidates))
        self._tabulated = [k for k in rows if is_tabulated(candidates[k][0])]
        self._apart = [k for k in rows if k not in self._tabulated]
        self._by_kernel = {
            kernel: [k for k in self._tabulated if candidates[k][2] == kernel]
            for kernel in dict.fromkeys(candidates[k][2] for k in self._tabulated)
        }

    def mix(self, call: Call, shares: Shares) -> Tensor:
        """Return the sum over candidates of probability x scale x output, bias included."""
        certain = shares.certain
        if certain is not None:
            x = call.read(call.layer.inputs[0], self.input_bits[certain[1]])
        else:
            x = self._input(call, shares.inputs)
        if self.rescale:
            self._follow(call, x)
        if certain is not None:
            return add_bias(call, self._alone(call, x, certain[0], self.scales))
        parts = []
        weighted = shares.candidates * self.scales
        if self._tabulated:
            parts.append(self._folded(call, x, weighted, shares.candidates))
        parts += [self._alone(call, x, k) * w for k, w in self._weighed_apart(shares, weighted)]
        return add_bias(call, total_of(parts))

    def _input(self, call: Call, shares: Tensor) -> Tensor:
        source = call.layer.inputs[0]
        if len(self.input_bits) == 1:
            return call.read(source, self.input_bits[0])
        return call.read_mixed(source, dict(zip(self.input_bits, shares.unbind(), strict=True)))

    def _folded(self, call: Call, x: Tensor, weighted: Tensor, probabilities: Tensor) -> Tensor:
        a, b = self._weights(call, weighted)
        if a is None or b is None:
            return call.product(x, a, None) if b is None else sign_product(call, x, b)
        total = call.product(x, a, None)
        if float(probabilities.detach()[self._signed].sum()) >= NEGLIGIBLE:
            return total.add_(sign_product(call, x, b, self.sign_rows if len(x) > 1 else None))
        if self.probe_signs and weighted.requires_grad and len(x) >= PROBED_ROWS:
            return probe_signs(call, total, x, b, slice(0, PROBED_ROWS))
        return total

    def _weighed_apart(self, shares: Shares, weighted: Tensor) -> list[tuple[int, Tensor]]:
        """Return the candidates to run by themselves and the weight of each.

        While the network trains, one stands for all: drawn by its probability and divided by it,
        it leaves the sum and the gradients of the probabilities what they are, on average. Where
        the layer computes with one drawn candidate, that runs alone, and its gradient is divided
        by the probability that it was drawn with; below LEAST_ODDS it is divided by less, so that
        a rare candidate hears too little of itself rather than far too much at once.
        """
        present = [(row, weighted[row]) for row in self._apart]
        if not torch.is_grad_enabled() or not weighted.requires_grad:
            return present
        if shares.odds is not None:
            odds = shares.odds.clamp_min(LEAST_ODDS)
            return [
                (row, share.detach() + (share - share.detach()) / odds[row])
                for row, share in present
                if float(share.detach()) > 0
            ]
        if len(present) < 2:
            return present
        odds = shares.candidates.detach()[self._apart].clamp_min(LEAST_ODDS)
        odds = odds / odds.sum()
        drawn = int(from_first(torch.multinomial(odds, 1)))
        row, share = present[drawn]
        return [(row, share / odds[drawn])]

    @cached_property
    def _banks(self) -> list[tuple[int, list[int], Bank]]:
        """By kernel extent, the candidates that have it and their tables."""
        return [
            (kernel, rows, bank(tuple(self.candidates[k][:2] for k in rows)))
            for kernel, rows in self._by_kernel.items()
        ]

    @cached_property
    def _signed(self) -> list[int]:
        """The candidates with a sum over signs."""
        return [k for k in self._tabulated if any(bank((self.candidates[k][:2],)).used[1:])]

    def _weights(self, call: Call, weighted: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return A and B, smaller kernels in the middle of the whole one."""
        halves: tuple[list[Tensor], list[Tensor]] = ([], [])
        for kernel, rows, tables in self._banks:
            inner, margins = inside(_weight(call), kernel)
            shares = weighted if len(rows) == len(self.candidates) else weighted[rows]
            for half, found in zip(halves, compose(inner, shares, tables), strict=True):
                if found is not None:
                    half.append(torch.nn.functional.pad(found, margins) if margins else found)
        return (
            total_of(halves[0]) if halves[0] else None,
            total_of(halves[1]) if halves[1] else None,
        )

    def _alone(self, call: Call, x: Tensor, row: int, scales: Tensor | None = None) -> Tensor:
        """Return the sum of one candidate by itself, times its scale if any is given."""
        operator, weight_bits, kernel = self.candidates[row]
        if row in self._apart:
            total = self._by_itself(call, operator, weight_bits, len(x))
            return total if scales is None else total * scales[row]
        inner, margins = inside(_weight(call), kernel)
        factor = torch.ones(1) if scales is None else scales[row : row + 1].clone()
        a, b = compose(inner, factor, bank(((operator, weight_bits),)))
        padded = [
            half if half is None or not margins else torch.nn.functional.pad(half, margins)
            for half in (a, b)
        ]
        parts = [] if padded[0] is None else [call.product(x, padded[0], None)]
        if padded[1] is not None:
            parts.append(sign_product(call, x, padded[1]))
        return total_of(parts)

    def _by_itself(self, call: Call, operator: str, weight_bits: int, rows: int) -> Tensor:
        """Return the sum of an operator that no table holds, at the widest input it reads."""
        widest = getattr(plugins.load("operators", operator), "widest_input", max(self.input_bits))
        bits = max((b for b in self.input_bits if b <= widest), default=widest)
        x = call.read(call.layer.inputs[0], bits)[:rows]
        return operator_sum(call, x, (operator, bits, weight_bits))

    def _follow(self, call: Call, x: Tensor) -> None:
        """Measure the candidates' deviations where it is time and the network trains."""
        if not torch.is_grad_enabled():
            return
        if not 0 <= int(self.age) < REFRESH:
            with torch.no_grad():
                few = x[:MEASURED_ROWS]
                rows = range(len(self.candidates))
                deviations = torch.stack([self._alone(call, few, k).std() for k in rows])
                deviations.clamp_min_(1e-12)
                self.scales.copy_(from_first(deviations[0] / deviations))
            self.age.zero_()
        self.age += 1


def total_of(parts: list[Tensor]) -> Tensor:
    """Return the sum of one or more tensors."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _weight(call: Call) -> Tensor:
    if call.weight is None:
        raise ValueError(f"layer {call.layer.name} has no weight to fold")
    return call.weight
