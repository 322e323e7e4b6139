# SPDX-License-Identifier: Apache-2.0
"""What the in-SRAM sampler costs and how well it samples; how fast its chains are simulated.

python benchmarks/mc2ram.py [--quick] [--json FILE] [--figures DIR]     the study
python benchmarks/mc2ram.py --speed [--json FILE]                       one million steps, timed
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mc2ram_study import TWO, study
from mc2ram_tables import tables

from enos_compiler.sampling.codes import encode
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import Floats, GaussianMixture
from enos_compiler.sampling.run import run

CHAINS = 256
STEPS = -(-1_000_000 // CHAINS)
ROUNDS = 5


def metropolis(mixture: GaussianMixture, chains: int, steps: int, seed: int) -> Floats:
    """Run exact Metropolis chains in float64 with numpy, as one would write them by hand."""
    generator = np.random.default_rng(seed)
    inverse = np.linalg.inv(mixture.covariances)
    logs = np.log(mixture.weights) - 0.5 * np.linalg.slogdet(mixture.covariances)[1]

    def density(points: Floats) -> Floats:
        apart = points[:, None] - mixture.means
        energy = np.einsum("ski,kij,skj->sk", apart, inverse, apart)
        terms: Floats = logs - 0.5 * energy
        highest = terms.max(1)
        found: Floats = highest + np.log(np.exp(terms - highest[:, None]).sum(1))
        return found

    within = np.einsum("k,kjj->j", mixture.weights, mixture.covariances)
    scale = 2.4 / np.sqrt(mixture.dimensions) * np.sqrt(within)
    state = mixture.means[np.arange(chains) % mixture.components]
    level = density(state)
    for _ in range(steps):
        moved = state + scale * generator.standard_normal(state.shape)
        proposed = density(moved)
        yes = np.log(generator.random(chains)) < proposed - level
        state = np.where(yes[:, None], moved, state)
        level = np.where(yes, proposed, level)
    return state


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed() -> dict[str, float]:
    """Time one million steps of 256 chains, random bits included, beside the exact sampler."""
    form = SamplerForm(chains=CHAINS, burn_in=0, thinning=1)
    codes = encode(TWO, form)

    def ours() -> object:
        return run(codes, form, CHAINS * STEPS, seed=1)

    def exact() -> object:
        return metropolis(TWO, CHAINS, STEPS, 1)

    ours()
    rounds = [(seconds(ours), seconds(exact)) for _ in range(ROUNDS)]
    million = CHAINS * STEPS / 1e6
    return {
        "seconds_per_million_iterations": statistics.median(r[0] for r in rounds) / million,
        "numpy_seconds": statistics.median(r[1] for r in rounds) / million,
        "ratio": statistics.median(r[0] / r[1] for r in rounds),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    """Run the study or the timing; print it, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed", action="store_true", help="time the simulation alone")
    parser.add_argument("--quick", action="store_true", help="few samples and settings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw the SVG figures")
    options = parser.parse_args()
    data: dict[str, Any]
    if options.speed:
        data = speed()
        print(
            f"one million steps of {CHAINS} chains: "
            f"{data['seconds_per_million_iterations']:.2f} s, exact numpy sampler "
            f"{data['numpy_seconds']:.2f} s (ratio {data['ratio']:.2f}), "
            f"peak memory {data['peak_mb']:.0f} MB, {os.cpu_count()} cores"
        )
    else:
        data = study(quick=options.quick, tell=lambda line: print(line, file=sys.stderr))
        print("\n".join(tables(data)))
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.figures and not options.speed:
        from mc2ram_figures import draw

        draw(data, options.figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
