# SPDX-License-Identifier: Apache-2.0
"""What the commands share: errors to exit codes, output streams, options of printing."""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from enos_compiler import plugins
from enos_compiler.errors import EnosError, UsageError
from enos_compiler.mapping.objective import OBJECTIVES

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.ir.network import Network
    from enos_compiler.pipeline import PassRecord


WIDTH = 80
"""Columns of a terminal that messages are written for."""


class _Help(argparse.HelpFormatter):
    """Help whose paragraphs fill the terminal; indented lines, which are commands, stay whole."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for prose, group in itertools.groupby(
            text.splitlines(), lambda line: line[:1].strip() != ""
        ):
            block = list(group)
            lines += textwrap.wrap(" ".join(block), width) if prose else block
        return "\n".join(indent + line for line in lines)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one message with a remedy, exit status 2.

    An epilog's paragraphs are filled to the terminal's width; its indented lines stay as they are.
    """

    def __init__(self, *, prog: str, description: str, epilog: str) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=_Help)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that `--json` may print it."""
        remedy = f"{self.prog} --help"
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        if unknown.startswith("--"):
            known = [o for a in self._actions for o in a.option_strings if o.startswith("--")]
            close = difflib.get_close_matches(unknown.partition("=")[0], known, n=1, cutoff=0.5)
            remedy = f"{close[0]}, or {remedy}" if close else remedy
        raise UsageError(message, remedy=remedy)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command has."""
    group = parser.add_argument_group("printing")
    group.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say what each step does, also in a log file; tracebacks on errors",
    )
    group.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def add_mapping_options(parser: argparse._ActionsContainer) -> None:
    """Add what every command that maps layers has: the objective, and where mappings are kept."""
    parser.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="what loop nests minimise; by default what the chip's file says",
    )
    parser.add_argument(
        "--mapping-cache",
        type=Path,
        metavar="DIR",
        help="keep mappings here and find them again; by default in the user's cache",
    )


def run(command: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None) -> int:
    """Run a command; turn errors into one message and an exit status.

    Returns:
        What the command returns, None being 0: 0 done, 1 failed with one message, 2 wrong usage,
        130 interrupted.
    """
    # Threads that spin while they wait stall each other on a machine that does anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "-v" in words or "--verbose" in words
    try:
        return command(words) or 0
    except EnosError as error:
        if verbose:
            traceback.print_exc()
        _print_error(error, as_json="--json" in words)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "interrupted; nothing was replaced. A search goes on from its last epoch when the "
            "same command runs again",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if verbose:
            raise
        print(
            f"error: {type(error).__name__}: {error}\n"
            "  this is a defect of the compiler; run again with -v and report the trace",
            file=sys.stderr,
        )
        return 1


def _print_error(error: EnosError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.as_dict()))
    else:
        text = f"error: {error}"
        print(wrapped(text) if sys.stderr.isatty() else text, file=sys.stderr)


def wrapped(text: str, width: int = WIDTH) -> str:
    """Return text in lines of at most `width` columns, their rest indented; words stay whole."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += textwrap.wrap(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        ) or [""]
    return "\n".join(lines)


def teller(*, quiet: bool, verbose: bool) -> Callable[[str], None]:
    """Return what passes say progress with: stderr, if it is a terminal or -v asks for it."""
    return logger(quiet=quiet or not (verbose or sys.stderr.isatty()))


def logger(*, quiet: bool) -> Callable[[str], None]:
    """Return what long runs tell their progress with: stderr, wherever it goes, save with -q.

    Of the processes that torchrun starts the first one tells.
    """
    if quiet or os.environ.get("RANK", "0") != "0":
        return lambda _text: None
    return lambda text: print(text, file=sys.stderr, flush=True)


def tell_of_kernel(target: Target, say: Callable[[str], None]) -> None:
    """Say in one line that the mapper could be faster, where it is used and is not compiled."""
    from enos_compiler.cores.base import Maps
    from enos_compiler.mapping.engine import advice

    line = advice() if any(isinstance(core, Maps) for core in target.cores.values()) else None
    if line is not None:
        say(line)


def network_printer(after: str | None) -> Callable[[str, Network], None]:
    """Return what prints the network on stdout after a pass, or after each one for `all`.

    Raises:
        UsageError: no pass of that name is registered.
    """
    if after is None:
        return lambda _name, _network: None
    if after != "all":
        plugins.entry("passes", after)

    def show(name: str, network: Network) -> None:
        from enos_compiler.ir.printer import format_network

        if after in (name, "all"):
            print(format_network(network), end="")

    return show


def print_times(records: Iterable[PassRecord]) -> None:
    """Print what each step took on stderr, and their sum."""
    total = 0.0
    for record in records:
        total += record.seconds
        print(f"{record.seconds:8.2f} s  {record.text}", file=sys.stderr)
    print(f"{total:8.2f} s  total", file=sys.stderr)


def key_values(items: Sequence[str], option: str) -> dict[str, str]:
    """Parse repeated KEY=VALUE options.

    Raises:
        UsageError: an item is not of that form.
    """
    parsed: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"`{item}` is not of the form KEY=VALUE", place=option)
        parsed[key] = value
    return parsed
