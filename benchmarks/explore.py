# SPDX-License-Identifier: Apache-2.0
"""Hardware evaluations of MobileNetV2 at distinct bit settings, and what a worker costs.

    python benchmarks/explore.py [--quick] [--target NAME] [--mapping-cache DIR] [--json FILE]

MobileNetV2 at 224x224, batch 1, weights and activations of 2 to 8 bits. Tables are built twice:
the first time with whatever mappings the cache holds, the second time with all of them; then 10,000
random settings, all distinct, are priced in generations of 100. The overhead is that of one empty
evaluation on a worker process, of joblib's own and of a Dask cluster on this machine. Times are
those of the clock; processor time stands beside them, for machines that do other work. With --quick
the network is MobileNetV2 at a quarter of the width on 32x32 images, priced at 2, 4 and 8 bits.
Limits: 60 s for 10,000 evaluations with their tables, mappings being cached; cold tables 300 s;
2 GB; 20 ms a worker's evaluation.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from networks.mobile import MobileNetV2

from enos_compiler.cores.map_cache import forget
from enos_compiler.cores.target import load_target
from enos_compiler.explore.hardware import HardwareTables, build_tables, place
from enos_compiler.explore.workers import Workers, connected
from enos_compiler.frontend.calibrate import calibrate, example_batches
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.ir.network import Network

BITS = (2, 3, 4, 5, 6, 7, 8)
QUICK_BITS = (2, 4, 8)
SETTINGS = 10_000
GENERATION = 100
EMPTY = 200
"""Empty evaluations that the overhead is measured over."""


def network(*, quick: bool) -> Network:
    """Return the calibrated network, with random weights."""
    torch.manual_seed(0)
    model = MobileNetV2(width=0.25) if quick else MobileNetV2(classes=1000)
    side = 32 if quick else 224
    lowered = lower(trace(model.eval(), (torch.rand(1, 3, side, side),)))
    return calibrate(lowered, example_batches(lowered))


class Watch:
    """Seconds since it was made, by the clock and of the processor."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return both."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def tables(
    subject: Network, arguments: argparse.Namespace
) -> tuple[HardwareTables, tuple[float, float]]:
    """Return tables and the seconds that they took; nothing is remembered but on disk."""
    forget()
    bits = QUICK_BITS if arguments.quick else BITS
    watch = Watch()
    target = load_target(arguments.target, mapping_cache=arguments.mapping_cache)
    found = build_tables(place(subject, target, bits), target, bits)
    return found, watch.read()


def evaluations(found: HardwareTables, bits: tuple[int, ...]) -> tuple[float, float]:
    """Return the seconds that all settings take."""
    random = np.random.default_rng(0)
    layers = len(found.plan.names)
    settings = random.choice(np.array(bits), size=(SETTINGS, layers, 2))
    settings = np.unique(settings, axis=0)
    if len(settings) != SETTINGS:
        raise SystemExit("settings repeat")
    watch = Watch()
    for first in range(0, SETTINGS, GENERATION):
        found.cost(settings[first : first + GENERATION])
    return watch.read()


def overhead_ms(workers: Workers) -> float:
    """Return what an empty evaluation takes on worker processes that run already."""
    with connected(workers, None):
        list(workers.run(_empty, range(2)))
        watch = Watch()
        list(workers.run(_empty, range(EMPTY)))
        return watch.read()[0] / EMPTY * 1e3


def _empty(number: int) -> int:
    return number


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small MobileNetV2")
    parser.add_argument("--target", default="eyeriss")
    parser.add_argument("--mapping-cache", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    subject = network(quick=arguments.quick)
    _, first = tables(subject, arguments)
    found, warm = tables(subject, arguments)
    priced = evaluations(found, QUICK_BITS if arguments.quick else BITS)
    data: dict[str, Any] = {
        "network": "MobileNetV2 x 0.25, 32x32" if arguments.quick else "MobileNetV2, 224x224",
        "target": arguments.target,
        "layers": len(found.plan.names),
        "distinct_layers": len({id(table) for table in found.layers.values()}),
        "seconds_first_tables": first[0],
        "seconds_warm_tables": warm[0],
        "seconds_per_10000_evaluations": warm[0] + priced[0],
        "seconds_pricing_alone": priced[0],
        "processor_seconds_first_tables": first[1],
        "processor_seconds_per_10000_evaluations": warm[1] + priced[1],
        "overhead_ms": overhead_ms(Workers("loky", 2)),
        "overhead_ms_dask": overhead_ms(Workers("dask")),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    for name, value in data.items():
        print(f"{name:32} {value:.3f}" if isinstance(value, float) else f"{name:32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
