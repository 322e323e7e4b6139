# SPDX-License-Identifier: Apache-2.0
"""Metropolis chains in the sampler's own integers, vectorised over chains.

One step of a chain, as the hardware does it: draw a step d; read W_k d from the array, one
conversion per group of merged weight columns; update the gradient g_k = W_k (x - M_k) and the
quadratic form by d.g_k and d.(W_k d); compare the new log2 densities with the old ones through a
table of 2**-t and one addition per component; accept, or keep the state. Conversions that round
make g_k and the form drift, so both are recomputed exactly every `refresh` steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from enos_compiler.sampling.codes import MEAN_FRACTION_BITS, Integers, MixtureCodes
from enos_compiler.sampling.device import Device
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import Floats
from enos_compiler.sampling.randomness import Draws

Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a run gave."""

    states: Integers
    """(samples of a chain, S, D), kept after burn-in, every `thinning` steps; lattice steps."""
    accepted: Integers
    """(S,) accepted steps of each chain, burn-in included."""
    steps: int
    """Steps of each chain."""
    saturated: int
    """Conversions beyond the ADC's range."""

    @property
    def acceptance(self) -> Floats:
        """(S,) accepted share of the steps."""
        rates: Floats = self.accepted / self.steps
        return rates


def conversion_shift(form: SamplerForm, dimensions: int) -> int:
    """Return log2 of the ADC's step in products: 0 where every sum has a code of its own."""
    cell = 2**form.bits_per_conversion - 1
    largest = dimensions * cell * (2 ** (form.proposal_bits - 1) - 1)
    return max(0, ceil(log2(largest / (2 ** (form.adc_bits - 1) - 1))))


def slice_weights(precision: Integers, form: SamplerForm) -> tuple[Integers, Integers]:
    """Return the groups of merged columns (..., groups) and the place value of each, (groups,).

    Low groups hold unsigned digits of the two's complement, the highest is signed.
    """
    width, merged = form.weight_bits, form.bits_per_conversion
    groups = -(-width // merged)
    places = np.exp2(merged * np.arange(groups)).astype(np.int64)
    digits = (precision[..., None] // places) % 2**merged
    digits[..., -1] = precision // places[-1]
    return digits, places


def exponential_table(form: SamplerForm) -> Integers:
    """Return round(2**(exponential_bits - t)) for t in [0, 1), one entry per log2 fraction."""
    fraction = np.arange(2**form.log_fraction_bits) / 2**form.log_fraction_bits
    table: Integers = np.rint(np.exp2(form.exponential_bits - fraction)).astype(np.int64)
    return table


class Chains:
    """Runs chains of one mixture; `device` adds what real cells and converters do."""

    def __init__(
        self, codes: MixtureCodes, form: SamplerForm, device: Device | None = None
    ) -> None:
        self.codes = codes
        self.form = form
        self.device = device
        self.shift = conversion_shift(form, codes.dimensions)
        self.exact = device is None and self.shift == 0
        self.digits, self.places = slice_weights(codes.precision, form)
        self.table = exponential_table(form)
        self._flat = self.digits.reshape(-1, *self.digits.shape[2:]).astype(np.float64)
        self._precision = codes.precision.astype(np.float64)
        self.saturated = 0

    def start(self, chains: int) -> Integers:
        """Return one start per chain: the components' means in turn, (S, D)."""
        middle = np.rint(self.codes.means / 2**MEAN_FRACTION_BITS).astype(np.int64)
        start: Integers = middle[np.arange(chains) % self.codes.components]
        return start

    def run(self, draws: Draws) -> Trace:
        """Run all chains through the draws; see `Trace`."""
        form = self.form
        steps, chains = draws.uniforms.shape
        state = self.start(chains)
        gradient, quadratic = self.recompute(state)
        logs = self.logs(quadratic)
        kept: list[Integers] = []
        accepted = np.zeros(chains, np.int64)
        self.saturated = 0
        for now in range(steps):
            if form.refresh and now and now % form.refresh == 0:
                gradient, quadratic = self.recompute(state)
                logs = self.logs(quadratic)
            step = draws.steps[now]
            product = self.product(step)
            moved = state + step
            proposed = self.advance(step, gradient, quadratic, product)
            proposed_logs = self.logs(proposed)
            yes = self.accepts(logs, proposed_logs, draws.uniforms[now]) & self.inside(moved)
            accepted += yes
            state = np.where(yes[:, None], moved, state)
            gradient = gradient + np.where(yes[:, None, None], product * 2**MEAN_FRACTION_BITS, 0)
            quadratic = np.where(yes[:, None], proposed, quadratic)
            logs = np.where(yes[:, None], proposed_logs, logs)
            past = now + 1 - form.burn_in
            if past > 0 and past % form.thinning == 0:
                kept.append(state)
        empty = np.zeros((0, *state.shape), np.int64)
        return Trace(np.stack(kept) if kept else empty, accepted, steps, self.saturated)

    def recompute(self, state: Integers) -> tuple[Integers, Integers]:
        """Return gradient (S, K, D) and quadratic form (S, K) of states (S, D), exactly."""
        apart = (state * 2**MEAN_FRACTION_BITS)[:, None] - self.codes.means
        # float64 products are exact below 2**53: 12-bit weights, 28-bit distances, 16 terms
        gradient = np.einsum("kij,skj->ski", self._precision, apart.astype(np.float64))
        exact: Integers = gradient.astype(np.int64)
        return exact, (exact * apart).sum(-1)

    def product(self, step: Integers) -> Integers:
        """Return W_k d as the array and its converters give it, (S, K, D)."""
        shape = (len(step), self.codes.components, self.codes.dimensions)
        if self.exact:
            flat = step.astype(np.float64) @ self._precision.reshape(-1, shape[2]).T
            exact: Integers = flat.reshape(shape).astype(np.int64)
            return exact
        codes = self._convert(self._column_sums(step))
        sums: Integers = (codes.astype(np.int64) @ self.places) << self.shift
        return sums.reshape(shape)

    def _column_sums(self, step: Integers) -> Floats:
        """Return the sum on each group of columns, (S, K * D, groups), in products."""
        if self.device is None:
            columns = self._flat.transpose(1, 0, 2).reshape(step.shape[1], -1)
            sums: Floats = step.astype(np.float64) @ columns
            return sums.reshape(len(step), self._flat.shape[0], -1)
        return self.device.column_sums(step, self._flat)

    def _convert(self, sums: Floats) -> Floats:
        """Return the ADC's codes: scaled, rounded half to even, clipped and counted."""
        scaled = np.ldexp(sums, -self.shift)
        if self.device is not None:
            scaled = self.device.convert(scaled, self.form.adc_bits)
        limit = 2 ** (self.form.adc_bits - 1)
        codes = np.rint(scaled)
        self.saturated += int(np.count_nonzero((codes < -limit) | (codes > limit - 1)))
        return np.clip(codes, -limit, limit - 1)

    def advance(
        self, step: Integers, gradient: Integers, quadratic: Integers, product: Integers
    ) -> Integers:
        """Return the quadratic form at the proposed state, (S, K)."""
        along = step[:, None] * ((gradient << 1) + (product << MEAN_FRACTION_BITS))
        proposed: Integers = quadratic + (along.sum(-1) << MEAN_FRACTION_BITS)
        return proposed

    def logs(self, quadratic: Integers) -> Integers:
        """Return log2 densities (S, K) in 2**-log_fraction_bits, saturated below."""
        shift = self.codes.scale - 2 * MEAN_FRACTION_BITS + self.form.log_fraction_bits
        down = np.maximum(-shift, 0)
        half = (1 << down) >> 1
        energy = ((quadratic << np.maximum(shift, 0)) + half) >> down
        logs: Integers = np.maximum(self.codes.constants - energy, -(2 ** (self.form.log_bits - 1)))
        return logs

    def accepts(self, old: Integers, new: Integers, uniform: Integers) -> Truths:
        """Tell which chains take their step: (u + 1/2) 2**-bits p(old) < p(new)."""
        chains = len(old)
        both = np.concatenate((old, new))
        highest = np.maximum(old.max(1), new.max(1))
        below = np.concatenate((highest, highest))[:, None] - both
        fraction = below & (2**self.form.log_fraction_bits - 1)
        # a shift beyond the table's width leaves nothing, and int64 shifts stop at 63
        whole = np.minimum(below >> self.form.log_fraction_bits, 63)
        mass = (self.table[fraction] >> whole).sum(1)
        old_mass, new_mass = mass[:chains], mass[chains:] << (self.form.uniform_bits + 1)
        takes: Truths = (2 * uniform + 1) * old_mass < new_mass
        return takes

    def inside(self, state: Integers) -> Truths:
        """Tell which states have words: a step beyond the range is never taken."""
        half = 2 ** (self.form.state_bits - 1)
        held: Truths = ((state >= -half) & (state < half)).all(1)
        return held
