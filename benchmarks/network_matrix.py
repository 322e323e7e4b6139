# SPDX-License-Identifier: Apache-2.0
"""Compile every network of the tests for every chip and say what equals what.

    python benchmarks/network_matrix.py [--write docs/coverage.md] [--state FILE.json] [--full]

A cell compiles a network as `enosc` does by default, then compares the integer reference with ONNX
Runtime (optimisations off and on) and with the simulator, in every output code, on random inputs
and on real ones. Cells are kept in the state file as they are made; a second run goes on from
there. `--full` takes the networks as published, one input each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from networks import COVERAGE, REFUSED, Entry, build
from networks.real import real_inputs

import enos_compiler
from enos_compiler import plugins
from enos_compiler.compiler import Compiled
from enos_compiler.errors import FrontendError, InfeasibleError, RefusalError
from enos_compiler.export.check import compare

ROOT = Path(__file__).parents[1]
Cell = dict[str, Any]
TARGETS = ("hybrid", "eyeriss", "simba", "cim", "isaac")
"""In the order of the columns; those that are not installed are left out."""


def make_cell(name: str, target: str, *, full: bool) -> Cell:
    """Compile one network for one chip; return what was found, or why it was refused."""
    started = time.perf_counter()
    model, inputs = build(name, full=full)
    try:
        compiled = enos_compiler.compile(model, inputs, target=target, name=name)
    except (FrontendError, InfeasibleError, RefusalError) as error:
        reason = "; ".join(line.strip() for line in error.message.splitlines())
        where = f" ({error.place})" if error.place else ""
        return {"refused": f"{reason}{where}".replace(f"{ROOT}/", "")}
    except Exception:
        return {"broken": traceback.format_exc().splitlines()[-1]}
    checks = compiled.report["checks"]
    return {
        "macs": compiled.report["totals"]["macs"],
        "onnx_steps": checks["onnx_max_steps"],
        "onnx_steps_real": _steps_on_real_inputs(compiled, name, inputs, full=full),
        "simulator_steps": checks["simulator_max_steps"],
        "events_equal": checks["events_equal"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _steps_on_real_inputs(
    compiled: Compiled, name: str, inputs: tuple[torch.Tensor, ...], *, full: bool
) -> int | None:
    """Return the largest difference on real inputs; None where there are none."""
    entry = (COVERAGE | REFUSED)[name]
    vocabulary = entry.full_vocabulary if full else entry.vocabulary
    found = real_inputs(inputs[0], vocabulary, rows=1 if full else 8)
    if found is None:
        return None
    return compare(compiled.onnx, compiled.network, (found.numpy(),)).max_steps


def is_equal(cell: Cell) -> bool:
    """Whether everything that was compared is equal."""
    found = (cell.get(key) for key in ("onnx_steps", "onnx_steps_real", "simulator_steps"))
    return cell.get("onnx_steps") == 0 and all(steps in (0, None) for steps in found)


def document(small: Mapping[str, Cell], full: Mapping[str, Cell]) -> str:
    """Return docs/coverage.md."""
    lines = [
        "# Networks and chips",
        "",
        "Made by `python benchmarks/network_matrix.py --write docs/coverage.md` (and `--full`).",
        "Each network is compiled as `enosc` does without data: scored by sensitivity,",
        "`floor+0.5`, random weights. Equal means that every output code of the integer reference",
        "is that of ONNX Runtime, optimisations off and on, on random inputs and on real ones",
        "(CIFAR-10 for images, characters for tokens; there is no sound). Replayed means that the",
        "simulator gave the same codes, and its events are the report's.",
    ]
    lines += ["", "## Small, by width and resolution", "", *_matrix(small, COVERAGE)]
    if full:
        lines += ["", "## As published", "", *_matrix(full, COVERAGE)]
        lacking = [n for n in COVERAGE if not any(key.startswith(f"{n}/") for key in full)]
        lines += ["", f"Not run at this size: {', '.join(lacking)}."] if lacking else []
    lines += ["", "## Refused", "", *_refused(small)]
    return "\n".join(lines) + "\n"


def _matrix(cells: Mapping[str, Cell], entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the table of networks by chips and what did not compile, with the reason."""
    targets = [t for t in TARGETS if any(key.endswith(f"/{t}") for key in cells)]
    yield f"| network | MACs | {' | '.join(targets)} |"
    yield f"| --- | --- |{' --- |' * len(targets)}"
    reasons: dict[str, list[str]] = {}
    for name in entries:
        row = [cells.get(f"{name}/{target}") for target in targets]
        if not any(row):
            continue
        macs = next((cell["macs"] for cell in row if cell and "macs" in cell), None)
        texts = []
        for target, cell in zip(targets, row, strict=True):
            texts.append(_text(cell))
            if cell and (reason := cell.get("refused") or cell.get("broken")):
                reasons.setdefault(reason, []).append(f"{name} on {target}")
        size = f"{macs / 1e6:,.{1 if macs > 1e6 else 2}f} M" if macs else ""
        yield f"| {name} | {size} | {' | '.join(texts)} |"
    if reasons:
        yield ""
    for reason, where in reasons.items():
        yield f"- {', '.join(where)}: {reason}"


def _text(cell: Cell | None) -> str:
    if not cell:
        return ""
    if "refused" in cell:
        return "refused"
    if "broken" in cell:
        return "**broken**"
    told = "equal" if is_equal(cell) else "**differs**"
    is_replayed = cell["simulator_steps"] == 0 and cell["events_equal"]
    return f"{told}, replayed" if is_replayed else told


def _refused(cells: Mapping[str, Cell]) -> Iterator[str]:
    for name in REFUSED:
        reasons = {c["refused"] for k, c in cells.items() if k.startswith(f"{name}/")}
        for reason in sorted(reasons):
            yield f"- {name}: {reason}"


def main() -> None:
    """Fill the matrix, cell by cell; write the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "network_matrix.json")
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    parser.add_argument("--full", action="store_true", help="networks as published")
    parser.add_argument("--networks", default="|".join([*COVERAGE, *REFUSED]), metavar="A|B")
    parser.add_argument("--targets", default="|".join(TARGETS), metavar="A|B")
    parser.add_argument("--again", action="store_true", help="make cells that are there anew")
    arguments = parser.parse_args()
    state: dict[str, dict[str, Cell]] = {"small": {}, "full": {}}
    if arguments.state.is_file():
        state = json.loads(arguments.state.read_text())
    arguments.state.parent.mkdir(parents=True, exist_ok=True)
    cells = state["full" if arguments.full else "small"]
    installed = plugins.names("targets")
    for name in arguments.networks.split("|"):
        for target in arguments.targets.split("|"):
            key = f"{name}/{target}"
            if target not in installed or (key in cells and not arguments.again):
                continue
            cells[key] = make_cell(name, target, full=arguments.full)
            print(f"{key:24} {_text(cells[key])} {cells[key].get('seconds', '')}", flush=True)
            arguments.state.write_text(json.dumps(state, indent=1) + "\n")
    if arguments.write:
        arguments.write.write_text(document(state["small"], state["full"]))
    bad = [k for group in state.values() for k, c in group.items() if "**" in _text(c)]
    sys.exit(f"not green: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
