# SPDX-License-Identifier: Apache-2.0
"""What the events of a crossbar core cost and what its silicon takes, from its specification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from enos_compiler.cores.arithmetic import multiplier_um2
from enos_compiler.cores.crossbar_spec import CrossbarCoreSpec, SizeSpec
from enos_compiler.cores.memory import Array
from enos_compiler.cores.prices import PriceList
from enos_compiler.crossbar.events import CrossbarCost
from enos_compiler.crossbar.operators import ReadKind
from enos_compiler.crossbar.placement import LayerPlacement
from enos_compiler.ir.cost import Action
from enos_compiler.spec import ArithmeticSpec

LOGIC = frozenset({"shift_add", "offset", "post"})
"""Components priced by the formulas of the target's arithmetic."""
_SUM_BITS = 32
"""Width of the adders and output registers behind the converters; for their area."""


def price_list(
    name: str, spec: CrossbarCoreSpec, memories: Iterable[Array], arithmetic: ArithmeticSpec
) -> PriceList:
    """Return the prices of all events of a core."""
    cells, converters = spec.cells, spec.converters
    register = arithmetic.register_per_bit_pj
    table: dict[Action, tuple[float, str]] = {}
    for memory in memories:
        table |= memory.prices
    for size in spec.sizes:
        rows = size.rows.value
        if size.read_pj is not None:
            figure = (float(size.read_pj.value), str(size.read_pj.source))
            table[f"{name}.array/{read_action(size)}"] = figure
        elif cells.read_fj is not None:
            figure = (rows * cells.read_fj.value * 1e-3, str(cells.read_fj.source))
            table[f"{name}.array/{read_action(size)}"] = figure
    least = min(converters.energy_pj) if converters.energy_pj is not None else 1
    asked = {bits.value for bits in converters.resolutions or ()}
    for bits in sorted({*range(least, converters.most_bits + 1), *asked}):
        table[f"{name}.adc/convert_{bits}b"] = converters.energy(bits)
    for action, quantity in (
        ("row_driver/drive", spec.drivers.drive_pj),
        ("cell/program", cells.program_pj),
        ("input_register/write_bit", register),
        ("output_register/write_bit", register),
    ):
        table[f"{name}.{action}"] = (float(quantity.value), str(quantity.source))
    if spec.samplers is not None:
        sample = spec.samplers.sample_pj
        table[f"{name}.sample_hold/sample"] = (float(sample.value), str(sample.source))
    if spec.adders is not None:
        add = spec.adders.add_pj
        table[f"{name}.shift_add/add"] = (float(add.value), str(add.source))
    return PriceList(name, arithmetic, LOGIC, table)


def read_action(size: SizeSpec) -> str:
    """Return the action of reading an array of that size: whole, or column by column."""
    what = "read" if size.read_pj is not None else "read_column"
    return f"{what}_{size.rows.value}"


def array_actions(
    name: str,
    spec: CrossbarCoreSpec,
    size: SizeSpec,
    placement: LayerPlacement,
    reads: tuple[ReadKind, ...],
    cost: CrossbarCost,
    sum_bits: int,
) -> Counter[Action]:
    """Return the events of a placed layer under the names that have prices.

    Where a size has no price of its own, the cells of the columns that are converted are read, on
    both sides of a pair whose difference is taken in analog.
    """
    events: Counter[Action] = Counter()
    for event, count in cost.events.items():
        if event == "array/read":
            if size.read_pj is None:
                count = column_reads(placement, reads)
            events[f"{name}.array/{read_action(size)}"] += count
        elif event == "adc/convert":
            events[f"{name}.adc/convert_{placement.spec.adc.bits}b"] += count
        elif event == "sample_hold/sample":
            if spec.samplers is not None:
                events[f"{name}.{event}"] += count
        elif event == "shift_add/add" and spec.adders is None:
            events[f"{name}.shift_add/add_{sum_bits}"] += count
        elif event == "offset/add":
            events[f"{name}.offset/add_{sum_bits}"] += count
        else:
            events[f"{name}.{event}"] += count
    return events


def column_reads(placement: LayerPlacement, reads: tuple[ReadKind, ...]) -> int:
    """Return the columns accessed for all positions: one per conversion and input digit."""
    total = 0
    for kind in reads:
        matrix = placement.matrices[kind.matrix]
        together = matrix.form.planes == 2 and placement.spec.subtract_before_adc
        width = placement.spec.dac.digit_bits or kind.input_bits
        total += matrix.conversions * -(-kind.input_bits // width) * (2 if together else 1)
    return total * placement.positions


def area_um2(spec: CrossbarCoreSpec, arithmetic: ArithmeticSpec) -> float:
    """Return the area of all arrays with drivers, converters, registers and shift-adders."""
    total = float(spec.input_buffer.area_um2.value)
    total += float(spec.weight_memory.area_um2.value) if spec.weight_memory else 0.0
    for size in spec.sizes:
        arrays, around = _parts_um2(spec, size, arithmetic)
        converted = size.count.value
        if _shares_converters(spec):
            converted = -(-converted // 2)
        total += size.count.value * arrays + converted * around
    return total


def array_um2(spec: CrossbarCoreSpec, size: SizeSpec, arithmetic: ArithmeticSpec) -> float:
    """Return the area of one array with its drivers and its share of converters and adders."""
    array, around = _parts_um2(spec, size, arithmetic)
    return array + (around / 2 if _shares_converters(spec) else around)


def _shares_converters(spec: CrossbarCoreSpec) -> bool:
    """Tell whether a pair of arrays shares its converters."""
    return spec.sums_signed and not spec.interleaved


def _parts_um2(
    spec: CrossbarCoreSpec, size: SizeSpec, arithmetic: ArithmeticSpec
) -> tuple[float, float]:
    """Return the area of one array with its drivers, and of one set of what reads its columns."""
    sums = _SUM_BITS * arithmetic.register_per_bit_um2.value
    if spec.adders is None:
        sums += _SUM_BITS * arithmetic.add_per_bit_um2.value
    else:
        sums += spec.adders.area_um2.value
    rows, columns = size.rows.value, size.columns.value
    adcs = -(-columns // spec.converters.columns_per_adc.value)
    line = spec.input_bits.value * arithmetic.register_per_bit_um2.value
    line += spec.drivers.area_um2.value
    around = adcs * (spec.converters.area_um2.value + sums)
    around += columns * (spec.samplers.area_um2.value if spec.samplers else 0.0)
    around += multiplier_um2(_SUM_BITS, 8, arithmetic)
    cells = rows * columns * spec.cells.area_um2.value * (2 if spec.interleaved else 1)
    return cells + rows * line, around
