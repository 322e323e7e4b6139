# SPDX-License-Identifier: Apache-2.0
"""How long the optimal mapper takes on the layers of known networks.

python benchmarks/mapper.py [--quick] [--growth] [--json FILE]

Eyeriss-like: scratchpads for each tensor in 14 x 12 processing elements, a buffer that weights
bypass, a memory; every dimension may be spread over both axes. Simba-like: 4 x 4 processing
elements of 8 banks of 8 lanes, weight stationary. Objective: energy x delay, bandwidth limits
included. Whole networks also on the shipped targets, awkward bounds padded, and from their cache.

Times are CPU time of one thread, the kernel compiled and loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import TypeVar, cast

from layer_shapes import NETWORKS, distinct

from enos_compiler.cores import map_cache
from enos_compiler.cores.base import Homes
from enos_compiler.cores.loopnest import LoopNestCore
from enos_compiler.cores.target import load_target
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Home, Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.engine import available, compile_kernel
from enos_compiler.mapping.lattice import prime_factors
from enos_compiler.mapping.machine import ComputeSpec, Machine, NetworkSpec, StorageLevel
from enos_compiler.mapping.mapper import MapResult, map_layer
from enos_compiler.mapping.space import MapSpace

PER_LAYER = ("resnet18", "resnet50", "mobilenetv2")
"""Networks whose layers are timed one by one, on both machines."""
SMALL = LayerShape(m=4, c=2, p=4, q=4, r=3, s=3)
LARGE = (
    LayerShape(m=128, c=128, p=112, q=112, r=3, s=3),
    LayerShape(n=4, m=1024, c=1024, p=64, q=64, r=3, s=3),
    LayerShape(m=240, c=240, p=60, q=60, r=3, s=3),
)
"""Larger than any layer of the networks, for the law of growth."""
Row = tuple[LayerShape, float, MapResult]
Mapper = Callable[[LayerShape], MapResult]
T = TypeVar("T")
W, I, O = (frozenset({name}) for name in ("Weights", "Inputs", "Outputs"))  # noqa: E741


def eyeriss_like() -> tuple[Machine, MapSpace]:
    """Energies in the proportions 1 : 6 : 200 of scratchpad, buffer and memory, per 16-bit word."""

    def pad(name: str, entries: int, keeps: frozenset[str]) -> StorageLevel:
        return StorageLevel(
            name, 168, 14, entries=entries, keeps=keeps, read_pj=1.0, fill_pj=1.0, update_pj=1.0
        )

    levels = (
        pad("sums", 16, O),
        pad("weights", 192, W),
        pad("inputs", 12, I),
        StorageLevel(
            "buffer",
            entries=55296,
            block_size=4,
            keeps=I | O,
            read_bandwidth=16.0,
            write_bandwidth=16.0,
            read_pj=24.0,
            fill_pj=24.0,
            update_pj=24.0,
            network=NetworkSpec(energy_per_hop_pj=0.06),
        ),
        StorageLevel(
            "memory",
            block_size=4,
            read_bandwidth=8.0,
            write_bandwidth=8.0,
            read_pj=800.0,
            fill_pj=800.0,
            update_pj=800.0,
            reduction_supported=False,
        ),
    )
    machine = Machine("eyeriss-like", ComputeSpec(168, 14, 1.0), levels)
    return machine, MapSpace.of_machine(machine)


def simba_like() -> tuple[Machine, MapSpace]:
    """8-bit words, 24-bit sums; lanes over input channels, banks over output channels."""

    def level(name: str, copies: int, columns: int, entries: int, **more: object) -> StorageLevel:
        return StorageLevel(
            name,
            copies,
            columns,
            entries=entries,
            **{"word_bits": 8, **more},  # type: ignore[arg-type]
        )

    levels = (
        level("register", 1024, 64, 1, keeps=W, read_pj=0.01, fill_pj=0.01, update_pj=0.01),
        level("sums", 128, 8, 128, keeps=O, word_bits=24, read_pj=0.6, fill_pj=0.7, update_pj=0.8),
        level("weights", 128, 8, 4096, keeps=W, block_size=8, read_pj=5.0, fill_pj=6.0),
        level("inputs", 16, 4, 8192, keeps=I, block_size=8, read_pj=6.0, fill_pj=7.0),
        level(
            "buffer",
            1,
            1,
            65536,
            keeps=I | O,
            block_size=16,
            read_bandwidth=32.0,
            write_bandwidth=32.0,
            read_pj=31.0,
            fill_pj=33.0,
            update_pj=33.0,
            network=NetworkSpec(energy_per_hop_pj=0.045, router_energy_pj=0.11),
        ),
        StorageLevel(
            "memory",
            word_bits=8,
            block_size=16,
            shared_bandwidth=16.0,
            read_pj=512.0,
            fill_pj=512.0,
            update_pj=512.0,
            reduction_supported=False,
        ),
    )
    machine = Machine("simba-like", ComputeSpec(1024, 64, 0.3, word_bits=8), levels)
    spatial = {"sums": ("CRS", ""), "inputs": ("", "MG"), "buffer": ("CPQG", "MPQG")}
    return machine, MapSpace.of_machine(machine, spatial=spatial)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and the CPU seconds that it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def measure(shapes: Iterable[LayerShape], mapper: Mapper, repeat: int) -> list[Row]:
    """Each layer, its least CPU time in ms over `repeat` runs, and its mapping."""
    rows = []
    for shape in shapes:
        runs = [timed(partial(mapper, shape)) for _ in range(repeat)]
        rows.append((shape, 1e3 * min(seconds for _, seconds in runs), runs[0][0]))
    return rows


def divisor_pairs(shape: LayerShape) -> int:
    """Pairs of tiles of which one divides the other: what a search edge by edge would visit."""
    exponents = [e for bound in shape.bounds.values() for _, e in prime_factors(bound)]
    return prod((e + 1) * (e + 2) // 2 for e in exponents)


def growth(rows: Iterable[Row]) -> list[tuple[int, int, int, float, float]]:
    """Divisor pairs in decades: (exponent, layers, median tiles, median ms, worst ms)."""
    decades: dict[int, list[Row]] = {}
    for row in rows:
        decades.setdefault(len(str(divisor_pairs(row[0]))) - 1, []).append(row)
    return [
        (
            decade,
            len(found),
            round(statistics.median(result.certificate.tiles for _, _, result in found)),
            statistics.median(t for _, t, _ in found),
            max(t for _, t, _ in found),
        )
        for decade, found in sorted(decades.items())
    ]


def target_seconds(name: str, network: str) -> tuple[float, float]:
    """CPU time of all layers of a network on a shipped target: mapped, then from the disk."""
    with tempfile.TemporaryDirectory() as folder:
        target = load_target(name, mapping_cache=folder)
        core = cast("LoopNestCore", target.cores["array"])
        home = Home(target.chip.dram)
        homes, choice = Homes((home,), home), Choice(core.name, "mac", Bits(8, 8, 8))

        def price() -> None:
            for shape in NETWORKS[network]():
                layer = Layer("layer", "conv", ("input",), "output", shape=shape, weight="weight")
                core.cost(layer, choice, homes)

        times = []
        for _ in range(2):
            map_cache.forget()
            times.append(timed(price)[1])
    return times[0], times[1]


def compiled(mappers: Iterable[Callable[..., MapResult]]) -> None:
    """Have the kernel compiled, or loaded, before anything is timed."""
    if available() == "numpy":
        print("compiling the kernel", file=sys.stderr)
    for mapper in mappers:
        compile_kernel(partial(mapper, SMALL, engine="numba"))


def layer_figures(
    name: str, machine: Machine, mapper: Mapper, networks: Iterable[str], repeat: int
) -> tuple[list[Row], dict[str, float]]:
    """Time networks layer by layer; print a line for each."""
    rows: list[Row] = []
    for network in networks:
        found = measure(distinct(network), mapper, repeat)
        times = [t for _, t, _ in found]
        print(
            f"{machine.name:12} {network:14} {len(found):3} layers"
            f"  median {statistics.median(times):6.1f} ms  worst {max(times):6.1f} ms"
            f"  all {sum(times) / 1e3:5.2f} s"
        )
        rows += found
    times = [t for _, t, _ in rows]
    prefix = "" if name == "eyeriss" else f"{name}_"
    return rows, {
        f"{prefix}median_ms": statistics.median(times),
        f"{prefix}worst_ms": max(times),
    }


def network_figures(mapper: Mapper, networks: Iterable[str]) -> tuple[list[Row], dict[str, float]]:
    """Map whole networks, every distinct layer once, on the Eyeriss-like machine."""
    rows: list[Row] = []
    figures = {}
    for network in networks:
        found = measure(distinct(network), mapper, 1)
        rows += found
        figures[network] = sum(t for _, t, _ in found) / 1e3
        print(
            f"{'eyeriss-like':12} {network:14} {len(found):3} layers  all {figures[network]:5.2f} s"
        )
    return rows, figures


def main() -> int:
    """Measure, print one line per network and machine, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNets only, one run a layer")
    parser.add_argument("--growth", action="store_true", help="time by divisor pairs, large layers")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--slowest", type=int, default=0, help="list the slowest layers")
    options = parser.parse_args()
    pairs = {"eyeriss": eyeriss_like(), "simba": simba_like()}
    mappers = {
        name: partial(map_layer, machine=machine, space=space, objective="edp")
        for name, (machine, space) in pairs.items()
    }
    compiled(mappers.values())
    networks = list(NETWORKS)
    per_layer = PER_LAYER
    if options.quick:
        networks, per_layer = ["resnet50", "vit_b16"], ("resnet18",)
    figures: dict[str, float | str] = {"engine": available()}
    everything: dict[str, list[Row]] = {}
    for name, (machine, _) in pairs.items():
        repeat = 1 if options.quick else 2
        everything[name], found = layer_figures(name, machine, mappers[name], per_layer, repeat)
        figures |= found
        for shape, t, result in sorted(everything[name], key=lambda r: -r[1])[: options.slowest]:
            c = result.certificate
            print(f"  {t:7.1f} ms  {shape}  opened {c.opened} of {c.choices}, {c.tiles} tiles")
    rows, seconds = network_figures(mappers["eyeriss"], networks)
    everything["eyeriss"] += rows
    figures["network_seconds"] = seconds["resnet50"]
    figures |= {f"{network}_seconds": s for network, s in seconds.items()}
    cached: list[float] = []
    for target in ("eyeriss", "simba"):
        for network in networks:
            mapped, again = target_seconds(target, network)
            cached.append(again)
            figures[f"{target}_target_{network}_seconds"] = mapped
            print(f"{target:12} {network:14} mapped {mapped:5.2f} s  from its cache {again:5.3f} s")
    figures["cached_seconds"] = max(cached)
    proven = [r.certificate.optimal for rows in everything.values() for _, _, r in rows]
    figures["optimal_of"] = f"{sum(proven)}/{len(proven)}"
    if options.growth:
        for name, mapper in mappers.items():
            rows = [*everything[name], *measure(LARGE, mapper, 1)]
            for decade, layers, tiles, median, worst in growth(rows):
                print(
                    f"{name:8} 1e{decade} pairs: {layers:3} layers, {tiles:7,} tiles, "
                    f"median {median:7.1f} ms, worst {worst:7.1f} ms"
                )
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(" ".join(f"{k}={v if isinstance(v, str) else round(v, 3)}" for k, v in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
