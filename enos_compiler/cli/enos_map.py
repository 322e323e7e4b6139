# SPDX-License-Identifier: Apache-2.0
"""`enos-map`: map or price one layer, or compare the counting rules with reference cases."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enos_compiler.cli.common import (
    Parser,
    add_mapping_options,
    add_output_options,
    run,
    tell_of_kernel,
    teller,
)
from enos_compiler.errors import EnosError, FormatError, RefusalError, UsageError, nearest
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.network import Home, Layer
from enos_compiler.ir.shape import DIMS, LayerShape
from enos_compiler.ir.units import energy_text, time_text

if TYPE_CHECKING:
    from enos_compiler.cores.base import Homes
    from enos_compiler.cores.loopnest import LoopNestCore
    from enos_compiler.cores.target import Target

_EPILOG = """\
examples:
  enos-map M=64 C=64 P=56 Q=56 R=3 S=3 --target eyeriss
  enos-map M=64 C=3 P=112 Q=112 R=7 S=7 stride=2 --objective latency
  enos-map G=32 P=28 Q=28 R=3 S=3 --json | jq .mapping > nest.json
  enos-map G=32 P=28 Q=28 R=3 S=3 --bits 4/4/4 --nest nest.json

Dimensions: G groups, N batch or rows, M output and C input channels per group, P rows and Q
columns of the output, R rows and S columns of the kernel; those not named are 1. A linear layer
has M and C. stride and dilation are one number or two, rows first: stride=2 or stride=2x1.
"""
_WIDTH = 80
_BAR = 22


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(_map, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="enos-map",
        description="Find the best loop nest of one layer, with its accesses, energy and proof.",
        epilog=_EPILOG,
    )
    parser.add_argument("shape", nargs="*", metavar="DIM=N", help="the layer, e.g. M=64 C=64 P=56")
    parser.add_argument("--target", default="eyeriss", help="a chip or the path of its YAML file")
    parser.add_argument("--core", metavar="NAME", help="a loop-nest core; by default the first")
    parser.add_argument("--operator", default="mac", metavar="NAME")
    parser.add_argument("--bits", default="8/8/8", metavar="I/W/O", help="input/weight/output bits")
    parser.add_argument(
        "--homes",
        metavar="IN/OUT",
        help="memories where input and output rest, e.g. buffer/buffer; by default DRAM",
    )
    parser.add_argument(
        "--resident",
        action="store_true",
        help="weights stay in the core's weight memory",
    )
    add_mapping_options(parser)
    parser.add_argument(
        "--padding",
        type=int,
        metavar="PERCENT",
        help="pad bounds up to so much where that pays; by default what the chip's file says",
    )
    parser.add_argument(
        "--count",
        action="store_true",
        help="count the nests of the mapspace, one by one in effect: seconds to minutes",
    )
    parser.add_argument("--nest", type=Path, metavar="FILE", help="price this nest instead (JSON)")
    parser.add_argument(
        "--reference", type=Path, metavar="FOLDER", help="count the cases of a reference folder"
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the mapper's kernel for later runs (numba)"
    )
    add_output_options(parser)
    return parser


def _map(words: Sequence[str]) -> None:
    arguments = _parser().parse_args(words)
    if arguments.reference:
        _compare(arguments)
        return
    if not arguments.shape and not arguments.compile:
        raise UsageError("no layer is named", remedy="enos-map M=64 C=64 P=56 Q=56 R=3 S=3")
    shape, bits = parse_shape(arguments.shape), parse_bits(arguments.bits)

    from enos_compiler.cores.target import load_target

    target = load_target(
        arguments.target, objective=arguments.objective, mapping_cache=arguments.mapping_cache
    )
    core = _core(target, arguments.core)
    if arguments.padding is not None:
        if arguments.padding < 0:
            raise UsageError(
                f"{arguments.padding} is below 0", place="--padding", remedy="--padding 15"
            )
        core.padding_percent = arguments.padding
    if arguments.compile:
        _compile(core, arguments)
        if not arguments.shape:
            return
    tell_of_kernel(target, teller(quiet=arguments.quiet, verbose=arguments.verbose))
    layer, choice = _question(core, shape, arguments.operator, bits, arguments.resident)
    homes = _homes(target, arguments.homes)
    nest = _read_nest(arguments.nest) if arguments.nest else None
    answer = _answer(target, core, layer, choice, homes, nest)
    if arguments.count:
        bounds = {dim.lower(): bound for dim, bound in answer["mapping"]["shape"].items()}
        task = core.task(layer, choice, homes)
        answer["nests"] = core.count_nests(replace(task, shape=replace(shape, **bounds)))
    if arguments.json:
        print(json.dumps(answer))
    elif not arguments.quiet:
        if nest is not None:
            picture = "\n".join(_parts(answer))
        else:
            picture = core.explain(layer, choice, answer["mapping"], nests=answer.get("nests"))
            picture += "\n"
        print(f"{picture}\n{_whole(answer)}")


def parse_shape(items: Sequence[str]) -> LayerShape:
    """Parse `M=64 P=56 stride=2`.

    Raises:
        UsageError: an unknown name, a name twice, or a value that is no whole number above zero.
    """
    found: dict[str, Any] = {}
    for item in items:
        key, _, value = item.partition("=")
        name = key.upper() if len(key) == 1 else key.lower()
        if name not in (*DIMS, "stride", "dilation"):
            raise UsageError(
                f"`{item}` names no dimension", remedy=nearest(name, (*DIMS, "stride", "dilation"))
            )
        numbers = re.fullmatch(r"([1-9]\d*)(?:[x,]([1-9]\d*))?", value)
        if not numbers or (numbers[2] and len(name) == 1) or name.lower() in found:
            raise UsageError(
                f"`{item}` is given twice"
                if name.lower() in found
                else f"`{item}` has no whole number above zero",
                remedy=f"{name}=2",
            )
        first, second = int(numbers[1]), int(numbers[2] or numbers[1])
        found[name.lower()] = first if len(name) == 1 else (first, second)
    return LayerShape(**found)


def parse_bits(text: str) -> Bits:
    """Parse `8/4/8`, input, weight and output bits.

    Raises:
        UsageError: not three whole numbers above zero.
    """
    numbers = re.fullmatch(r"([1-9]\d?)/([1-9]\d?)/([1-9]\d?)", text)
    if not numbers:
        raise UsageError(
            f"`{text}` is not input/weight/output bits", place="--bits", remedy="--bits 8/4/8"
        )
    return Bits(*map(int, numbers.groups()))


def _core(target: Target, name: str | None) -> LoopNestCore:
    """Return the named core, or the first that runs loop nests."""
    from enos_compiler.cores.loopnest import LoopNestCore

    found: dict[str, LoopNestCore] = {}
    for known, core in target.cores.items():
        candidate: object = core
        if isinstance(candidate, LoopNestCore):
            found[known] = candidate
    if not found:
        kinds = ", ".join(f"{n} ({c.kind})" for n, c in target.cores.items())
        raise UsageError(
            f"{target.name} has no core that runs loop nests, only {kinds}",
            place="--target",
            remedy="--target eyeriss or --target simba",
        )
    if name is not None and name not in found:
        raise UsageError(
            f"`{name}` is no loop-nest core of {target.name}",
            place="--core",
            remedy=nearest(name, found),
        )
    return found[name] if name is not None else next(iter(found.values()))


def _homes(target: Target, text: str | None) -> Homes:
    """Return where input and output rest: `buffer/dram`; None is DRAM for both.

    Raises:
        UsageError: not two of the memories that hold values.
    """
    from enos_compiler.cores.base import Homes

    dram = target.chip.dram
    known = [memory for memory in (target.chip.shared, dram) if memory]
    names = text.split("/") if text is not None else [dram, dram]
    for name in names:
        if len(names) != 2 or name not in known:
            raise UsageError(
                f"`{text}` does not name the homes of input and output on {target.name}",
                place="--homes",
                remedy=f"--homes {known[0]}/{dram} (known: {', '.join(known)})",
            )
    return Homes((Home(names[0]),), Home(names[1]))


def _question(
    core: LoopNestCore, shape: LayerShape, operator: str, bits: Bits, resident: bool
) -> tuple[Layer, Choice]:
    """Return the layer and the one choice that was asked for.

    Raises:
        RefusalError: the core does not take it; with its reason.
    """
    from enos_compiler.cores.nest_homes import RESIDENT

    layer = Layer("layer", "conv", ("input",), "output", shape=shape, weight="weight")
    for offer in core.choices(layer, [operator], [bits], signed_input=False):
        if isinstance(offer, Refusal):
            raise RefusalError(
                f"{core.name} does not take it with {operator}: {offer.reason}",
                place=str(shape),
                remedy="another operator, or other widths",
            )
        if (offer.options == RESIDENT) == resident:
            return layer, offer
    kept = " with weights that stay" if resident else ""
    raise RefusalError(
        f"{core.name} offers nothing for {operator} at {bits}{kept}",
        place=str(shape),
        remedy="--resident needs a core with a weight memory that holds the layer's weights",
    )


def _read_nest(file: Path) -> Any:
    """Return a nest's levels: a mapping as --json prints it, or the reference's form.

    Raises:
        FormatError: the file cannot be read or holds no nest.
    """
    from enos_compiler.mapping.nest import Nest

    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        levels = data.get("mapping", data)["levels"] if isinstance(data, dict) else data
        return Nest.from_reference(levels)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", place=str(file)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"is no nest: {type(error).__name__}: {error}",
            place=str(file),
            remedy="the mapping of enos-map --json, or a list of levels, innermost first",
        ) from error


def _answer(
    target: Target, core: LoopNestCore, layer: Layer, choice: Choice, homes: Homes, nest: Any
) -> dict[str, Any]:
    """Return what `--json` prints."""
    if nest is None:
        found = core.cost(layer, choice, homes)
    else:
        found = core.cost_of_nest(layer, choice, nest, homes)
    cost = found.inference
    return {
        "layer": str(layer.shape),
        "target": target.name,
        "core": core.name,
        "operator": choice.operator,
        "bits": choice.bits._asdict(),
        "energy_pj": cost.energy_pj(target.energy_pj),
        "latency_ns": cost.latency_ns,
        "cycles": cost.cycles,
        "components_pj": cost.components_pj(target.energy_pj),
        "events": dict(cost.events),
        "mapping": dict(found.detail),
    }


def _parts(answer: dict[str, Any]) -> Iterator[str]:
    """Yield the energy of a nest that was given, by component."""
    yield f"{answer['layer']} on {answer['core']}, the nest given"
    yield ""
    total = answer["energy_pj"]
    for name, energy in sorted(answer["components_pj"].items(), key=lambda part: -part[1]):
        share = energy / total if total else 0.0
        bar = "#" * round(share * _BAR)
        text = energy_text(energy, like=total)
        yield f"  {name[:29]:29} {bar:{_BAR}} {100 * share:5.1f} % {text:>12}"[:_WIDTH]
    yield ""


def _whole(answer: dict[str, Any]) -> str:
    """Return the layer's cost in one line, requantisation of its outputs included."""
    bits = "/".join(map(str, answer["bits"].values()))
    return (
        f"{answer['operator']} {bits} on {answer['target']}, requantised: "
        f"{energy_text(answer['energy_pj'])}, {time_text(answer['latency_ns'])}"
    )[:_WIDTH]


def _compile(core: LoopNestCore, arguments: argparse.Namespace) -> None:
    """Compile the mapper's kernel and leave it in the user's cache."""
    from enos_compiler.mapping.engine import compile_kernel

    shape = LayerShape(m=4, c=2, p=4, q=4, r=3, s=3)
    layer = Layer("layer", "conv", ("input",), "output", shape=shape, weight="weight")
    task = core.task(layer, Choice(core.name, arguments.operator, Bits(8, 8, 8)))
    say = teller(quiet=arguments.quiet, verbose=arguments.verbose)
    say("compiling the mapper's kernel, which takes about half a minute, once")
    folder = compile_kernel(lambda: core.map(task, engine="numba"))
    if not arguments.quiet and not arguments.json:
        print(f"kernel in {folder}")


def _compare(arguments: argparse.Namespace) -> None:
    """Count every case of a reference folder.

    Raises:
        EnosError: some case differs; names the first.
    """
    from enos_compiler.mapping.reference import compare_folder

    cases = list(compare_folder(arguments.reference))
    different = [case for case in cases if not case.equal]
    verdict = f"{len(cases) - len(different)} of {len(cases)} cases equal"
    if arguments.json:
        numbers = sum(case.compared for case in cases)
        names = {case.case: case.differences for case in different}
        print(json.dumps({"cases": len(cases), "numbers": numbers, "different": names}))
    else:
        print(verdict)
    if different:
        raise EnosError(
            f"{verdict}; first in {different[0].case}: {different[0].differences[0]}",
            place=str(arguments.reference),
            remedy="--json lists every difference",
        )


if __name__ == "__main__":
    sys.exit(main())
