# SPDX-License-Identifier: Apache-2.0
"""One run of a sampling program from a seed: random bits, chains, samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from enos_compiler.sampling.chain import Chains, Trace
from enos_compiler.sampling.codes import MixtureCodes
from enos_compiler.sampling.device import Device, Imperfections
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import Floats
from enos_compiler.sampling.randomness import Draws, Lanes, RandomCells, decode

_BLOCK = 256
"""Steps whose random bits exist at once: 256 chains of 80 cells take 5 MB."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the cells and converters of a device do; everything ideal by default."""

    random: RandomCells = RandomCells()  # noqa: RUF009  # frozen
    imperfections: Imperfections = Imperfections()  # noqa: RUF009  # frozen


IDEAL = Hardware()
_CELLS = 1 << 20
"""Key of the stream of a device's cells: beyond those of the random bits of any run."""


def draws(
    form: SamplerForm, dimensions: int, steps: int, *, seed: int, random: RandomCells | None = None
) -> Draws:
    """Return the steps and uniforms of a run; blocks of steps have random streams of their own."""
    blocks = list(_blocks(form, dimensions, steps, seed, random or IDEAL.random))
    return Draws(
        np.concatenate([block.steps for block in blocks]),
        np.concatenate([block.uniforms for block in blocks]),
    )


def _blocks(
    form: SamplerForm, dimensions: int, steps: int, seed: int, random: RandomCells
) -> Iterator[Draws]:
    lanes = Lanes.of(form, dimensions).total
    device, *streams = np.random.SeedSequence(seed).spawn(1 + -(-steps // _BLOCK))
    odds = random.odds(form.chains, lanes, seed=device)
    for block, stream in enumerate(streams):
        length = min(_BLOCK, steps - block * _BLOCK)
        yield decode(random.draw(length, odds, seed=stream), form, dimensions)


def device_of(
    codes: MixtureCodes, form: SamplerForm, hardware: Hardware, *, seed: int
) -> Device | None:
    """Return the cells and converters that a seed gives; None where nothing is wrong with them."""
    if hardware.imperfections.ideal:
        return None
    stream = np.random.SeedSequence(seed, spawn_key=(_CELLS,))
    return Device(hardware.imperfections, codes, form, seed=stream)


def run(
    codes: MixtureCodes, form: SamplerForm, samples: int, *, seed: int, hardware: Hardware = IDEAL
) -> Trace:
    """Run a program that yields so many samples in all.

    Args:
        codes: the mixture.
        form: of the program.
        samples: of all chains together, rounded up to a whole number for each chain.
        seed: of the random bits and, where there are any, of the imperfections.
        hardware: what the device does.

    Raises:
        EnosError: mismatch leaves a matrix that is not positive definite.
    """
    drawn = draws(
        form, codes.dimensions, form.iterations(samples), seed=seed, random=hardware.random
    )
    device = device_of(codes, form, hardware, seed=seed)
    chains = Chains(codes, form, device)
    if device is not None:
        device.check(codes, chains.digits, chains.places)
    return chains.run(drawn)


def flat_samples(codes: MixtureCodes, trace: Trace) -> Floats:
    """Return the coordinates of all samples, (N, D)."""
    return codes.real(trace.states).reshape(-1, codes.dimensions)
