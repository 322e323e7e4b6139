# SPDX-License-Identifier: Apache-2.0
"""NSGA-II over bits per layer and over chips, with the encoding and operators of the paper.

Offspring: every layer takes, with probability 0.95, the bits of one of two parents, else the widest
bits; with probability 0.10 one random layer then gets random bits. Parents are drawn uniformly.
Selection is by fronts and crowding distance. Where several chips are searched, an offspring takes
the chip of a parent, or with the same probability of 0.10 a random one.

Source: hw_mix_quant, the search code of Klhufek et al., arXiv 2404.05368 (seen); chips are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.infill import InfillCriterion
from pymoo.core.population import Population
from pymoo.core.problem import Problem

from enos_compiler.explore.plan import Genome, as_genome

FROM_PARENTS = 0.95
RANDOM_LAYER = 0.10
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What is evaluated: the bits of every layer, on one of the chips."""

    genome: Genome
    chip: int = 0


@dataclass(frozen=True, slots=True)
class Evolution:
    """Options of one search."""

    bits: tuple[int, ...]
    chips: int
    objectives: int
    population: int
    offspring: int
    generations: int
    seed: int


def evolve(
    options: Evolution,
    start: Sequence[Setting],
    evaluate: Callable[[Sequence[Setting]], FloatArray],
    after: Callable[[int], None] = lambda _generation: None,
) -> None:
    """Run the search; `evaluate` sees every setting and returns its objectives, all to minimise.

    The same seed and the same objectives give the same settings in the same order, so that a run
    whose evaluations are remembered is repeated exactly.

    Args:
        options: bits, sizes and seed.
        start: settings of the first generation.
        evaluate: shape (settings, objectives).
        after: called with the number of each finished generation, the first being 0.
    """
    first = [_encoded(setting) for setting in start]
    problem = _Bits(options, len(first[0]), evaluate)
    algorithm = NSGA2(
        pop_size=options.population,
        n_offsprings=options.offspring,
        sampling=np.array(first),
        mating=_PaperMating(options),
    )
    algorithm.setup(problem, termination=("n_gen", options.generations + 1), seed=options.seed)
    while algorithm.has_next():
        algorithm.next()
        after(algorithm.n_gen - 2)


def _encoded(setting: Setting) -> list[int]:
    return [*(bits for gene in setting.genome for bits in gene), setting.chip]


def _decoded(row: Sequence[int]) -> Setting:
    pairs = np.asarray(row[:-1], dtype=np.int64).reshape(-1, 2)
    return Setting(as_genome(pairs.tolist()), int(row[-1]))


class _Bits(Problem):  # type: ignore[misc]  # pymoo has no types
    """Integer variables: two per layer, then the chip."""

    def __init__(
        self,
        options: Evolution,
        variables: int,
        evaluate: Callable[[Sequence[Setting]], FloatArray],
    ) -> None:
        lower = np.full(variables, min(options.bits))
        upper = np.full(variables, max(options.bits))
        lower[-1], upper[-1] = 0, options.chips - 1
        super().__init__(n_var=variables, n_obj=options.objectives, xl=lower, xu=upper, vtype=int)
        self.measure = evaluate

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        out["F"] = self.measure([_decoded(row) for row in x])


class _PaperMating(InfillCriterion):  # type: ignore[misc]  # pymoo has no types
    """Makes offspring by the paper's operators."""

    def __init__(self, options: Evolution) -> None:
        super().__init__(eliminate_duplicates=DefaultDuplicateElimination())
        self.options = options
        self.random = np.random.default_rng(options.seed)

    def _do(self, problem: Any, pop: Any, n_offsprings: int, **kwargs: Any) -> Any:  # noqa: ARG002
        parents = pop.get("X")
        return Population.new("X", np.array([self._child(parents) for _ in range(n_offsprings)]))

    def _child(self, parents: NDArray[np.int64]) -> NDArray[np.int64]:
        draw, bits = self.random, np.array(self.options.bits)
        pair = parents[draw.integers(len(parents), size=2)]
        layers = (parents.shape[1] - 1) // 2
        inherits = draw.random(layers) < FROM_PARENTS
        side = draw.integers(2, size=layers)
        child: NDArray[np.int64] = pair[draw.integers(2)].copy()
        genes = pair[:, :-1].reshape(2, layers, 2)
        taken = genes[side, np.arange(layers)]
        child[:-1] = np.where(inherits[:, None], taken, bits.max()).reshape(-1)
        if draw.random() < RANDOM_LAYER:
            layer = draw.integers(layers)
            child[2 * layer : 2 * layer + 2] = draw.choice(bits, size=2)
        if draw.random() < RANDOM_LAYER:
            child[-1] = draw.integers(self.options.chips)
        return child
