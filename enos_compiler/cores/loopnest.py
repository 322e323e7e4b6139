# SPDX-License-Identifier: Apache-2.0
"""A digital core whose layers run as the best loop nest over its storage hierarchy.

The target's file states storage levels, fan-outs, wires and constraints; the mapper finds the nest
of least energy (or latency, or their product) of each layer, and the nest's counts are the events:

    core.LEVEL/read_weights       block accesses, likewise fill_ and update_, by tensor
    core.LEVEL/address            generated addresses, where they have a price
    core.LEVEL_wires/half_hop     operands x hops x 2, likewise router (words through routers)
    core.element/mac              taps, those of padded bounds included; or, by formula, their
    core.element/multiply_8x8     elementary operations
    core.post/...                 requantisation of each output, apart from the nest

A nest ends at the homes of its tensors: DRAM, the chip's shared buffer, or the core's weight memory
for weights that stay; accesses there are booked with the memory. An operator with two partial sums
per output (mf, ef) keeps both side by side: a sum of twice the width, in room and in traffic.
Inputs count as their bounding box, padding included, as in the reference's rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, ClassVar

from enos_compiler.cores.arithmetic import accumulators, multiplier_um2
from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.layerwork import offer, operator_refusal, requantisation
from enos_compiler.cores.loopnest_spec import (
    OUTERMOST,
    SHARED,
    WEIGHT_MEMORY,
    LoopNestSpec,
    packed_bits,
)
from enos_compiler.cores.memory import Array, Chip, Traffic
from enos_compiler.cores.nest_data import (
    nest_actions,
    nest_detail,
    nest_prices,
    read_mapping,
)
from enos_compiler.cores.nest_element import Element
from enos_compiler.cores.nest_homes import (
    RESIDENT,
    NestHomes,
    NestTask,
    nest_homes,
)
from enos_compiler.cores.nest_search import NestSearch
from enos_compiler.cores.prices import PriceList
from enos_compiler.cores.steps import LayerWork, work_cycles
from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import TENSORS, LayerShape
from enos_compiler.mapping.explain import explain
from enos_compiler.mapping.mapper import MapResult
from enos_compiler.mapping.nest import MappingError, Nest
from enos_compiler.mapping.padding import padded_shape
from enos_compiler.mapping.prices import Widths

_PLACES = {OUTERMOST: "DRAM", SHARED: "the shared buffer", WEIGHT_MEMORY: "the weight memory"}


class LoopNestCore(NestSearch):
    """Executes layers as loop nests on multiply-accumulate elements."""

    kind: ClassVar[str] = "loop-nest"
    Spec: ClassVar[type[LoopNestSpec]] = LoopNestSpec

    def __init__(self, name: str, spec: LoopNestSpec, chip: Chip) -> None:
        super().__init__(name, spec, chip)
        self.element = Element(name, spec.element, chip.arithmetic)
        self.weight_memory = (
            Array(name, WEIGHT_MEMORY, spec.weight_memory) if spec.weight_memory else None
        )
        kept = self.weight_memory.prices if self.weight_memory else {}
        self.prices = PriceList(
            name,
            chip.arithmetic,
            frozenset({"post", "element"}),
            {**nest_prices(name, spec), **kept},
        )

    # What it takes

    def choices(
        self, layer: Layer, operators: Iterable[str], widths: Iterable[Bits], *, signed_input: bool
    ) -> Iterator[Choice | Refusal]:
        """Yield what this core takes of a layer, and why not the rest."""
        widths = tuple(widths)
        keepable = self.weight_memory is not None and not layer.shape.activation_product
        options = ((), RESIDENT) if keepable else ((),)
        for name in operators:
            reason = self.element.refusal(name) or operator_refusal(
                layer, name, signed_input=signed_input
            )
            if reason:
                yield Refusal(self.name, name, reason)
                continue
            yield from offer(
                self.name, layer, name, widths, options, lambda c: self._too_large(layer, c)
            )

    def _too_large(self, layer: Layer, choice: Choice) -> str | None:
        limit = self.spec.element.operand_bits.value
        if max(choice.bits.input, choice.bits.weight) > limit:
            return (
                f"operands of {choice.bits.input} x {choice.bits.weight} bits, "
                f"the elements take {limit}"
            )
        if reason := self._too_wide(layer, choice):
            return reason
        memory = self._resident(choice)
        if memory and not memory.holds(*self._held(layer, choice)):
            return (
                f"{layer.shape.volume('Weights')} weights of {choice.bits.weight} bits do not fit "
                f"the weight memory of {memory.capacity_bits} bits"
            )
        return None

    def _too_wide(self, layer: Layer, choice: Choice) -> str | None:
        """Return why the adders or some words do not take the partial sums, or None."""
        sums, width = accumulators(choice.operator, choice.bits, layer.shape.taps)
        wanted = f"{sums} x {width}" if sums > 1 else f"{width}"
        asked = (
            f"partial sums of {layer.shape.taps} taps at {choice.bits.input} x "
            f"{choice.bits.weight} bits need {wanted} bits"
        )
        adders = self.spec.element.sum_bits
        if adders and width > adders.value:
            return f"{asked}, the adders have {adders.value}"
        held = self.widths(layer.shape, choice).of("Outputs", finished=False)
        for spec, level in zip(self.machine.levels, self.space.levels, strict=True):
            if "Outputs" in level.keep and held > spec.word_bits:
                return f"{asked}, a word of {spec.name} has {spec.word_bits}"
        return None

    def _resident(self, choice: Choice) -> Array | None:
        """Return the memory that keeps the choice's weights for good, if it does."""
        return self.weight_memory if choice.options == RESIDENT else None

    def _held(self, layer: Layer, choice: Choice) -> tuple[int, int]:
        """Return the weights of a layer and the bits that each takes in a word."""
        held = packed_bits(choice.bits.weight, self.spec.code_unit)
        return layer.shape.volume("Weights"), held

    # What it costs

    def widths(self, shape: LayerShape, choice: Choice, output_bits: int | None = None) -> Widths:
        """Return the widths that operands take in words, packing included.

        Several partial sums of an output lie side by side and take the width of all.
        """
        spec = self.spec
        outputs = packed_bits(output_bits or choice.bits.output, spec.code_unit)
        sums, width = accumulators(choice.operator, choice.bits, shape.taps)
        if spec.partial_sums == "output":
            width = outputs
        return Widths(
            weights=packed_bits(choice.bits.weight, spec.code_unit),
            inputs=packed_bits(choice.bits.input, spec.code_unit),
            outputs=outputs,
            partial_sums=sums * packed_bits(width, spec.sum_unit),
        )

    def task(self, layer: Layer, choice: Choice, homes: Homes | None = None) -> NestTask:
        """Return what a choice asks of the mapper; without homes, all operands rest in DRAM."""
        return NestTask(
            layer.shape,
            self.widths(layer.shape, choice, homes.output_bits if homes else None),
            self.element.tap_pj(choice, layer.shape.taps),
            nest_homes(choice, homes, self.chip),
        )

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:
        """Return the events and cycles of the best nest, which is kept as the detail.

        Raises:
            InfeasibleError: no nest fits the levels and constraints; names the smallest level.
        """
        task = self.task(layer, choice, homes)
        return self._cost(layer, choice, task, self.best(task))

    def explain(
        self,
        layer: Layer,
        choice: Choice,
        detail: Mapping[str, Any],
        *,
        nests: int | None = None,
    ) -> str:
        """Draw the mapping that `cost` found: loops, accesses, energies, proof, in 80 columns.

        The best mapping with other spatial factors is looked for, to stand beside it.

        Args:
            layer: what was mapped.
            choice: how it is executed.
            detail: `CoreCost.detail`, or the layer's mapping.
            nests: how many nests the mapspace holds, where `count_nests` counted them.
        """
        result = read_mapping(layer.shape, detail)
        task = NestTask(
            result.shape,
            Widths(**detail["bits"]),
            self.element.tap_pj(choice, layer.shape.taps),
            NestHomes(**detail["homes"]),
        )
        machine = self.hierarchy(task.homes).priced(task.tap_pj)
        padded = result.shape.bounds != layer.shape.bounds
        head = f"{layer.shape}, its bounds padded\n"[-80:] if padded else ""
        return head + explain(
            result,
            machine,
            widths=task.widths,
            rule=self.rule,
            runner_up=self._runner_up(task, result.nest),
            nests=nests,
        )

    def _runner_up(self, task: NestTask, nest: Nest) -> MapResult | None:
        try:
            return self.map(task, without=nest)
        except InfeasibleError:
            return None

    def cost_of_nest(
        self, layer: Layer, choice: Choice, nest: Nest, homes: Homes | None = None
    ) -> CoreCost:
        """Return the events and cycles of a nest that is given; without homes, one from DRAM.

        Its factors may multiply to more than a bound, as far as the core pads: the rest is zeros.

        Raises:
            MappingError: the nest does not compute the layer or does not fit the core.
        """
        task = self.task(layer, choice, homes)
        self._check_levels(nest, task.homes)
        machine = self.hierarchy(task.homes).machine
        shape = padded_shape(layer.shape, nest, self.padding_percent / 100)
        task = replace(task, shape=shape)
        events = self.count(task, nest)
        detail = nest_detail(task, nest, events, machine)
        found = {"events": nest_actions(events, machine), "cycles": events.cycles}
        return self._cost(layer, choice, task, {**found, "detail": detail})

    def _check_levels(self, nest: Nest, homes: NestHomes) -> None:
        """Refuse a nest for another hierarchy, or one that ends elsewhere than at the homes."""
        levels = self.hierarchy(homes).machine.levels
        if len(nest.levels) != len(levels):
            raise MappingError(
                f"a nest of {len(nest.levels)} levels on {len(levels)}",
                level=self.name,
                needed=len(nest.levels),
                available=len(levels),
                remedy="levels " + ", ".join(level.name for level in levels),
            )
        for tensor in TENSORS:
            home = homes.of(tensor)
            kept = [s.name for s, v in zip(levels, nest.levels, strict=True) if tensor in v.keep]
            if home not in kept:
                raise MappingError(
                    f"{tensor} rest in {_PLACES[home]}, and the nest does not keep them there",
                    level=home,
                    tensor=tensor,
                    needed=1,
                    available=0,
                    remedy=f"keep {tensor} at {home}",
                )
            if kept[-1] != home:
                raise MappingError(
                    f"{tensor} rest in {_PLACES[home]}, and the nest keeps them further out",
                    level=kept[-1],
                    tensor=tensor,
                    needed=1,
                    available=0,
                    remedy=f"keep {tensor} up to {home} only",
                )

    def _cost(
        self, layer: Layer, choice: Choice, task: NestTask, found: Mapping[str, Any]
    ) -> CoreCost:
        """Return the cost of a counted nest and of the requantisation behind it.

        Its cycles are those of its steps, fill and drain included; the nest's own count, which
        takes all transfers to overlap, stays in the detail.
        """
        events: Counter[Action] = Counter(requantisation(self.name, layer, choice))
        for action, count in found["events"].items():
            if action == "element/tap":
                events += self.element.events(choice, layer.shape.taps, count)
            else:
                events[self._booked(action)] += count
        work = LayerWork.from_detail(found["detail"]["work"]).booked(self._booked)
        inference = Cost(
            events=dict(sorted(events.items())),
            cycles=work_cycles(layer.shape, work),
            clock_ns=self.chip.clock_ns,
            area_um2=self.area_um2(),
        )
        detail = {**found["detail"], "bits": asdict(task.widths), "work": work.as_detail()}
        memory = self._resident(choice)
        programming = self._programming(layer, choice, memory) if memory else Cost()
        return CoreCost(inference, programming, detail)

    def _programming(self, layer: Layer, choice: Choice, memory: Array) -> Cost:
        """Return the cost of writing weights that stay: read from DRAM, written once."""
        weights, bits = self._held(layer, choice)
        traffic = Traffic(self.chip)
        traffic.read(self.chip.dram, weights, bits)
        held = memory.words(weights, bits)
        return Cost(
            events={memory.write: held, **traffic.events},
            cycles=max(held, traffic.cycles),
            clock_ns=self.chip.clock_ns,
        )

    def _booked(self, action: str) -> Action:
        """Return the name under which an access of a nest is booked."""
        component, _, what = action.partition("/")
        home = self._homes.get(component)
        if home is None:
            return f"{self.name}.{action}"
        return home.read if what.startswith("read") else home.write

    @cached_property
    def _homes(self) -> dict[str, Array]:
        """Memories that nests end at, by level."""
        found = {OUTERMOST: self.chip.memories[self.chip.dram]}
        if self.chip.shared:
            found[SHARED] = self.chip.memories[self.chip.shared]
        if self.weight_memory:
            found[WEIGHT_MEMORY] = self.weight_memory
        return found

    # What it is

    def peak_macs_per_ns(self, choice: Choice) -> float:  # noqa: ARG002  # the contract's parameter
        """Return the speed of all elements: one tap a cycle each."""
        return self.machine.compute.instances / self.chip.clock_ns

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event of this core in pJ."""
        return self.prices.look_up(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self.prices.look_up(action)[1]

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, int]:
        """Return the words of the weight memory that resident weights hold for good."""
        memory = self._resident(choice)
        return {"weight_words": memory.words(*self._held(layer, choice))} if memory else {}

    def capacities(self) -> Mapping[str, int]:
        """Return the words of the weight memory, where the core has one."""
        memory = self.weight_memory
        return {"weight_words": memory.capacity_bits // memory.word_bits} if memory else {}

    def leakage_mw(self) -> float:
        """Return the leakage power of the whole core in mW, from its area."""
        return self.chip.leakage_mw(self.area_um2())

    def area_um2(self) -> float:
        """Return the area of elements, levels, and one requantiser per column of elements."""
        formulas = self.chip.arithmetic
        post = self.machine.compute.mesh_x * multiplier_um2(32, 8, formulas)
        kept = float(self.spec.weight_memory.area_um2.value) if self.spec.weight_memory else 0.0
        return self.machine.area_um2 + post + kept
