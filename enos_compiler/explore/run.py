# SPDX-License-Identifier: Apache-2.0
"""The search from end to end: tables, first generation, evolution, front, final tiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from enos_compiler.explore.accuracy import Recipe, Tier, TierName, measure
from enos_compiler.explore.evolution import Evolution, FloatArray, Setting, evolve
from enos_compiler.explore.front import Point, hypervolume, loss, minimised, pareto
from enos_compiler.explore.hardware import (
    HardwareTables,
    LayerQuestion,
    Placed,
    Table,
    build_tables,
    layer_table,
    place,
)
from enos_compiler.explore.journal import Journal
from enos_compiler.explore.noise import NoiseTables, greedy_front, noise_tables
from enos_compiler.explore.objectives import HARDWARE, ObjectiveName
from enos_compiler.explore.plan import BitPlan, Genome
from enos_compiler.explore.point import energy_parts
from enos_compiler.explore.vary import ChipRecipe
from enos_compiler.explore.workers import Workers
from enos_compiler.ir.network import Network

_REFERENCE = 1.1
"""Reference point of the hypervolume, in multiples of the worst uniform network's distance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is searched, for what, and how long."""

    chips: tuple[ChipRecipe, ...]
    objectives: tuple[ObjectiveName, ...]
    bits: tuple[int, ...]
    population: int
    offspring: int
    generations: int
    greedy: int
    """Settings of the greedy walk in the first generation."""
    seed: int
    tier: Tier
    """Of every setting."""
    final: Tier | None
    """Of the settings on the front, once it is found."""
    workers: Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration(Scope):
    """A scope with the network that is searched and what it starts from."""

    network: Network
    """Calibrated."""
    seeds: tuple[Genome, ...]
    """Settings of the gradient search in the first generation."""
    recipe: Recipe | None
    """For accuracy; none where it is no objective."""
    say: Callable[[str], None]

    def chip_number(self, point: Point) -> int:
        """Return which of the chips a point was priced on."""
        changes = dict(point.chip or {})
        return next(i for i, chip in enumerate(self.chips) if dict(chip.changes) == changes)


@dataclass(slots=True)
class Explored:
    """What a search found."""

    points: list[Point]
    """The front, in the order of its first objective, best first."""
    hypervolumes: list[float]
    """After each generation, as a share of the box between the ideal and the reference."""
    evaluations: int
    uniform: list[Point]
    """The networks with one width everywhere, on the first chip."""


@dataclass(slots=True)
class _Search:
    """Settings seen so far and what is known of them."""

    options: Exploration
    placed: tuple[Placed, ...]
    """By chip, like the tables."""
    tables: tuple[HardwareTables, ...]
    noise: NoiseTables | None
    journal: Journal
    origin: dict[Setting, str] = field(default_factory=dict)
    values: dict[Setting, dict[str, float]] = field(default_factory=dict)

    @property
    def plan(self) -> BitPlan:
        return self.tables[0].plan

    def evaluate(self, settings: Sequence[Setting], origin: str) -> FloatArray:
        """Return the objectives of settings, to minimise, and keep all that is known of them."""
        new = [s for s in dict.fromkeys(settings) if s not in self.values]
        known = self.hardware(new)
        accuracies = self.accuracies([s.genome for s in new], self.options.tier)
        for setting, values in zip(new, known, strict=True):
            if accuracies:
                values["accuracy"] = accuracies[setting.genome]
            self.origin[setting] = origin
            self.values[setting] = values
        names = self.options.objectives
        return np.array([[loss(self.values[s], name) for name in names] for s in settings])

    def hardware(self, settings: Sequence[Setting]) -> list[dict[str, float]]:
        """Return costs and noise of settings."""
        found: list[dict[str, float]] = [{} for _ in settings]
        for chip, tables in enumerate(self.tables):
            rows = [i for i, s in enumerate(settings) if s.chip == chip]
            if not rows:
                continue
            genomes = np.array([settings[i].genome for i in rows])
            columns: dict[ObjectiveName, Any] = tables.cost(genomes).columns()
            if self.noise is not None:
                columns["noise"] = self.noise.noise(genomes)
            for at, row in enumerate(rows):
                found[row] = {name: float(column[at]) for name, column in columns.items()}
        return found

    def accuracies(self, genomes: Sequence[Genome], tier: Tier) -> dict[Genome, float]:
        """Return accuracies, measuring those that the journal does not hold."""
        recipe = self.options.recipe
        if recipe is None:
            return {}
        label = tier_label(tier)
        distinct = list(dict.fromkeys(genomes))
        missing = [g for g in distinct if (label, g) not in self.journal.known]
        for genome, accuracy in self.options.workers.run(partial(measure, recipe, tier), missing):
            self.journal.add(label, genome, accuracy)
        return {g: self.journal.known[label, g] for g in distinct}

    def with_parts(self, points: Sequence[Point]) -> list[Point]:
        """Return points with their energy by memory and unit."""
        found = []
        for point in points:
            chip = self.options.chip_number(point)
            target = _built(self.options.chips[chip])
            parts = energy_parts(self.placed[chip], target, point.genome)
            found.append(replace(point, parts_pj=parts))
        return found

    def point(self, setting: Setting) -> Point:
        """Return a setting as a point of the front."""
        options, recipe = self.options, self.options.chips[setting.chip]
        return Point(
            bits=dict(zip(self.plan.names, setting.genome, strict=True)),
            objectives=self.values[setting],
            tier=options.tier.name if options.recipe else None,
            epochs=options.tier.epochs if options.recipe else 0,
            origin=self.origin[setting],
            chip=dict(recipe.changes) or None,
            target=recipe.target,
        )


def tier_label(tier: Tier) -> str:
    """Return a tier's name with its epochs, as the journal has it."""
    return f"{tier.name}-{tier.epochs}" if tier.epochs else tier.name


def explore(options: Exploration, journal: Journal | None = None) -> Explored:
    """Search; every accuracy is in the journal as soon as it is known.

    Raises:
        RefusalError: no core takes a layer at every width that is searched.
        InfeasibleError: a layer has no mapping at some width.
    """
    search = _prepare(options, journal or Journal())
    start = _first_generation(search)
    names = options.objectives
    volumes: list[float] = []
    uniform = [s for s in start if search.origin.get(s, "") == "uniform" and s.chip == 0]
    corner = search.evaluate(uniform, "uniform")
    low, high = corner.min(axis=0), corner.max(axis=0)
    span = np.where(high > low, high - low, 1.0)

    def after(generation: int) -> None:
        rows = np.array([[loss(v, n) for n in names] for v in search.values.values()])
        scaled = (rows - low) / span
        volume = hypervolume(scaled, np.full(len(names), _REFERENCE)) / _REFERENCE ** len(names)
        volumes.append(volume)
        count = len(search.values)
        options.say(f"generation {generation}: {count} settings, hypervolume {volume:.4f}")

    evolution = Evolution(
        bits=options.bits,
        chips=len(options.chips),
        objectives=len(names),
        population=options.population,
        offspring=options.offspring,
        generations=options.generations,
        seed=options.seed,
    )
    evolve(evolution, start, lambda settings: search.evaluate(settings, "nsga2"), after)
    settings = list(search.values)
    points = [search.point(s) for s in settings]
    front = [points[i] for i in pareto(minimised(points, names))]
    front = _finished(search, front)
    front.sort(key=lambda p: [loss(p.objectives, name) for name in names])
    alike = [search.point(s) for s in uniform]
    options.say("telling energies apart by memory")
    return Explored(search.with_parts(front), volumes, len(settings), search.with_parts(alike))


def _prepare(options: Exploration, journal: Journal) -> _Search:
    """Return the search with its tables."""
    tables, everywhere = [], []
    for chip in options.chips:
        target = chip.build()
        placed = place(options.network, target, options.bits)
        everywhere.append(placed)
        options.say(
            f"pricing {len(placed.network.layers)} layers on {target.name}"
            + "".join(f", {path}={value}" for path, value in chip.changes)
        )
        answer = partial(_priced, chip, options.bits, options.workers)
        tables.append(build_tables(placed, target, options.bits, answer))
    noise = None
    if "noise" in options.objectives or options.greedy:
        options.say("scoring layers")
        noise = noise_tables(placed, options.bits, options.seed)
    return _Search(options, tuple(everywhere), tuple(tables), noise, journal)


def _priced(
    chip: ChipRecipe, bits: tuple[int, ...], workers: Workers, questions: Sequence[LayerQuestion]
) -> list[Table]:
    """Answer questions of prices on the workers, in order."""
    numbers = list(range(len(questions)))
    function = partial(_table, chip, bits, tuple(questions))
    found = dict(workers.run(function, numbers))
    return [found[number] for number in numbers]


def _table(
    chip: ChipRecipe, bits: tuple[int, ...], questions: tuple[LayerQuestion, ...], number: int
) -> Table:
    return layer_table(_built(chip), questions[number], bits)


@lru_cache(maxsize=4)
def _built(chip: ChipRecipe) -> Any:
    """Return a worker's chip."""
    return chip.build()


def _first_generation(search: _Search) -> list[Setting]:
    """Return the uniform networks on every chip; on the first also the gradient and greedy ones."""
    options = search.options
    uniform = [
        Setting(search.plan.uniform(bits), chip)
        for chip in range(len(options.chips))
        for bits in options.bits
    ]
    search.evaluate(uniform, "uniform")
    gradient = [Setting(genome) for genome in options.seeds]
    if gradient:
        search.evaluate(gradient, "gradient")
    start = list(dict.fromkeys([*uniform, *gradient]))
    if not options.greedy or search.noise is None:
        return start
    name: ObjectiveName = next((n for n in options.objectives if n in HARDWARE), "edp")
    widest = search.plan.uniform(max(options.bits))

    def cost(genomes: Any) -> FloatArray:
        return search.tables[0].cost(genomes).columns()[name].astype(np.float64)

    walk = greedy_front(widest, options.bits, search.noise.noise, cost, options.greedy)
    greedy = [Setting(genome) for genome in walk]
    search.evaluate(greedy, "greedy")
    return list(dict.fromkeys([*start, *greedy]))


def _finished(search: _Search, front: list[Point]) -> list[Point]:
    """Return the front with the accuracies of the final tier, and what it still holds then."""
    final = search.options.final
    if final is None or search.options.recipe is None or not front:
        return front
    search.options.say(f"{tier_label(final)} of {len(front)} points")
    found = search.accuracies([p.genome for p in front], final)
    name: TierName = final.name
    points = [
        replace(
            p,
            objectives={**p.objectives, "accuracy": found[p.genome]},
            tier=name,
            epochs=final.epochs,
        )
        for p in front
    ]
    kept = pareto(minimised(points, search.options.objectives))
    return [points[i] for i in kept]
