# SPDX-License-Identifier: Apache-2.0
"""What a sampling program does, counted: events by component, and the cycles of a step.

Every event is booked whether the step is accepted or not: a state that is kept is written back.
Logic is named by its elementary operations (`multiply_7x27`, `add_27`), priced by the chip's
arithmetic; cells, converters and random bits have prices of their own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from enos_compiler.errors import InfeasibleError
from enos_compiler.sampling.codes import MEAN_FRACTION_BITS
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.randomness import Lanes

LOGIC = frozenset({"proposal", "gradient", "density", "exponential", "decision", "state"})
"""Components whose events are elementary operations."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Widths of the words that sums need, in bits."""

    product: int
    """W_k d."""
    gradient: int
    """W_k (x - M_k)."""
    quadratic: int
    """(x - M_k)^T W_k (x - M_k)."""
    mass: int
    """A sum of exponentials."""

    @classmethod
    def of(cls, form: SamplerForm, components: int, dimensions: int) -> Widths:
        """Return the widths that K components in D dimensions need."""
        grown = (dimensions - 1).bit_length()
        apart = form.state_bits + MEAN_FRACTION_BITS + 1
        gradient = form.weight_bits + apart + grown
        return cls(
            product=form.weight_bits + form.proposal_bits + grown,
            gradient=gradient,
            quadratic=gradient + apart + grown,
            mass=form.exponential_bits + 1 + (2 * components - 1).bit_length(),
        )


def conversions(form: SamplerForm, components: int, dimensions: int) -> int:
    """Return the conversions of one step of one chain."""
    groups = -(-form.weight_bits // form.bits_per_conversion)
    return components * dimensions * groups


def step_events(form: SamplerForm, components: int, dimensions: int) -> Counter[str]:
    """Return the events of one step of one chain, as `component/action`."""
    k, d = components, dimensions
    lanes, width = Lanes.of(form, d), Widths.of(form, k, d)
    converted = conversions(form, k, d)
    signs = d * (lanes.sign > 0)
    whitened = signs + form.uniform_bits
    events = Counter(
        {
            "random/bit": lanes.total,
            "proposal/xor_1": whitened * (form.whitening - 1) + signs * form.proposal_bits,
            f"proposal/add_{form.proposal_bits}": d * (lanes.step - 1),
            "dac/convert": d,
            "array/cell": k * d * d * form.weight_bits,
            "adc/convert": converted,
            f"gradient/multiply_{form.proposal_bits}x{width.gradient}": k * d,
            f"gradient/add_{width.quadratic}": k * d,
            f"gradient/add_{width.gradient}": 2 * k * d,
            f"exponential/add_{form.log_bits}": 2 * k,
            f"exponential/compare_{form.log_bits}": 2 * k - 1,
            "table/read": 2 * k,
            f"exponential/shift_{form.exponential_bits}": 2 * k,
            f"exponential/add_{width.mass}": 2 * (k - 1),
            f"decision/multiply_{form.uniform_bits + 1}x{width.mass}": 1,
            f"decision/compare_{form.uniform_bits + 1 + width.mass}": 1,
            f"state/add_{form.state_bits}": d,
            **_written(form, width, k, d),
        }
    )
    if converted > k * d:
        events[f"gradient/add_{width.product}"] += converted - k * d
    events[f"density/add_{form.log_bits}"] += k
    return +events


def refresh_events(form: SamplerForm, components: int, dimensions: int) -> Counter[str]:
    """Return the events of one exact recomputation of one chain; weights are read as words."""
    k, d = components, dimensions
    width = Widths.of(form, k, d)
    apart = form.state_bits + MEAN_FRACTION_BITS + 1
    return +Counter(
        {
            "array/word": k * d * d,
            f"gradient/add_{apart}": k * d,
            f"gradient/multiply_{form.weight_bits}x{apart}": k * d * d,
            f"gradient/add_{width.gradient}": k * d * (d - 1),
            f"gradient/multiply_{apart}x{width.gradient}": k * d,
            f"gradient/add_{width.quadratic}": k * (d - 1),
            f"density/add_{form.log_bits}": k,
        }
    )


def _written(form: SamplerForm, width: Widths, k: int, d: int) -> dict[str, int]:
    """Return the registers that a step writes: bits by width."""
    written: Counter[str] = Counter()
    for bits, count in (
        (form.state_bits, d),
        (width.gradient, k * d),
        (width.quadratic, k),
        (form.log_bits, k),
    ):
        written[f"state/register_{bits}"] += count
    return dict(written)


def refreshes(form: SamplerForm, steps: int) -> int:
    """Return the recomputations of a run of so many steps, the first one included."""
    return 1 + ((steps - 1) // form.refresh if form.refresh and steps else 0)


def run_events(form: SamplerForm, components: int, dimensions: int, *, steps: int) -> Counter[str]:
    """Return the events of a run: `form.chains` chains of so many steps."""
    total: Counter[str] = Counter()
    for events, times in (
        (step_events(form, components, dimensions), steps),
        (refresh_events(form, components, dimensions), refreshes(form, steps)),
    ):
        for name, count in events.items():
            total[name] += count * times * form.chains
    return total


@dataclass(frozen=True, slots=True)
class Units:
    """What serves one chain, and how long it takes."""

    converters: int
    """ADCs; conversions beyond them take turns."""
    multipliers: int
    table_ports: int
    read_cycles: int
    """From the DAC to settled columns."""
    conversion_cycles: int


def step_cycles(form: SamplerForm, components: int, dimensions: int, units: Units) -> int:
    """Return the cycles from one step of a chain to its next.

    Read, conversions, dot products, exponentials, decision follow each other, as each needs the
    last; the next step is drawn meanwhile.
    """
    k, d = components, dimensions
    turns = -(-conversions(form, k, d) // units.converters)
    return (
        units.read_cycles
        + turns * units.conversion_cycles
        + -(-k * d // units.multipliers)
        + -(-2 * k // units.table_ports)
        + 1
    )


def refresh_cycles(components: int, dimensions: int, units: Units) -> int:
    """Return the cycles of one exact recomputation."""
    k, d = components, dimensions
    return -(-k * d * d // units.multipliers) + -(-k * d // units.multipliers)


def run_cycles(
    form: SamplerForm, components: int, dimensions: int, units: Units, *, steps: int
) -> int:
    """Return the cycles of a run; chains work side by side."""
    once = step_cycles(form, components, dimensions, units)
    again = refresh_cycles(components, dimensions, units)
    return steps * once + refreshes(form, steps) * again


def chains_in(
    form: SamplerForm, components: int, dimensions: int, *, rows: int, columns: int
) -> int:
    """Return the chains that one array holds: each has rows and columns of its own.

    Raises:
        InfeasibleError: not even one fits; names what is needed and what is there.
    """
    wide = components * dimensions * form.weight_bits
    if dimensions > rows or wide > columns:
        raise InfeasibleError(
            f"{dimensions} dimensions of {components} components at {form.weight_bits} bits need "
            f"{dimensions} rows and {wide} columns, an array has {rows} x {columns}",
            place="sampler",
            remedy="fewer components, fewer weight bits or a larger array",
        )
    return min(rows // dimensions, columns // wide)
