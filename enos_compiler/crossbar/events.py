# SPDX-License-Identifier: Apache-2.0
"""What a layer on crossbars costs: integer events per component, cycles, component counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from enos_compiler.crossbar.blocks import digit_widths
from enos_compiler.crossbar.operators import ReadKind, read_kinds
from enos_compiler.crossbar.placement import LayerPlacement, MatrixPlacement
from enos_compiler.errors import SpecError, nearest

CrossbarEvent = Literal[
    "array/read",
    "row_driver/drive",
    "sample_hold/sample",
    "adc/convert",
    "shift_add/add",
    "offset/add",
    "input_register/write_bit",
    "output_register/write_bit",
    "cell/program",
]
"""component/action.

array/read: one access of one array (one row group, one input digit). row_driver/drive: one row
of one plane driven with one digit. sample_hold/sample, adc/convert: one column value.
shift_add/add: one code added to an accumulator. offset/add: one addition for the inputs' sum or
its removal.
registers: bits written. cell/program: one cell written.
"""
CROSSBAR_EVENTS: tuple[CrossbarEvent, ...] = get_args(CrossbarEvent)

CrossbarPart = Literal["array", "row_driver", "sample_hold", "adc", "shift_add"]
"""Parts whose area a specification gives, each."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A constant with its unit and where it comes from."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class CrossbarCost:
    """Cost of one inference of a layer, and of one programming of its weights."""

    events: Mapping[CrossbarEvent, int]
    """Per inference, programming left out."""
    programming: Mapping[CrossbarEvent, int]
    """Per programming of the layer, all copies."""
    cycles: int
    """Conversion slots of one ADC; an access without conversion takes one as well."""
    parts: Mapping[CrossbarPart, int]
    """Components that hold the layer, all copies."""
    macs: int


def _digits_of(placement: LayerPlacement, kind: ReadKind) -> int:
    magnitude = kind.input_bits - kind.inputs_signed
    return len(digit_widths(magnitude, placement.spec.dac.digit_bits or magnitude))


def _accumulator_bits(placement: LayerPlacement, matrix: MatrixPlacement, kind: ReadKind) -> int:
    """Width of the signed sum over all taps."""
    weight = (1 << sum(matrix.form.slice_widths)) - 1
    value = (1 << (kind.input_bits - kind.inputs_signed)) - 1
    return (placement.shape.taps * weight * value).bit_length() + 1


def read_events(placement: LayerPlacement, kind: ReadKind) -> tuple[dict[CrossbarEvent, int], int]:
    """Events and cycles of one read of one input vector."""
    spec, matrix = placement.spec, placement.matrices[kind.matrix]
    digits = _digits_of(placement, kind)
    steps = digits if spec.adc.per_digit else 1
    converted = matrix.conversions * steps
    shape = placement.shape
    rows = sum(t.rows for t in matrix.tiles)
    events: dict[CrossbarEvent, int] = {
        "array/read": matrix.arrays * matrix.reads * digits,
        "row_driver/drive": rows * matrix.form.planes * digits,
        "sample_hold/sample": converted,
        "adc/convert": converted,
        "shift_add/add": converted,
        "input_register/write_bit": rows * matrix.tile_planes * kind.input_bits,
        "output_register/write_bit": converted * _accumulator_bits(placement, matrix, kind),
    }
    if matrix.form.offset:
        sums = 0 if spec.encoding == "unit_column" else shape.g * (shape.taps - 1)
        events["offset/add"] = sums + shape.g * shape.m
    converters = -(-spec.columns // spec.adc.columns_per_adc)
    slots = -(-matrix.columns_per_read // converters)  # columns in use are spread over them
    per_read = digits * slots if spec.adc.per_digit else digits - 1 + slots
    return events, matrix.reads * per_read


def layer_cost(
    placement: LayerPlacement,
    input_bits: int,
    *,
    inputs_signed: bool = False,
    zero_point: bool = False,
    copies: int = 1,
    rounds: int = 1,
) -> CrossbarCost:
    """Cost of a placed layer.

    Reads of one input vector follow each other, all arrays of the layer work at once, and copies
    share the positions.

    Args:
        placement: from `place_layer`.
        input_bits: width of the inputs, sign included.
        inputs_signed: inputs carry a sign.
        zero_point: inputs are unsigned codes around a zero point.
        copies: replicas of the weights; events stay, cycles fall, programming and parts grow.
        rounds: turns in which the layer's arrays are filled and read; cycles grow, parts shrink to
            the share that exists, and `programming` is then due in every inference.
    """
    per_vector: Counter[CrossbarEvent] = Counter()
    cycles = 0
    kinds = read_kinds(
        placement.operator, input_bits, inputs_signed=inputs_signed, zero_point=zero_point
    )
    for kind in kinds:
        events, busy = read_events(placement, kind)
        per_vector.update(events)
        cycles += busy
    waves = -(-placement.positions // copies)
    return CrossbarCost(
        events={name: per_vector[name] * placement.positions for name in sorted(per_vector)},
        programming={"cell/program": placement.written_cells * copies},
        cycles=waves * cycles * rounds,
        parts=_parts(placement, copies, rounds),
        macs=placement.shape.macs,
    )


def _parts(placement: LayerPlacement, copies: int, rounds: int) -> dict[CrossbarPart, int]:
    spec = placement.spec
    total: Counter[CrossbarPart] = Counter()
    for matrix in placement.matrices:
        arrays = -(-matrix.arrays * copies // rounds)
        shared = matrix.tile_planes == 2 and spec.subtract_before_adc
        converted = -(-arrays // 2) if shared else arrays
        adcs = converted * -(-spec.columns // spec.adc.columns_per_adc)
        drivers = spec.rows * (matrix.form.planes if spec.interleaved else 1)
        total.update(
            {
                "array": arrays,
                "row_driver": arrays * drivers,
                "sample_hold": converted * spec.columns,
                "adc": adcs,
                "shift_add": adcs,
            }
        )
    return dict(total)


def price_events(
    events: Mapping[CrossbarEvent, int], prices: Mapping[CrossbarEvent, Figure]
) -> dict[CrossbarEvent, float]:
    """Energy in pJ by event; the total is the sum.

    Raises:
        SpecError: an event that occurs has no price, or one in another unit; never taken as zero.
    """
    out: dict[CrossbarEvent, float] = {}
    for name in sorted(events):
        if not events[name]:
            continue
        if name not in prices:
            raise SpecError(
                f"{events[name]} events of {name} have no energy",
                place=f"prices[{name}]",
                remedy=nearest(name, prices),
            )
        if prices[name].unit != "pJ":
            raise SpecError(
                f"the energy of {name} is in {prices[name].unit}",
                place=f"prices[{name}]",
                remedy="pJ",
            )
        out[name] = events[name] * prices[name].value
    return out


def area_um2(
    parts: Mapping[CrossbarPart, int], areas: Mapping[CrossbarPart, Figure]
) -> dict[CrossbarPart, float]:
    """Area in square micrometres by part; the total is the sum.

    Raises:
        SpecError: a part has no area, or one in another unit.
    """
    for name in parts:
        if name not in areas or areas[name].unit != "um2":
            raise SpecError(
                f"{parts[name]} x {name} have no area in um2",
                place=f"areas[{name}]",
                remedy=nearest(name, areas),
            )
    return {name: parts[name] * areas[name].value for name in sorted(parts)}


def tera_operations_per_second(macs: int, latency_ns: float) -> float:
    """TOPS at two operations per multiply-accumulate of the layer, empty cells not counted."""
    return 2e-3 * macs / latency_ns


def tera_operations_per_watt(macs: int, energy_pj: float) -> float:
    """TOPS/W at two operations per multiply-accumulate: 2 / (pJ per MAC)."""
    return 2 * macs / energy_pj
