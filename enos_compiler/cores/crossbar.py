# SPDX-License-Identifier: Apache-2.0
"""The crossbar core: weights stay in arrays, columns sum in analog, converters make them digits.

One specification of the array (`crossbar.spec`) says what is computed, what it costs and where it
lies. An operator is a list of reads of stored matrices (`crossbar.operators`): mac reads signed
weights with all input digits, bw their signs, xnor their signs with the inputs' signs, mf and ef
two matrices digitised apart. Groups of a grouped or depthwise layer lie on the diagonal of shared
arrays; the rest of their rectangles is waste, and is counted.

A choice names the height of the array (`rows`) and, where the chip offers several, the converters'
resolution (`adc_bits`) and the replicas of the weights (`copies`). `reload` is a choice whose
weights are written anew in every inference, into arrays that the chip keeps for it: from DRAM, or
where they are `staged`, from the core's own weight memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import product
from math import ceil
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

from enos_compiler.cores.arithmetic import accumulators
from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.crossbar_data import placement_data
from enos_compiler.cores.crossbar_options import (
    RELOAD,
    STAGED,
    ZERO_POINT,
    copies_of,
    copies_option,
    reloads,
)
from enos_compiler.cores.crossbar_prices import area_um2, array_actions, array_um2, price_list
from enos_compiler.cores.crossbar_spec import CrossbarCoreSpec, SizeSpec
from enos_compiler.cores.crossbar_weights import WeightPath
from enos_compiler.cores.crossbar_work import crossbar_work
from enos_compiler.cores.layerwork import layer_widths, operator_refusal, requantisation
from enos_compiler.cores.memory import Array, Chip, Traffic
from enos_compiler.cores.steps import work_cycles
from enos_compiler.cores.tiles import PositionTile, inputs_by_tiles, stored_extent
from enos_compiler.crossbar.events import layer_cost
from enos_compiler.crossbar.nonideal import NonIdealities
from enos_compiler.crossbar.operators import ReadKind, read_kinds
from enos_compiler.crossbar.packing import held_arrays
from enos_compiler.crossbar.placement import LayerPlacement, Turns, place_layer, turns
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.errors import RefusalError
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.semantics.widths import SUM_BITS

if TYPE_CHECKING:
    from torch import Tensor


class CrossbarCore:
    """Executes layers whose weights are known beforehand in arrays that hold them."""

    kind: ClassVar[str] = "crossbar"
    Spec: ClassVar[type[CrossbarCoreSpec]] = CrossbarCoreSpec

    def __init__(self, name: str, spec: CrossbarCoreSpec, chip: Chip) -> None:
        self.name = name
        self.spec = spec
        self.chip = chip
        self.sizes = {s.rows.value: s for s in sorted(spec.sizes, key=lambda s: s.rows.value)}
        self.input_buffer = Array(name, "input_buffer", spec.input_buffer)
        kept = spec.weight_memory
        self.weight_memory = Array(name, "weight_memory", kept) if kept else None
        memories = [m for m in (self.input_buffer, self.weight_memory) if m is not None]
        self._weights = WeightPath(name, spec.cells, chip, self.weight_memory)
        self.prices = price_list(name, spec, memories, chip.arithmetic)
        self._placed: dict[tuple[Any, ...], LayerPlacement] = {}

    # What it takes

    def choices(
        self, layer: Layer, operators: Iterable[str], widths: Iterable[Bits], *, signed_input: bool
    ) -> Iterator[Choice | Refusal]:
        """Yield what this core takes of a layer, and why not the rest.

        Inputs and weights wider than the arrays take are refused, and their widest offered.
        """
        widths = tuple(widths)
        for name in operators:
            reason = self._refusal(layer, name, signed_input=signed_input)
            if reason:
                yield Refusal(self.name, name, reason)
            else:
                yield from self._sized(layer, name, widths, signed_input=signed_input)

    def _refusal(self, layer: Layer, name: str, *, signed_input: bool) -> str | None:
        if layer.shape.activation_product:
            return "crossbars keep their weights; here both operands are activations"
        if name not in self.spec.operators:
            taken = ", ".join(sorted(self.spec.operators))
            return f"{name} is no sum these crossbars read; they take {taken}"
        return operator_refusal(layer, name, signed_input=signed_input)

    def _sized(
        self, layer: Layer, name: str, widths: tuple[Bits, ...], *, signed_input: bool
    ) -> Iterator[Choice | Refusal]:
        """Yield one operator's choices that have room, and refusals of widths and sizes."""
        fitting: dict[Bits, None] = {}
        for bits in layer_widths(layer, name, widths):
            narrowed = self._narrowed(bits)
            if narrowed != bits:
                yield Refusal(self.name, name, self._too_wide(bits))
            fitting |= dict.fromkeys(layer_widths(layer, name, (narrowed,)))
        if not fitting:
            yield Refusal(self.name, name, "offers no weights as narrow as every requested width")
        for bits in fitting:
            reasons: list[tuple[int, str]] = []
            fits = False
            for options in self._options(name, signed_input=signed_input):
                choice = Choice(self.name, name, bits, options)
                reason = self._too_large(layer, choice)
                if reason is None:
                    fits = True
                    yield choice
                else:
                    reasons.append((copies_of(choice), reason))
            if not fits:  # say what the fewest copies need of the largest arrays
                _, reason = min(reversed(reasons), key=itemgetter(0))
                yield Refusal(self.name, name, reason)

    def _narrowed(self, bits: Bits) -> Bits:
        """Return the widths with what the arrays do not take cut down."""
        return bits._replace(
            input=min(bits.input, self.spec.input_bits.value),
            weight=min(bits.weight, self.spec.weight_bits.value),
        )

    def _too_wide(self, bits: Bits) -> str:
        limits = (
            ("inputs", bits.input, self.spec.input_bits.value),
            ("weights", bits.weight, self.spec.weight_bits.value),
        )
        return "; ".join(
            f"{what} of {found} bits, the arrays take {most}"
            for what, found, most in limits
            if found > most
        )

    def _options(self, name: str, *, signed_input: bool) -> Iterator[tuple[tuple[str, int], ...]]:
        """Yield the core's own options: sizes, resolutions, copies, reloading."""
        planes = (ZERO_POINT,) if name == "ef" and signed_input else ()
        resolutions = [r.value for r in self.spec.converters.resolutions or ()]
        copies = [c.value for c in self.spec.copies or ()] or [1]
        for rows, size in self.sizes.items():
            several = resolutions if len(resolutions) > 1 else [0]
            for adc_bits, copy in product(several, copies):
                options = [("rows", rows), *planes]
                options += [("adc_bits", adc_bits)] if adc_bits else []
                yield tuple(sorted([*options, *copies_option(copy)]))
                if size.swap is not None and copy == copies[0]:
                    yield tuple(sorted([*options, RELOAD]))
                    if self.weight_memory is not None:
                        yield tuple(sorted([*options, RELOAD, STAGED]))

    def _too_large(self, layer: Layer, choice: Choice) -> str | None:
        try:
            needed = self._needed(layer, choice)
            self._turns(self.placement(layer.shape, choice), choice)
        except RefusalError as error:
            return error.message
        size = self._size(choice)
        present = self.capacities()[f"arrays_{size.rows.value}"]
        if (memory := self.weight_memory) is not None and STAGED in choice.options:
            words = self._weights.words(self.placement(layer.shape, choice))
            if words * memory.word_bits > memory.capacity_bits:
                return (
                    f"its weights take {words} words, the weight memory of {memory.capacity_bits} "
                    f"bits has {memory.capacity_bits // memory.word_bits}"
                )
        if reloads(choice) or needed <= present:
            return None
        reload = "" if size.swap else ", and reloading is forbidden"
        return (
            f"{layer.shape.g} x {layer.shape.taps} rows by {layer.shape.m} outputs of "
            f"{choice.bits.weight} bits need {needed} arrays of {size.rows.value} x "
            f"{size.columns.value}, the core has {present}{reload}"
        )

    # Where it lies

    def _size(self, choice: Choice) -> SizeSpec:
        return self.sizes[dict(choice.options)["rows"]]

    def arrays_held(self, layer: Layer, choice: Choice) -> Mapping[str, int]:
        """Return the arrays by size that all copies fill for good if they share none."""
        if reloads(choice):
            return {}
        return {f"arrays_{self._size(choice).rows.value}": self._needed(layer, choice)}

    def _needed(self, layer: Layer, choice: Choice) -> int:
        """Return the arrays of all copies."""
        return self.placement(layer.shape, choice).arrays * copies_of(choice)

    def array(self, shape: LayerShape, choice: Choice) -> CrossbarSpec:
        """Return the array that a choice runs on, with the resolution of its converters."""
        size, converters = self._size(choice), self.spec.converters
        asked = dict(choice.options).get("adc_bits", 0)
        if not asked and converters.resolutions:
            asked = converters.resolutions[0].value
        if not asked:
            at_once = size.rows_at_once.value if size.rows_at_once else size.rows.value
            least = min(converters.energy_pj) if converters.energy_pj is not None else 1
            asked = max(least, self.spec.lossless_bits(min(shape.taps, at_once)))
        return self.spec.array(size, asked)

    def held_um2(self, layer: Layer, choice: Choice) -> float:
        """Return the area of a layer's arrays, copies included, with what stands around them.

        Arrays that are reloaded are shared by all that reload: what one round fills is counted.
        """
        size = self._size(choice)
        arrays = self._needed(layer, choice)
        if size.swap is not None and reloads(choice):
            arrays = min(arrays, size.swap.value)
        return arrays * array_um2(self.spec, size, self.chip.arithmetic)

    @cached_property
    def errors(self) -> NonIdealities:
        """What is wrong with this core's devices."""
        found = self.spec.nonidealities
        return NonIdealities() if found is None else found.build()

    def is_exact(self, shape: LayerShape, choice: Choice) -> bool:
        """Whether neither converters nor devices change any sum of a choice."""
        from enos_compiler.evaluate.noise import changes_nothing

        return changes_nothing(
            self.array(shape, choice), self.errors, shape.taps, choice.bits.input
        )

    def noise_to_signal(
        self, layer: Layer, choice: Choice, codes: Tensor, clip: tuple[float, float]
    ) -> float:
        """Return what converters and devices add to a layer's output, relative to its power.

        Args:
            layer: with the integers of the choice.
            choice: on this core.
            codes: its input.
            clip: bounds of the activation behind the sum, real numbers.
        """
        from enos_compiler.evaluate.noise import noise_to_signal

        spec = self.array(layer.shape, choice)
        return noise_to_signal(layer, spec, self.errors, codes, clip=clip)

    def placement(self, shape: LayerShape, choice: Choice) -> LayerPlacement:
        """Return where the weights of one copy lie.

        Raises:
            RefusalError: the arrays are too narrow for their unit columns.
        """
        array = self.array(shape, choice)
        key = (shape, array.rows, array.adc.bits, choice.operator, choice.bits.weight)
        if key not in self._placed:
            operator = next(o for o in self.spec.operators if o == choice.operator)
            self._placed[key] = place_layer(array, shape, operator, choice.bits.weight)
        return self._placed[key]

    def _reads(self, choice: Choice) -> tuple[ReadKind, ...]:
        operator = next(o for o in self.spec.operators if o == choice.operator)
        return read_kinds(operator, choice.bits.input, zero_point=ZERO_POINT in choice.options)

    def _turns(self, placement: LayerPlacement, choice: Choice) -> Turns:
        """Return the turns in which a layer's arrays are filled and read."""
        swap = self._size(choice).swap
        return turns(placement, swap.value) if swap and reloads(choice) else Turns(1, 0)

    # What it costs

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:
        """Return integer events, cycles, programming and the placement.

        Weights that are reloaded are written in every inference, before they are read. Each turn
        that they take reads the inputs again; sums that it leaves to the next rest in the output's
        home.
        """
        shape, reads = layer.shape, self._reads(choice)
        placement = self.placement(shape, choice)
        taken, copies = self._turns(placement, choice), copies_of(choice)
        found = layer_cost(
            placement,
            choice.bits.input,
            zero_point=ZERO_POINT in choice.options,
            copies=copies,
            rounds=taken.count,
        )
        fetched, events = self._inputs(shape, choice, taken.count)
        port = events[self.input_buffer.read] + events[self.input_buffer.write]
        kept = self._unfinished(taken.unfinished * placement.positions, homes)
        events.update(kept.events)
        _, sum_bits = accumulators(choice.operator, choice.bits, shape.taps)
        events.update(
            array_actions(
                self.name, self.spec, self._size(choice), placement, reads, found, sum_bits
            )
        )
        events.update(requantisation(self.name, layer, choice))
        weights = self._weights.costs(placement, choice, found.programming["cell/program"])
        slot = self.spec.converters.conversion_ns.value / self.chip.clock_ns
        work = crossbar_work(
            shape,
            choice,
            homes,
            self.chip,
            fetched=fetched,
            compute_cycles=max(ceil(found.cycles * slot), port) + kept.cycles,
            reloaded_bits=weights.streamed_bits,
            writing_cycles=weights.before.cycles,
        )
        events.update(weights.before.events)
        for transfer in (*work.loads, *work.stores):
            if transfer.tensor != "Weights":  # what comes before has booked them
                events[transfer.action] += transfer.count
        inference = Cost(
            events=_sorted(events),
            cycles=work_cycles(shape, work),
            clock_ns=self.chip.clock_ns,
            area_um2=self.area_um2(),
        )
        detail = placement_data(
            placement, reads, copies=copies, rounds=taken.count, resident=not reloads(choice)
        )
        return CoreCost(inference, weights.once, {**detail, "work": work.as_detail()})

    def _unfinished(self, sums: int, homes: Homes) -> Traffic:
        """Return the traffic of sums that are written when a turn ends and read in the next."""
        traffic = Traffic(self.chip)
        traffic.write(homes.output.memory, sums, SUM_BITS)
        traffic.read(homes.output.memory, sums, SUM_BITS)
        return traffic

    def _inputs(self, shape: LayerShape, choice: Choice, times: int) -> tuple[int, Counter[Action]]:
        """Return the elements that come from their home, and the events on to the row registers.

        The window of kernel rows slides in the input buffer where it fits, and each input comes
        from its home once; else every output row fetches its kernel rows anew. Per position only
        the columns new to the kernel are read.
        """
        bits = choice.bits.input
        channels = shape.g * shape.c
        _, width = stored_extent(shape)
        window = channels * ((shape.r - 1) * shape.dilation[0] + 1) * width
        whole = inputs_by_tiles(shape, PositionTile(shape.n, shape.p, shape.q))
        by_rows = inputs_by_tiles(shape, PositionTile(1, 1, shape.q))
        fetched = times * channels * (whole if self.input_buffer.holds(window, bits) else by_rows)
        events: Counter[Action] = Counter()
        events[self.input_buffer.write] += self.input_buffer.words(fetched, bits)
        events[self.input_buffer.read] += self.input_buffer.words(times * channels * by_rows, bits)
        return fetched, events

    # What it is

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event of this core in pJ."""
        return self.prices.look_up(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self.prices.look_up(action)[1]

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, float]:
        """Return the arrays by size, or the memory words, that the weights hold for good.

        Of one array a layer may hold a part, whose rest another layer gets.
        """
        if STAGED in choice.options:
            return {"weight_words": self._weights.words(self.placement(layer.shape, choice))}
        if reloads(choice):
            return {}
        held = held_arrays(self.placement(layer.shape, choice), copies_of(choice))
        return {f"arrays_{self._size(choice).rows.value}": held}

    def capacities(self) -> Mapping[str, int]:
        """Return the arrays of each size, and the memory words, that weights can hold for good."""
        found = {
            f"arrays_{rows}": size.count.value - (size.swap.value if size.swap else 0)
            for rows, size in self.sizes.items()
        }
        if (memory := self.weight_memory) is not None:
            found["weight_words"] = memory.capacity_bits // memory.word_bits
        return found

    def peak_macs_per_ns(self, choice: Choice) -> float:
        """Return the speed with every array of the choice's size full and read without pause."""
        size, zero_point = self._size(choice), ZERO_POINT in choice.options
        rows, columns = size.rows.value, size.columns.value
        tile = self.placement(LayerShape(c=rows), choice).matrices[0].tiles[0]
        full = LayerShape(m=max(1, (columns - tile.unit_columns) // tile.data_columns), c=rows)
        placement = self.placement(full, choice)
        slots = layer_cost(placement, choice.bits.input, zero_point=zero_point).cycles
        time_ns = slots * self.spec.converters.conversion_ns.value
        return full.macs / time_ns * size.count.value / placement.arrays

    def leakage_mw(self) -> float:
        """Return the leakage power of the whole core in mW, from its area."""
        return self.chip.leakage_mw(self.area_um2())

    def area_um2(self) -> float:
        """Return the area of all arrays with what stands around them."""
        return self._area

    @cached_property
    def _area(self) -> float:
        return area_um2(self.spec, self.chip.arithmetic)


def _sorted(events: Mapping[Action, int]) -> dict[Action, int]:
    return {action: count for action, count in sorted(events.items()) if count}
