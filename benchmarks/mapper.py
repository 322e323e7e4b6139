# SPDX-License-Identifier: Apache-2.0
"""How long the optimal mapper takes on the layers of known networks.

python benchmarks/mapper.py [--quick] [--json FILE]

Eyeriss-like: scratchpads for each tensor in 14 x 12 processing elements, a buffer that weights
bypass, a memory; every dimension may be spread over both axes. Simba-like: 4 x 4 processing
elements of 8 banks of 8 lanes, weight stationary. Objective: energy x delay, bandwidth limits
included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.engine import available, compile_kernel
from enos_compiler.mapping.machine import ComputeSpec, Machine, NetworkSpec, StorageLevel
from enos_compiler.mapping.mapper import MapResult, map_layer
from enos_compiler.mapping.space import MapSpace

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


def conv(m: int, c: int, p: int, r: int, stride: int = 1, g: int = 1) -> LayerShape:
    """A square convolution of batch one."""
    return LayerShape(g=g, m=m // g, c=c // g, p=p, q=p, r=r, s=r, stride=(stride, stride))


def resnet(bottleneck: bool) -> Iterator[LayerShape]:
    """Layers of ResNet-50 or ResNet-18 in order."""
    yield conv(64, 3, 112, 7, 2)
    channels, size = 64, 56
    for stage, blocks in enumerate((3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            out = 4 * width if bottleneck else width
            if bottleneck:
                yield conv(width, channels, size, 1)
            size //= stride
            yield conv(width, width if bottleneck else channels, size, 3, stride)
            yield conv(out, width, size, 1 if bottleneck else 3)
            if channels != out:
                yield conv(out, channels, size, 1, stride)
            channels = out
    yield LayerShape(m=1000, c=channels)


def mobilenet_v2() -> Iterator[LayerShape]:
    """Layers of MobileNetV2 in order."""
    yield conv(32, 3, 112, 3, 2)
    channels, size = 32, 112
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for widen, out, repeat, first in (*blocks, (6, 160, 3, 2), (6, 320, 1, 1)):
        for block in range(repeat):
            stride = first if block == 0 else 1
            inner = channels * widen
            if widen > 1:
                yield conv(inner, channels, size, 1)
            size //= stride
            yield conv(inner, inner, size, 3, stride, g=inner)
            yield conv(out, inner, size, 1)
            channels = out
    yield conv(1280, 320, 7, 1)
    yield LayerShape(m=1000, c=1280)


def networks() -> dict[str, list[LayerShape]]:
    """Distinct layers by network."""
    return {
        "resnet18": list(dict.fromkeys(resnet(bottleneck=False))),
        "resnet50": list(dict.fromkeys(resnet(bottleneck=True))),
        "mobilenetv2": list(dict.fromkeys(mobilenet_v2())),
    }


def measure(
    shapes: list[LayerShape], machine: Machine, space: MapSpace, repeat: int
) -> list[tuple[LayerShape, float, MapResult]]:
    """Each layer, its least CPU time in ms over `repeat` runs, and its mapping."""
    rows = []
    for shape in shapes:
        times = []
        for _ in range(repeat):
            start = time.process_time()
            result = map_layer(shape, machine, space=space, objective="edp")
            times.append((time.process_time() - start) * 1e3)
        rows.append((shape, min(times), result))
    return rows


def main() -> int:
    """Measure, print one line per network and machine, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet-18 only, one run a layer")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--slowest", type=int, default=0, help="list the slowest layers")
    options = parser.parse_args()
    pairs = {"eyeriss": eyeriss_like(), "simba": simba_like()}
    small = LayerShape(m=4, c=2, p=4, q=4, r=3, s=3)
    if available() == "numpy":
        print("compiling the kernel", file=sys.stderr)
    for machine, space in pairs.values():
        compile_kernel(partial(map_layer, small, machine, space=space, engine="numba"))
    chosen = networks()
    if options.quick:
        chosen = {"resnet18": chosen["resnet18"]}
    figures: dict[str, float | str] = {"engine": available()}
    proven = total = 0
    for name, (machine, space) in pairs.items():
        rows = []
        for network, shapes in chosen.items():
            found = measure(shapes, machine, space, 1 if options.quick else 2)
            times = [t for _, t, _ in found]
            print(
                f"{machine.name:12} {network:12} {len(shapes):3} layers"
                f"  median {statistics.median(times):7.1f} ms  worst {max(times):7.1f} ms"
            )
            rows += found
        times = [t for _, t, _ in rows]
        prefix = "" if name == "eyeriss" else f"{name}_"
        figures[f"{prefix}median_ms"] = statistics.median(times)
        figures[f"{prefix}worst_ms"] = max(times)
        if name == "eyeriss":
            figures["network_seconds"] = sum(times[: len(chosen["resnet18"])]) / 1e3
        proven += sum(result.certificate.optimal for _, _, result in rows)
        total += len(rows)
        for shape, t, result in sorted(rows, key=lambda row: -row[1])[: options.slowest]:
            c = result.certificate
            print(f"  {t:7.1f} ms  {shape}  opened {c.opened} of {c.choices}, {c.tiles} tiles")
    figures["optimal_of"] = f"{proven}/{total}"
    print(" ".join(f"{k}={v if isinstance(v, str) else round(v, 3)}" for k, v in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
