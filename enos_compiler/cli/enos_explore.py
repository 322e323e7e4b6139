# SPDX-License-Identifier: Apache-2.0
"""`enos-explore`: search the bits of every layer, their mappings and the chip together."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enos_compiler import plugins
from enos_compiler.cli.common import (
    Parser,
    add_output_options,
    key_values,
    logger,
    run,
    tell_of_kernel,
)
from enos_compiler.errors import UsageError
from enos_compiler.explore.objectives import METHODS, OBJECTIVES, parse_bits, parse_objectives
from enos_compiler.mapping.objective import OBJECTIVES as MAPPED_FOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from enos_compiler.explore.accuracy import Tier
    from enos_compiler.explore.front import Point
    from enos_compiler.explore.run import Explored
    from enos_compiler.explore.vary import ChipRecipe
    from enos_compiler.explore.workers import Workers

_EPILOG = """\
examples:
  enos-explore examples/digits.py --target eyeriss
  enos-explore net.py --objectives noise,edp --generations 500 --population 40
  enos-explore net.py --vary cores.array.levels.shared_glb.entries=13824,27648
  enos-explore net.py --workers loky:8 --tier qat:2 --final full:30
  enos-explore net.py --count 8/8/8,8/4/8,4/4/4,2/2/2
  enosc net.py --target eyeriss --bits build/net-eyeriss-front/front.json#3

Every evaluation goes to DIR/journal.jsonl at once; --resume goes on where a run was interrupted.
Accuracies are those of the validation split: proxy rounds the shared weights and re-estimates
statistics, qat:N trains N epochs with rounding, full:N likewise for the points of the final front.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run(_explore, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="enos-explore",
        description="Search the bits of every layer together with mappings and hardware.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", help="file.py[:function], package.module:callable or file.onnx")
    targets = ", ".join(plugins.names("targets"))
    parser.add_argument("--target", default="eyeriss", help=f"a chip ({targets}) or a YAML file")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--model-arg", action="append", default=[], metavar="KEY=VALUE")
    what = parser.add_argument_group("what is searched")
    what.add_argument(
        "--objectives",
        default="accuracy,edp",
        metavar="A,B",
        help=f"two or more of {', '.join(OBJECTIVES)}",
    )
    what.add_argument("--bits", default="2..8", metavar="B", help="widths, 2..8 or 2,4,8")
    what.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FIELD=A,B",
        help="search values of a number in the target's file as well",
    )
    what.add_argument(
        "--mapped-for",
        choices=MAPPED_FOR,
        help="what loop nests minimise; by default what the chip's file says",
    )
    what.add_argument(
        "--count",
        metavar="I/W/O,...",
        help="search nothing; count the mappings that fit at these bits, layer by layer",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--method",
        choices=METHODS,
        default="nsga2",
        help="NSGA-II (default), a search by gradients, or NSGA-II from what the gradients found",
    )
    how.add_argument(
        "--search-epochs", type=int, default=4, metavar="N", help="of the search by gradients"
    )
    how.add_argument("--generations", type=int, default=25, metavar="N")
    how.add_argument("--population", type=int, default=10, metavar="N", help="parents kept")
    how.add_argument("--offspring", type=int, metavar="N", help="by default as many as parents")
    how.add_argument(
        "--greedy", type=int, default=8, metavar="N", help="start from a greedy walk's N points"
    )
    how.add_argument("--seed", type=int, default=0, metavar="N")
    how.add_argument("--tier", default="proxy", metavar="T", help="proxy (default) or qat:EPOCHS")
    how.add_argument("--final", metavar="T", help="measure the front again: qat:N or full:N")
    how.add_argument(
        "--float-epochs",
        type=int,
        metavar="N",
        help="train in float first; by default 8 where the network has learnt nothing",
    )
    how.add_argument("--images", type=int, metavar="N", help="validation images of the proxy")
    how.add_argument(
        "--workers",
        default="serial",
        metavar="W",
        help="serial, loky[:N], dask or dask:tcp://host:port",
    )
    how.add_argument("--resume", action="store_true", help="go on with the journal in DIR")
    how.add_argument(
        "--mapping-cache", type=Path, metavar="DIR", help="keep mappings here; may be shared"
    )
    add_output_options(parser)
    return parser


def _explore(words: Sequence[str]) -> None:
    arguments = _parser().parse_args(words)
    objectives, bits = parse_objectives(arguments.objectives), parse_bits(arguments.bits)
    for option, least in (("generations", 0), ("population", 2), ("greedy", 0), ("seed", 0)):
        _at_least(f"--{option}", getattr(arguments, option), least)
    for option in ("offspring", "images", "float_epochs", "search_epochs"):
        _at_least(f"--{option.replace('_', '-')}", getattr(arguments, option), 1)
    tier = _tier(arguments.tier, "--tier", ("proxy", "qat"))
    final = _tier(arguments.final, "--final", ("qat", "full")) if arguments.final else None
    if "accuracy" not in objectives and final is not None:
        raise UsageError(
            "--final measures accuracy, which is no objective",
            remedy="--objectives accuracy,edp, or leave --final out",
        )
    _require_packages()

    from enos_compiler.explore.prepare import Request, prepare
    from enos_compiler.explore.results import write_results
    from enos_compiler.explore.run import explore
    from enos_compiler.explore.vary import ChipRecipe, chips, parse_axis
    from enos_compiler.explore.workers import connected, parse_workers

    workers, address = parse_workers(arguments.workers)
    cache = str(arguments.mapping_cache) if arguments.mapping_cache else None
    base = ChipRecipe(arguments.target, (), arguments.mapped_for, cache)
    recipes = chips(base, [parse_axis(text) for text in arguments.vary])
    targets = [recipe.build() for recipe in recipes]
    say: Callable[[str], None] = logger(quiet=arguments.quiet)
    tell_of_kernel(targets[0], say)
    if arguments.count:
        with connected(workers, address):
            _count(arguments, recipes[0], workers, say)
        return
    request = Request(
        model=arguments.model,
        model_args=key_values(arguments.model_arg, "--model-arg"),
        folder=arguments.output,
        target=targets[0].name,
        chips=recipes,
        objectives=objectives,
        bits=bits,
        population=arguments.population,
        offspring=arguments.offspring or arguments.population,
        generations=arguments.generations,
        greedy=arguments.greedy,
        method=arguments.method,
        search_epochs=arguments.search_epochs,
        seed=arguments.seed,
        tier=tier,
        final=final,
        float_epochs=arguments.float_epochs,
        images=arguments.images,
        workers=workers,
        resume=arguments.resume,
    )
    with connected(workers, address):
        prepared = prepare(request, say)
        explored = explore(prepared.options, prepared.journal)
    write_results(prepared, explored)
    if arguments.json:
        print((prepared.folder / "front.json").read_text(), end="")
    elif not arguments.quiet:
        _print(explored, objectives, prepared.folder)


def _count(
    arguments: argparse.Namespace,
    chip: ChipRecipe,
    workers: Workers,
    say: Callable[[str], None],
) -> None:
    """Count mappings, write `mappings.csv` and `mappings.svg`, print a table."""
    from enos_compiler.explore.counts import as_csv, as_svg, count, parse_triples
    from enos_compiler.explore.prepare import calibrated
    from enos_compiler.frontend.user import load_user_model
    from enos_compiler.outputs import check_writable, replace_text

    triples = parse_triples(arguments.count)
    model_args = key_values(arguments.model_arg, "--model-arg")
    user = load_user_model(arguments.model, model_args, seed=arguments.seed)
    target = chip.build()
    folder = arguments.output or Path("build") / f"{user.name}-{target.name}-front"
    check_writable(folder)
    rows = count(calibrated(user, target, arguments.seed, say), chip, triples, workers, say)
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "mappings.svg", as_svg(rows))
    replace_text(folder / "mappings.csv", as_csv(rows))
    if arguments.json:
        print(json.dumps([{**asdict(row), "bits": list(row.bits)} for row in rows]))
    elif not arguments.quiet:
        for row in rows:
            print(f"{row.layer[:28]:28} {row.bits!s:7} {row.mappings:28,}")
        print(f"\nwritten to {folder}/mappings.csv and mappings.svg")


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{value} is below {least}", place=option)


def _tier(text: str, option: str, names: tuple[str, ...]) -> Tier:
    """Parse `proxy`, `qat:2` or `full:30`."""
    from enos_compiler.explore.accuracy import Tier

    name, _, epochs = text.partition(":")
    if name == "proxy" and name in names and not epochs:
        return Tier("proxy")
    if name in names and epochs.isdecimal() and int(epochs):
        return Tier("qat" if name == "qat" else "full", int(epochs))
    forms = [n if n == "proxy" else f"{n}:10" for n in names]
    raise UsageError(f"`{text}` is no tier", place=option, remedy=" or ".join(forms))


def _require_packages() -> None:
    from importlib.util import find_spec

    for package in ("pymoo", "joblib", "moocore"):
        if find_spec(package) is None:
            raise UsageError(
                f"the package {package} is not installed",
                remedy="pip install 'enos-compiler[explore]'",
            )


def _print(explored: Explored, objectives: Sequence[str], folder: Path) -> None:
    """Print the front, one line a point, beside the uniform 8-bit network."""
    count = len(explored.points)
    print(f"{count} points on the front of {explored.evaluations} settings")
    print(f"  in {folder}/; front.html draws them\n")
    print("point  " + "".join(f"{name:>14}" for name in objectives) + "  tier   from")
    for number, point in enumerate(explored.points):
        print(f"{number:5}  {_row(point, objectives)}")
    if explored.uniform:
        widest = explored.uniform[-1]
        print(f"\nwidest {_row(widest, objectives)}")


def _row(point: Point, objectives: Sequence[str]) -> str:
    from enos_compiler.ir.units import energy_text, time_text

    def text(name: str) -> str:
        value: Any = point.objectives[name]
        if name == "energy":
            return energy_text(value)
        if name == "latency":
            return time_text(value)
        if name == "accuracy":
            return f"{value:.2%}"
        return f"{value / 8192:.1f} KiB" if name == "memory" else f"{value:.4g}"

    values = "".join(f"{text(name):>14}" for name in objectives)
    return f"{values}  {point.tier or '-':5}  {point.origin}"


if __name__ == "__main__":
    sys.exit(main())
