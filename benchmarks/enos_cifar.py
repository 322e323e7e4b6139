# SPDX-License-Identifier: Apache-2.0
"""ENOS on CIFAR-10: searched networks against uniform, mixed-precision and random ones.

    python benchmarks/enos_cifar.py --data $SHARED/data --out runs [--only REGEX] [--list]
        [--network squeezenet] [--width 4] [--images 8000] [--float-epochs 8] [--epochs 6]
        [--finetune 4] [--seeds 1] [--table docs/cifar.md]

Every run is a name; its result is one line of `runs/results.jsonl`, written when it is done, with
the options that decide it. The same command goes on where it stopped: finished runs are skipped and
a search or training goes on from the checkpoint of its last epoch. `--only` picks runs by name,
`--list` shows them.

All networks start from one float training, so seeds are those of what follows: the search, the
order of the images, the random assignment. A searched network is trained for `--epochs` by the
search and `--finetune` after the assignment; its rivals are fine-tuned for the sum of both, by the
same recipe. Budgets are energies of the whole network on the setting's target, from the report's
own tables: `digital` is a reconfigurable MAC array, `hybrid` has crossbars beside it. Rivals dearer
than the budget get a line with their energy and no training; a uniform network computes the same in
both settings and is trained once. The first seed runs every uniform
network; further seeds run the strongest of each setting by its validation accuracy, beside the
searches and a random assignment whose energy comes close to the budget.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import enos_cifar_figure
import enos_cifar_table
import shufflenet_cifar10
import squeezenet_cifar10

from enos_compiler.assign.assignment import price, solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.compiler import Hooks, run_passes
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import Target, load_target
from enos_compiler.errors import InfeasibleError
from enos_compiler.frontend.data import Data
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Network
from enos_compiler.ir.serialize import load_network, save_network
from enos_compiler.pass_text import parse_passes
from enos_compiler.search.energy import unscored
from enos_compiler.search.evaluate import evaluate, module_predictor
from enos_compiler.search.run import SearchSettings, search, train_float
from enos_compiler.search.tune import TuneSettings, assigned_module, tune

NETWORKS: dict[str, Any] = {"squeezenet": squeezenet_cifar10, "shufflenet": shufflenet_cifar10}
TARGETS = {"digital": "digital", "hybrid": "hybrid"}
OPERATORS = ("mac", "bw", "mf", "ef", "shift", "xnor")
WEIGHT_BITS = (8, 4, 3, 2)
UNIFORM = tuple(
    [("mac", b) for b in (8, 4, 3, 2)]
    + [("shift", b) for b in (4, 3, 2)]
    + [("bw", 1), ("mf", 4), ("ef", 4), ("xnor", 1)]
)
"""Operator and weight bits of the networks that do the same in every layer."""
VALIDATION_IMAGES = 2000
SOLVE_S = 60.0
CLOSE = 0.98
"""A random assignment counts as one of equal energy from this share of the budget on."""
DRAWS = 100
"""Random assignments of which the first that is close stands, or else the dearest."""
PRIMARY_BUDGET = "floor+0.5"


@dataclass(frozen=True, slots=True)
class Knobs:
    """What decides a result beside its name."""

    network: str
    width: int | float
    images: int
    float_epochs: int
    epochs: int
    finetune: int
    batch: int


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the results."""

    part: str
    """`primary` or what is explored."""
    setting: str
    budget: str
    kind: str
    """`ours`, `mac` (mixed precision), `uniform OP BITS` or `random N`."""
    seed: int
    method: str = "single"

    @property
    def name(self) -> str:
        """Part, setting, budget, kind, method and seed."""
        kind = f"{self.kind} {self.method}" if self.kind in ("ours", "mac") else self.kind
        return f"{self.part}/{self.setting}/{self.budget}/{kind}/seed {self.seed}".replace(" ", "-")


def plan(seeds: int, strongest: Callable[[str], str | None]) -> Iterator[Run]:
    """Yield all runs: the primary ones seed by seed, then what is explored with one seed.

    Args:
        seeds: of the primary runs.
        strongest: kind of the best uniform network of a setting, asked once those of the first
            seed were yielded; None where there is none.
    """
    for seed in range(seeds):
        for setting in TARGETS:
            primary = ("primary", setting, PRIMARY_BUDGET)
            for kind in ("ours", "mac", "random 0"):
                yield Run(*primary, kind, seed)
            best = strongest(setting) if seed else None
            every = [f"uniform {operator} {bits}" for operator, bits in UNIFORM]
            for kind in [best] if best else every[: 0 if seed else None]:
                yield Run(*primary, kind, seed)
    for setting in TARGETS:
        for method in ("bilevel", "sequential", "variational"):
            yield Run("methods", setting, PRIMARY_BUDGET, "ours", 0, method)
        for budget in ("floor+0.25", "floor+0.75"):
            for kind in ("ours", "mac", "random 0"):
                yield Run("budgets", setting, budget, kind, 0)


class Bench:
    """Everything that the runs of one set of knobs share.

    Args:
        knobs: of all runs.
        data: folder of CIFAR-10.
        out: where results and checkpoints go.
    """

    def __init__(self, knobs: Knobs, data: str, out: Path) -> None:
        self.knobs = knobs
        self.folder = data
        self.out = out
        self.results = out / "results.jsonl"

    def run(self, run: Run) -> dict[str, Any]:
        """Do one run from its checkpoint or its start; return its result."""
        started = time.monotonic()
        target = load_target(TARGETS[run.setting])
        whole = self.offered(target, OPERATORS)
        limits = solve_assignment(unscored(whole), target, Budget.parse(run.budget), SOLVE_S)
        budget_pj = float(limits.summary["budget_pj"])
        found: dict[str, Any] = {
            "budget_pj": budget_pj,
            "floor_pj": limits.summary["floor_pj"],
            "baseline_pj": limits.summary["baseline_pj"],
        }
        try:
            assigned, epochs, more = self.assigned(run, target, whole, budget_pj)
        except InfeasibleError:
            return found | {"infeasible": True}
        energy_pj = price(assigned, target).energy_pj
        found |= more | {"energy_pj": energy_pj}
        if energy_pj > budget_pj:
            return found | {"over_budget": True}
        if known := self.trained(run):
            return found | known
        settings = TuneSettings(epochs, 2e-3, run.seed, self.place(run), _tell)
        tuned, _ = tune(assigned, self.data(), settings)
        predict = module_predictor(assigned_module(tuned).eval())
        for split in ("validation", "test"):
            accuracy = evaluate(predict, self.data(), split)  # type: ignore[arg-type]
            found[f"{split}_accuracy"] = accuracy.fraction if accuracy else None
        used: dict[str, int] = {}
        for layer in tuned.layers.values():
            one = layer.choice
            label = "none" if one is None else f"{one.operator} {one.bits.weight} {one.core}"
            used[label] = used.get(label, 0) + 1
        return found | {"layers": used, "seconds": round(time.monotonic() - started, 1)}

    def assigned(
        self, run: Run, target: Target, whole: Network, budget_pj: float
    ) -> tuple[Network, int, dict[str, Any]]:
        """Return the assigned network of a run, its epochs of tuning and what else to note."""
        budget = Budget.parse(f"{budget_pj!r}pJ")
        if run.kind in ("ours", "mac"):
            network = whole
            if run.kind == "mac":
                network = self.offered(target, ("mac",))
            scored, section = search(
                network, self.data(), target, self.search_settings(run, budget)
            )
            found = solve_assignment(scored, target, budget, SOLVE_S).network
            last = section["epochs"][-1]
            more = {"entropy": last["figures"]["entropy"], "search_loss": last["loss"]}
            return found, self.knobs.finetune, more
        both = self.knobs.epochs + self.knobs.finetune
        if run.kind.startswith("random"):
            return _random(f"{run.seed} {run.kind}", whole, target, budget_pj), both, {}
        _, operator, bits = run.kind.split()

        def score(choice: Choice) -> float:
            wanted = choice.operator == operator and choice.bits.weight == int(bits)
            return 0.0 if wanted else math.inf

        unlimited = Budget.parse("unlimited")
        network = _scored(whole, score)
        return solve_assignment(network, target, unlimited, SOLVE_S).network, both, {}

    def search_settings(self, run: Run, budget: Budget) -> SearchSettings:
        """Return the settings of a search; its checkpoint is the run's own."""
        return SearchSettings(
            epochs=self.knobs.epochs,
            pretrain=0,
            budget=budget,
            learning_rate=2e-3,
            architecture_rate=0.03,
            warm_up=0.15,
            prior=100.0,
            tilted=True,
            seed=run.seed,
            folder=self.place(run),
            say=_tell,
            method=run.method,
        )

    def offered(self, target: Target, operators: tuple[str, ...]) -> Network:
        """Return the float network with the choices of a target."""
        request = Request(operators, WEIGHT_BITS, (8,))
        return attach_choices(self.float_network(), target, request)[0]

    def float_network(self) -> Network:
        """Return the network trained in float; trained at its first use."""
        knobs = self.knobs
        size = f"{knobs.network}-{knobs.width}-{knobs.images}x{knobs.float_epochs}"
        place = self.out / f"float-{size}"
        if (place / "network.json").is_file():
            return load_network(place)
        example = NETWORKS[self.knobs.network]
        torch.manual_seed(0)
        user = UserModel.from_module(
            example.model(width=self.knobs.width),
            example.example_inputs(data=self.folder),
            data=None,
            name=self.knobs.network,
        )
        steps = parse_passes("canonicalize,calibrate")
        network, _, _ = run_passes(
            trace(user, batch=1), steps, load_target("digital"), Hooks(), user=user
        )
        settings = replace(
            self.search_settings(Run("", "", "", "", 0), Budget.parse("unlimited")),
            pretrain=self.knobs.float_epochs,
            folder=place,
            learning_rate=5e-3,
        )
        network, section = train_float(network, self.data(), settings)
        place.mkdir(parents=True, exist_ok=True)
        save_network(network, place)
        (place / "section.json").write_text(json.dumps(section))
        return network

    def data(self) -> Data:
        """Return the real images, as many as the knobs say."""
        splits = NETWORKS[self.knobs.network].data(data=self.folder)
        if splits is None:
            raise SystemExit(f"{self.folder}: no CIFAR-10 there; --data names its folder")

        return some_of(splits, self.knobs.images, self.knobs.batch)

    def place(self, run: Run) -> Path:
        """Return the folder of a run's checkpoints."""
        return self.out / run.name.replace("/", "--")

    def finished(self) -> dict[str, dict[str, Any]]:
        """Return the results at hand under these knobs, by the name of the run."""
        if not self.results.is_file():
            return {}
        lines = [json.loads(line) for line in self.results.read_text().splitlines()]
        return {line["run"]: line for line in lines if line["knobs"] == asdict(self.knobs)}

    def trained(self, run: Run) -> dict[str, Any]:
        """Return what is known of a uniform network from another setting, where it is the same."""
        if not run.kind.startswith("uniform"):
            return {}
        for line in self.finished().values():
            if (line["kind"], line["seed"]) == (run.kind, run.seed) and "test_accuracy" in line:
                kept = ("validation_accuracy", "test_accuracy")
                return {key: line[key] for key in kept} | {"trained_in": line["run"]}
        return {}

    def strongest(self, setting: str) -> str | None:
        """Return the kind of the uniform network of best validation accuracy, first seed."""
        trained = [
            line
            for line in self.finished().values()
            if (line["part"], line["setting"], line["seed"]) == ("primary", setting, 0)
            and line["kind"].startswith("uniform")
            and "validation_accuracy" in line
        ]
        best = max(trained, key=lambda line: line["validation_accuracy"], default=None)
        return None if best is None else str(best["kind"])

    def keep(self, run: Run, result: dict[str, Any]) -> None:
        """Append a result."""
        self.out.mkdir(parents=True, exist_ok=True)
        line = {"run": run.name, **asdict(run), **result, "knobs": asdict(self.knobs)}
        with self.results.open("a") as file:
            file.write(json.dumps(line) + "\n")


def some_of(splits: Mapping[str, Callable[[], Any]], images: int, batch: int) -> Data:
    """Return the first training and validation images and the whole test set."""

    def first(split: str, count: int) -> Callable[[], Any]:
        def opened() -> Any:
            dataset = splits[split]()
            return Subset(dataset, range(min(count, len(dataset))))

        return opened

    return Data(
        train=first("train", images),
        validation=first("validation", VALIDATION_IMAGES),
        test=splits["test"],
        batch_size=batch,
    )


def _scored(network: Network, score: Callable[[Choice], float]) -> Network:
    """Return a network scored by choice; one that has a single choice keeps it."""
    layers = {}
    for name, layer in network.layers.items():
        scores = tuple(score(choice) for choice in layer.choices)
        fixed = layer.first_or_last or not any(math.isfinite(s) for s in scores)
        layers[name] = replace(layer, scores=(0.0,) * len(scores) if fixed else scores)
    return replace(network.with_layers(layers), facts=network.facts | {"scored"})


def _random(seed: str, whole: Network, target: Target, budget_pj: float) -> Network:
    """Return a random assignment that uses the budget, by energy alone."""
    draws = random.Random(seed)
    budget = Budget.parse(f"{budget_pj!r}pJ")
    best, best_pj = whole, 0.0
    for _ in range(DRAWS):
        network = _scored(whole, lambda _: draws.random())
        found = solve_assignment(network, target, budget, SOLVE_S).network
        energy_pj = price(found, target).energy_pj
        if best_pj < energy_pj:
            best, best_pj = found, energy_pj
        if energy_pj >= CLOSE * budget_pj:
            break
    return best


def _number(text: str) -> int | float:
    """Return a width: whole where it is written so."""
    return float(text) if "." in text else int(text)


def _tell(line: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> None:
    """Do the runs that are left, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="", help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--network", choices=sorted(NETWORKS), default="squeezenet")
    parser.add_argument(
        "--width", type=_number, default=4, metavar="N", help="4 of squeezenet, 0.25 of shufflenet"
    )
    for name, default in (
        ("images", 8000),
        ("float-epochs", 8),
        ("epochs", 6),
        ("finetune", 4),
        ("batch", 100),
        ("seeds", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    parser.add_argument("--only", default="", metavar="REGEX", help="runs whose name matches")
    parser.add_argument("--list", action="store_true", help="name the runs and what is done")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write tables of what is done")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the primary results")
    arguments = parser.parse_args()
    knobs = Knobs(
        arguments.network,
        arguments.width,
        arguments.images,
        arguments.float_epochs,
        arguments.epochs,
        arguments.finetune,
        arguments.batch,
    )
    bench = Bench(knobs, arguments.data, arguments.out)
    for run in plan(arguments.seeds, bench.strongest):
        if not re.search(arguments.only, run.name):
            continue
        finished = run.name in bench.finished()
        if arguments.list:
            print(f"{'done' if finished else 'open'}  {run.name}")
        elif not finished:
            print(run.name, flush=True)
            bench.keep(run, bench.run(run))
    done = list(bench.finished().values())
    if arguments.table:
        arguments.table.write_text(enos_cifar_table.tables(done))
    if arguments.figure:
        enos_cifar_figure.draw(done, arguments.figure)


if __name__ == "__main__":
    main()
