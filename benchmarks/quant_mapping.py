# SPDX-License-Identifier: Apache-2.0
"""Bits and mappings of MobileNets: energy saved at no loss of accuracy, and what bits alone find.

    python benchmarks/quant_mapping.py --data $SHARED/data --out runs [--networks MobileNetV1]
        [--part accuracy|cost|both] [--bits 2,4,5,8] [--json FILE] [--figures DIR] [--quick]
        [--read FILE]

accuracy: MobileNetV1 and V2 at a quarter of the width on 32x32 images of CIFAR-10, trained in float
first. Settings of least noise (sensitivity) and energy are searched on `eyeriss` and `simba`, every
layer in its mapping of least energy, and those of least noise and weight memory as the rival that
knows no mapping. Settings that save given shares of the uniform 8-bit network's energy are
fine-tuned from the shared weights like that network itself, and compared with it; of each chip the
one at the aim, or the cheapest, that loses less than a point is then trained longer, like it.

cost: both networks at 224x224, 1000 classes, random weights: no accuracy is claimed, noise is
4 ** -bits of every operand. Energy of uniform settings and of the cheapest mixed one that has no
more noise.

What was measured is kept in OUT and taken from there when the command is repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quant_mapping_float import NETWORKS, Knobs, data, float_network, full_network
from quant_mapping_study import (
    TARGETS,
    Accuracies,
    Bench,
    Sizes,
    Trials,
    at_saving,
    flat_noise,
    saving,
    say,
)
from quant_mapping_tables import tables

from enos_compiler.explore.accuracy import Tier
from enos_compiler.explore.journal import open_journal
from enos_compiler.explore.objectives import parse_bits
from enos_compiler.explore.plan import Genome, as_genome

AIM = 0.37
"""What the paper saves at most at no loss of accuracy; Klhufek et al., arXiv 2404.05368."""
HIGHER = (0.42, 0.47, 0.52, 0.57, 0.62)
LOWER = (0.32, 0.25, 0.18, 0.1)
"""Savings that are tried where the aim is kept, or missed."""
ONE_POINT = 0.01


def accuracy_side(name: str, arguments: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    """Return what was found of one network on both chips."""
    knobs = Knobs(arguments.width, arguments.float_epochs, sizes.seed)
    network = float_network(name, arguments.data, arguments.out, knobs)
    bench = Bench(name, network, sizes, arguments.mapping_cache)
    seconds = bench.price()
    noise = bench.noise.noise
    fronts = {target: bench.front(target, "energy", noise) for target in TARGETS}
    by_size = bench.front(TARGETS[0], "memory", noise)
    measure = Accuracies(
        bench,
        short=trials(name, arguments, knobs, arguments.tune_images),
        full=trials(name, arguments, knobs, arguments.full_images),
    )
    proxy, short = Tier("proxy"), Tier("qat", sizes.tune_epochs)
    rows = [
        row(bench, f"uniform {bits}", bench.uniform(bits), measure, proxy) for bits in sizes.bits
    ]
    wide = bench.uniform(8)
    reference = row(bench, "uniform 8", wide, measure, short)
    rows.append(reference)
    for target in TARGETS:
        for least, genome in tried(bench, target, fronts[target], measure, short):
            label = f"{target} {least:.0%}"
            rows.append(row(bench, label, genome, measure, short))
        rival = at_saving(bench, target, by_size, AIM)
        if rival is not None:
            rows.append(row(bench, f"{target} by size {AIM:.0%}", rival, measure, short))
    if sizes.full_epochs:
        full = Tier("full", sizes.full_epochs)
        rows.append(row(bench, "uniform 8", wide, measure, full))
        final = finalists(rows, reference["accuracy"] - ONE_POINT)
        rows += [row(bench, label, genome, measure, full) for label, genome in final]
    return {
        "network": name,
        "layers": len(network.layers),
        "processor_seconds_tables": seconds,
        "rows": rows,
        "fronts": {t: points(bench, t, fronts[t]) for t in TARGETS},
        "by_size": {t: points(bench, t, by_size) for t in TARGETS},
        "parts_mj": {
            t: {label: bench.parts_mj(t, g) for label, g in shown(bench, t, fronts[t])}
            for t in TARGETS
        },
    }


def row(
    bench: Bench, label: str, genome: Genome, measure: Accuracies, tier: Tier
) -> dict[str, Any]:
    """Return a setting with its accuracy, and its energy on both chips."""
    return {
        "label": label,
        "tier": tier.name,
        "epochs": tier.epochs,
        "accuracy": measure(tier, genome),
        "noise": float(bench.noise.noise([genome])[0]),
        "energy_uj": {t: bench.cost(t, "energy", [genome])[0] * 1e-6 for t in TARGETS},
        "saved": {t: float(saving(bench, t, [genome])[0]) for t in TARGETS},
        "weights_kib": float(bench.cost(TARGETS[0], "memory", [genome])[0]) / 8192,
        "bits": [list(pair) for pair in genome],
    }


def tried(
    bench: Bench, target: str, front: Sequence[Genome], measure: Accuracies, tier: Tier
) -> Iterator[tuple[float, Genome]]:
    """Yield savings and settings: the aim, then more while a point is not lost, else less."""
    reference = measure(tier, bench.uniform(8))
    kept = False
    for least in (AIM, *HIGHER):
        genome = at_saving(bench, target, front, least)
        if genome is None:
            break
        yield least, genome
        accuracy = measure(tier, genome)
        kept |= accuracy >= reference
        if accuracy < reference - ONE_POINT:
            break
    if kept:
        return
    for least in LOWER:
        genome = at_saving(bench, target, front, least)
        if genome is not None:
            yield least, genome
            if measure(tier, genome) >= reference:
                return


def finalists(rows: Sequence[dict[str, Any]], least: float) -> Iterator[tuple[str, Genome]]:
    """Yield, by chip, the setting at the aim where it has an accuracy, else the cheapest."""
    for target in TARGETS:
        ours = [r for r in rows if r["tier"] == "qat" and r["label"].startswith(target)]
        good = [r for r in ours if r["accuracy"] >= least]
        if good:
            aimed = [r for r in good if r["label"] == f"{target} {AIM:.0%}"]
            found = max(aimed or good, key=lambda r: r["saved"][target])
            yield found["label"], as_genome(found["bits"])


def trials(name: str, arguments: argparse.Namespace, knobs: Knobs, images: int) -> Trials:
    """Return images to train and measure with, and the accuracies that were found with them."""
    run = json.dumps([name, asdict(knobs), images, arguments.validation_images])
    journal = open_journal(arguments.out / f"{name}-{images}.jsonl", run, resume=True)
    return Trials(data(arguments.data, images, arguments.validation_images), journal)


def points(bench: Bench, target: str, genomes: Sequence[Genome]) -> list[list[float]]:
    """Return (noise, saved share, weights in KiB) of settings."""
    columns = (
        bench.noise.noise(genomes),
        saving(bench, target, genomes),
        bench.cost(target, "memory", genomes) / 8192,
    )
    return [[float(v) for v in values] for values in zip(*columns, strict=True)]


def shown(bench: Bench, target: str, front: Sequence[Genome]) -> Iterator[tuple[str, Genome]]:
    """Yield the settings whose energy is told apart by memory."""
    yield "uniform 8", bench.uniform(8)
    genome = at_saving(bench, target, front, AIM)
    if genome is not None:
        yield f"saves {AIM:.0%}", genome


def cost_side(name: str, arguments: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    """Return energies of one network at full size."""
    bench = Bench(name, full_network(name), sizes, arguments.mapping_cache)
    seconds = bench.price()
    rows = []
    for target in TARGETS:
        front = bench.front(target, "energy", flat_noise)
        noises = flat_noise(front)
        energies = bench.cost(target, "energy", front)
        for bits in sizes.bits:
            alike = bench.uniform(bits)
            allowed = flat_noise([alike])[0] * (1 + 1e-9)
            mixed = energies[noises <= allowed].min()
            uniform = bench.cost(target, "energy", [alike])[0]
            rows.append(
                {"target": target, "bits": bits, "uniform_mj": uniform * 1e-9}
                | {"mixed_mj": float(mixed) * 1e-9}
            )
    return {"network": name, "processor_seconds_tables": seconds, "rows": rows}


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--data", default="", help="folder of CIFAR-10")
    found.add_argument("--out", type=Path, default=Path("runs"))
    found.add_argument("--networks", default=",".join(NETWORKS), metavar="A,B")
    found.add_argument("--part", choices=("accuracy", "cost", "both"), default="both")
    found.add_argument("--bits", default="2..8", metavar="B")
    found.add_argument("--width", type=float, default=0.25, metavar="X")
    for option, default, what in (
        ("float-epochs", 30, "epochs in float"),
        ("tune-epochs", 2, "epochs of the short tier"),
        ("tune-images", 20000, "training images of the short tier"),
        ("validation-images", 5000, "validation images"),
        ("full-epochs", 0, "epochs of the last settings' training; 0 leaves it out"),
        ("full-images", 45000, "training images of the last settings"),
        ("population", 40, "settings kept by the search"),
        ("generations", 100, "of the search"),
        ("seed", 0, "of everything"),
    ):
        found.add_argument(f"--{option}", type=int, default=default, metavar="N", help=what)
    found.add_argument("--mapping-cache", type=Path, metavar="DIR")
    found.add_argument("--json", type=Path, metavar="FILE")
    found.add_argument(
        "--read", type=Path, action="append", metavar="FILE", help="measure nothing, show these"
    )
    found.add_argument("--figures", type=Path, metavar="DIR", help="draw the fronts")
    found.add_argument("--quick", action="store_true", help="V1's cost side at 2 and 8 bits")
    return found


def main() -> int:
    """Measure, print, write."""
    arguments = parser().parse_args()
    if arguments.read:
        return show(stored(arguments.read), arguments.figures)
    if arguments.quick:
        arguments.part, arguments.networks, arguments.bits = "cost", "MobileNetV1", "2,8"
    sizes = Sizes(
        parse_bits(arguments.bits),
        arguments.population,
        arguments.generations,
        arguments.tune_epochs,
        arguments.full_epochs,
        arguments.seed,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"sizes": asdict(sizes), "accuracy": [], "cost": []}
    for name in arguments.networks.split(","):
        if arguments.part in ("accuracy", "both"):
            found["accuracy"].append(accuracy_side(name, arguments, sizes))
        if arguments.part in ("cost", "both"):
            found["cost"].append(cost_side(name, arguments, sizes))
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            say(f"written to {arguments.json}")
    return show(found, arguments.figures)


def stored(files: Sequence[Path]) -> dict[str, Any]:
    """Return what several runs wrote, one behind the other."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {part: [study for run in runs for study in run[part]] for part in ("accuracy", "cost")}


def show(found: dict[str, Any], figures: Path | None) -> int:
    """Print the tables, draw the figure."""
    print("\n".join(tables(found)))
    if figures and found["accuracy"]:
        from quant_mapping_figures import draw

        draw(found["accuracy"], figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
