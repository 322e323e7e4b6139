# SPDX-License-Identifier: Apache-2.0
"""A mixture as the integers that a sampler holds.

The chain walks on a lattice: coordinate j is (x_j + origin_j) * 2**exponent_j. With M_k the
component's mean in 2**-F of a lattice step, and W_k its precision matrix as integers, the log2
density of component k is

    C_k - 2**scale_k * (x - M_k)^T W_k (x - M_k)

up to one constant for all components. Only W_k, M_k and C_k are rounded, so the integer chain
samples the mixture with those parameters; sums of products stay exact integers.

Source: quadratic form kept incrementally in the array, reconstructed from Shukla et al., "MC2RAM"
(arXiv 2003.02629, abstract and opening seen); words and roundings are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from enos_compiler.errors import EnosError, InfeasibleError
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import Floats, GaussianMixture

Integers = npt.NDArray[np.int64]

MEAN_FRACTION_BITS = 4
"""Fraction of a lattice step in which means are kept: without it they would be off by up to half
a step, a few percent of a standard deviation."""
REACH = 6.0
"""Standard deviations around the outermost means that coordinates must hold."""


@dataclass(frozen=True, slots=True, eq=False)
class MixtureCodes:
    """A mixture in integers; K components, D dimensions."""

    precision: Integers
    """W, (K, D, D), signed."""
    scale: Integers
    """(K,) log2 of the weight of W's unit in a log2 density."""
    means: Integers
    """M, (K, D), in 2**-MEAN_FRACTION_BITS of a lattice step, from the origin."""
    constants: Integers
    """C, (K,), log2 densities in 2**-log_fraction_bits."""
    exponent: Integers
    """(D,) log2 of the lattice step."""
    origin: Integers
    """(D,) in lattice steps."""

    @property
    def components(self) -> int:
        """K."""
        return int(self.precision.shape[0])

    @property
    def dimensions(self) -> int:
        """D."""
        return int(self.precision.shape[1])

    @property
    def step(self) -> Floats:
        """(D,) real extent of a lattice step."""
        return np.exp2(self.exponent.astype(np.float64))

    def real(self, states: Integers) -> Floats:
        """Return the coordinates (..., D) of states (..., D)."""
        lattice = (states + self.origin).astype(np.float64)
        return np.ldexp(lattice, self.exponent.astype(np.int32))

    def tensors(self) -> Mapping[str, Integers]:
        """Return the arrays by name, as a file holds them."""
        return {name: getattr(self, name) for name in self.__slots__}


def step_weights(bits: int) -> Integers:
    """Return the weights whose signed half-sum over random bits is a step of so many bits.

    A step is sum(weight * (bit - 1/2)): two lanes of each low power of two reach every integer,
    the many lanes of the highest give the bell shape, and fair bits make it symmetric. It reaches
    exactly 2**(bits - 1) - 1.
    """
    low = max(0, bits - 4)
    top = 2 * (2 ** (bits - 1 - low) - 1)
    return np.array([2**i for i in range(low) for _ in range(2)] + [2**low] * top, np.int64)


def step_deviation(bits: int) -> float:
    """Return the standard deviation of a step in lattice steps, for fair bits."""
    return float(np.sqrt(np.square(step_weights(bits)).sum())) / 2


def encode(mixture: GaussianMixture, form: SamplerForm) -> MixtureCodes:
    """Return the integers of a mixture.

    Raises:
        InfeasibleError: a coordinate spans more lattice steps than its words hold.
        EnosError: a precision matrix that rounding leaves not positive definite.
    """
    exponent = _lattice(mixture, form)
    step = np.exp2(exponent.astype(np.float64))
    origin = _origin(mixture, form, exponent)
    fine = np.exp2(MEAN_FRACTION_BITS)
    means = np.rint((mixture.means / step - origin) * fine).astype(np.int64)
    precision, scale = _precision(mixture, form, step)
    sign, logs = np.linalg.slogdet(mixture.covariances)
    assert (sign > 0).all()
    with np.errstate(divide="ignore"):
        constants = np.log2(mixture.weights) - 0.5 * logs / np.log(2)
    least = -(2.0 ** (form.log_bits - 1 - form.log_fraction_bits))
    constants = np.maximum(constants - constants.max(), least)
    return MixtureCodes(
        precision=precision,
        scale=scale,
        means=means,
        constants=np.rint(np.ldexp(constants, form.log_fraction_bits)).astype(np.int64),
        exponent=exponent,
        origin=origin,
    )


def _lattice(mixture: GaussianMixture, form: SamplerForm) -> Integers:
    """Return the exponents of the steps that give proposals of the wanted size."""
    within = np.einsum("k,kjj->j", mixture.weights, mixture.covariances)
    wanted = form.step_deviations(mixture.dimensions) * np.sqrt(within)
    exponent: Integers = np.rint(np.log2(wanted / step_deviation(form.proposal_bits))).astype(
        np.int64
    )
    return exponent


def _origin(mixture: GaussianMixture, form: SamplerForm, exponent: Integers) -> Integers:
    """Return the middle of what the coordinates must reach, in lattice steps."""
    sd = np.sqrt(np.diagonal(mixture.covariances, axis1=1, axis2=2))
    low = (mixture.means - REACH * sd).min(0)
    high = (mixture.means + REACH * sd).max(0)
    span = (high - low) / np.exp2(exponent.astype(np.float64))
    widest = int(span.argmax())
    if span[widest] > 2**form.state_bits - 2:
        raise InfeasibleError(
            f"coordinate {widest} reaches from {low[widest]:.4g} to {high[widest]:.4g}, "
            f"{ceil(span[widest])} lattice steps, and {form.state_bits} bits hold "
            f"{2**form.state_bits}",
            place="state_bits",
            remedy=f"{ceil(log2(span[widest] + 2))} bits, fewer proposal bits or larger steps",
        )
    middle = (low + high) / 2
    origin: Integers = np.rint(middle / np.exp2(exponent.astype(np.float64))).astype(np.int64)
    return origin


def _precision(
    mixture: GaussianMixture, form: SamplerForm, step: Floats
) -> tuple[Integers, Integers]:
    """Return the precision matrices as integers in log2 units, and the scale of each."""
    inverse = np.linalg.inv(mixture.covariances)
    quadratic = 0.5 / np.log(2) * inverse * step[:, None] * step
    largest = np.abs(quadratic).max((1, 2))
    scale = np.ceil(np.log2(largest / (2 ** (form.weight_bits - 1) - 1))).astype(np.int64)
    codes = np.rint(quadratic * np.exp2(-scale.astype(np.float64))[:, None, None])
    integers: Integers = codes.astype(np.int64)
    for k, matrix in enumerate(integers):
        least = float(np.linalg.eigvalsh(matrix.astype(np.float64))[0])
        if least <= 0:
            raise EnosError(
                f"its inverse, rounded to {form.weight_bits} bits, has the eigenvalue "
                f"{least:.4g}: no positive definite matrix is left",
                place=f"covariances[{k}]",
                remedy="more weight bits, or a better conditioned covariance",
            )
    return integers, scale
