# SPDX-License-Identifier: Apache-2.0
"""`enos-opt`: run passes on a saved network."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from enos_compiler import plugins
from enos_compiler.cli.common import (
    Parser,
    add_mapping_options,
    add_output_options,
    key_values,
    logger,
    network_printer,
    print_times,
    run,
    teller,
)
from enos_compiler.errors import UsageError

_EPILOG = """\
A network is saved by `enosc --save-temps` (one folder after each pass, under DIR/network) or by
this command. Loading it runs no code of yours. With --model the passes that train find its data.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(_optimise, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="enos-opt",
        description="Run passes on a saved network.",
        epilog=_EPILOG,
    )
    parser.add_argument("network", type=Path, help="folder of a saved network")
    parser.add_argument("--passes", required=True, metavar="LIST", help="e.g. 'assign{budget=0.6}'")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the result")
    parser.add_argument("--target", help="a chip or its YAML; by default the one it was saved for")
    parser.add_argument("--model", help="the model file, for passes that need its data")
    parser.add_argument("--model-arg", action="append", default=[], metavar="KEY=VALUE")
    add_mapping_options(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--allow-float", action="store_true")
    parser.add_argument(
        "--print-after", metavar="PASS", help="print the network after a pass, or all"
    )
    parser.add_argument("--time-passes", action="store_true")
    add_output_options(parser)
    return parser


def _optimise(words: Sequence[str]) -> None:
    arguments = _parser().parse_args(words)

    from enos_compiler.cores.target import load_target
    from enos_compiler.ir.printer import format_network
    from enos_compiler.outputs import check_writable, staged_outputs
    from enos_compiler.pass_text import parse_passes

    steps = parse_passes(arguments.passes)
    after_pass = network_printer(arguments.print_after)
    if arguments.output:
        check_writable(arguments.output)
    if arguments.target:
        load_target(arguments.target)

    from enos_compiler.compiler import Hooks, run_passes
    from enos_compiler.ir.serialize import load_network, save_network

    network = load_network(arguments.network)
    named = arguments.target or str(network.provenance.get("target", ""))
    if not arguments.target and named not in plugins.names("targets"):
        raise UsageError(
            f"the network was saved for `{named}`, which is not registered",
            remedy="--target with the path of its YAML file",
        )
    target = load_target(
        named,
        objective=arguments.objective or network.provenance.get("objective"),
        mapping_cache=arguments.mapping_cache,
    )
    user = None
    if arguments.model:
        from enos_compiler.frontend.user import load_user_model

        given = key_values(arguments.model_arg, "--model-arg")
        user = load_user_model(arguments.model, given, seed=arguments.seed)
    hooks = Hooks(
        say=teller(quiet=arguments.quiet, verbose=arguments.verbose),
        log=logger(quiet=arguments.quiet),
        progress=sys.stderr.isatty() and not arguments.quiet,
        after_pass=after_pass,
    )
    network, records, _ = run_passes(
        network,
        steps,
        target,
        hooks,
        user=user,
        seed=arguments.seed,
        allow_float=arguments.allow_float,
    )
    if arguments.output:
        with staged_outputs(arguments.output, last="network.json") as stage:
            save_network(network, stage)
    if arguments.json:
        print(json.dumps({"facts": sorted(network.facts), "passes": [r.text for r in records]}))
    elif not arguments.quiet:
        if arguments.output:
            print(f"network with {len(network.facts)} facts written to {arguments.output}/")
        else:
            print(format_network(network), end="")
    if arguments.time_passes:
        print_times(records)


if __name__ == "__main__":
    sys.exit(main())
