# SPDX-License-Identifier: Apache-2.0
"""The files of a finished search."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from enos_compiler.explore.front import Point, save_front
from enos_compiler.explore.prepare import NETWORK, Prepared
from enos_compiler.explore.run import Explored


def write_results(prepared: Prepared, explored: Explored) -> None:
    """Write `front.csv`, `front.html`, `front.json` and a target file for every varied chip.

    Their folder is made where it is missing; `front.json` comes last.
    """
    options, folder = prepared.options, prepared.folder
    folder.mkdir(parents=True, exist_ok=True)
    points = [_with_chip(point, prepared) for point in explored.points]
    about: dict[str, Any] = {
        "model": prepared.model,
        "target": options.chips[0].target,
        "network": NETWORK if options.recipe is not None else None,
        "versions": {"enos-compiler": version("enos-compiler")},
        "seed": options.seed,
        "bits": list(options.bits),
        "population": options.population,
        "offspring": options.offspring,
        "generations": options.generations,
        "evaluations": explored.evaluations,
        "hypervolumes": explored.hypervolumes,
        "uniform": [asdict(point) for point in explored.uniform],
    }
    save_front(folder, points, options.objectives, about)


def _with_chip(point: Point, prepared: Prepared) -> Point:
    """Return a point of a varied chip with the file that this chip was written to."""
    if not point.chip:
        return point
    number = prepared.options.chip_number(point)
    name = f"target-{number}.yaml"
    path = prepared.folder / name
    prepared.options.chips[number].write(path)
    return replace(point, target=name)
