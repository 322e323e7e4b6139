# SPDX-License-Identifier: Apache-2.0
"""Architecture parameters: a probability for every choice of every layer.

A layer's logits run over its *classes*, (core, operator, bits); core options such as the crossbar
size do not change the numbers, so within a class the cheapest choice stands for all. Layers that
share weights share a second set of logits over (core, operator, weight bits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor, nn

from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.kernels import extent_of
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.search.forms import Call
from enos_compiler.search.mixture import Branch, BranchMixture, CompositeMixture, Mixture, Shares
from enos_compiler.search.noise import channels_of, disturbed
from enos_compiler.search.tables import Candidate
from enos_compiler.semantics.formats import grid_source
from enos_compiler.semantics.widths import DEFAULT_BITS, layer_asks, width_rule

WidthShares = dict[int, Tensor]
"""Probability by width."""


class ChoiceClass(NamedTuple):
    """What decides a choice's numbers, its edges and, but for core options, its price."""

    core: str
    operator: str
    bits: Bits
    kernel: int = 0
    """Extent of the kernel; 0 for the layer's own."""

    @property
    def arithmetic(self) -> tuple[str, Bits, int]:
        """What decides the numbers."""
        return (self.operator, self.bits, self.kernel)


def class_of(choice: Choice) -> ChoiceClass:
    """Return the class of a choice."""
    return ChoiceClass(choice.core, choice.operator, choice.bits, extent_of(choice))


@dataclass(frozen=True)
class LayerSpace:
    """What one layer may become."""

    layer: Layer
    classes: tuple[ChoiceClass, ...]
    mixture: Mixture
    candidate_of: Tensor
    """(classes,) index of each class's candidate in the mixture."""
    input_of: Tensor
    """(classes,) index of each class's input width in the mixture."""
    tie: str | None
    """Name of the shared logits."""
    tied_rows: Tensor | None
    """(classes,) row of each class in them."""

    def shares(self, probabilities: Tensor, odds: Tensor | None = None) -> Shares:
        """Sum class probabilities, and odds, by candidate and by input width."""
        candidates, inputs = self._sizes

        def gather(of: Tensor, rows: Tensor, size: int) -> Tensor:
            return of.new_zeros(size).index_add(0, rows, of)

        return Shares(
            gather(probabilities, self.candidate_of, candidates),
            gather(probabilities, self.input_of, inputs),
            None if odds is None else gather(odds, self.candidate_of, candidates),
        )

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        return int(self.candidate_of.max()) + 1, int(self.input_of.max()) + 1


class Architecture(nn.Module):
    """The relaxed assignment; it says at which widths values are stored while it is searched.

    Args:
        network: with choices attached.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.rules = {v.name: width_rule(v) for v in network.vectors.values()}
        self.readers = {value: network.consumers(value) for value in network.values}
        self.spaces: dict[str, LayerSpace] = {}
        self.free = nn.ParameterList()
        self.shared = nn.ParameterDict()
        tied = _tied_classes(network)
        for key, rows in tied.items():
            self.shared[key] = nn.Parameter(torch.zeros(len(rows)))
        keys = list(tied)
        for layer in network.layers.values():
            tie = next((k for k in keys if k == _tie_name(layer)), None)
            self.spaces[layer.name] = self._space(layer, tie, tied[tie] if tie else ())
            self.free.append(nn.Parameter(torch.zeros(len(self.spaces[layer.name].classes))))
        self._against: dict[str, Tensor] = {}
        self._beside: dict[str, tuple[float, ...]] = {}
        """By layer, what each choice's options add to the score of its class."""
        self.noise: dict[str, Tensor] = {}
        """(classes,) of the layers with any, noise-to-signal that arrays add to the output."""
        self.ranks = {name: _ranks(space) for name, space in self.spaces.items()}
        self.relaxed = Drawing(self, {})
        """Probabilities as the logits say."""
        self.drawn = self.relaxed
        """What the layers compute with: the probabilities themselves or a drawing from them."""
        self.draw()

    def expect(self, distortions: Mapping[str, Sequence[float]], strength: float) -> None:
        """Start from what choices are expected to cost: logits = -strength x distortion.

        Args:
            distortions: by layer and choice, noise-to-signal at the network's outputs.
            strength: what a distortion of one takes from a log-probability.
        """
        with torch.no_grad():
            for logits, (name, space) in zip(self.free, self.spaces.items(), strict=True):
                least: dict[ChoiceClass, float] = {}
                for choice, found in zip(space.layer.choices, distortions[name], strict=True):
                    key = class_of(choice)
                    least[key] = min(found, least.get(key, found))
                logits.copy_(torch.tensor([-strength * least[one] for one in space.classes]))
                self._beside[name] = tuple(
                    strength * (found - least[class_of(choice)])
                    for choice, found in zip(space.layer.choices, distortions[name], strict=True)
                )
        self.draw()

    def draw(self) -> None:
        """Turn logits into probabilities, which layers then compute with."""
        found = {}
        for name, logits in self._logits().items():
            against = self._against.get(name)
            found[name] = torch.softmax(logits if against is None else logits - against, 0)
        self.relaxed = self.drawn = Drawing(self, found)

    def weigh(self, against: Mapping[str, Tensor]) -> None:
        """Let probabilities be those of the logits less something fixed by layer and class.

        The scores stay those of the logits alone: what weighs against a choice here, its energy,
        the assignment counts exactly.
        """
        self._against = dict(against)
        self.draw()

    def _logits(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for logits, (name, space) in zip(self.free, self.spaces.items(), strict=True):
            found[name] = logits
            if space.tie is not None:
                found[name] = logits + self.shared[space.tie][space.tied_rows]
        return found

    def compute_with(
        self, probabilities: dict[str, Tensor], odds: Mapping[str, Tensor] | None = None
    ) -> None:
        """Let layers compute with other probabilities than the logits'.

        Args:
            probabilities: by layer, (classes,).
            odds: by layer, with which a single class was drawn, if they are drawings.
        """
        self.drawn = Drawing(self, probabilities, odds)

    def likeliest(self, name: str) -> Tensor:
        """Return 1 at a layer's likeliest class and 0 elsewhere; of equal ones the most precise."""
        best = (self.relaxed.probabilities[name].detach() - self.ranks[name]).argmax()
        return nn.functional.one_hot(best, len(self.ranks[name])).float()

    @property
    def probabilities(self) -> dict[str, Tensor]:
        """By layer, (classes,): what the layers compute with."""
        return self.drawn.probabilities

    def stored(self, value: str) -> Mapping[int, float | Tensor]:
        """Return the probability of each width of `value` under what the layers compute with."""
        return self.drawn.stored(value)

    def forms(self) -> dict[str, MixtureForm]:
        """Return the form of every layer under these probabilities."""
        return {name: MixtureForm(self, space) for name, space in self.spaces.items()}

    def scores(self, layer: Layer) -> tuple[float, ...]:
        """Return -log probability of each choice's arithmetic, summed over cores and options.

        Where distortions were expected, what the core's own options add to their class's least
        counts on top: a crossbar's size changes its noise, which no mixture of weights shows.
        """
        space = self.spaces[layer.name]
        rows: dict[tuple[str, Bits, int], list[int]] = {}
        for row, one in enumerate(space.classes):
            rows.setdefault(one.arithmetic, []).append(row)
        # In logarithms: what a distortion made all but impossible still differs from what is worse.
        logarithms = torch.log_softmax(self._logits()[layer.name].detach().double(), 0)
        least = {key: -float(logarithms[same].logsumexp(0)) for key, same in rows.items()}
        beside = self._beside.get(layer.name, (0.0,) * len(layer.choices))
        return tuple(
            more + least[class_of(c).arithmetic]
            for c, more in zip(layer.choices, beside, strict=True)
        )

    def _space(
        self, layer: Layer, tie: str | None, rows: Sequence[tuple[str, str, int]]
    ) -> LayerSpace:
        classes = tuple(dict.fromkeys(class_of(c) for c in layer.choices))
        if layer.weight is None:
            branches = tuple(sorted({_branch(c) for c in classes}, key=_widest))
            mixture: Mixture = BranchMixture(branches)
            rows_of = [branches.index(_branch(c)) for c in classes]
            inputs_of = [0] * len(classes)
        else:
            candidates = tuple(sorted({_candidate(c) for c in classes}, key=_most_precise))
            widths = tuple(sorted({c.bits.input for c in classes}, reverse=True))
            mixture = self._composite(candidates, widths, rescale=layer.norm is not None)
            rows_of = [candidates.index(_candidate(c)) for c in classes]
            inputs_of = [widths.index(c.bits.input) for c in classes]
        return LayerSpace(
            layer=layer,
            classes=classes,
            mixture=mixture,
            candidate_of=torch.tensor(rows_of),
            input_of=torch.tensor(inputs_of),
            tie=tie,
            tied_rows=torch.tensor([rows.index(_tied_part(c)) for c in classes]) if tie else None,
        )

    def _composite(
        self, candidates: tuple[Candidate, ...], widths: tuple[int, ...], *, rescale: bool
    ) -> CompositeMixture:
        scales, age = torch.ones(len(candidates)), torch.tensor(-1)
        row = len(self.spaces)
        self.register_buffer(f"scales_{row}", scales)
        self.register_buffer(f"age_{row}", age)
        return CompositeMixture(candidates, widths, rescale=rescale, scales=scales, age=age)


class Drawing:
    """Probabilities of every layer's classes, and of every value's widths under them.

    Args:
        architecture: whose layers.
        probabilities: by layer, (classes,).
        odds: by layer, with which a single class was drawn.
    """

    def __init__(
        self,
        architecture: Architecture,
        probabilities: dict[str, Tensor],
        odds: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.network = architecture.network
        self.spaces = architecture.spaces
        self.rules = architecture.rules
        self.readers = architecture.readers
        self.probabilities = probabilities
        self.odds = odds or {}
        self._stored: dict[str, WidthShares] = {}

    def stored(self, value: str) -> Mapping[int, float | Tensor]:
        """Return the probability of each width of `value`.

        A layer's output has the widths of its classes. A vector operation, an input or a constant
        has the mean of what its readers ask, and 8 bits where none asks.
        """
        if value not in self._stored:
            self._stored[value] = self._find(value)
        return self._stored[value]

    def _find(self, value: str) -> WidthShares:
        producer = self.network.producer(value)
        if isinstance(producer, Layer):
            space = self.spaces[producer.name]
            widths = [bits.output for _, _, bits, _ in space.classes]
            return _gather(widths, self.probabilities[producer.name])
        if producer is not None and self.rules[producer.name] == "keeps":
            return dict(self._stored_of(grid_source(self.network, value)))
        return self._demand(value) or {DEFAULT_BITS: torch.tensor(1.0)}

    def _demand(self, value: str) -> WidthShares:
        """Return the mean of what the readers of a value ask; empty without readers."""
        asked = [a for a in (self._asked(n, value) for n in self.readers[value]) if a]
        widths = sorted({bits for ask in asked for bits in ask}, reverse=True)
        zero = torch.tensor(0.0)
        return {b: sum((a.get(b, zero) for a in asked), start=zero) / len(asked) for b in widths}

    def _asked(self, reader: Layer | Vector, value: str) -> WidthShares:
        if isinstance(reader, Layer):
            space = self.spaces[reader.name]
            widths = [layer_asks(reader, value, b.input, b.weight) for _, _, b, _ in space.classes]
            return _gather(widths, self.probabilities[reader.name])
        if self.rules[reader.name] == "free":
            return {DEFAULT_BITS: torch.tensor(1.0)}
        if self.rules[reader.name] == "same":
            return self._stored_of(reader.output)
        return self._demand(reader.output)

    def _stored_of(self, value: str) -> WidthShares:
        self.stored(value)
        return self._stored[value]


class SearchedWidths:
    """Widths of values under an architecture, for the module that trains it."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    def stored(self, value: str) -> Mapping[int, float | Tensor]:
        """Return the probability of each width of `value`."""
        return self.architecture.stored(value)

    def read(self, node: Vector, value: str) -> int | None:  # noqa: ARG002
        """Return that vector operations read values as they are stored."""
        return None


class MixtureForm:
    """A layer as the mixture of its candidates under an architecture, with its noise."""

    def __init__(self, architecture: Architecture, space: LayerSpace) -> None:
        self.architecture = architecture
        self.space = space

    def __call__(self, call: Call) -> Tensor:
        """Return the probability-weighted sum of the candidates."""
        layer = self.space.layer
        drawn = self.architecture.probabilities[layer.name]
        odds = self.architecture.drawn.odds.get(layer.name)
        total = self.space.mixture.mix(call, self.space.shares(drawn, odds))
        noise = self.architecture.noise.get(layer.name)
        if noise is None or not torch.is_grad_enabled():
            return total
        return disturbed(total, drawn @ noise, channels_of(call))


def _gather(widths: Sequence[int], probabilities: Tensor) -> WidthShares:
    distinct = sorted(set(widths), reverse=True)
    if len(distinct) == 1:
        return {distinct[0]: torch.ones(())}
    rows = torch.tensor([distinct.index(bits) for bits in widths])
    sums = probabilities.new_zeros(len(distinct)).index_add(0, rows, probabilities)
    return dict(zip(distinct, sums.unbind(), strict=True))


def _branch(of: ChoiceClass) -> Branch:
    return (of.operator, of.bits.input, of.bits.weight)


def _candidate(of: ChoiceClass) -> Candidate:
    return (of.operator, of.bits.weight, of.kernel)


def _widest(branch: Branch) -> tuple[bool, int, int]:
    _, input_bits, weight_bits = branch
    return (branch[0] != "mac", -input_bits, -weight_bits)


def _most_precise(candidate: Candidate) -> tuple[bool, int, float, str]:
    """Order candidates: mac first, wide before narrow, the whole kernel before its middle."""
    operator, bits, kernel = candidate
    return (operator != "mac", -bits, -(kernel or inf), operator)


def _ranks(space: LayerSpace) -> Tensor:
    """Return (classes,) a handicap that decides between equal probabilities: precise ones first."""
    candidates = space.candidate_of.tolist()
    keys = [
        (row, -one.bits.input, -one.bits.output, one.core)
        for row, one in zip(candidates, space.classes, strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    places = {row: place for place, row in enumerate(order)}
    return torch.tensor([1e-7 * places[row] for row in range(len(keys))])


def _tied_part(of: ChoiceClass) -> tuple[str, str, int]:
    return (of.core, of.operator, of.bits.weight)


def _tie_name(layer: Layer) -> str:
    return layer.weight_key.replace(".", "/")


def _tied_classes(network: Network) -> dict[str, tuple[tuple[str, str, int], ...]]:
    """Return what layers with common weights must agree on, by the name of their logits."""
    users: dict[str, list[Layer]] = {}
    for layer in network.layers.values():
        if layer.weight_key:
            users.setdefault(_tie_name(layer), []).append(layer)
    return {
        key: tuple(
            dict.fromkeys(_tied_part(class_of(c)) for layer in layers for c in layer.choices)
        )
        for key, layers in users.items()
        if len(layers) > 1
    }
