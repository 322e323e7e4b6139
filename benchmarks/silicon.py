# SPDX-License-Identifier: Apache-2.0
"""Energy of published crossbar chips, bottom-up from their own components, beside what they state.

    python benchmarks/silicon.py [--json FILE]

Every chip holds one matrix that fills an array and reads one vector; the crossbar model counts the
events, and the chip's stated components price them. Where a chip states none, a published formula
for converters and drivers does, at the chip's supply. No constant is tuned. Reads
`reference/cim/published.json` in `$ENOS_SHARED` (default `../shared`); prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enos_compiler.crossbar.adc_energy import in_memory_dac, in_memory_sar
from enos_compiler.crossbar.events import (
    CrossbarCost,
    CrossbarEvent,
    Figure,
    layer_cost,
    price_events,
    tera_operations_per_watt,
)
from enos_compiler.crossbar.operators import CrossbarOperator
from enos_compiler.crossbar.placement import place_layer
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.ir.shape import LayerShape

ROOT = Path(__file__).parents[1]
Design = Mapping[str, Any]
Prices = Mapping[CrossbarEvent, float]
READ_NS = 100.0
"""One read of a 128x128 memristive array with its peripherals, ISAAC and PUMA."""
LINE_FF = 0.7
"""Capacitance of a cell on the lines that a read charges, 28 nm; proportional to the node.

Source: ZigZag's validation of 22-28 nm SRAM macros (seen)."""
LINE_NODE_NM = 28


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip as the crossbar model sees it, and what it states of itself."""

    name: str
    process: str
    spec: CrossbarSpec
    outputs: int
    input_bits: int
    weight_bits: float
    """As the chip counts them: 1.5 are ternary."""
    stored_bits: int
    prices: Prices
    published: float
    """TOPS/W at two operations per multiply-accumulate."""
    figures: str
    """Where the prices come from."""
    explains: str
    operator: CrossbarOperator = "mac"
    extra_fj: float = 0.0
    """Energy per multiply-accumulate of stated parts outside the array."""

    @property
    def cost(self) -> CrossbarCost:
        """Events of one vector."""
        shape = LayerShape(m=self.outputs, c=self.spec.rows)
        placement = place_layer(self.spec, shape, self.operator, self.stored_bits)
        return layer_cost(placement, self.input_bits)

    @property
    def parts_fj(self) -> dict[str, float]:
        """Energy per multiply-accumulate by event; events without a price are left out."""
        cost = self.cost
        priced = {n: c for n, c in cost.events.items() if n in self.prices}
        known = {n: Figure(p, "pJ", self.figures) for n, p in self.prices.items()}
        parts = {n: 1e3 * e / cost.macs for n, e in price_events(priced, known).items()}
        return {**parts, "outside the array": self.extra_fj} if self.extra_fj else dict(parts)

    @property
    def ours_fj(self) -> float:
        """Energy per multiply-accumulate."""
        return sum(self.parts_fj.values())

    @property
    def published_fj(self) -> float:
        """The same as the chip states it."""
        return 2e3 / self.published

    @property
    def ratio(self) -> float:
        """Our energy over the chip's."""
        return self.ours_fj / self.published_fj

    @property
    def tops_per_watt(self) -> float:
        """Ours, at two operations per multiply-accumulate."""
        return tera_operations_per_watt(1, self.ours_fj * 1e-3)


def published_designs() -> dict[str, Design]:
    """Return the published figures by chip."""
    shared = Path(os.environ.get("ENOS_SHARED", ROOT.parent / "shared"))
    text = (shared / "reference" / "cim" / "published.json").read_text(encoding="utf-8")
    return {design["id"]: design for design in json.loads(text)["designs"]}


def _value(design: Design, *path: str) -> Any:
    found: Any = design
    for key in path:
        found = found[key]
    return found[0]


# Memristive studies: components in mW over a read of 100 ns


def memristive_prices(design: Design) -> dict[CrossbarEvent, float]:
    """Return prices in pJ of ISAAC's and PUMA's components, which are powers during one read.

    Powers are shared by what happens in one read of an ISAAC unit: 8 arrays, 1024 driven rows and
    1024 conversions.
    """
    power = {name.split(",")[0].split(" (")[0]: v for name, v in design["components_mW"].items()}

    def energy(name: str, share: int = 1) -> float:
        return float(power[name][0]) * READ_NS / share

    adc = next(n for n in power if n.startswith("ADC"))
    dac = next(n for n in power if n.startswith("DAC"))
    array = next(n for n in power if n.startswith("crossbar 128x128"))
    prices: dict[CrossbarEvent, float] = {
        "array/read": energy(array),
        "row_driver/drive": energy(dac),
        "adc/convert": energy(adc, 128),
        "sample_hold/sample": energy("sample and hold"),
        "shift_add/add": energy("shift and add", 256),
        "offset/add": energy("shift and add", 256),
    }
    return prices


def _memristive_spec() -> CrossbarSpec:
    return CrossbarSpec(
        rows=128,
        columns=128,
        cell=CellSpec(bits=2),
        encoding="offset",
        adc=AdcSpec(bits=8, columns_per_adc=128),
    )


def isaac(design: Design) -> Iterator[Chip]:
    """ISAAC's unit with its registers, then with all that tile and chip add."""
    power = design["components_mW"]
    register_bits = 39  # a 16-bit by 16-bit sum of 128 taps: what the output register keeps
    prices = memristive_prices(design) | {
        "input_register/write_bit": power["input register 2 KB per IMA"][0] * READ_NS / 1024,
        "output_register/write_bit": power["output register 256 B per IMA"][0]
        * READ_NS
        / (1024 * register_bits),
    }
    common: dict[str, Any] = {
        "process": "32 nm",
        "spec": _memristive_spec(),
        "outputs": 16,
        "input_bits": 16,
        "weight_bits": 16,
        "stored_bits": 16,
        "prices": prices,
        "published": _value(design, "TOPS_per_W"),
        "figures": "its own",
    }
    yield Chip(
        "ISAAC, arrays and registers",
        explains="the published figure is the chip's: eDRAM, bus, router and links are not in ours",
        **common,
    )
    macs_per_read = 8 * 128 * 128 // (8 * 16)
    units = 12 * 168
    outside = (power["chip (168 tiles)"][0] / units - power["IMA"][0]) * READ_NS
    yield Chip(
        "ISAAC, whole chip",
        explains="with its tiles' and links' stated power",
        extra_fj=1e3 * outside / macs_per_read,
        **common,
    )


def puma(design: Design) -> Iterator[Chip]:
    """PUMA's arrays; its registers, memories and network are not among the stated components."""
    yield Chip(
        "PUMA, arrays",
        "32 nm",
        _memristive_spec(),
        16,
        16,
        16,
        16,
        memristive_prices(design),
        _value(design, "TOPS_per_W"),
        "its own",
        "registers, memories and network are not among the stated components",
    )


# Chips that state energies


def jia(design: Design) -> Iterator[Chip]:
    """Jia 2020 at both supplies, one bit by one bit, without and with the digital datapath."""
    parts = design["components_pJ"]
    columns = 256
    for i, supply in enumerate(_value(design, "vdd_V")):
        array, adc, datapath = (
            parts[name][0][i]
            for name in (
                "array per column of 2304 rows, 1 input bit",
                "ADC per 8-bit conversion",
                "near-memory datapath per output",
            )
        )
        spec = CrossbarSpec(rows=2304, columns=columns, encoding="offset", adc=AdcSpec(bits=8))
        prices: dict[CrossbarEvent, float] = {
            "array/read": array * columns,
            "adc/convert": adc,
        }
        rest: tuple[int, int, float, int] = (columns, 1, 1, 1)
        yield Chip(
            f"Jia 2020, {supply} V",
            "65 nm",
            spec,
            *rest,
            prices,
            design["TOPS_per_W_1b"][0][i],
            "its own",
            "the published figure counts array and converters",
            "bw",
        )
        yield Chip(
            f"Jia 2020, {supply} V, with datapath",
            "65 nm",
            spec,
            *rest,
            {**prices, "shift_add/add": datapath},
            design["TOPS_per_W_1b"][0][i],
            "its own",
            "the digital datapath, which the published figure leaves out",
            "bw",
        )


def dong(design: Design) -> Iterator[Chip]:
    """Dong 2020 by the data: energy of an access at the mean output codes 0, 6 and 15."""
    codes = "0.8 V by mean output code 0,1,2,4,6,8,10,12,15"
    by_code = _value(design, "energy_pJ_per_access", codes)
    energies = {0: by_code[0], 6: by_code[4], 15: by_code[8]}
    stated = _value(design, "TOPS_per_W_by_output_code", "0.8 V: code 15, 6, 0")
    spec = CrossbarSpec(
        rows=64,
        columns=64,
        encoding="offset",
        dac=DacSpec(digit_bits=None),
        adc=AdcSpec(bits=4),
    )
    for code, efficiency in zip((15, 6, 0), stated, strict=True):
        yield Chip(
            f"Dong 2020, output code {code}",
            "7 nm, 0.8 V",
            spec,
            16,
            4,
            4,
            4,
            {"array/read": energies[code]},
            efficiency,
            "its own, per access",
            "one figure for a whole access: our count of accesses and MACs, nothing more",
        )


def wan(design: Design) -> Iterator[Chip]:
    """NeuRRAM at four settings: its three components per operation, as drives and conversions."""
    rows, columns = 128, 256
    for inputs, outputs, _, efficiency, *parts in design["by_bits"]["rows"]:
        if inputs not in (1, 4, 6, 8):
            continue
        lines, neurons, pulses = (2e-3 * p for p in parts)  # pJ per multiply-accumulate
        spec = CrossbarSpec(
            rows=rows,
            columns=columns,
            cell=CellSpec(bits=3),
            interleaved=True,
            dac=DacSpec(digit_bits=None),
            adc=AdcSpec(bits=outputs),
        )
        prices: dict[CrossbarEvent, float] = {
            "row_driver/drive": (lines + pulses) * columns / 2,
            "adc/convert": neurons * rows,
        }
        yield Chip(
            f"NeuRRAM, {inputs} to {outputs} bits",
            "130 nm, 1.8 V",
            spec,
            columns,
            inputs,
            4,
            4,
            prices,
            efficiency,
            "its own, per operation",
            "its parts per operation add up to this share of its efficiency: our count, no more",
        )


# Chips that state no components: published formulas at their supply


def _by_formula(
    name: str,
    design: Design,
    spec: CrossbarSpec,
    outputs: int,
    bits: tuple[int, float, int],
    supply_v: float,
    explains: str,
) -> Chip:
    node = float(_value(design, "node_nm"))
    cells = spec.rows * spec.columns * (2 if spec.interleaved else 1)
    line_fj = LINE_FF * node / LINE_NODE_NM * supply_v**2
    share = (spec.rows_at_once or spec.rows) / spec.rows
    digit = spec.dac.digit_bits or bits[0]
    prices: dict[CrossbarEvent, float] = {
        "array/read": 1e-3 * line_fj * cells * share,
        "row_driver/drive": in_memory_dac(digit, supply_v).value,
        "adc/convert": in_memory_sar(spec.adc.bits, supply_v).value,
    }
    return Chip(
        name,
        f"{node:g} nm, {supply_v} V",
        spec,
        outputs,
        *bits,
        prices,
        _value(design, "TOPS_per_W"),
        "formula",
        explains,
    )


def formula_chips(designs: Mapping[str, Design]) -> Iterator[Chip]:
    """DIANA's core, the macro of its family, and two 8-bit macros."""

    def charge_array(rows: int, adc_bits: int) -> CrossbarSpec:
        return CrossbarSpec(
            rows=rows,
            columns=512,
            interleaved=True,
            dac=DacSpec(digit_bits=None),
            adc=AdcSpec(bits=adc_bits),
        )

    yield _by_formula(
        "DIANA, analog core",
        designs["diana"],
        charge_array(1152, 6),
        512,
        (7, 1.5, 2),
        0.8,
        "its supply is not stated, that of the macro below is taken; what the core has around its "
        "array is in no formula",
    )
    yield _by_formula(
        "Papistas 2021",
        designs["papistas_cicc21"],
        charge_array(1024, 6),
        512,
        (7, 2, 2),
        0.8,
        "the formulas were fitted to this chip among others",
    )
    yield _by_formula(
        "IEEE 9896828",
        designs["ieee_9896828"],
        CrossbarSpec(16, 96, encoding="offset", dac=DacSpec(2), adc=AdcSpec(bits=5)),
        12,
        (8, 8, 8),
        0.9,
        "32 conversions for 16 MACs: the formula's 100 fF per bit is several times what this "
        "chip's small converters can take",
    )
    yield _by_formula(
        "ISSCC 2023 7.8",
        designs["ieee_10067289"],
        CrossbarSpec(64, 256, encoding="offset", rows_at_once=8, adc=AdcSpec(bits=3)),
        32,
        (8, 8, 8),
        0.8,
        "8 conversions per MAC: the same, more so at 3 bits, where no SAR stands; the published "
        "figure is at 37.5 % toggling and 50 % zero weights",
    )
    yield _by_formula(
        "XNOR-SRAM",
        designs["xnor_sram"],
        CrossbarSpec(256, 64, encoding="offset", adc=AdcSpec(bits=4)),
        64,
        (1, 1, 2),
        0.6,
        "its cells form resistive dividers whose static current no formula here has",
    )


NOT_PRICED = {
    "MF-Net": "no component and no supply is stated",
    "Collaborative digitization": "no absolute energy is stated",
}


def chips() -> list[Chip]:
    """Return every chip that can be priced."""
    designs = published_designs()
    found: list[Chip] = []
    for name, make in (
        ("isaac", isaac),
        ("puma", puma),
        ("jia20", jia),
        ("dong20_sinangil21", dong),
        ("wan22", wan),
    ):
        found += make(designs[name])
    return [*found, *formula_chips(designs)]


HEADER = (
    "| chip | process | in x w, ADC bits | figures | fJ per MAC: ours | published "
    "| fJ per MAC and bit product: ours | published | ours / published | what explains it |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def row(chip: Chip) -> str:
    """Return a chip's line of the table."""
    product = chip.input_bits * chip.weight_bits
    return (
        f"| {chip.name} | {chip.process} | {chip.input_bits} x {chip.weight_bits:g}, "
        f"{chip.spec.adc.bits} | {chip.figures} | {_short(chip.ours_fj)} "
        f"| {_short(chip.published_fj)} | {_short(chip.ours_fj / product)} "
        f"| {_short(chip.published_fj / product)} "
        f"| {chip.ratio:.2f} | {chip.explains} |"
    )


def table(found: list[Chip]) -> str:
    """Return the table and what is not in it."""
    lines = [HEADER, *(row(chip) for chip in found), ""]
    lines += [f"- {name}: {why}; not priced." for name, why in NOT_PRICED.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    found = chips()
    sys.stdout.write(table(found) + "\n")
    if options.json:
        rows = [
            {
                "chip": c.name,
                "ours_fj_per_mac": c.ours_fj,
                "published_fj_per_mac": c.published_fj,
                "ratio": c.ratio,
                "tops_per_watt": c.tops_per_watt,
                "parts_fj_per_mac": c.parts_fj,
            }
            for c in found
        ]
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
