# SPDX-License-Identifier: Apache-2.0
"""A core that samples Gaussian mixtures inside SRAM, many chains side by side.

A sampling layer of K components in D dimensions has the shape R = K, N = samples, M = C = D and
P = batch: its weights are the precision matrices, its multiply-accumulates one W_k d per sample.
Its events are those of `sampling.events`, the components' names kept:

    core.random/bit, core.dac/convert, core.array/cell, core.adc/convert, core.table/read
    core.array/word       one weight read as a word, for an exact refresh
    core.array/program    one weight written
    core.gradient/...     logic by elementary operations; likewise proposal, density, exponential,
                          decision and state
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.memory import Chip, Traffic
from enos_compiler.cores.prices import PriceList
from enos_compiler.cores.sampler_spec import SamplerSpec
from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer
from enos_compiler.ir.ops import SAMPLE_OPS
from enos_compiler.ir.shape import LayerShape
from enos_compiler.sampling.events import (
    LOGIC,
    chains_in,
    run_cycles,
    run_events,
    step_cycles,
    step_events,
)
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.run import Hardware

OPERATOR = "sample"
DRAWS_OF_A_CHAIN = 16
"""Kept samples below which another chain is not worth its burn-in, nor its convergence visible."""


class SamplerCore:
    """Runs Metropolis chains whose quadratic forms are read from SRAM arrays."""

    kind: ClassVar[str] = "sampler"
    Spec: ClassVar[type[SamplerSpec]] = SamplerSpec

    def __init__(self, name: str, spec: SamplerSpec, chip: Chip) -> None:
        self.name = name
        self.spec = spec
        self.chip = chip
        self.units = spec.units(chip.clock_ns)
        spec.form(1)  # a width that cannot be built is an error of the file, not of a layer
        self.prices = PriceList(name, chip.arithmetic, LOGIC, self._table())

    def _table(self) -> dict[Action, tuple[float, str]]:
        spec = self.spec
        figures = {
            "random/bit": spec.random.bit_pj,
            "dac/convert": spec.dac.energy_pj,
            "adc/convert": spec.adc.energy_pj,
            "table/read": spec.table.read_pj,
            "array/word": spec.array.word_pj,
            "array/program": spec.array.program_pj,
        }
        table = {
            f"{self.name}.{action}": (float(figure.value), str(figure.source))
            for action, figure in figures.items()
        }
        cell = spec.array.cell_read_fj
        table[f"{self.name}.array/cell"] = (cell.value * 1e-3, str(cell.source))
        return table

    # What it takes

    def choices(
        self,
        layer: Layer,
        operators: Iterable[str],
        widths: Iterable[Bits],
        *,
        signed_input: bool,  # noqa: ARG002  # the contract's form
    ) -> Iterator[Choice | Refusal]:
        """Yield sampling for a sampling layer, and why nothing else."""
        if layer.op not in SAMPLE_OPS:
            for name in operators:
                yield Refusal(self.name, name, "a sampler runs Markov chains, no sums of products")
            return
        try:
            chains = self.chains(layer.shape)
        except InfeasibleError as error:
            yield Refusal(self.name, OPERATOR, error.message)
            return
        weight = self.spec.words.weight_bits.value
        options = (("chains", chains),)
        for bits in dict.fromkeys(b._replace(weight=weight) for b in widths):
            yield Choice(self.name, OPERATOR, bits, options)

    def chains(self, shape: LayerShape) -> int:
        """Return how many chains run side by side: as many as fit and have draws enough each.

        Raises:
            InfeasibleError: an array does not hold one chain.
        """
        array = self.spec.array
        each = chains_in(
            self.spec.form(1), shape.r, shape.c, rows=array.rows.value, columns=array.columns.value
        )
        wanted = max(1, shape.n // DRAWS_OF_A_CHAIN)
        return min(each * int(array.count.value), wanted)

    def form(self, choice: Choice) -> SamplerForm:
        """Return the program's form under a choice."""
        return self.spec.form(dict(choice.options)["chains"])

    def hardware(self) -> Hardware:
        """Return what a device does beside its ideal."""
        return self.spec.hardware()

    # What it costs

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:
        """Return the events and cycles of all steps of all chains.

        A mixture that the network's output conditions is written into the array for each
        inference; a constant one stays.
        """
        shape, form = layer.shape, self.form(choice)
        steps = form.iterations(shape.n)
        events: Counter[Action] = Counter()
        for name, count in run_events(form, shape.r, shape.c, steps=steps).items():
            events[f"{self.name}.{name}"] += count * shape.p
        traffic = Traffic(self.chip)
        conditioned = layer.op == "sample_given"
        if conditioned:
            self._read_head(shape, choice, homes, traffic)
        traffic.write(
            homes.output.memory,
            shape.p * shape.n * shape.c,
            homes.output_bits or choice.bits.output,
        )
        written = {f"{self.name}.array/program": shape.volume("Weights") * form.chains}
        cycles = run_cycles(form, shape.r, shape.c, self.units, steps=steps) * shape.p
        if conditioned:
            events.update({name: count * shape.p for name, count in written.items()})
        cycles = max(cycles + self._write_cycles(shape) * conditioned * shape.p, traffic.cycles)
        events.update(traffic.events)
        programming = Cost() if conditioned else self._cost(written, self._write_cycles(shape))
        return CoreCost(
            self._cost(dict(sorted(events.items())), cycles),
            programming,
            self._detail(shape, form, steps),
        )

    def _read_head(self, shape: LayerShape, choice: Choice, homes: Homes, traffic: Traffic) -> None:
        """Read what conditions a mixture: logits, means, log deviations."""
        numbers = (shape.r, shape.r * shape.c, shape.r * shape.c)
        for home, count in zip(homes.inputs, numbers, strict=True):
            traffic.read(home.memory, shape.p * count, choice.bits.input)

    def _cost(self, events: Mapping[Action, int], cycles: int) -> Cost:
        return Cost(
            events=events,
            cycles=cycles,
            clock_ns=self.chip.clock_ns,
            area_um2=self.area_um2(),
        )

    def _write_cycles(self, shape: LayerShape) -> int:
        """Return the cycles of writing one chain's weights; chains are written side by side."""
        return shape.volume("Weights")

    def _detail(self, shape: LayerShape, form: SamplerForm, steps: int) -> dict[str, Any]:
        """Return how the chains lie in the arrays and what a step costs, for the report."""
        per_step = step_events(form, shape.r, shape.c)
        energy = sum(self.energy_pj(f"{self.name}.{n}") * c for n, c in per_step.items())
        return {
            "form": form.as_dict(),
            "components": shape.r,
            "dimensions": shape.c,
            "samples": shape.n,
            "steps": steps,
            "step_cycles": step_cycles(form, shape.r, shape.c, self.units),
            "step_pj": energy,
        }

    # What it is

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event of this core in pJ."""
        return self.prices.look_up(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self.prices.look_up(action)[1]

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, int]:  # the contract's form
        """Return the cells that a constant mixture keeps."""
        if layer.op == "sample_given":
            return {}
        weights = layer.shape.volume("Weights") * dict(choice.options)["chains"]
        return {f"{self.name}.cells": weights * int(self.spec.words.weight_bits.value)}

    def capacities(self) -> Mapping[str, int]:
        """Return the cells of all arrays."""
        array = self.spec.array
        return {f"{self.name}.cells": array.rows.value * array.columns.value * array.count.value}

    def leakage_mw(self) -> float:
        """Return the leakage power of the whole core in mW, from its area."""
        return self.chip.leakage_mw(self.area_um2())

    def area_um2(self) -> float:
        """Return the area of arrays, random cells, converters, tables and multipliers.

        Converters, tables and multipliers stand once for each chain of two components in two
        dimensions that fits, the smallest mixture that uses them all.
        """
        spec, array = self.spec, self.spec.array
        chains = array.count.value * min(
            array.rows.value // 2,
            max(1, array.columns.value // (4 * spec.words.weight_bits.value)),
        )
        cells = array.rows.value * array.columns.value * array.count.value
        multiplier = self.chip.arithmetic.multiply_8x8_um2.value
        each = (
            spec.dac.area_um2.value * spec.dac.per_chain.value
            + spec.adc.area_um2.value * spec.adc.per_chain.value
            + spec.table.area_um2.value
            + spec.random.area_um2.value * spec.random.uniform_bits.value
            + multiplier * spec.multipliers.value
        )
        return float(cells * array.cell_area_um2.value + chains * each)
