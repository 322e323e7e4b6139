# SPDX-License-Identifier: Apache-2.0
"""The noise that bits are expected to leave at the output, from tables, and a greedy walk.

The noise of a setting is the sum of its layers' sensitivity scores (see `assign.sensitivity`). The
walk starts with every layer at its widest and takes, step by step, the narrowing that saves most of
a cost for the noise it adds: a front to start a search from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from enos_compiler.assign.sensitivity import score_layers
from enos_compiler.explore.hardware import Placed
from enos_compiler.explore.plan import BitPlan, Genome, IntArray, as_genome
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.cost import Cost
from enos_compiler.semantics.widths import DEFAULT_BITS

FloatArray = NDArray[np.float64]
_IMAGES = 16
_LEAST = 1e-30
"""Noise below which a narrowing counts as free."""


@dataclass(frozen=True, slots=True)
class NoiseTables:
    """Sensitivity scores of every layer by width."""

    plan: BitPlan
    operands: Mapping[str, FloatArray]
    """By input and weight bits, output at 8."""
    outputs: Mapping[str, FloatArray]
    """By output bits, what it adds to 8."""

    def noise(self, genomes: Sequence[Genome] | IntArray) -> FloatArray:
        """Return the expected noise-to-signal at the output of each setting."""
        widths = self.plan.widths(genomes)
        total = np.zeros(len(genomes))
        for name, (read, weight, output) in widths.layers.items():
            total += self.operands[name][read, weight] + self.outputs[name][output]
        return total


def noise_tables(placed: Placed, bits: Sequence[int], seed: int) -> NoiseTables:
    """Score every layer at all of its widths on the example inputs."""
    widest = {*bits, DEFAULT_BITS}
    asked = [Bits(i, w, DEFAULT_BITS) for i, w in product(widest, repeat=2)]
    asked += [Bits(DEFAULT_BITS, DEFAULT_BITS, o) for o in bits if o != DEFAULT_BITS]
    network = placed.network
    layers = {}
    for name, layer in network.layers.items():
        products = layer.shape.activation_product
        taken = [b for b in asked if b.weight == b.input or not products]
        choices = tuple(placed.at(name, b) for b in taken)
        nothing = (Cost(),) * len(choices)
        layers[name] = replace(layer, choices=choices, costs=nothing, programming=nothing)
    scored = score_layers(network.with_layers(layers), images=_IMAGES, seed=seed).layers
    operands, outputs = {}, {}
    for name, layer in scored.items():
        by_bits = {c.bits: s for c, s in zip(layer.choices, layer.scores or (), strict=True)}
        whole = by_bits[Bits(DEFAULT_BITS, DEFAULT_BITS, DEFAULT_BITS)]
        operands[name] = np.full((DEFAULT_BITS + 1,) * 2, np.nan)
        outputs[name] = np.full(DEFAULT_BITS + 1, np.nan)
        for width, score in by_bits.items():
            if width.output == DEFAULT_BITS:
                operands[name][width.input, width.weight] = score
            if width.input == width.weight == DEFAULT_BITS:
                outputs[name][width.output] = score - whole
    return NoiseTables(BitPlan(network), operands, outputs)


def greedy_front(
    start: Genome,
    bits: Sequence[int],
    noise: Callable[[IntArray], FloatArray],
    cost: Callable[[IntArray], FloatArray],
    count: int,
) -> list[Genome]:
    """Return up to `count` settings, evenly along the walk from `start` to all at their narrowest.

    Of equal steps the one of the earliest layer is taken. A step that saves nothing yet (a word
    packs no more codes until the next width) is taken when none that saves is left.
    """
    lower = {b: a for a, b in pairwise(bits)}
    here = np.array(start, dtype=np.int64)
    walk = [here]
    while True:
        steps = [
            (layer, gene)
            for layer, gene in np.ndindex(*here.shape)
            if int(here[layer, gene]) in lower
        ]
        if not steps:
            break
        tried = np.repeat(here[None], len(steps), axis=0)
        for row, (layer, gene) in enumerate(steps):
            tried[row, layer, gene] = lower[int(here[layer, gene])]
        everything = np.concatenate([here[None], tried])
        noises, costs = noise(everything), cost(everything)
        added = np.maximum(noises[1:] - noises[0], _LEAST)
        saved = costs[0] - costs[1:]
        merit = np.where(saved > 0, saved / added, -added)
        here = tried[int(np.argmax(merit))]
        walk.append(here)
    chosen = np.unique(np.linspace(0, len(walk) - 1, count).round().astype(int))
    return [as_genome(walk[i].tolist()) for i in chosen]
