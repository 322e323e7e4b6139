# SPDX-License-Identifier: Apache-2.0
"""`enosc`: compile a network for a target."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    tell_of_kernel,
    teller,
)
from enos_compiler.errors import EnosError, UsageError
from enos_compiler.report.layer import require_layer

if TYPE_CHECKING:
    from enos_compiler.compiler import Compiled
    from enos_compiler.ir.network import Network
    from enos_compiler.options import Options

_EPILOG = """\
The model file gives model() and example_inputs(), and data() where there is data to train or
measure on. Compiling runs that file as Python code. An ONNX file holds a float network and runs no
code. Results go to build/<model>-<target>/:
report.html (open it in a browser), report.json, layers.csv, trace.json (for Perfetto), model.onnx
with model.netron.json, program.json + program.safetensors.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(_compile, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="enosc",
        description="Compile a PyTorch or ONNX network for a hybrid accelerator.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model", nargs="?", help="file.py[:function], package.module:callable or file.onnx"
    )
    targets = ", ".join(plugins.names("targets"))
    parser.add_argument(
        "--target", default="hybrid", help=f"a chip ({targets}) or the path of its YAML file"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--explain",
        action="append",
        default=[],
        metavar="LAYER",
        help="draw how a layer runs: loops, accesses, every event with its price",
    )
    parser.add_argument(
        "--model-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of model(), or the extent of an ONNX file's free axis",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE.npz",
        help="example inputs of an ONNX file, an array per input; by default random ones",
    )
    choosing = parser.add_argument_group("choosing")
    choosing.add_argument(
        "--search",
        metavar="HOW",
        help="single, bilevel, sequential, variational (these train), sensitivity or none",
    )
    choosing.add_argument(
        "--budget",
        help="energy: 0.6 of all-MAC, floor+0.5, or 12.5uJ; edap:0.6 binds EDAP instead, and so do "
        "latency, area, memory and edp",
    )
    choosing.add_argument(
        "--bits",
        metavar="W[/A]",
        help="widths to offer, e.g. 8|4 or 8|4/8; or a point of enos-explore: front.json#12",
    )
    choosing.add_argument("--operators", help="operators to offer, e.g. mac|mf|bw")
    choosing.add_argument(
        "--kernels", metavar="K", help="kernel extents beside a convolution's own, e.g. 3|5|7"
    )
    choosing.add_argument("--epochs", type=int, metavar="N", help="epochs of the search")
    choosing.add_argument(
        "--front", type=int, default=0, metavar="N", help="measure networks of N budgets"
    )
    choosing.add_argument("--finetune", type=int, metavar="N", help="epochs of fine-tuning")
    choosing.add_argument(
        "--first-last",
        choices=("mac", "free"),
        default="mac",
        help="keep first and last layers mac with 8-bit weights (default), or free them",
    )
    choosing.add_argument(
        "--allow-float", action="store_true", help="keep float islands on the host"
    )
    choosing.add_argument("--batch", type=int, default=1, metavar="N")
    choosing.add_argument(
        "--frames", type=int, default=1, metavar="N", help="tell the rate of N inputs in a stream"
    )
    choosing.add_argument(
        "--inferences", type=int, metavar="N", help="inferences per programming of weights"
    )
    add_mapping_options(choosing)
    choosing.add_argument("--seed", type=int, default=0, metavar="N")
    passes = parser.add_argument_group(
        "passes", f"registered: {', '.join(plugins.names('passes'))}"
    )
    passes.add_argument(
        "--passes", metavar="LIST", help="the whole pipeline, e.g. 'canonicalize,...'"
    )
    passes.add_argument(
        "--print-after", metavar="PASS", help="print the network after a pass, or all"
    )
    passes.add_argument("--time-passes", action="store_true", help="print the time of each step")
    passes.add_argument(
        "--save-temps", action="store_true", help="save the network after each pass in DIR/network"
    )
    passes.add_argument("--help-pass", metavar="NAME", help="describe a pass and its options")
    passes.add_argument("--list-passes", action="store_true", help="list the passes")
    checking = parser.add_argument_group("checking")
    checking.add_argument(
        "--onnx-fidelity",
        default="hardware",
        metavar="HOW",
        help="hardware: model.onnx holds what crossbars' converters do (default); or plain",
    )
    checking.add_argument("--check", metavar="LEVEL", help="full, sampled or none")
    checking.add_argument("--check-images", type=int, default=64, metavar="N")
    checking.add_argument(
        "--evaluate",
        action="store_true",
        help="accuracy on the test data, crossbars and their errors on, device by device",
    )
    checking.add_argument(
        "--devices", type=int, default=10, metavar="N", help="samples of the chip (default 10)"
    )
    checking.add_argument(
        "--evaluate-images",
        type=int,
        default=1000,
        metavar="N",
        help="test inputs per sample (default 1000, 0 for all)",
    )
    add_output_options(parser)
    return parser


def _compile(words: Sequence[str]) -> None:
    arguments = _parser().parse_args(words)
    if arguments.help_pass or arguments.list_passes:
        _describe_passes(arguments.help_pass)
        return
    if not arguments.model:
        raise UsageError("no model is named", remedy="enosc examples/digits.py --target hybrid")

    from enos_compiler.outputs import check_writable
    from enos_compiler.pass_text import parse_passes

    options = _options(arguments)
    if options.passes:
        parse_passes(options.passes)
    if arguments.model.endswith(".onnx"):
        _refuse_what_needs_data(options)
    after_pass = network_printer(arguments.print_after)
    target = options.load_target(arguments.target)
    if arguments.output:
        check_writable(arguments.output)

    from enos_compiler.compiler import Hooks, compile_model
    from enos_compiler.frontend.user import load_user_model
    from enos_compiler.search.checkpoint import forget
    from enos_compiler.search.parallel import is_first

    say = teller(quiet=arguments.quiet, verbose=arguments.verbose)
    user = load_user_model(
        arguments.model,
        options.model_args,
        calibration=arguments.calibration,
        seed=options.seed,
    )
    output = arguments.output or Path("build") / f"{user.name}-{target.name}"
    check_writable(output)
    tell_of_kernel(target, say)
    hooks = Hooks(
        say=say,
        log=logger(quiet=arguments.quiet),
        progress=sys.stderr.isatty() and not arguments.quiet,
        after_pass=_checked(arguments.explain, after_pass),
        keep_steps=arguments.save_temps,
        work_folder=output / ".enos",
    )
    compiled = compile_model(user, target, options, hooks)
    if not is_first():
        return  # another of torchrun's processes writes the same
    compiled.save(output)
    forget(output / ".enos")
    if arguments.json:
        print(json.dumps(compiled.report))
    elif not arguments.quiet:
        from enos_compiler.report.terminal import print_summary

        print_summary(compiled.report, output)
        for name in arguments.explain:
            print(f"\n{_explained(compiled, name)}")
    if arguments.time_passes:
        print_times(compiled.records)


def _refuse_what_needs_data(options: Options) -> None:
    """Refuse at once what an ONNX file cannot give: it holds no data to train or measure on."""
    from enos_compiler.options import TRAINING

    for text, wanted in (
        (f"--search {options.search}", options.search in TRAINING),
        (f"--epochs {options.epochs}", options.epochs),
        (f"--finetune {options.finetune}", options.finetune),
        ("--evaluate", options.evaluate),
    ):
        if wanted:
            raise UsageError(
                f"{text} needs data, and an ONNX file holds none",
                remedy="leave it out, or give the network as a Python file with a data() function",
            )


def _checked(
    explain: Sequence[str], after_pass: Callable[[str, Network], None]
) -> Callable[[str, Network], None]:
    """Return what runs after each pass: the layers to explain are there once the first has run."""

    def run_after(name: str, network: Network) -> None:
        for layer in explain:
            require_layer(layer, network.layers)
        after_pass(name, network)

    return run_after


def _explained(compiled: Compiled, name: str) -> str:
    """Return a layer's events and, where its core can draw them, its loops or its placement."""
    from enos_compiler.cores.base import Explains
    from enos_compiler.report.layer import layer_text

    text = layer_text(compiled.report, name)
    layer = compiled.network.layers[name]
    if layer.choice is None:
        return text
    core = compiled.target.cores[layer.choice.core]
    detail = layer.mapping or layer.placement
    if detail is None or not isinstance(core, Explains):
        return text
    return f"{text}\n\n{core.explain(layer, layer.choice, detail)}"


def _options(arguments: argparse.Namespace) -> Options:
    """Return the options of a compilation that the command line asks for."""
    from enos_compiler.assign.budget import Budget
    from enos_compiler.explore.front import split_reference
    from enos_compiler.options import Options

    found = split_reference(arguments.bits or "")
    weight_bits, activation_bits = _widths(None if found else arguments.bits)
    return Options(
        search=arguments.search,
        budget=Budget.parse(arguments.budget) if arguments.budget else None,
        operators=_names(arguments.operators),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        kernels=_numbers(arguments.kernels, "--kernels", "3|5|7"),
        point=(str(found[0]), found[1]) if found else None,
        passes=arguments.passes,
        epochs=arguments.epochs,
        front=arguments.front,
        finetune=arguments.finetune,
        batch=arguments.batch,
        frames=arguments.frames,
        inferences=arguments.inferences,
        objective=arguments.objective,
        mapping_cache=arguments.mapping_cache,
        seed=arguments.seed,
        allow_float=arguments.allow_float,
        first_last_free=arguments.first_last == "free",
        onnx_fidelity=arguments.onnx_fidelity,
        check=arguments.check,
        check_images=arguments.check_images,
        evaluate=arguments.evaluate,
        devices=arguments.devices,
        evaluate_images=arguments.evaluate_images,
        model_args=key_values(arguments.model_arg, "--model-arg"),
    )


def _names(text: str | None) -> tuple[str, ...]:
    names = tuple(filter(None, (text or "").replace(",", "|").split("|")))
    for name in names:
        plugins.entry("operators", name)
    return names


def _widths(text: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Parse `8|4/8|6`: weight widths, then activation widths; one list serves both."""
    if not text:
        return (), ()
    weights, slash, activations = text.partition("/")
    weight_bits = _numbers(weights, "--bits", "8|4 or 8|4/8", whole=text)
    if not slash:
        return weight_bits, weight_bits
    return weight_bits, _numbers(activations, "--bits", "8|4 or 8|4/8", whole=text)


def _numbers(
    text: str | None, option: str, example: str, whole: str | None = None
) -> tuple[int, ...]:
    """Parse `8|4` or `8,4`; nothing gives nothing, but within a `whole` text something must be."""
    if not text and whole is None:
        return ()
    try:
        return tuple(int(number) for number in (text or "").replace(",", "|").split("|"))
    except ValueError:
        raise UsageError(
            f"`{whole or text}` is not a list of numbers",
            place=option,
            remedy=f"{option} {example}",
        ) from None


def _describe_passes(name: str | None) -> None:
    from enos_compiler.pass_text import help_text

    if name:
        print(help_text(name))
        return
    for known in plugins.names("passes"):
        try:
            first = help_text(known).splitlines()[0].partition(": ")[2]
        except EnosError as error:
            first = f"(broken: {error.message})"
        print(f"{known:16} {first}")

    from enos_compiler.options import Options

    for condition, can_train in (("with data", True), ("without data", False)):
        print(f"\nby default, {condition}:\n  {Options().pipeline(can_train=can_train)}")


if __name__ == "__main__":
    sys.exit(main())
