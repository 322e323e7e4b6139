# SPDX-License-Identifier: Apache-2.0
"""How far schedules lie above the bound below which none can be, network by network.

    python benchmarks/schedule.py [--targets A|B] [--quick] [--json FILE]

The networks of docs/coverage.md at their small sizes, mac with 8 bits. `--quick` takes four.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks import COVERAGE, build  # noqa: E402  # the one place of the networks

import enos_compiler  # noqa: E402
from enos_compiler.cores.accounting import itemise  # noqa: E402
from enos_compiler.errors import RefusalError  # noqa: E402
from enos_compiler.schedule.list_schedule import time_tasks  # noqa: E402
from enos_compiler.schedule.shop import Shop  # noqa: E402
from enos_compiler.schedule.tasks import inference_tasks  # noqa: E402

QUICK = ("squeezenet", "resnet50", "vit", "unet")


def measure(name: str, target: str) -> dict[str, Any] | None:
    """Return the gap of a network's schedule and the processor time it took; None if refused."""
    model, inputs = build(name)
    try:
        compiled = enos_compiler.compile(model, inputs, target=target, search="none", check="none")
    except RefusalError:
        return None
    items = itemise(compiled.network, compiled.target)
    shop = Shop.of(inference_tasks(compiled.network, compiled.target, items))
    started = time.process_time()
    timing = time_tasks(shop)
    return {
        "tasks": len(shop.cycles),
        "cycles": timing.makespan,
        "gap": timing.makespan / timing.bound - 1,
        "rule": timing.rule,
        "seconds": round(time.process_time() - started, 2),
    }


def main() -> None:
    """Print a line a network, and the largest gap."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="hybrid|eyeriss|simba", metavar="A|B")
    parser.add_argument("--quick", action="store_true", help="four networks")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    for target in arguments.targets.split("|"):
        for name in QUICK if arguments.quick else COVERAGE:
            if (found := measure(name, target)) is None:
                continue
            figures[f"{name}/{target}"] = found
            print(
                f"{name:14} {target:8} {found['tasks']:4} tasks, {found['gap']:6.1%} above the "
                f"bound, {found['seconds']:.2f} s, {found['rule']}",
                flush=True,
            )
    worst = max(figures, key=lambda key: float(figures[key]["gap"]))
    print(f"largest gap: {figures[worst]['gap']:.1%} ({worst})")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
