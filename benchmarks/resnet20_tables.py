# SPDX-License-Identifier: Apache-2.0
"""Tables and figures of `resnet20_crossbar.py`: accuracy and energy by what was swept.

    python benchmarks/resnet20_tables.py [--results FILE] [--figures DIR]

Prints Markdown. Energy is that of the crossbars alone, arrays to shift-and-add, from the events of
all twenty layers and the components that ISAAC and PUMA state (32 nm, memristive cells of two bits,
`benchmarks/silicon.py`): an array's read in proportion to its cells, a conversion of n bits
(n / 8)^2 of one of 8 bits (PUMA). Reads `$ENOS_SHARED` as the sweep does.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path

from resnet20_crossbar import (
    ADC_BITS,
    BLOCK,
    CELL_BITS,
    CENTRE,
    CROSS_ADC_BITS,
    CROSS_VARIATION,
    RESULTS,
    ROOT,
    SIZES,
    VARIATIONS,
    Setting,
    Task,
    read_results,
)
from silicon import memristive_prices, published_designs

from enos_compiler.crossbar.events import CrossbarEvent, Figure, layer_cost, price_events
from enos_compiler.crossbar.montecarlo import monte_carlo
from enos_compiler.crossbar.placement import place_layer
from enos_compiler.evaluate.study import wilson
from enos_compiler.ir.shape import LayerShape

CONFIDENCE = 0.95
BITS = 8
"""Width of weights and activations."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting's accuracy: its mean and what it rests on."""

    setting: Setting
    mean: float
    low: float
    high: float
    """Interval for new devices and new images."""
    images: int
    devices: int


def points(results: Mapping[Task, int]) -> dict[Setting, Point]:
    """Return what the finished tasks say; of a setting with spread, images all devices answered."""
    by_device: dict[Setting, dict[int, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for task, correct in results.items():
        by_device[task.setting][task.device][task.block] = correct
    found = {}
    for setting, devices in by_device.items():
        blocks = set.intersection(*(set(done) for done in devices.values()))
        images = BLOCK * len(blocks)
        shares = [sum(done[b] for b in blocks) / images for done in devices.values()]
        found[setting] = _point(setting, shares, images)
    return found


def _point(setting: Setting, shares: Sequence[float], images: int) -> Point:
    mean, half = shares[0], 0.0
    if len(shares) > 1:
        values = iter(shares)
        estimate = monte_carlo(lambda _: next(values), devices=len(shares), confidence=CONFIDENCE)
        mean, half = estimate.mean, estimate.high - estimate.mean
    low, high = wilson(mean, images, CONFIDENCE)
    return Point(
        setting,
        mean,
        max(0.0, mean - ((mean - low) ** 2 + half**2) ** 0.5),
        min(1.0, mean + ((high - mean) ** 2 + half**2) ** 0.5),
        images,
        len(shares),
    )


# Energy


def resnet20_shapes() -> list[LayerShape]:
    """Return the nests of the network's twenty layers."""
    plan = [(3, 16, 32, 1)] + [(16, 16, 32, 1)] * 6
    plan += [(16, 32, 16, 2)] + [(32, 32, 16, 1)] * 5
    plan += [(32, 64, 8, 2)] + [(64, 64, 8, 1)] * 5
    shapes = [
        LayerShape(m=m, c=c, p=p, q=p, r=3, s=3, stride=(s, s), padding=(1, 1, 1, 1))
        for c, m, p, s in plan
    ]
    return [*shapes, LayerShape(m=10, c=64)]


@cache
def energy_uj(setting: Setting) -> float:
    """Return the energy of the crossbars in one inference, in uJ."""
    base = memristive_prices(published_designs()["isaac"])
    prices: dict[CrossbarEvent, float] = {
        **base,
        "array/read": base["array/read"] * (setting.size / 128) ** 2,
        "adc/convert": base["adc/convert"] * (setting.adc_bits / 8) ** 2,
    }
    known = {name: Figure(value, "pJ", "ISAAC, PUMA") for name, value in prices.items()}
    total = 0.0
    for shape in resnet20_shapes():
        cost = layer_cost(place_layer(setting.spec, shape, "mac", BITS), BITS)
        counted = {name: count for name, count in cost.events.items() if name in known}
        total += sum(price_events(counted, known).values())
    return total * 1e-6


# Tables


@dataclass(frozen=True, slots=True)
class Sweep:
    """One property, varied around a centre."""

    title: str
    column: str
    label: Callable[[Setting], str]
    settings: tuple[Setting, ...]


def sweeps() -> tuple[Sweep, ...]:
    """Return the tables, in the order of the document."""

    def size(s: Setting) -> str:
        return f"{s.size}"

    def cell(s: Setting) -> str:
        return f"{s.cell_bits}"

    coarse = replace(CENTRE, adc_bits=CROSS_ADC_BITS)
    spread = replace(CENTRE, variation=CROSS_VARIATION)
    return (
        Sweep(
            "ADC bits",
            "ADC bits",
            lambda s: f"{s.adc_bits}",
            tuple(replace(CENTRE, adc_bits=b) for b in ADC_BITS),
        ),
        Sweep(
            "Crossbar size", "rows and columns", size, tuple(replace(CENTRE, size=n) for n in SIZES)
        ),
        Sweep(
            f"Crossbar size at {CROSS_ADC_BITS} ADC bits",
            "rows and columns",
            size,
            tuple(replace(coarse, size=n) for n in SIZES),
        ),
        Sweep(
            "Cell bits",
            "cell bits",
            cell,
            tuple(replace(CENTRE, cell_bits=c) for c in CELL_BITS),
        ),
        Sweep(
            f"Cell bits at {CROSS_ADC_BITS} ADC bits",
            "cell bits",
            cell,
            tuple(replace(coarse, cell_bits=c) for c in CELL_BITS),
        ),
        Sweep(
            "Variation",
            "variation",
            lambda s: f"{s.variation:.0%}",
            tuple(replace(CENTRE, variation=v) for v in VARIATIONS),
        ),
        Sweep(
            f"Cell bits at {CROSS_VARIATION:.0%} variation",
            "cell bits",
            cell,
            tuple(replace(spread, cell_bits=c) for c in CELL_BITS),
        ),
    )


def table(sweep: Sweep, found: Mapping[Setting, Point]) -> str:
    """Return one sweep as Markdown."""
    lines = [
        f"| {sweep.column} | accuracy | 95 % interval | images | devices | crossbars, uJ |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for setting in sweep.settings:
        point = found.get(setting)
        if point is not None:
            lines.append(
                f"| {sweep.label(setting)} | {point.mean:.1%} | {point.low:.1%} to "
                f"{point.high:.1%} | {point.images:,} | {point.devices} "
                f"| {energy_uj(setting):.3g} |"
            )
    return "\n".join(lines)


def tables(found: Mapping[Setting, Point]) -> str:
    """Return all sweeps as Markdown."""
    return "\n\n".join(f"### {s.title}\n\n{table(s, found)}" for s in sweeps())


# Figures

COLOURS = ("#1f4e79", "#d2691e")


def draw(found: Mapping[Setting, Point], folder: Path) -> None:
    """Write `resnet20_crossbar.svg`: accuracy above, energy below, a column per property."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update(
        {
            "svg.fonttype": "none",  # text stays text: small files, words that can be searched
            "svg.hashsalt": "enos",  # equal figures are equal files
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Arial"],
            "font.size": 8,
        }
    )
    adc, size, size_coarse, cell, cell_coarse, spread, _ = sweeps()
    columns = ((adc,), (size, size_coarse), (cell, cell_coarse), (spread,))
    names = ("8 ADC bits", f"{CROSS_ADC_BITS} ADC bits")
    figure, axes = plt.subplots(2, 4, figsize=(10, 4.6), sharex="col", sharey="row")
    for column, group in enumerate(columns):
        top, bottom = axes[:, column]
        for sweep, colour, name in zip(group, COLOURS, names, strict=False):
            known = [found[s] for s in sweep.settings if s in found]
            x = range(len(known))
            y = [100 * p.mean for p in known]
            reach = [
                [100 * (p.mean - p.low) for p in known],
                [100 * (p.high - p.mean) for p in known],
            ]
            top.errorbar(x, y, reach, marker="o", ms=3, lw=1, capsize=2, color=colour, label=name)
            energies = [energy_uj(p.setting) for p in known]
            bottom.plot(x, energies, marker="o", ms=3, lw=1, color=colour)
            bottom.set_xticks(list(x), [sweep.label(p.setting) for p in known])
            bottom.set_xlabel(sweep.column)
        top.grid(alpha=0.3)
        bottom.grid(alpha=0.3)
        if len(group) > 1:
            top.legend(frameon=False, loc="lower right")
    axes[0, 0].set_ylabel("accuracy, %")
    axes[1, 0].set_ylabel("crossbars, uJ an image")
    axes[1, 0].set_ylim(bottom=0)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    (folder / "resnet20_crossbar.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plt.close(figure)


def main() -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures", metavar="DIR")
    options = parser.parse_args()
    found = points(read_results(options.results))
    sys.stdout.write(tables(found) + "\n")
    draw(found, options.figures)


if __name__ == "__main__":
    main()
