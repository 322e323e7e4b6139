# SPDX-License-Identifier: Apache-2.0
"""`enos-compare`: tell two compilations apart, and fail where one is too much worse."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from enos_compiler.cli.common import Parser, add_output_options, run

_EPILOG = """\
examples:
  enos-compare old/ new/
  enos-compare old/ new/report.json --max-energy +2% --max-accuracy-loss 0.5

Exit status: 0 within all thresholds, 1 a threshold was passed or a file was refused, 2 wrong usage.
"""
_LIMITED = {
    "energy": "total energy of the new report against the old one",
    "latency": "the latency",
    "edp": "energy times latency",
    "area": "the area",
    "layer": "the energy of any layer",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(_compare, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="enos-compare",
        description="Say what changed between two compilations.",
        epilog=_EPILOG,
    )
    parser.add_argument("old", type=Path, help="a report.json, or the folder that holds it")
    parser.add_argument("new", type=Path, help="the other")
    limits = parser.add_argument_group("thresholds", "the largest change that passes, e.g. +2%")
    for name, text in _LIMITED.items():
        limits.add_argument(f"--max-{name}", metavar="PERCENT", help=text.replace("%", "%%"))
    limits.add_argument(
        "--max-accuracy-loss", metavar="POINTS", help="loss in percentage points, e.g. 0.5"
    )
    add_output_options(parser)
    return parser


def _compare(words: Sequence[str]) -> int:
    arguments = _parser().parse_args(_protected(words))

    from enos_compiler.report.compare import Threshold, breaches, compare
    from enos_compiler.report.compare_text import breach_text, comparison_text
    from enos_compiler.report.read import read_report

    given = {name: getattr(arguments, f"max_{name}") for name in _LIMITED}
    given["accuracy"] = arguments.max_accuracy_loss
    thresholds = [Threshold.parse(name, text) for name, text in given.items() if text is not None]
    found = compare(read_report(arguments.old), read_report(arguments.new))
    broken = breaches(found, thresholds)
    if arguments.json:
        document = {**found.as_dict(), "breaches": [breach.as_dict() for breach in broken]}
        print(json.dumps(document, allow_nan=False))
    elif not arguments.quiet:
        print(comparison_text(found, broken))
    else:
        for breach in broken:
            print(breach_text(breach), file=sys.stderr)
    return 1 if broken else 0


def _protected(words: Sequence[str]) -> list[str]:
    """Join `--max-x -5%` to one word: argparse takes a leading minus for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--max-") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


if __name__ == "__main__":
    sys.exit(main())
