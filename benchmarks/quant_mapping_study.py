# SPDX-License-Identifier: Apache-2.0
"""The measurements of `quant_mapping.py`: fronts of bits, their costs, their accuracies by tier."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.cores.target import Target, load_target
from enos_compiler.explore.accuracy import Tier, measured
from enos_compiler.explore.evolution import Evolution, Setting, evolve
from enos_compiler.explore.front import pareto
from enos_compiler.explore.hardware import HardwareTables, Placed, build_tables, place
from enos_compiler.explore.journal import Journal
from enos_compiler.explore.noise import NoiseTables, greedy_front, noise_tables
from enos_compiler.explore.objectives import ObjectiveName
from enos_compiler.explore.plan import Genome
from enos_compiler.explore.point import energy_parts
from enos_compiler.explore.run import tier_label
from enos_compiler.frontend.data import Data
from enos_compiler.ir.network import Network

TARGETS = ("eyeriss", "simba")
GREEDY = 16
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far the search and the trainings go."""

    bits: tuple[int, ...]
    population: int
    generations: int
    tune_epochs: int
    full_epochs: int
    seed: int


@dataclass
class Bench:
    """One network on both chips."""

    name: str
    network: Network
    sizes: Sizes
    cache: Path | None = None
    tables: dict[str, HardwareTables] = field(default_factory=dict)
    placed: dict[str, Placed] = field(default_factory=dict)
    chips: dict[str, Target] = field(default_factory=dict)

    def price(self) -> dict[str, float]:
        """Build the tables of every chip; return the processor seconds that each took."""
        spent = {}
        for name in TARGETS:
            started = time.process_time()
            chip = load_target(name, objective="energy", mapping_cache=self.cache)
            self.chips[name] = chip
            self.placed[name] = place(self.network, chip, self.sizes.bits)
            self.tables[name] = build_tables(self.placed[name], chip, self.sizes.bits)
            spent[name] = time.process_time() - started
            say(f"{self.name} on {name}: tables in {spent[name]:.0f} s of processor time")
        return spent

    @cached_property
    def noise(self) -> NoiseTables:
        """Sensitivity of every layer by width."""
        say(f"{self.name}: scoring layers")
        return noise_tables(self.placed[TARGETS[0]], self.sizes.bits, self.sizes.seed)

    def uniform(self, bits: int) -> Genome:
        """Return the network with one width everywhere."""
        return self.tables[TARGETS[0]].plan.uniform(bits)

    def cost(self, target: str, name: ObjectiveName, genomes: Any) -> FloatArray:
        """Return one cost of settings on a chip."""
        return self.tables[target].cost(genomes).columns()[name].astype(np.float64)

    def front(self, target: str, cost: ObjectiveName, noise: Any) -> list[Genome]:
        """Return the settings of least noise and cost that NSGA-II finds, quietest first."""
        seen: dict[Setting, FloatArray] = {}

        def evaluate(settings: Sequence[Setting]) -> FloatArray:
            genomes = np.array([s.genome for s in settings])
            rows = np.stack([noise(genomes), self.cost(target, cost, genomes)], axis=1)
            seen.update(zip(settings, rows, strict=True))
            return rows

        sizes = self.sizes
        start = [Setting(self.uniform(b)) for b in sizes.bits]
        walk = greedy_front(
            self.uniform(max(sizes.bits)),
            sizes.bits,
            noise,
            lambda g: self.cost(target, cost, g),
            GREEDY,
        )
        start += [Setting(genome) for genome in walk]
        options = Evolution(
            sizes.bits, 1, 2, sizes.population, sizes.population, sizes.generations, sizes.seed
        )
        evolve(options, list(dict.fromkeys(start)), evaluate)
        settings, rows = list(seen), np.array(list(seen.values()))
        kept = sorted(pareto(rows), key=lambda i: (rows[i][0], rows[i][1]))
        say(f"{self.name} on {target} by noise and {cost}: {len(kept)} of {len(settings)} settings")
        return [settings[i].genome for i in kept]

    def parts_mj(self, target: str, genome: Genome) -> Mapping[str, float]:
        """Return the energy of a setting in mJ by memory and unit."""
        parts = energy_parts(self.placed[target], self.chips[target], genome)
        return {name: pj * 1e-9 for name, pj in parts.items()}


@dataclass(frozen=True, slots=True)
class Trials:
    """Images that accuracies are found with, and those that are found already."""

    data: Data
    journal: Journal


@dataclass
class Accuracies:
    """Measures accuracies on the validation split, each once: journals keep them."""

    bench: Bench
    short: Trials
    """Of the proxy and of short training."""
    full: Trials

    def __call__(self, tier: Tier, genome: Genome) -> float:
        """Return the share of right answers."""
        trials = self.full if tier.name == "full" else self.short
        label, known = tier_label(tier), trials.journal.known
        if (label, genome) not in known:
            started = time.process_time()
            network, seed = self.bench.network, self.bench.sizes.seed
            found = measured(network, trials.data, tier, genome, seed=seed, images=None)
            trials.journal.add(label, genome, found.fraction)
            spent = time.process_time() - started
            say(f"{self.bench.name} {label}: {found.fraction:.2%} ({spent:.0f} s)")
        return known[label, genome]


def saving(bench: Bench, target: str, genomes: Sequence[Genome]) -> FloatArray:
    """Return the share of the uniform 8-bit network's energy that settings save."""
    whole = bench.cost(target, "energy", [bench.uniform(8)])[0]
    return 1.0 - bench.cost(target, "energy", genomes) / whole


def at_saving(bench: Bench, target: str, genomes: Sequence[Genome], least: float) -> Genome | None:
    """Return the setting of least noise that saves at least a share of energy."""
    enough = [g for g, s in zip(genomes, saving(bench, target, genomes), strict=True) if s >= least]
    if not enough:
        return None
    noises = bench.noise.noise(enough)
    return enough[int(np.argmin(noises))]


def flat_noise(genomes: Any) -> FloatArray:
    """Return a noise that knows no network: 4 ** -bits of every operand, all layers alike.

    The mean square of a rounding error falls by four with every bit; where weights are random, no
    more can be said.
    """
    bits: NDArray[np.float64] = np.asarray(genomes, dtype=np.float64)
    return np.asarray((4.0**-bits).sum(axis=(1, 2)))


def say(line: str) -> None:
    """Print progress with the time of day."""
    print(f"  {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
