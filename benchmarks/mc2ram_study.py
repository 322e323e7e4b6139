# SPDX-License-Identifier: Apache-2.0
"""The study of `mc2ram.py`: cost at the published point, sweeps, an operating point, larger ones.

Quality is measured on the samples that a program gives, against the exact mixture. The distances of
as many exact samples stand beside them, so that a reader sees what noise alone would give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from enos_compiler.cores.sampler import SamplerCore
from enos_compiler.cores.target import load_target
from enos_compiler.errors import EnosError
from enos_compiler.sampling.codes import encode
from enos_compiler.sampling.device import Imperfections
from enos_compiler.sampling.diagnostics import (
    diagnose,
    grid_distance,
    mode_shares,
    sliced_wasserstein,
    spread_over_cells,
)
from enos_compiler.sampling.events import (
    Units,
    conversions,
    refresh_events,
    run_cycles,
    step_cycles,
    step_events,
)
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import GaussianMixture
from enos_compiler.sampling.randomness import RandomCells
from enos_compiler.sampling.run import IDEAL, Hardware, run

TWO = GaussianMixture(
    np.array([0.6, 0.4]),
    np.array([[1.0, 0.0], [-1.5, 1.0]]),
    np.array([[[1.0, 0.5], [0.5, 1.0]], [[0.5, -0.2], [-0.2, 0.8]]]),
)
"""Two components in two dimensions, overlapping."""

PUBLISHED = {"samples": 500, "cycles": 2000, "power_uw": 91.0}
"""Shukla et al., MC2RAM, arXiv 2003.02629: 2-D, 2 mixtures, 45 nm, 1 GHz (abstract seen)."""

Row = dict[str, Any]
Tell = Callable[[str], None]
SEED = 2020


def sampler() -> SamplerCore:
    """Return the sampling core of the target `mc2ram`."""
    core = load_target("mc2ram").cores["sampler"]
    if not isinstance(core, SamplerCore):
        raise TypeError("mc2ram has no sampling core")
    return core


def prices(core: SamplerCore, form: SamplerForm, components: int, dimensions: int) -> Row:
    """Return what one step of one chain costs, its share of a refresh included.

    Energies in pJ by component, cycles, power at the clock.
    """
    parts: dict[str, float] = {}
    refreshed = refresh_events(form, components, dimensions) if form.refresh else {}
    for events, share in (
        (step_events(form, components, dimensions), 1.0),
        (refreshed, 1 / form.refresh if form.refresh else 0.0),
    ):
        for name, count in events.items():
            part = name.partition("/")[0]
            energy = share * count * core.energy_pj(f"{core.name}.{name}")
            parts[part] = parts.get(part, 0.0) + energy
    cycles = step_cycles(form, components, dimensions, core.units)
    total = sum(parts.values())
    return {
        "parts_pj": parts,
        "step_pj": total,
        "step_cycles": cycles,
        "power_uw": total / (cycles * core.chip.clock_ns) * 1e3,
        "conversions": conversions(form, components, dimensions),
    }


def quality(
    mixture: GaussianMixture,
    form: SamplerForm,
    samples: int,
    hardware: Hardware = IDEAL,
    *,
    seed: int = SEED,
) -> Row:
    """Run a program and say how good its samples are.

    A setting that cannot be built says why instead.
    """
    try:
        codes = encode(mixture, form)
        trace = run(codes, form, samples, seed=seed, hardware=hardware)
    except EnosError as error:
        return {"refused": error.message}
    found = spread_over_cells(codes.real(trace.states), codes.step, seed=seed)
    diagnosis = diagnose(found, trace.acceptance)
    flat = found.reshape(-1, mixture.dimensions)
    per_chain = float(diagnosis.effective_samples.min()) / form.chains
    row: Row = {
        "acceptance": float(trace.acceptance.mean()),
        "r_hat": float(np.nanmax(diagnosis.r_hat)),
        "tau_steps": float(diagnosis.autocorrelation_time.max() * form.thinning),
        "effective_per_chain": per_chain,
        "saturated": trace.saturated,
        "mean_error": float(
            (np.abs(flat.mean(0) - mixture.mean) / np.sqrt(np.diag(mixture.covariance))).max()
        ),
    }
    if mixture.dimensions == 2:
        distance = grid_distance(mixture, flat)
        row |= {"tv": distance.total_variation, "kl_bits": distance.kl_bits}
    return row


def floor(mixture: GaussianMixture, samples: int) -> Row:
    """Return the distances of as many exact, independent samples."""
    distance = grid_distance(mixture, mixture.sample(samples, np.random.default_rng(SEED)))
    return {"tv": distance.total_variation, "kl_bits": distance.kl_bits}


def _sweep(name: str, values: Iterable[Any], make: Callable[[Any], Row], tell: Tell) -> list[Row]:
    tell(f"  {name}")
    return [{"name": name, "value": value, **make(value)} for value in values]


def sweeps(base: SamplerForm, samples: int, tell: Tell, *, quick: bool) -> list[Row]:
    """Vary one thing at a time around a form."""

    def formed(**changes: Any) -> Row:
        try:
            form = replace(base, **changes)
        except EnosError as error:
            return {"refused": str(error.message)}
        return quality(TWO, form, samples)

    def on(hardware: Hardware, **changes: Any) -> Row:
        return quality(TWO, replace(base, **changes), samples, hardware)

    bits = (4, 8) if quick else (3, 4, 5, 6, 7, 8)
    wide = {"proposal_bits": 7}
    found = _sweep("weight bits", bits, lambda b: formed(weight_bits=b, **wide), tell)
    found += _sweep("proposal bits", bits, lambda b: formed(proposal_bits=b), tell)
    found += _sweep("ADC bits", bits, lambda b: formed(adc_bits=b), tell)
    found += _sweep(
        "ADC bits, 4 columns merged",
        bits,
        lambda b: formed(adc_bits=b, bits_per_conversion=4),
        tell,
    )
    found += _sweep(
        "all bits", bits, lambda b: formed(weight_bits=b, proposal_bits=b, adc_bits=b), tell
    )
    refresh = (0, 64) if quick else (0, 8, 16, 32, 64, 128, 256)
    for merged in (1, 4, 8):
        found += _sweep(
            f"refresh interval, {merged} column{'s' * (merged > 1)} a conversion",
            refresh,
            lambda r, m=merged: formed(refresh=r, bits_per_conversion=m),
            tell,
        )
    mismatch = (0.0, 0.2) if quick else (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
    for every in (16, 64, 0):
        found += _sweep(
            f"mismatch, refresh {every or 'never'}",
            mismatch,
            lambda m, r=every: on(Hardware(imperfections=Imperfections(mismatch=m)), refresh=r),
            tell,
        )
    bias = (0.0, 0.05) if quick else (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
    for correction, whitening in (("none", 1), ("sign-flip", 1), ("sign-flip", 2)):
        found += _sweep(
            f"RNG bias, {correction}, {whitening} cell{'s' * (whitening > 1)} a bit",
            bias,
            lambda b, c=correction, w=whitening: on(
                Hardware(random=RandomCells(bias=b)), correction=c, whitening=w
            ),
            tell,
        )
    step = (0.5, 1.0) if quick else (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    found += _sweep("step", step, lambda s: formed(step=s), tell)
    return found


def operating_point(core: SamplerCore, samples: int, tell: Tell, *, quick: bool) -> Row:
    """Search the cheapest program whose samples are as good as exact ones, on a real device.

    Cost: energy for each effective sample. Good: a total variation at most a quarter above that of
    exact samples, on a device with 5 % mismatch and random cells 1 % off.
    """
    tell("  operating point")
    hardware = Hardware(RandomCells(bias=0.01), Imperfections(mismatch=0.05))
    grid = product(
        (8,) if quick else (6, 7, 8),
        (7,) if quick else (5, 6, 7),
        (1, 4) if quick else (1, 2, 4, 8),
        (8,) if quick else (6, 8),
        (16, 64) if quick else (8, 16, 32, 64),
    )
    limit = 1.25 * floor(TWO, samples)["tv"]
    rows = []
    for weight, proposal, merged, adc, refresh in grid:
        if merged > weight:
            continue
        form = replace(
            core.spec.form(64),
            weight_bits=weight,
            proposal_bits=proposal,
            bits_per_conversion=merged,
            adc_bits=adc,
            refresh=refresh,
            thinning=8,
        )
        row = quality(TWO, form, samples, hardware)
        if "refused" in row:
            continue
        price = prices(_with_adc(core, adc), form, 2, 2)
        per_sample = price["step_pj"] * row["tau_steps"]
        setting = {
            "weight_bits": weight,
            "proposal_bits": proposal,
            "bits_per_conversion": merged,
            "adc_bits": adc,
            "refresh": refresh,
        }
        rows.append({**setting, **row, **price, "effective_pj": per_sample})
    good = [row for row in rows if row["tv"] <= limit]
    best = min(good, key=lambda row: row["effective_pj"]) if good else None
    return {"limit_tv": limit, "tried": len(rows), "good": len(good), "best": best, "rows": rows}


def _with_adc(core: SamplerCore, bits: int) -> SamplerCore:
    """Return the core with converters of so many bits, priced by the formula of its source."""
    ratio = (100 * bits + 0.001 * 4**bits) / (100 * 8 + 0.001 * 4**8)
    adc = core.spec.adc
    energy = adc.energy_pj.model_copy(update={"value": adc.energy_pj.value * ratio})
    changed = adc.model_copy(update={"energy_pj": energy})
    return SamplerCore(core.name, core.spec.model_copy(update={"adc": changed}), core.chip)


def larger(samples: int, tell: Tell, *, quick: bool) -> list[Row]:
    """Sample mixtures of more dimensions and components; distances beside exact samples'."""
    rows = []
    sizes = [(2, 2), (4, 4)] if quick else list(product((2, 4, 8, 16), (2, 8, 32)))
    for dimensions, components in sizes:
        tell(f"  {dimensions} dimensions, {components} components")
        mixture = _random_mixture(dimensions, components)
        form = SamplerForm(chains=64, burn_in=400, thinning=8 * dimensions, adc_bits=11)
        row = quality(mixture, form, samples)
        if "refused" not in row:
            codes = encode(mixture, form)
            trace = run(codes, form, samples, seed=SEED)
            flat = codes.real(trace.states).reshape(-1, dimensions)
            exact = mixture.sample(len(flat), np.random.default_rng(1))
            other = mixture.sample(len(flat), np.random.default_rng(2))
            shares = mode_shares(mixture, exact)
            row |= {
                "wasserstein": sliced_wasserstein(flat, exact),
                "wasserstein_exact": sliced_wasserstein(other, exact),
                "occupancy_error": float(np.abs(mode_shares(mixture, flat) - shares).sum() / 2),
                "occupancy_exact": float(np.abs(mode_shares(mixture, other) - shares).sum() / 2),
            }
        rows.append({"dimensions": dimensions, "components": components, **row})
    return rows


def _random_mixture(dimensions: int, components: int) -> GaussianMixture:
    """Return components that overlap with their neighbours, of random shape."""
    generator = np.random.default_rng(100 * dimensions + components)
    weights = generator.dirichlet(np.full(components, 5.0))
    means = generator.normal(0, 1.5, (components, dimensions))
    roots = generator.normal(0, 0.3 / np.sqrt(dimensions), (components, dimensions, dimensions))
    covariances = roots @ roots.swapaxes(1, 2) + 0.8 * np.eye(dimensions)
    return GaussianMixture(weights, means, covariances)


def published(core: SamplerCore) -> list[Row]:
    """Return cycles and power at the published point, for one chain, beside the paper's."""
    rows = []
    serial = Units(1, 1, 1, core.units.read_cycles, core.units.conversion_cycles)
    shipped = core.spec.form(1)
    wide = {"weight_bits": 8, "bits_per_conversion": 1, "refresh": 64}
    for name, change, units in (
        ("operating point of `mc2ram`", {}, core.units),
        ("8-bit weights, one conversion a column", wide, core.units),
        ("8-bit weights, their columns merged", {**wide, "bits_per_conversion": 8}, core.units),
        ("merged, one converter, one multiplier", {**wide, "bits_per_conversion": 8}, serial),
    ):
        form = replace(shipped, **change, burn_in=0, thinning=1)  # type: ignore[arg-type]  # integers by name
        steps = PUBLISHED["samples"]
        price = prices(core, form, 2, 2)
        cycles = run_cycles(form, 2, 2, units, steps=int(steps))
        once = step_cycles(form, 2, 2, units)
        power = price["step_pj"] / (once * core.chip.clock_ns) * 1e3
        rows.append(
            {
                **price,
                "name": name,
                "step_cycles": once,
                "cycles": cycles,
                "power_uw": power,
                "cycles_ratio": cycles / PUBLISHED["cycles"],
                "power_ratio": power / PUBLISHED["power_uw"],
            }
        )
    return rows


def study(*, quick: bool, tell: Tell) -> dict[str, Any]:
    """Return every figure of the study."""
    core = sampler()
    samples = 6_400 if quick else 25_600
    base = SamplerForm(chains=64, burn_in=200, thinning=8)
    tell("published point")
    cost = published(core)
    tell("sweeps")
    return {
        "published": cost,
        "samples": samples,
        "floor": floor(TWO, samples),
        "sweeps": sweeps(base, samples, tell, quick=quick),
        "operating_point": operating_point(core, samples, tell, quick=quick),
        "larger": larger(samples // 4, tell, quick=quick),
    }
