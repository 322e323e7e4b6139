# SPDX-License-Identifier: Apache-2.0
"""Chains against a scalar chain in plain integers, an enumerated one, and their own drift."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_mixtures import LINE, TWO

from enos_compiler.errors import EnosError
from enos_compiler.sampling.chain import Chains, conversion_shift, exponential_table
from enos_compiler.sampling.codes import MEAN_FRACTION_BITS, MixtureCodes, encode
from enos_compiler.sampling.device import Device, Imperfections
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.randomness import Draws
from enos_compiler.sampling.run import draws, run

SMALL = SamplerForm(chains=3, burn_in=2, thinning=3, refresh=8)


def _half_even(number: Fraction) -> int:
    return round(number)


class ScalarChain:
    """One chain, one step, one bit slice at a time, in Python's integers."""

    def __init__(self, codes: MixtureCodes, form: SamplerForm, start: list[int]) -> None:
        self.codes, self.form, self.state = codes, form, start
        self.fine = 2**MEAN_FRACTION_BITS
        self.refresh()

    def refresh(self) -> None:
        c = self.codes
        self.gradient, self.form_value = [], []
        for k in range(c.components):
            apart = [x * self.fine - int(m) for x, m in zip(self.state, c.means[k], strict=True)]
            row = [
                sum(int(w) * a for w, a in zip(line, apart, strict=True)) for line in c.precision[k]
            ]
            self.gradient.append(row)
            self.form_value.append(sum(a * g for a, g in zip(apart, row, strict=True)))

    def product(self, step: list[int]) -> list[list[int]]:
        form, shift = self.form, conversion_shift(self.form, len(step))
        limit = 2 ** (form.adc_bits - 1)
        out = []
        for matrix in self.codes.precision:
            row = []
            for line in matrix:
                total, place = 0, 0
                while place < form.weight_bits:
                    top = place + form.bits_per_conversion >= form.weight_bits
                    digits = [
                        int(w) >> place if top else (int(w) >> place) % 2**form.bits_per_conversion
                        for w in line
                    ]
                    column = sum(a * d for a, d in zip(digits, step, strict=True))
                    code = _half_even(Fraction(column, 2**shift))
                    code = max(-limit, min(limit - 1, code))
                    total += code << (place + shift)
                    place += form.bits_per_conversion
                row.append(total)
            out.append(row)
        return out

    def logs(self, quadratic: list[int]) -> list[int]:
        out = []
        for k, q in enumerate(quadratic):
            power = int(self.codes.scale[k]) - 2 * MEAN_FRACTION_BITS + self.form.log_fraction_bits
            scaled = Fraction(q) * Fraction(2) ** power
            energy = (scaled + Fraction(1, 2)).__floor__() if power < 0 else int(scaled)
            least = -(2 ** (self.form.log_bits - 1))
            out.append(max(int(self.codes.constants[k]) - energy, least))
        return out

    def mass(self, logs: list[int], highest: int) -> int:
        table, scale = exponential_table(self.form), 2**self.form.log_fraction_bits
        return sum(int(table[(highest - t) % scale]) >> ((highest - t) // scale) for t in logs)

    def step(self, step: list[int], uniform: int) -> bool:
        product = self.product(step)
        proposed = []
        for k, q in enumerate(self.form_value):
            along = sum(d * g for d, g in zip(step, self.gradient[k], strict=True))
            square = sum(d * u for d, u in zip(step, product[k], strict=True))
            proposed.append(q + 2 * self.fine * along + self.fine**2 * square)
        old, new = self.logs(self.form_value), self.logs(proposed)
        highest = max(old + new)
        ratio = Fraction(self.mass(new, highest)), Fraction(self.mass(old, highest))
        moved = [x + d for x, d in zip(self.state, step, strict=True)]
        half = 2 ** (self.form.state_bits - 1)
        inside = all(-half <= x < half for x in moved)
        takes = Fraction(2 * uniform + 1, 2 ** (self.form.uniform_bits + 1)) * ratio[1] < ratio[0]
        if takes and inside:
            self.state, self.form_value = moved, proposed
            self.gradient = [
                [g + self.fine * u for g, u in zip(gs, us, strict=True)]
                for gs, us in zip(self.gradient, product, strict=True)
            ]
        return takes and inside


def _scalar_states(codes: MixtureCodes, form: SamplerForm, drawn: Draws) -> list[list[list[int]]]:
    """Return the kept states by chain."""
    starts = Chains(codes, form).start(form.chains)
    kept = []
    for chain in range(form.chains):
        scalar = ScalarChain(codes, form, [int(x) for x in starts[chain]])
        mine = []
        for now in range(len(drawn.steps)):
            if form.refresh and now and now % form.refresh == 0:
                scalar.refresh()
            step = [int(d) for d in drawn.steps[now, chain]]
            scalar.step(step, int(drawn.uniforms[now, chain]))
            past = now + 1 - form.burn_in
            if past > 0 and past % form.thinning == 0:
                mine.append(list(scalar.state))
        kept.append(mine)
    return kept


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    proposal=st.integers(3, 8),
    merged=st.integers(1, 8),
    adc=st.integers(3, 10),
    refresh=st.sampled_from([0, 1, 5]),
    correction=st.sampled_from(["none", "sign-flip"]),
)
def test_vectorised_chains_are_the_scalar_chain_bit_for_bit(
    seed: int, proposal: int, merged: int, adc: int, refresh: int, correction: str
) -> None:
    form = replace(
        SMALL,
        proposal_bits=proposal,
        bits_per_conversion=merged,
        adc_bits=adc,
        refresh=refresh,
        correction=correction,  # type: ignore[arg-type]  # one of two literals
    )
    codes = encode(TWO, form)
    drawn = draws(form, 2, 40, seed=seed)
    states = Chains(codes, form).run(drawn).states
    assert states.transpose(1, 0, 2).tolist() == _scalar_states(codes, form, drawn)


def test_a_device_without_imperfections_changes_nothing() -> None:
    form = replace(SMALL, bits_per_conversion=3)
    codes = encode(TWO, form)
    drawn = draws(form, 2, 60, seed=0)
    device = Device(Imperfections(), codes, form, seed=np.random.SeedSequence(1))
    ideal, real = Chains(codes, form).run(drawn), Chains(codes, form, device).run(drawn)
    assert np.array_equal(ideal.states, real.states)
    bent = Device(
        Imperfections(mismatch=0.2, adc_inl_lsb=1.0), codes, form, seed=np.random.SeedSequence(1)
    )
    assert not np.array_equal(ideal.states, Chains(codes, form, bent).run(drawn).states)


def test_exact_conversions_never_drift_and_rounding_ones_do() -> None:
    """After any run the incremental form is the recomputed one, where no conversion rounds."""
    for merged, drifts in ((1, False), (8, True)):
        form = replace(SMALL, bits_per_conversion=merged, refresh=0)
        codes = encode(TWO, form)
        chains = Chains(codes, form)
        state = chains.start(form.chains)
        gradient, quadratic = chains.recompute(state)
        for step in draws(form, 2, 200, seed=0).steps:
            product = chains.product(step)
            quadratic = chains.advance(step, gradient, quadratic, product)
            gradient = gradient + product * 2**MEAN_FRACTION_BITS
            state = state + step
        exact_gradient, exact_quadratic = chains.recompute(state)
        moved = not (
            np.array_equal(gradient, exact_gradient) and np.array_equal(quadratic, exact_quadratic)
        )
        assert moved is drifts


def _transition_matrix(form: SamplerForm) -> tuple[np.ndarray, np.ndarray]:
    """Return the chain's transition matrix over all its states, and the integer log2 densities."""
    codes = encode(LINE, form)
    chains = Chains(codes, form)
    half = 2 ** (form.state_bits - 1)
    states = np.arange(-half, half)[:, None]
    logs = chains.logs(chains.recompute(states)[1])
    reach = 2 ** (form.proposal_bits - 1) - 1
    weights = _step_distribution(form)
    count = len(states)
    matrix = np.zeros((count, count))
    uniforms = np.arange(2**form.uniform_bits)
    for i in range(count):
        for d in range(-reach, reach + 1):
            j = i + d
            if not 0 <= j < count:
                continue
            old = np.repeat(logs[i][None], uniforms.size, 0)
            new = np.repeat(logs[j][None], uniforms.size, 0)
            matrix[i, j] += weights[d] * chains.accepts(old, new, uniforms).mean()
        matrix[i, i] += 1 - matrix[i].sum()
    density = np.exp2(logs / 2.0**form.log_fraction_bits).sum(1)
    return matrix, density / density.sum()


def _step_distribution(form: SamplerForm) -> dict[int, float]:
    from enos_compiler.sampling.codes import step_weights

    weights = step_weights(form.proposal_bits)
    odds = {0: 1.0}
    for weight in weights:
        spread: dict[int, float] = {}
        for value, share in odds.items():
            for bit in (0, 1):
                key = value + int(weight) * bit
                spread[key] = spread.get(key, 0.0) + share / 2
        odds = spread
    return {value - int(weights.sum()) // 2: share for value, share in odds.items()}


def test_detailed_balance_on_every_pair_of_states() -> None:
    """Flows balance up to the rounding of u, of the exponential and of its table's entries."""
    form = SamplerForm(proposal_bits=4, state_bits=6, uniform_bits=10, log_fraction_bits=8)
    matrix, density = _transition_matrix(form)
    flow = density[:, None] * matrix
    # u resolves 2**-10 of the likelier state's proposals; a mass of two components loses up to
    # two units of 2**-12, and log2 densities round at 2**-9
    larger = np.maximum(density[:, None], density[None])
    tolerance = larger * matrix.max() * (2.0**-10 + 2 * 2.0**-12 + 2.0**-8)
    assert (np.abs(flow - flow.T) <= tolerance).all()
    values, vectors = np.linalg.eig(matrix.T)
    stationary = np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
    stationary /= stationary.sum()
    assert np.abs(stationary - density).sum() / 2 < 2e-3


def test_mismatch_that_breaks_a_matrix_is_refused_by_name() -> None:
    form = replace(SMALL, chains=64)
    codes = encode(TWO, form)
    chains = Chains(codes, form)
    device = Device(Imperfections(mismatch=1.5), codes, form, seed=np.random.SeedSequence(0))
    with pytest.raises(EnosError, match=r"covariances\[\d\].*mismatch 1.5"):
        device.check(codes, chains.digits, chains.places)
    fine = Device(Imperfections(mismatch=0.02), codes, form, seed=np.random.SeedSequence(0))
    fine.check(codes, chains.digits, chains.places)


def test_a_step_beyond_the_words_is_never_taken() -> None:
    form = replace(SMALL, state_bits=9, chains=4)
    codes = encode(TWO, form)
    trace = run(codes, form, 400, seed=0)
    half = 2 ** (form.state_bits - 1)
    assert (np.abs(trace.states + 0.5) < half).all()
    chains = Chains(codes, form)
    assert not chains.inside(np.array([[half, 0]])).any()
