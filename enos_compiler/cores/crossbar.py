# SPDX-License-Identifier: Apache-2.0
"""The crossbar core: weights stay in SRAM arrays, columns sum in analog, converters are lossless.

A weight lies in one cell per bit along a row. An operator is a list of passes; a pass drives the
rows with one bit of every input at a time and converts the columns that hold its weight bits:

    mac   all input bits x all weight bits
    bw    all input bits x the sign
    xnor  the input's sign x the sign
    mf    the input's sign x the magnitude bits, then all input bits x the sign
    ef    the input's sign x all weight bits (negative inputs in a second plane), then all input
          bits x the sign

Each conversion has the bits that tell all sums of its rows apart, so the arithmetic is the plain
integer operator. Columns of one pass share arrays with no other pass. Groups of a grouped or
depthwise layer lie as blocks on the diagonal; the rest of their arrays is waste, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from enos_compiler.cores.arithmetic import accumulators, multiplier_um2
from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.cores.layerwork import offer, operator_refusal, requantisation
from enos_compiler.cores.memory import Array, Chip, Traffic
from enos_compiler.cores.prices import PriceList
from enos_compiler.cores.tiles import PositionTile, inputs_by_tiles, stored_extent
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.spec import BufferSpec, Count, Positive, Strict, rule_error

PASSES_OF = frozenset({"mac", "bw", "xnor", "mf", "ef"})
"""Operators that are sums of one-bit products."""


class SizeSpec(Strict):
    """Arrays of one size."""

    rows: Count
    count: Count
    """How many of them the chip has: a scarce resource that layers share."""
    cell_area_um2: Positive


class AdcSpec(Strict):
    """Column converters: successive approximation that stops after the bits it is asked for."""

    energy_pj: dict[Annotated[int, Field(ge=1, le=16)], Positive]
    """Energy of one conversion by resolution in bits; fewer bits cost as much as the least."""
    area_um2: Positive
    conversion_ns: Positive
    columns_per_adc: Count


class CrossbarSpec(Strict):
    """Constants of a crossbar core."""

    columns: Count
    sizes: Annotated[list[SizeSpec], Field(min_length=1)]
    adc: AdcSpec
    cell_read_fj: Positive
    """Energy of one cell of a converted column in one read, whether it holds a weight or not."""
    row_drive_pj: Positive
    """Energy of one row driven across an array for one input bit."""
    cell_write_pj_per_word: Positive
    write_word_bits: Count
    input_buffer: BufferSpec

    @model_validator(mode="after")
    def _converters_are_lossless(self) -> CrossbarSpec:
        most = max(self.adc.energy_pj)
        seen: set[int] = set()
        for size in self.sizes:
            rows = size.rows.value
            if rows in seen:
                raise rule_error(f"two sizes of {rows} rows", "join them and add their counts")
            seen.add(rows)
            if lossless_bits(rows) > most:
                raise rule_error(
                    f"arrays of {rows} rows, which need converters of {lossless_bits(rows)} bits; "
                    f"the widest priced one has {most}",
                    f"at most {2**most - 1} rows, or the energy of {lossless_bits(rows)} bits",
                )
        return self


def lossless_bits(rows: int) -> int:
    """Return the converter bits that tell the sums 0..rows of one-bit products apart."""
    return rows.bit_length()


@dataclass(frozen=True, slots=True)
class Pass:
    """One way of driving the array for an operator."""

    columns_per_output: int
    """Weight bits that take part, one column each."""
    steps: int
    """Reads per output position: input bits, or planes of input signs."""
    row_sum: bool
    """Cells hold signs as {0, 1}: 2 * sum - sum of the driven rows needs the latter."""


def passes_of(operator: str, bits: Bits, *, signed_input: bool) -> tuple[Pass, ...]:
    """Return the passes of an operator at given widths."""
    planes = 2 if signed_input else 1
    return {
        "mac": (Pass(bits.weight, bits.input, False),),
        "bw": (Pass(1, bits.input, True),),
        "xnor": (Pass(1, 1, True),),
        "mf": (Pass(bits.weight - 1, 1, False), Pass(1, bits.input, True)),
        "ef": (Pass(bits.weight, planes, False), Pass(1, bits.input, True)),
    }[operator]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of one pass lie in arrays of one size."""

    arrays: int
    blocks: tuple[tuple[int, int], ...]
    """(rows in use, how many row blocks have them) over all groups."""
    row_copies: int
    """Arrays across which each row is driven."""
    busiest_columns: int
    """Columns in use of the fullest array: they take turns on its converters."""


def lay_out(shape: LayerShape, columns_per_output: int, rows: int, columns: int) -> Layout:
    """Place the columns of one pass: groups side by side on the diagonal, or cut into blocks."""
    wide = shape.m * columns_per_output
    if shape.taps <= rows and wide <= columns:
        together = min(shape.g, rows // shape.taps, columns // wide)
        return Layout(-(-shape.g // together), ((shape.taps, shape.g),), 1, together * wide)
    full, rest = divmod(shape.taps, rows)
    column_blocks = -(-wide // columns)
    blocks = ((rows, full * shape.g), (rest, shape.g if rest else 0))
    arrays = shape.g * (full + bool(rest)) * column_blocks
    return Layout(arrays, tuple(b for b in blocks if b[1]), column_blocks, min(wide, columns))


class CrossbarCore:
    """Executes layers whose weights are known beforehand in arrays that hold them for good."""

    kind: ClassVar[str] = "crossbar"
    Spec: ClassVar[type[CrossbarSpec]] = CrossbarSpec
    simple_model: ClassVar[bool] = True

    def __init__(self, name: str, spec: CrossbarSpec, chip: Chip) -> None:
        self.name = name
        self.spec = spec
        self.chip = chip
        self.columns = int(spec.columns.value)
        self.sizes = {int(s.rows.value): s for s in spec.sizes}
        self.input_buffer = Array(name, "input_buffer", spec.input_buffer)
        self.adcs = -(-self.columns // int(spec.adc.columns_per_adc.value))
        self.prices = PriceList(
            name, chip.arithmetic, frozenset({"registers", "shift_add", "post"}), self._table()
        )

    def _table(self) -> dict[Action, tuple[float, str]]:
        spec = self.spec
        table = dict(self.input_buffer.prices)
        for bits, energy in spec.adc.energy_pj.items():
            table[f"{self.name}.adc/convert_{bits}b"] = (energy.value, str(energy.source))
        for rows in self.sizes:
            table[f"{self.name}.array/read_column_{rows}"] = (
                rows * spec.cell_read_fj.value * 1e-3,
                str(spec.cell_read_fj.source),
            )
        for action, price in (
            ("drivers/row", spec.row_drive_pj),
            (f"cells/write_{spec.write_word_bits.value}b", spec.cell_write_pj_per_word),
            ("row_sum/row", self.chip.arithmetic.full_adder_pj),
        ):
            table[f"{self.name}.{action}"] = (price.value, str(price.source))
        return table

    # What it takes

    def choices(
        self, layer: Layer, operators: Iterable[str], widths: Iterable[Bits], *, signed_input: bool
    ) -> Iterator[Choice | Refusal]:
        """Yield what this core takes of a layer, and why not the rest."""
        widths = tuple(widths)
        for name in operators:
            reason = self._refusal(layer, name, signed_input=signed_input)
            if reason:
                yield Refusal(self.name, name, reason)
                continue
            signed = (("signed_input", 1),) if name == "ef" and signed_input else ()
            options = tuple((("rows", rows), *signed) for rows in sorted(self.sizes))
            room = partial(self._too_large, layer)
            yield from offer(self.name, layer, name, widths, options, room)

    def _refusal(self, layer: Layer, name: str, *, signed_input: bool) -> str | None:
        if layer.shape.activation_product:
            return "crossbars keep their weights; here both operands are activations"
        if name not in PASSES_OF:
            taken = ", ".join(sorted(PASSES_OF))
            return f"{name} is no sum of one-bit products; crossbars take {taken}"
        return operator_refusal(layer, name, signed_input=signed_input)

    def _too_large(self, layer: Layer, choice: Choice) -> str | None:
        rows = dict(choice.options)["rows"]
        needed = self._arrays(layer.shape, choice)
        present = self.sizes[rows].count.value
        if needed <= present:
            return None
        return (
            f"{layer.shape.g} x {layer.shape.taps} rows by {layer.shape.m} outputs of "
            f"{choice.bits.weight} bits need {needed} arrays of {rows} x {self.columns}, "
            f"the core has {present}"
        )

    def _passes(self, choice: Choice) -> tuple[Pass, ...]:
        signed = bool(dict(choice.options).get("signed_input"))
        return passes_of(choice.operator, choice.bits, signed_input=signed)

    def _layouts(self, shape: LayerShape, choice: Choice) -> list[tuple[Pass, Layout]]:
        rows = dict(choice.options)["rows"]
        return [
            (p, lay_out(shape, p.columns_per_output, rows, self.columns))
            for p in self._passes(choice)
        ]

    def _arrays(self, shape: LayerShape, choice: Choice) -> int:
        return sum(layout.arrays for _, layout in self._layouts(shape, choice))

    # What it costs

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:
        """Return integer events, cycles, programming and the placement."""
        shape = layer.shape
        traffic = Traffic(self.chip)
        events = self._inputs(shape, choice, homes, traffic)
        cycles = 0
        port = events[self.input_buffer.read] + events[self.input_buffer.write]
        turn = -(-self.spec.adc.conversion_ns.value // self.chip.clock_ns)
        positions = shape.n * shape.p * shape.q
        _, width = accumulators(choice.operator, choice.bits, shape.taps)
        for one_pass, layout in self._layouts(shape, choice):
            events.update(self._reads(shape, choice, one_pass, layout, width))
            turns = -(-layout.busiest_columns // self.adcs)
            cycles += positions * one_pass.steps * turns * int(turn)
        events.update(requantisation(self.name, layer, choice))
        output_bits = homes.output_bits or choice.bits.output
        traffic.write(homes.output.memory, shape.volume("Outputs"), output_bits)
        events.update(traffic.events)
        inference = Cost(
            events={a: n for a, n in sorted(events.items()) if n},
            cycles=max(cycles, port, traffic.cycles),
            clock_ns=self.chip.clock_ns,
            area_um2=self.area_um2(),
        )
        return CoreCost(inference, self._programming(shape, choice), self._detail(shape, choice))

    def _inputs(
        self, shape: LayerShape, choice: Choice, homes: Homes, traffic: Traffic
    ) -> Counter[Action]:
        """Return the events that bring inputs to the row registers.

        The window of kernel rows slides in the input buffer where it fits, and each input comes
        from its home once; else every output row fetches its kernel rows anew. Per position only
        the columns new to the kernel are read, into registers that every array of a row shares.
        """
        bits = choice.bits.input
        channels = shape.g * shape.c
        _, width = stored_extent(shape)
        window = channels * ((shape.r - 1) * shape.dilation[0] + 1) * width
        whole = inputs_by_tiles(shape, PositionTile(shape.n, shape.p, shape.q))
        by_rows = inputs_by_tiles(shape, PositionTile(1, 1, shape.q))
        fetched = whole if self.input_buffer.holds(window, bits) else by_rows
        traffic.read(homes.inputs[0].memory, channels * fetched, bits)
        events: Counter[Action] = Counter()
        events[self.input_buffer.write] += self.input_buffer.words(channels * fetched, bits)
        events[self.input_buffer.read] += self.input_buffer.words(channels * by_rows, bits)
        positions = shape.n * shape.p * shape.q
        events[f"{self.name}.registers/register_{bits}"] += shape.g * shape.taps * positions
        return events

    def _reads(
        self, shape: LayerShape, choice: Choice, one_pass: Pass, layout: Layout, width: int
    ) -> Counter[Action]:
        """Return the events of one pass over all output positions."""
        rows = dict(choice.options)["rows"]
        reads = shape.n * shape.p * shape.q * one_pass.steps
        per_block = shape.m * one_pass.columns_per_output
        least = min(self.spec.adc.energy_pj)
        events: Counter[Action] = Counter()
        for used, blocks in layout.blocks:
            conversions = reads * per_block * blocks
            events[f"{self.name}.adc/convert_{max(least, lossless_bits(used))}b"] += conversions
            events[f"{self.name}.array/read_column_{rows}"] += conversions
            events[f"{self.name}.shift_add/add_{width}"] += conversions
            events[f"{self.name}.shift_add/register_{width}"] += conversions
            if one_pass.row_sum:
                events[f"{self.name}.shift_add/add_{width}"] += reads * blocks
                events[f"{self.name}.shift_add/register_{width}"] += reads * blocks
        driven = reads * shape.g * shape.taps
        events[f"{self.name}.drivers/row"] += driven * layout.row_copies
        if one_pass.row_sum:
            events[f"{self.name}.row_sum/row"] += driven
        return events

    def _programming(self, shape: LayerShape, choice: Choice) -> Cost:
        """Return the cost of reading the weights from DRAM and writing every cell in use."""
        word = self.spec.write_word_bits.value
        written = 0
        for one_pass, layout in self._layouts(shape, choice):
            across = -(-shape.m * one_pass.columns_per_output // word)
            written += across * sum(used * blocks for used, blocks in layout.blocks)
        traffic = Traffic(self.chip)
        stored = sum(p.columns_per_output for p in self._passes(choice))
        traffic.read(self.chip.dram, shape.volume("Weights"), stored)
        events = Counter({f"{self.name}.cells/write_{word}b": written})
        events.update(traffic.events)
        cycles = max(written, traffic.cycles)
        return Cost(events=dict(events), cycles=cycles, clock_ns=self.chip.clock_ns)

    def _detail(self, shape: LayerShape, choice: Choice) -> dict[str, object]:
        rows = dict(choice.options)["rows"]
        layouts = self._layouts(shape, choice)
        arrays = sum(layout.arrays for _, layout in layouts)
        cells = shape.volume("Weights") * sum(p.columns_per_output for p, _ in layouts)
        return {
            "rows": rows,
            "columns": self.columns,
            "arrays": arrays,
            "passes": [
                {
                    "columns_per_output": p.columns_per_output,
                    "steps": p.steps,
                    "arrays": layout.arrays,
                    "row_blocks": [list(block) for block in layout.blocks],
                }
                for p, layout in layouts
            ],
            "cells_used": cells,
            "utilisation": cells / (arrays * rows * self.columns),
        }

    # What it is

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event of this core in pJ."""
        return self.prices.look_up(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self.prices.look_up(action)[1]

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, int]:
        """Return the arrays, by size, that the layer's weights hold for good."""
        rows = dict(choice.options)["rows"]
        return {f"arrays_{rows}": self._arrays(layer.shape, choice)}

    def capacities(self) -> Mapping[str, int]:
        """Return how many arrays of each size the core has."""
        return {f"arrays_{rows}": int(size.count.value) for rows, size in self.sizes.items()}

    def leakage_mw(self) -> float:
        """Return the leakage power of the whole core in mW, from its area."""
        return self.chip.leakage_mw(self.area_um2())

    def area_um2(self) -> float:
        """Return the area of all arrays with their converters, registers and shift-adders."""
        return self._area

    @cached_property
    def _area(self) -> float:
        formulas, total = self.chip.arithmetic, float(self.spec.input_buffer.area_um2.value)
        sums = 32 * (formulas.add_per_bit_um2.value + formulas.register_per_bit_um2.value)
        around = self.adcs * (self.spec.adc.area_um2.value + sums)
        around += multiplier_um2(32, 8, formulas)
        for rows, size in self.sizes.items():
            cells = rows * self.columns * size.cell_area_um2.value
            registers = rows * 8 * formulas.register_per_bit_um2.value
            total += size.count.value * (cells + around + registers)
        return total
