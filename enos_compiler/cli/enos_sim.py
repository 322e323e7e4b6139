# SPDX-License-Identifier: Apache-2.0
"""`enos-sim`: replay a compiled program on inputs."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enos_compiler.cli.common import Parser, add_output_options, run

if TYPE_CHECKING:
    from enos_compiler.ir.executable import Executable
    from enos_compiler.simulate.replay import Replay

_EPILOG = """\
The program is what `enosc` wrote: program.json with program.safetensors beside it; nothing else is
needed. Every instruction runs on memories of the stated sizes and is checked: times, resources,
addresses, what lies there, and the words it moves. The inputs are arrays named as the network's
inputs, or in their order; outputs get the names of the network's outputs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(_simulate, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="enos-sim",
        description="Replay a compiled program, instruction by instruction.",
        epilog=_EPILOG,
    )
    parser.add_argument("program", type=Path, help="program.json, or the folder that holds it")
    parser.add_argument("inputs", type=Path, help="inputs.npz, or one array as .npy")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="outputs.npz to write")
    parser.add_argument(
        "--check",
        choices=("full", "sampled"),
        default="full",
        help="compute every step of a layer on its own (default), or the first and the last",
    )
    add_output_options(parser)
    return parser


def _simulate(words: Sequence[str]) -> None:
    arguments = _parser().parse_args(words)

    from enos_compiler.schedule.program_file import read_program
    from enos_compiler.simulate.replay import replay
    from enos_compiler.simulate.rules import check_program

    found = read_program(arguments.program)
    check_program(found.executable)
    found.require_seal()
    inputs = _inputs(arguments.inputs, found.executable.inputs)
    done = replay(found.executable, inputs, level=arguments.check)
    if arguments.output:
        _write(arguments.output, found.executable, done)
    if arguments.json:
        print(json.dumps(_as_json(found.executable, done)))
    elif not arguments.quiet:
        _print(found.executable, done, arguments.output)


def _inputs(path: Path, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the input arrays, by name where all names are there, else in their order."""
    from enos_compiler.frontend.arrays import read_arrays

    arrays = read_arrays(path)
    if set(names) <= set(arrays):
        return tuple(arrays[name] for name in names)
    return tuple(arrays.values())


def _write(path: Path, executable: Executable, done: Replay) -> None:
    import numpy as np

    from enos_compiler.outputs import replaced_file

    with replaced_file(path) as made, made.open("wb") as file:
        np.savez(file, **dict(zip(executable.outputs, done.outputs, strict=True)))  # type: ignore[arg-type]  # names are free


def _as_json(executable: Executable, done: Replay) -> dict[str, Any]:
    return {
        "program": executable.name,
        "cycles": done.cycles,
        "latency_ns": executable.program.makespan_ns,
        "busy_cycles": dict(done.busy_cycles),
        "events": done.totals(),
        "setup_events": _sum(done.setup_events.values()),
        "outputs": {
            name: list(array.shape)
            for name, array in zip(executable.outputs, done.outputs, strict=True)
        },
    }


def _sum(parts: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


def _print(executable: Executable, done: Replay, output: Path | None) -> None:
    from enos_compiler.ir.units import time_text

    count = len(executable.program.instructions)
    print(
        f"replayed {executable.name}: {count:,} instructions in {done.cycles:,} cycles, "
        f"{time_text(executable.program.makespan_ns)} an inference"
    )
    if output:
        print(f"  outputs written to {output}")
    print("\nresource              busy cycles  share")
    for name, busy in done.busy_cycles.items():
        share = busy / done.cycles if done.cycles else 0.0
        print(f"{name:20} {busy:>12,} {share:>6.1%}")
    print("\nevent                                               count")
    for action, events in done.totals().items():
        print(f"{action:44} {events:>12,}")


if __name__ == "__main__":
    sys.exit(main())
