# SPDX-License-Identifier: Apache-2.0
"""Divisor lattices: all tiles whose extents divide the bounds, as one flat array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@cache
def prime_factors(number: int) -> tuple[tuple[int, int], ...]:
    """(prime, exponent) of `number`, ascending."""
    factors, prime = [], 2
    while prime * prime <= number:
        exponent = 0
        while number % prime == 0:
            number //= prime
            exponent += 1
        if exponent:
            factors.append((prime, exponent))
        prime += 1
    return (*factors, (number, 1)) if number > 1 else tuple(factors)


@cache
def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    found = [1]
    for prime, exponent in prime_factors(number):
        found = [d * prime**e for d in found for e in range(exponent + 1)]
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Lattice:
    """All vectors of divisors of `bounds`; a node's index is the mixed radix of its exponents.

    Multiplying tiles adds their indices, wherever the product still divides the bounds.
    """

    bounds: tuple[int, ...]
    axis_dim: Ints
    """Dimension of each prime axis."""
    axis_prime: Ints
    axis_exponent: Ints
    axis_stride: Ints
    """Step of each prime axis in the node index."""
    values: Ints
    """Extents of every node, shape (nodes, dimensions)."""

    @property
    def nodes(self) -> int:
        """Number of tiles."""
        return int(self.values.shape[0])

    def exponents(self, extents: Sequence[int] | Ints) -> Ints:
        """Exponent along each prime axis of arrays of extents, shape (..., axes)."""
        array = np.asarray(extents, dtype=np.int64)
        out = np.zeros((*array.shape[:-1], len(self.axis_dim)), dtype=np.int64)
        for j, (dim, prime, most) in enumerate(
            zip(self.axis_dim, self.axis_prime, self.axis_exponent, strict=True)
        ):
            power = 1
            for _ in range(int(most)):
                power *= int(prime)
                out[..., j] += array[..., dim] % power == 0
        return out

    def index(self, extents: Sequence[int] | Ints) -> Any:
        """Node index of extents that divide the bounds."""
        return self.exponents(extents) @ self.axis_stride


@lru_cache(maxsize=64)
def build_lattice(bounds: tuple[int, ...]) -> Lattice:
    """The lattice of all divisors of `bounds`."""
    axes = [(d, p, e) for d, bound in enumerate(bounds) for p, e in prime_factors(bound)]
    strides, size = [], 1
    for _, _, exponent in reversed(axes):
        strides.append(size)
        size *= exponent + 1
    table = np.array(axes, dtype=np.int64).reshape(-1, 3)
    stride = np.array(strides[::-1], dtype=np.int64)
    values = np.ones((size, len(bounds)), dtype=np.int64)
    nodes = np.arange(size)
    for (dim, prime, exponent), step in zip(axes, stride, strict=True):
        values[:, dim] *= np.int64(prime) ** ((nodes // step) % (exponent + 1))
    return Lattice(tuple(bounds), table[:, 0], table[:, 1], table[:, 2], stride, values)


def distinct_sums(p: Any, a: Any, r: Any, b: Any) -> Any:
    """Number of different values of i * a + j * b for i < p, j < r; works on arrays."""
    g = np.gcd(a, b)
    return p * r - np.maximum(0, p - b // g) * np.maximum(0, r - a // g)
