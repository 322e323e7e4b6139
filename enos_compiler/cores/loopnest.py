# SPDX-License-Identifier: Apache-2.0
"""A digital core whose layers run as the best loop nest over its storage hierarchy.

The target's file states storage levels, fan-outs, wires and constraints; the mapper finds the nest
of least energy (or latency, or their product) of each layer, and the nest's counts are the events:

    core.LEVEL/read_weights       block accesses, likewise fill_ and update_, by tensor
    core.LEVEL/address            generated addresses, where they have a price
    core.LEVEL_wires/half_hop     operands x hops x 2, likewise router (words through routers)
    core.element/mac              taps, those of padded bounds included
    core.post/...                 requantisation of each output, apart from the nest

The outermost level is the chip's DRAM, and its accesses are booked there. All homes are in DRAM.
Inputs count as their bounding box, padding included, as in the reference's rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from enos_compiler.cores.arithmetic import accumulators, multiplier_um2
from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.layerwork import offer, operator_refusal, requantisation
from enos_compiler.cores.loopnest_spec import (
    OUTERMOST,
    LoopNestSpec,
    build_machine,
    build_space,
    packed_bits,
    with_operator,
)
from enos_compiler.cores.map_cache import recall
from enos_compiler.cores.memory import Chip
from enos_compiler.cores.nest_data import certificate_data, nest_actions, nest_detail, read_mapping
from enos_compiler.cores.prices import PriceList
from enos_compiler.errors import SpecError
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import TENSORS, LayerShape
from enos_compiler.mapping.count import EXACT, PLAIN, REFERENCE, CountingRule
from enos_compiler.mapping.engine import Engine
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.explain import explain
from enos_compiler.mapping.layer import count_layer
from enos_compiler.mapping.mapper import MapResult, map_layer
from enos_compiler.mapping.nest import MappingError, Nest
from enos_compiler.mapping.objective import Objective
from enos_compiler.mapping.padding import map_padded, padded_shape
from enos_compiler.mapping.prices import Widths
from enos_compiler.mapping.size import count_mappings

_RULES: Mapping[str, CountingRule] = {"reference": REFERENCE, "plain": PLAIN, "exact": EXACT}


class LoopNestCore:
    """Executes layers as loop nests on multiply-accumulate elements."""

    kind: ClassVar[str] = "loop-nest"
    Spec: ClassVar[type[LoopNestSpec]] = LoopNestSpec
    simple_model: ClassVar[bool] = False

    def __init__(self, name: str, spec: LoopNestSpec, chip: Chip) -> None:
        if chip.shared is not None:
            raise SpecError(
                f"the chip has the shared memory {chip.shared}, but nests of {name} end in DRAM",
                place=f"core {name}",
                remedy="make it a level of the core",
            )
        self.name = name
        self.spec = spec
        self.chip = chip
        self.dram = chip.memories[chip.dram]
        self.objective: Objective = spec.objective
        self.mapping_cache: Path | None = None
        self.padding_percent = int(spec.padding_percent.value) if spec.padding_percent else 0
        self.machine = build_machine(name, spec, self.dram, chip.bits_per_cycle[chip.dram])
        self.space = build_space(self.machine, spec)
        self.prices = PriceList(name, chip.arithmetic, frozenset({"post"}), self._table())

    # What it takes

    def choices(
        self, layer: Layer, operators: Iterable[str], widths: Iterable[Bits], *, signed_input: bool
    ) -> Iterator[Choice | Refusal]:
        """Yield what this core takes of a layer, and why not the rest."""
        widths = tuple(widths)
        for name in operators:
            reason = self._no_operator(name) or operator_refusal(
                layer, name, signed_input=signed_input
            )
            if reason:
                yield Refusal(self.name, name, reason)
                continue
            yield from offer(
                self.name, layer, name, widths, ((),), lambda c: self._too_wide(layer, c)
            )

    def _no_operator(self, name: str) -> str | None:
        if name not in self.spec.element.operator_pj:
            known = ", ".join(sorted(self.spec.element.operator_pj))
            return f"its elements have an energy for {known} only"
        return None

    def _too_wide(self, layer: Layer, choice: Choice) -> str | None:
        sums, width = accumulators(choice.operator, choice.bits, layer.shape.taps)
        if sums > 1:
            return f"{choice.operator} has {sums} partial sums per output, a nest has one"
        limit = self.spec.element.operand_bits.value
        if max(choice.bits.input, choice.bits.weight) > limit:
            return (
                f"operands of {choice.bits.input} x {choice.bits.weight} bits, "
                f"the elements take {limit}"
            )
        widths = self.widths(layer.shape, choice)
        for spec, level in zip(self.machine.levels, self.space.levels, strict=True):
            if "Outputs" in level.keep and widths.of("Outputs", finished=False) > spec.word_bits:
                return (
                    f"partial sums of {layer.shape.taps} taps at {choice.bits.input} x "
                    f"{choice.bits.weight} bits need {width} bits, a word of {spec.name} has "
                    f"{spec.word_bits}"
                )
        return None

    # What it costs

    def widths(self, shape: LayerShape, choice: Choice, output_bits: int | None = None) -> Widths:
        """Return the widths that operands take in words, packing included."""
        unit = int(self.spec.packing_bits.value)
        outputs = packed_bits(output_bits or choice.bits.output, unit)
        _, width = accumulators(choice.operator, choice.bits, shape.taps)
        return Widths(
            weights=packed_bits(choice.bits.weight, unit),
            inputs=packed_bits(choice.bits.input, unit),
            outputs=outputs,
            partial_sums=packed_bits(width, unit) if self.spec.partial_sums == "exact" else None,
        )

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:
        """Return the events and cycles of the best nest, which is kept as the detail.

        Raises:
            InfeasibleError: no nest fits the levels and constraints; names the smallest level.
        """
        widths = self.widths(layer.shape, choice, homes.output_bits)
        found = recall(
            self._question(layer.shape, choice.operator, widths),
            lambda: self._answer(layer.shape, choice.operator, widths),
            self.mapping_cache,
        )
        return self._cost(layer, choice, found)

    def explain(
        self,
        layer: Layer,
        choice: Choice,
        detail: Mapping[str, Any],
        *,
        runner_up: bool = False,
        nests: int | None = None,
    ) -> str:
        """Draw the mapping that `cost` found: loops, accesses, energies, proof, in 80 columns.

        Args:
            layer: what was mapped.
            choice: how it is executed.
            detail: `CoreCost.detail`, or the layer's mapping.
            runner_up: look for the best mapping with other spatial factors as well.
            nests: how many nests the mapspace holds, where `count_nests` counted them.
        """
        result = read_mapping(layer.shape, detail)
        widths = self.widths(layer.shape, choice)
        other = (
            self.map(result.shape, choice.operator, widths, without=result.nest)
            if runner_up
            else None
        )
        machine = with_operator(self.machine, self.spec, choice.operator)
        padded = result.shape.bounds != layer.shape.bounds
        head = f"{layer.shape}, its bounds padded\n"[-80:] if padded else ""
        return head + explain(
            result,
            machine,
            widths=widths,
            rule=_RULES[self.spec.counting],
            runner_up=other,
            nests=nests,
        )

    def count_nests(self, shape: LayerShape, widths: Widths) -> int:
        """Return how many nests the mapspace of a layer holds; seconds to minutes."""
        return count_mappings(shape, self.machine, space=self.space, widths=widths)

    def cost_of_nest(self, layer: Layer, choice: Choice, nest: Nest) -> CoreCost:
        """Return the events and cycles of a nest that is given.

        Its factors may multiply to more than a bound, as far as the core pads: the rest is zeros.

        Raises:
            MappingError: the nest does not compute the layer or does not fit the core.
        """
        self._check_levels(nest)
        widths = self.widths(layer.shape, choice)
        shape = padded_shape(layer.shape, nest, self.padding_percent / 100)
        events = self.count(shape, nest, widths)
        detail = nest_detail(shape, nest, events, self.machine, widths)
        found = {"events": nest_actions(events, self.machine), "cycles": events.cycles}
        return self._cost(layer, choice, {**found, "detail": detail})

    def _check_levels(self, nest: Nest) -> None:
        """Refuse a nest for another hierarchy, or one that leaves a tensor without a home."""
        if len(nest.levels) != len(self.machine.levels):
            raise MappingError(
                f"a nest of {len(nest.levels)} levels on {len(self.machine.levels)}",
                level=self.name,
                needed=len(nest.levels),
                available=len(self.machine.levels),
                remedy="levels " + ", ".join(level.name for level in self.machine.levels),
            )
        for tensor in TENSORS:
            if tensor not in nest.levels[-1].keep:
                raise MappingError(
                    f"{tensor} rest in DRAM, and the nest does not keep them there",
                    level=OUTERMOST,
                    tensor=tensor,
                    needed=1,
                    available=0,
                    remedy=f"keep {tensor} at the last level",
                )

    def _cost(self, layer: Layer, choice: Choice, found: Mapping[str, Any]) -> CoreCost:
        """Return the cost of a counted nest and of the requantisation behind it."""
        events: Counter[Action] = Counter(requantisation(self.name, layer, choice))
        for action, count in found["events"].items():
            events[self._booked(action, choice.operator)] += count
        inference = Cost(
            events=dict(sorted(events.items())),
            cycles=found["cycles"],
            clock_ns=self.chip.clock_ns,
            area_um2=self.area_um2(),
        )
        return CoreCost(inference, detail=found["detail"])

    def map(
        self,
        shape: LayerShape,
        operator: str,
        widths: Widths,
        *,
        objective: Objective | None = None,
        engine: Engine | None = None,
        without: Nest | None = None,
    ) -> MapResult:
        """Find the best nest of a layer now, whatever is stored; see `mapping.mapper.map_layer`."""
        return map_layer(
            shape,
            with_operator(self.machine, self.spec, operator),
            objective=objective or self.objective,
            space=self.space,
            widths=widths,
            engine=engine,
            without=without,
        )

    def map_padded(self, shape: LayerShape, operator: str, widths: Widths) -> MapResult:
        """Find the best nest of a layer whose bounds may be padded; its shape is the padded one."""
        if not self.padding_percent:
            return self.map(shape, operator, widths)
        return map_padded(
            shape,
            with_operator(self.machine, self.spec, operator),
            objective=self.objective,
            space=self.space,
            widths=widths,
            margin=self.padding_percent / 100,
        ).result

    def count(self, shape: LayerShape, nest: Nest, widths: Widths) -> NestEvents:
        """Count a nest of a layer by the core's rule."""
        return count_layer(shape, self.machine, nest, widths, rule=_RULES[self.spec.counting])

    def _question(self, shape: LayerShape, operator: str, widths: Widths) -> dict[str, Any]:
        """All that a nest and its counts depend on; padding is part of the input's box."""
        return {
            "bounds": shape.bounds,
            "stride": shape.stride,
            "dilation": shape.dilation,
            "widths": asdict(widths),
            "objective": self.objective,
            "padding_percent": self.padding_percent,
            "counting": self.spec.counting,
            "operator_pj": self.spec.element.operator_pj[operator].value,
            "core": self._content,
        }

    @cached_property
    def _content(self) -> dict[str, Any]:
        """Machine and mapspace as JSON-able data."""
        plain: dict[str, Any] = _plain(
            {"machine": asdict(self.machine), "space": asdict(self.space)}
        )
        return plain

    def _answer(self, shape: LayerShape, operator: str, widths: Widths) -> dict[str, Any]:
        result = self.map_padded(shape, operator, widths)
        events = self.count(result.shape, result.nest, widths)
        return {
            "events": nest_actions(events, self.machine),
            "cycles": events.cycles,
            "detail": {
                **nest_detail(result.shape, result.nest, events, self.machine, widths),
                "mapper": {"energy_pj": result.energy_pj, "cycles": result.cycles},
                "certificate": certificate_data(result),
            },
        }

    def _booked(self, action: str, operator: str) -> Action:
        """Return the name under which an event of a nest is booked."""
        component, _, what = action.partition("/")
        if component == "element":
            return f"{self.name}.element/{operator}"
        if component == OUTERMOST:
            return self.dram.read if what.startswith("read") else self.dram.write
        return f"{self.name}.{action}"

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

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, int]:  # noqa: ARG002  # the contract's form
        """Return nothing: no choice holds anything for good."""
        return {}

    def capacities(self) -> Mapping[str, int]:
        """Return nothing: no resource is scarce."""
        return {}

    def leakage_mw(self) -> float:
        """Return the leakage power of the whole core in mW, from its area."""
        return self.chip.leakage_mw(self.area_um2())

    def area_um2(self) -> float:
        """Return the area of elements, levels, and one requantiser per column of elements."""
        formulas = self.chip.arithmetic
        post = self.machine.compute.mesh_x * multiplier_um2(32, 8, formulas)
        return self.machine.area_um2 + post

    def _table(self) -> dict[Action, tuple[float, str]]:
        """Return the price of every event but requantisation."""
        table = {
            f"{self.name}.element/{operator}": (float(price.value), str(price.source))
            for operator, price in self.spec.element.operator_pj.items()
        }
        for level in self.spec.levels:
            place = f"{self.name}.{level.name}"
            kinds = {"read": level.read_pj, "fill": level.fill_pj, "update": level.update_pj}
            for kind, price in kinds.items():
                for tensor in TENSORS:
                    entry = (float(price.value), str(price.source))
                    table[f"{place}/{kind}_{tensor.lower()}"] = entry
            if level.address_pj:
                table[f"{place}/address"] = (
                    float(level.address_pj.value),
                    str(level.address_pj.source),
                )
            if wires := level.wires:
                hop = wires.hop_pj
                table[f"{place}_wires/half_hop"] = (float(hop.value) / 2, str(hop.source))
                if router := wires.router_pj:
                    table[f"{place}_wires/router"] = (float(router.value), str(router.source))
        return table


def _plain(data: Any) -> Any:
    """Return data with sorted lists for sets and lists for tuples."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (set, frozenset)):
        return sorted(map(str, data))
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    return data
