# SPDX-License-Identifier: Apache-2.0
"""A mixture density head in integers: tables from a head's codes to a mixture's integers.

Every number of the head is a code of one of three tensors (logits, means, logarithms of standard
deviations), so each integer of the mixture is a table of codes or a sum of two: covariances are
diagonal, and the weights' softmax needs no denominator, since densities only matter relative to
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from enos_compiler.errors import InfeasibleError
from enos_compiler.sampling.codes import MEAN_FRACTION_BITS, REACH, Integers, MixtureCodes
from enos_compiler.sampling.codes import step_deviation as deviation_of_steps
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import Floats

LEVELS = 256
"""Entries of a table: codes of up to 8 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadRanges:
    """What a head's three outputs mean and reach."""

    logits: Floats
    """(256,) real value of every code."""
    means: Floats
    log_deviations: Floats
    mean_range: tuple[float, float]
    """Least and greatest mean seen in calibration."""
    log_deviation_range: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class HeadTables:
    """Tables by code, (256,) each, and what all rows share."""

    logit: Integers
    """log2 of a weight, in 2**-log_fraction_bits."""
    mean: Integers
    """In 2**-MEAN_FRACTION_BITS of a lattice step, from the origin."""
    deviation: Integers
    """-log2 of a standard deviation, in 2**-log_fraction_bits."""
    precision: Integers
    """Entries of W, at least 1; deviations beyond the widest of 127 to 1 saturate."""
    scale: Integers
    """(1,) log2 of the weight of W's unit."""
    exponent: Integers
    """(D,) log2 of the lattice step."""
    origin: Integers
    """(D,) in lattice steps."""

    def tensors(self) -> Mapping[str, Integers]:
        """Return the arrays by name, as a file holds them."""
        return {name: getattr(self, name) for name in self.__slots__}

    def codes(self, logits: Integers, means: Integers, log_deviations: Integers) -> MixtureCodes:
        """Return the mixture of one row of codes, (K,), (K, D) and (K, D)."""
        components, dimensions = means.shape
        precision = np.zeros((components, dimensions, dimensions), np.int64)
        diagonal = np.arange(dimensions)
        precision[:, diagonal, diagonal] = self.precision[log_deviations]
        constants = self.logit[logits] + self.deviation[log_deviations].sum(1)
        return MixtureCodes(
            precision=precision,
            scale=np.repeat(self.scale, components),
            means=self.mean[means],
            constants=constants - constants.max(),
            exponent=self.exponent,
            origin=self.origin,
        )


def head_tables(ranges: HeadRanges, form: SamplerForm, dimensions: int) -> HeadTables:
    """Return the tables of a head.

    The lattice suits the deviation in the middle of what calibration saw; the narrowest one seen
    takes the largest weight.

    Raises:
        InfeasibleError: means and deviations reach further than the words of a state hold.
    """
    narrow, wide = (np.exp(value) for value in ranges.log_deviation_range)
    middle = float(np.sqrt(narrow * wide))
    wanted = form.step_deviations(dimensions) * middle
    exponent = round(log2(wanted / deviation_of_steps(form.proposal_bits)))
    step = 2.0**exponent
    low, high = ranges.mean_range
    span = (high - low + 2 * REACH * float(wide)) / step
    if span > 2**form.state_bits - 2:
        raise InfeasibleError(
            f"means from {low:.4g} to {high:.4g} and deviations of up to {wide:.4g} reach over "
            f"{ceil(span)} lattice steps, and {form.state_bits} bits hold {2**form.state_bits}",
            place="state_bits",
            remedy=f"{ceil(log2(span + 2))} bits, or a head with bounded outputs",
        )
    origin = round((low + high) / 2 / step)
    limit = 2 ** (form.weight_bits - 1) - 1
    largest = 0.5 / np.log(2) * (step / narrow) ** 2
    scale = ceil(log2(largest / limit))
    quadratic = 0.5 / np.log(2) * np.square(step * np.exp(-ranges.log_deviations))
    fine = 2.0**MEAN_FRACTION_BITS
    unit = 2.0**form.log_fraction_bits / np.log(2)
    return HeadTables(
        logit=_rounded(ranges.logits * unit),
        mean=_rounded((ranges.means / step - origin) * fine),
        deviation=_rounded(-ranges.log_deviations * unit),
        precision=np.clip(_rounded(quadratic * 2.0**-scale), 1, limit),
        scale=np.array([scale]),
        exponent=np.full(dimensions, exponent),
        origin=np.full(dimensions, origin),
    )


def _rounded(values: Floats) -> Integers:
    rounded: Integers = np.rint(np.clip(values, -(2.0**40), 2.0**40)).astype(np.int64)
    return rounded
