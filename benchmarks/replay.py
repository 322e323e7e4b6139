# SPDX-License-Identifier: Apache-2.0
"""Time of replaying SqueezeNet at 32x32 and ResNet-18 at 224x224 on `hybrid`.

    python benchmarks/replay.py [--quick] [--json FILE]

Limits: 2 s and 60 s on two cores, every step of every layer computed on its own. `--quick` takes
ResNet-18 at 112x112.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks.mobile import squeezenet  # noqa: E402  # the one place of the networks
from networks.residual import resnet18  # noqa: E402

import enos_compiler  # noqa: E402
from enos_compiler.schedule.executable import executable  # noqa: E402
from enos_compiler.simulate.replay import replay  # noqa: E402


def _measure(model: torch.nn.Module, resolution: int) -> dict[str, float]:
    """Return seconds of a full and of a sampled replay of one image, and how much is replayed."""
    images = torch.rand(1, 3, resolution, resolution)
    compiled = enos_compiler.compile(
        model.eval(), (images,), target="hybrid", search="none", check="none"
    )
    program = executable(compiled.network)
    found: dict[str, float] = {
        "instructions": len(compiled.program.instructions),
        "macs": compiled.network.macs,
    }
    outputs = []
    for level in ("full", "sampled"):
        started = time.perf_counter()
        outputs.append(replay(program, (images.numpy(),), level=level).outputs[0])
        found[f"{level}_seconds"] = round(time.perf_counter() - started, 2)
    if not np.array_equal(*outputs):
        sys.exit("the two replays differ")
    return found


def main() -> None:
    """Print the figures beside their limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller ResNet-18")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    large = 112 if arguments.quick else 224
    figures = {}
    for name, model, resolution, limit in (
        ("SqueezeNet", squeezenet(), 32, 2),
        ("ResNet-18", resnet18(), large, 60),
    ):
        measured = _measure(model, resolution)
        figures[name] = {"resolution": resolution, **measured}
        print(
            f"{name} at {resolution}x{resolution}: {measured['full_seconds']:.2f} s, sampled "
            f"{measured['sampled_seconds']:.2f} s, {measured['instructions']:,.0f} instructions; "
            f"limit {limit} s"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
