# SPDX-License-Identifier: Apache-2.0
"""`enos-report`: draw the page of a report again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from enos_compiler.cli.common import Parser, add_output_options, run

_EPILOG = """\
enosc writes report.html beside every report.json; this command makes it again from a report.json
that came without one, or with a newer version's page. The file is checked first: a damaged report
is refused.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(_draw, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="enos-report",
        description="Draw a report.json as one page that opens offline.",
        epilog=_EPILOG,
    )
    parser.add_argument("report", type=Path, help="a report.json, or the folder that holds it")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page; by default report.html beside the report",
    )
    parser.add_argument(
        "--summary", action="store_true", help="print the summary in the terminal, write no page"
    )
    add_output_options(parser)
    return parser


def _draw(words: Sequence[str]) -> None:
    arguments = _parser().parse_args(words)

    from enos_compiler.report.read import read_report

    report = read_report(arguments.report)
    if arguments.summary:
        from enos_compiler.report.terminal import print_summary

        print_summary(report)
        return

    from enos_compiler.outputs import replace_text
    from enos_compiler.report.page import page_html

    given: Path = arguments.report
    folder = given if given.is_dir() else given.parent
    page = arguments.output or folder / "report.html"
    replace_text(page, page_html(report))
    if arguments.json:
        print(json.dumps({"page": str(page)}))
    elif not arguments.quiet:
        print(f"{report['model']} on {report['target']}: {page}")


if __name__ == "__main__":
    sys.exit(main())
