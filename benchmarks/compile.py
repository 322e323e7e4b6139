# SPDX-License-Identifier: Apache-2.0
"""Time and memory of compiling ResNet-18 at 224x224 without training, and of `enosc --help`.

    python benchmarks/compile.py [--quick] [--json FILE]

Limits: 20 s and 3 GB on two cores; --help in 0.3 s. `--quick` compiles at 112x112.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _help_seconds(runs: int) -> float:
    """Return the median wall time of `enosc --help`."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "enos_compiler.cli.enosc", "--help"],
            check=True,
            capture_output=True,
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _compile(resolution: int) -> tuple[float, float]:
    """Return wall seconds and peak memory in GB of one compilation in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "enos_compiler.cli.enosc"]
        command += [str(ROOT / "benchmarks/networks.py"), "--target", "hybrid", "-q"]
        command += ["--model-arg", f"resolution={resolution}", "-o", folder]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return seconds, peak_kib * 1024 / 1e9


def main() -> None:
    """Print the figures beside their limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller input")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    resolution = 112 if arguments.quick else 224
    help_seconds = _help_seconds(3 if arguments.quick else 7)
    seconds, peak_gb = _compile(resolution)
    figures = {
        "resolution": resolution,
        "help_seconds": round(help_seconds, 3),
        "compile_seconds": round(seconds, 2),
        "peak_gb": round(peak_gb, 2),
    }
    print(f"enosc --help               {help_seconds:6.2f} s   limit 0.3 s")
    print(f"ResNet-18 at {resolution}x{resolution:<9} {seconds:8.2f} s   limit 20 s")
    print(f"peak memory                {peak_gb:6.2f} GB  limit 3 GB")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
