# SPDX-License-Identifier: Apache-2.0
"""The digital core: an array of processing elements behind local buffers, weights stationary.

The array works on one tile of taps (rows) by output channels (columns) at once:

    for group, position tile and column tile (in either order), row tile:
        load rows x columns weights into the elements' registers
        for position in tile:
            read `rows` inputs, broadcast each along its row, sum down the columns,
            add the sum of each column to its partial sum

Partial sums lie in one bank per column, so a tile holds as many positions as a bank has words. A
bank adds to one sum per cycle (its halves, even and odd positions, read and write in turn), so an
operator with two sums takes two cycles per position. The input and the weight buffer have one port
of a word per cycle. Transfers overlap with work: the slowest of array, buffers and memories counts.
Weights are reloaded from DRAM for every inference, through the weight buffer, or stay in the weight
memory, programmed once: two choices, and the memory's words are a scarce resource.

This is one family of mappings, not the best over all: the report names the core as simply modelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

from pydantic import model_validator

from enos_compiler.cores.arithmetic import accumulators, multiplier_um2, tap_operations
from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.layerwork import offer, operator_refusal, requantisation
from enos_compiler.cores.memory import Array, Chip, Traffic
from enos_compiler.cores.prices import PriceList
from enos_compiler.cores.tiles import PositionTile, input_box, inputs_by_tiles, position_tiles
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.spec import BufferSpec, Count, Strict, rule_error

RESIDENT = (("resident", 1),)
"""The option of a choice whose weights stay in the weight memory."""


class ArraySpec(Strict):
    """Processing elements: rows sum, columns are output channels."""

    rows: Count
    columns: Count
    accumulator_bits: Count
    """Width of the adders; partial sums wider than it are refused."""


class DigitalSpec(Strict):
    """Constants of a digital core."""

    array: ArraySpec
    input_buffer: BufferSpec
    weight_buffer: BufferSpec
    accumulators: BufferSpec
    """One bank of partial sums per column."""
    weight_memory: BufferSpec | None = None
    """Holds the weights of some layers for good; those of the others are reloaded from DRAM."""

    @model_validator(mode="after")
    def _sums_fit_words(self) -> DigitalSpec:
        word, width = self.accumulators.word_bits.value, self.array.accumulator_bits.value
        if word < width:
            raise rule_error(
                f"accumulators.word_bits = {word}, below array.accumulator_bits = {width}",
                f"accumulators.word_bits: {width} or more",
            )
        return self


@dataclass(frozen=True, slots=True)
class _Plan:
    """One mapping: the position tile and how often operands move."""

    tile: PositionTile
    keeps_inputs: bool
    """The input buffer holds the tile's inputs over all column tiles."""
    chunks: int
    input_elements: int
    """Elements read from the inputs' home."""
    weight_loads: int
    """Times the weights are read from DRAM or from their home."""


class DigitalCore:
    """Executes layers with any operator on processing elements."""

    kind: ClassVar[str] = "digital"
    Spec: ClassVar[type[DigitalSpec]] = DigitalSpec
    simple_model: ClassVar[bool] = True

    def __init__(self, name: str, spec: DigitalSpec, chip: Chip) -> None:
        self.name = name
        self.spec = spec
        self.chip = chip
        self.rows = int(spec.array.rows.value)
        self.columns = int(spec.array.columns.value)
        self.input_buffer = Array(name, "input_buffer", spec.input_buffer)
        self.weight_buffer = Array(name, "weight_buffer", spec.weight_buffer)
        self.sums = Array(name, "accumulators", spec.accumulators)
        self.weight_memory = (
            Array(name, "weight_memory", spec.weight_memory) if spec.weight_memory else None
        )
        kept = self.weight_memory.prices if self.weight_memory else {}
        self.prices = PriceList(
            name,
            chip.arithmetic,
            frozenset({"pe", "post"}),
            {**self.input_buffer.prices, **self.weight_buffer.prices, **self.sums.prices, **kept},
        )

    # What it takes

    def choices(
        self, layer: Layer, operators: Iterable[str], widths: Iterable[Bits], *, signed_input: bool
    ) -> Iterator[Choice | Refusal]:
        """Yield what this core takes of a layer, and why not the rest."""
        widths = tuple(widths)
        for name in operators:
            reason = operator_refusal(layer, name, signed_input=signed_input)
            if reason:
                yield Refusal(self.name, name, reason)
                continue
            keepable = self.weight_memory is not None and not layer.shape.activation_product
            options = ((), RESIDENT) if keepable else ((),)
            room = partial(self._too_large, layer)
            yield from offer(self.name, layer, name, widths, options, room)

    def _too_large(self, layer: Layer, choice: Choice) -> str | None:
        _, width = accumulators(choice.operator, choice.bits, layer.shape.taps)
        limit = self.spec.array.accumulator_bits.value
        if width > limit:
            return (
                f"partial sums of {layer.shape.taps} taps at {choice.bits.input} x "
                f"{choice.bits.weight} bits need {width} bits, the adders have {limit}"
            )
        memory = self._resident(choice)
        if memory and not memory.holds(layer.shape.volume("Weights"), choice.bits.weight):
            return (
                f"{layer.shape.volume('Weights')} weights of {choice.bits.weight} bits do not fit "
                f"the weight memory of {memory.capacity_bits} bits"
            )
        return None

    # What it costs

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:
        """Return integer events, cycles and the nest of least energy of this family."""
        plan = min(
            self._plans(layer.shape, choice),
            key=lambda p: (self._plan_pj(p, layer, choice, homes), p.chunks, -p.input_elements),
        )
        traffic = Traffic(self.chip)
        events = self._compute(layer, choice)
        events.update(self._moves(plan, layer, choice, homes, traffic))
        events.update(traffic.events)
        programming = Cost()
        if memory := self._resident(choice):
            programming = self._programming(layer, choice, memory)
        sums, _ = accumulators(choice.operator, choice.bits, layer.shape.taps)
        positions = layer.shape.n * layer.shape.p * layer.shape.q
        cycles = {
            "array": self._tiles(layer.shape) * positions * sums,
            "input_buffer": _accesses(self.input_buffer, events),
            "weight_buffer": _accesses(self.weight_buffer, events),
            "weight_memory": _accesses(self.weight_memory, events) if self.weight_memory else 0,
            "memories": traffic.cycles,
        }
        inference = Cost(
            events={a: n for a, n in sorted(events.items()) if n},
            cycles=max(cycles.values()),
            clock_ns=self.chip.clock_ns,
            area_um2=self.area_um2(),
        )
        return CoreCost(inference, programming, self._detail(plan, layer, cycles))

    def _resident(self, choice: Choice) -> Array | None:
        """Return the memory that keeps the choice's weights for good, if it does."""
        return self.weight_memory if choice.options == RESIDENT else None

    def _row_tiles(self, shape: LayerShape) -> int:
        return -(-shape.taps // self.rows)

    def _column_tiles(self, shape: LayerShape) -> int:
        return -(-shape.m // self.columns)

    def _tiles(self, shape: LayerShape) -> int:
        return shape.g * self._row_tiles(shape) * self._column_tiles(shape)

    def _compute(self, layer: Layer, choice: Choice) -> Counter[Action]:
        """Return the events that no tiling changes: arithmetic, input registers, partial sums."""
        shape, name = layer.shape, self.name
        positions = shape.n * shape.p * shape.q
        sums, _ = accumulators(choice.operator, choice.bits, shape.taps)
        events: Counter[Action] = Counter(
            {
                f"{name}.pe/{operation}": count
                for operation, count in tap_operations(
                    choice.operator, choice.bits, shape.taps, shape.macs
                ).items()
            }
        )
        passes = shape.g * self._column_tiles(shape) * positions
        events[f"{name}.pe/register_{choice.bits.input}"] += passes * shape.taps
        full, rest = divmod(shape.taps, self.rows)
        words = full * self.input_buffer.words(self.rows, choice.bits.input)
        words += self.input_buffer.words(rest, choice.bits.input)
        events[self.input_buffer.read] += passes * words
        updates = shape.volume("Outputs") * self._row_tiles(shape) * sums
        events[self.sums.write] += updates
        events[self.sums.read] += updates  # all but the first add to it; the last readout is one
        events.update(requantisation(name, layer, choice))
        return events

    def _moves(
        self, plan: _Plan, layer: Layer, choice: Choice, homes: Homes, traffic: Traffic
    ) -> Counter[Action]:
        """Return the events of operands on their way to the array, and book their homes' words."""
        shape, bits = layer.shape, choice.bits
        weights = shape.volume("Weights")
        events: Counter[Action] = Counter()
        events[f"{self.name}.pe/register_{bits.weight}"] += weights * plan.chunks
        if memory := self._resident(choice):
            events[memory.read] += memory.words(weights, bits.weight) * plan.chunks
        else:
            held = self.weight_buffer.words(weights, bits.weight)
            events[self.weight_buffer.read] += held * plan.chunks
            events[self.weight_buffer.write] += held * plan.weight_loads
            source = homes.inputs[1].memory if shape.activation_product else self.chip.dram
            traffic.read(source, weights, bits.weight, plan.weight_loads)
        traffic.read(homes.inputs[0].memory, plan.input_elements, bits.input)
        events[self.input_buffer.write] += self.input_buffer.words(plan.input_elements, bits.input)
        traffic.write(
            homes.output.memory, shape.volume("Outputs"), homes.output_bits or bits.output
        )
        return events

    def _plans(self, shape: LayerShape, choice: Choice) -> Iterator[_Plan]:
        """Yield the tilings that fit; there is always one, of a single position.

        Inputs kept over column tiles: position tiles are the outer loop, and weights move once if
        the weight buffer holds the group's. Else column tiles are the outer loop, inputs move once
        for each of them, and weights move once if the buffer holds one tile's.
        """
        sums, _ = accumulators(choice.operator, choice.bits, shape.taps)
        positions = self.sums.capacity_bits // (self.sums.word_bits * self.columns * sums)
        column_tiles = self._column_tiles(shape)
        group_fits = self.weight_buffer.holds(shape.m * shape.taps, choice.bits.weight)
        tile_fits = self.weight_buffer.holds(
            min(self.columns, shape.m) * shape.taps, choice.bits.weight
        )
        channels = min(shape.c, -(-self.rows // (shape.r * shape.s)) + 1)
        for tile in position_tiles(shape, max(1, positions)):
            chunks = tile.count(shape)
            elements = shape.g * shape.c * inputs_by_tiles(shape, tile)
            box = input_box(shape, tile)
            if self.input_buffer.holds(shape.c * box, choice.bits.input):
                yield _Plan(tile, True, chunks, elements, 1 if group_fits else chunks)
            if tile.positions == 1 or self.input_buffer.holds(channels * box, choice.bits.input):
                loads = 1 if tile_fits else chunks
                yield _Plan(tile, False, chunks, elements * column_tiles, loads)

    def _plan_pj(self, plan: _Plan, layer: Layer, choice: Choice, homes: Homes) -> float:
        traffic = Traffic(self.chip)
        events = self._moves(plan, layer, choice, homes, traffic)
        energy = sum(n * self.prices.look_up(a)[0] for a, n in events.items())
        for action, count in traffic.events.items():
            memory = self.chip.memories[action.partition(".")[0]]
            energy += count * memory.prices[action][0]
        return energy

    def _programming(self, layer: Layer, choice: Choice, memory: Array) -> Cost:
        traffic = Traffic(self.chip)
        weights = layer.shape.volume("Weights")
        traffic.read(self.chip.dram, weights, choice.bits.weight)
        held = memory.words(weights, choice.bits.weight)
        events = Counter({memory.write: held})
        events.update(traffic.events)
        cycles = max(held, traffic.cycles)
        return Cost(events=dict(events), cycles=cycles, clock_ns=self.chip.clock_ns)

    def _detail(self, plan: _Plan, layer: Layer, cycles: dict[str, int]) -> dict[str, object]:
        shape = layer.shape
        return {
            "dataflow": "weight-stationary",
            "position_tile": {"N": plan.tile.n, "P": plan.tile.p, "Q": plan.tile.q},
            "position_tiles": plan.chunks,
            "row_tiles": self._row_tiles(shape),
            "column_tiles": self._column_tiles(shape),
            "inputs_kept_over_column_tiles": plan.keeps_inputs,
            "weight_loads": plan.weight_loads,
            "utilisation": shape.macs / (cycles["array"] * self.rows * self.columns),
            "cycles": cycles,
        }

    # What it is

    def peak_macs_per_ns(self, choice: Choice) -> float:
        """Return the speed of the whole array; two sums take two cycles."""
        sums, _ = accumulators(choice.operator, choice.bits, 1)
        return self.rows * self.columns / sums / self.chip.clock_ns

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event of this core in pJ."""
        return self.prices.look_up(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self.prices.look_up(action)[1]

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, int]:
        """Return the words of the weight memory that resident weights hold for good."""
        memory = self._resident(choice)
        if memory is None:
            return {}
        return {"weight_words": memory.words(layer.shape.volume("Weights"), choice.bits.weight)}

    def capacities(self) -> Mapping[str, int]:
        """Return the words of the weight memory, where the core has one."""
        memory = self.weight_memory
        return {"weight_words": memory.capacity_bits // memory.word_bits} if memory else {}

    def leakage_mw(self) -> float:
        """Return the leakage power of the whole core in mW, from its area."""
        return self.chip.leakage_mw(self.area_um2())

    def area_um2(self) -> float:
        """Return the area of the whole core: elements with their registers, and the buffers."""
        return self._area

    @cached_property
    def _area(self) -> float:
        formulas = self.chip.arithmetic
        width = self.spec.array.accumulator_bits.value
        element = multiplier_um2(8, 8, formulas)
        element += width * formulas.add_per_bit_um2.value
        element += 8 * formulas.register_per_bit_um2.value
        rows = self.rows * 8 * formulas.register_per_bit_um2.value
        post = self.columns * multiplier_um2(width, 8, formulas)
        buffers = [self.spec.input_buffer, self.spec.weight_buffer, self.spec.accumulators]
        if self.spec.weight_memory:
            buffers.append(self.spec.weight_memory)
        return (
            self.rows * self.columns * element
            + rows
            + post
            + sum(float(b.area_um2.value) for b in buffers)
        )


def _accesses(buffer: Array, events: Counter[Action]) -> int:
    """Return the cycles that a buffer's one port is busy."""
    return events[buffer.read] + events[buffer.write]
