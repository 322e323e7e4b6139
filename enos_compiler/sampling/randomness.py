# SPDX-License-Identifier: Apache-2.0
"""Random bits from metastable cells, and the steps and uniforms that are made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enos_compiler.errors import SpecError
from enos_compiler.sampling.codes import Integers, step_weights
from enos_compiler.sampling.form import SamplerForm

Bits = npt.NDArray[np.uint8]
Odds = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Lanes:
    """Which random cells of a chain make what, for D dimensions."""

    step: int
    """Cells of the magnitude of one coordinate's step."""
    sign: int
    """Cells of its sign, 0 where none is drawn."""
    uniform: int
    """Cells of the acceptance's uniform number."""
    total: int

    @classmethod
    def of(cls, form: SamplerForm, dimensions: int) -> Lanes:
        """Return the cells that a program needs."""
        step = step_weights(form.proposal_bits).size
        sign = form.whitening if form.correction == "sign-flip" else 0
        uniform = form.uniform_bits * form.whitening
        return cls(step, sign, uniform, dimensions * (step + sign) + uniform)


@dataclass(frozen=True, slots=True)
class RandomCells:
    """Cross-coupled inverters released from balance: a bit each cycle, 1 with probability p.

    Source: the form of a biased, serially correlated bit; sizes are the study's variables.
    """

    bias: float = 0.0
    """p - 1/2 of every cell."""
    spread: float = 0.0
    """Standard deviation of p from cell to cell, fixed for a device."""
    correlation: float = 0.0
    """Probability that a cell repeats its last bit instead of drawing anew; a run draws in blocks
    of steps, and the first of each is drawn anew."""

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if not -0.5 < self.bias < 0.5 or not 0 <= self.spread < 0.5:
            raise SpecError(
                f"bias {self.bias}, spread {self.spread} leave no probability in (0, 1)",
                place="random cells",
                remedy="a bias inside (-0.5, 0.5) and a spread in [0, 0.5)",
            )
        if not 0 <= self.correlation < 1:
            raise SpecError(
                f"is {self.correlation}", place="random cells.correlation", remedy="[0, 1)"
            )

    @property
    def fair(self) -> bool:
        """Whether every bit is a fair coin."""
        return not (self.bias or self.spread or self.correlation)

    def odds(self, chains: int, lanes: int, *, seed: np.random.SeedSequence) -> Odds:
        """Return the probability of a one of each cell of a device, (chains, lanes), in 2**-16.

        That resolves a probability far below any effect that a study can see.
        """
        generator = np.random.Generator(np.random.Philox(seed))
        odds = 0.5 + self.bias + self.spread * generator.standard_normal((chains, lanes))
        cells: Odds = np.clip(np.rint(odds * 65536), 1, 65535).astype(np.uint16)
        return cells

    def draw(self, steps: int, odds: Odds, *, seed: np.random.SeedSequence) -> Bits:
        """Return bits (steps, chains, lanes), 0 or 1, of cells with these odds."""
        stream = np.random.Generator(np.random.Philox(seed))
        shape = (steps, *odds.shape)
        if self.fair:
            count = steps * odds.size
            packed = np.frombuffer(stream.bytes(-(-count // 8)), np.uint8)
            return np.unpackbits(packed, count=count).reshape(shape)
        bits: Bits = (stream.integers(0, 65536, shape, np.uint16) < odds).view(np.uint8)
        if self.correlation:
            repeats = stream.random(shape, np.float32) < self.correlation
            for now in range(1, steps):
                np.copyto(bits[now], bits[now - 1], where=repeats[now])
        return bits


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What the random bits of a run mean."""

    steps: Integers
    """(T, S, D) proposed steps in lattice steps."""
    uniforms: Integers
    """(T, S) in 0 .. 2**uniform_bits - 1."""


def decode(bits: Bits, form: SamplerForm, dimensions: int) -> Draws:
    """Return the steps and uniforms of random bits (T, S, lanes).

    Under `sign-flip` the separately drawn sign makes a step and its opposite equally likely
    whatever the bias of the magnitude's cells, as far as the sign itself is fair.
    """
    steps = np.empty((*bits.shape[:2], dimensions), np.int64)
    uniforms = np.empty(bits.shape[:2], np.int64)
    # blocks that stay in the cache: four times faster than whole runs
    for start in range(0, len(bits), _BLOCK):
        block = slice(start, start + _BLOCK)
        steps[block], uniforms[block] = _decode_block(bits[block], form, dimensions)
    return Draws(steps, uniforms)


_BLOCK = 32


def _decode_block(bits: Bits, form: SamplerForm, dimensions: int) -> tuple[Integers, Integers]:
    lanes = Lanes.of(form, dimensions)
    weights = step_weights(form.proposal_bits)
    cut = dimensions * lanes.step
    shape = (*bits.shape[:2], dimensions, lanes.step)
    # float32 sums of at most 24 bits are exact, and a matrix product is the fastest way to them
    sums = bits[..., :cut].astype(np.float32).reshape(shape) @ weights.astype(np.float32)
    steps = sums.astype(np.int64) - int(weights.sum()) // 2
    if lanes.sign:
        flip = _whitened(bits[..., cut : cut + dimensions * lanes.sign], lanes.sign)
        steps = np.where(flip.view(np.bool_), -steps, steps)
    fair = _whitened(bits[..., lanes.total - lanes.uniform :], form.whitening)
    places = np.exp2(np.arange(form.uniform_bits), dtype=np.float32)
    return steps, (fair.astype(np.float32) @ places).astype(np.int64)


def _whitened(bits: Bits, cells: int) -> Bits:
    """Return the exclusive or of each run of so many cells."""
    mixed = bits[..., ::cells].copy()
    for cell in range(1, cells):
        mixed ^= bits[..., cell::cells]
    return mixed
