# SPDX-License-Identifier: Apache-2.0
"""Our mapper beside timeloop-mapper, on its layers, machines and constraints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.count import count_events
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.mapper import MapResult, map_layer
from enos_compiler.mapping.problem import Problem
from enos_compiler.mapping.space import MapSpace

_MATMUL = {"M": "N", "N": "M", "K": "C", "B": "G"}
"""Rows, columns, contraction and batch of a matrix product as dimensions of a layer."""


@dataclass(frozen=True, slots=True)
class PeerResult:
    """One layer mapped by both; both nests priced by the full reference rule."""

    case: str
    layer: str
    machine: str
    objective: str
    result: MapResult
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Theirs over ours; above 1 ours is better."""
        return self.theirs / self.ours


def layer_of(problem: Mapping[str, Any]) -> tuple[LayerShape, dict[str, str]]:
    """A reference problem as a layer, and the layer's name of each of its dimensions."""
    kind = problem["kind"]
    names = {dim: _MATMUL[dim] if kind.endswith("matmul") else dim for dim in problem["dims"]}
    scale = problem["coefficients"]
    shape = LayerShape(
        **{names[dim].lower(): bound for dim, bound in problem["dims"].items()},
        stride=(scale.get("Hstride", 1), scale.get("Wstride", 1)),
        dilation=(scale.get("Hdilation", 1), scale.get("Wdilation", 1)),
    )
    return shape, names


def compare_mappers(folder: Path) -> Iterator[PeerResult]:
    """Map every case of `folder/mapper.jsonl` within its constraints."""

    @cache
    def machine(name: str) -> Machine:
        path = folder / "machines" / f"{name}.json"
        return Machine.from_reference(json.loads(path.read_text(encoding="utf-8")))

    with (folder / "mapper.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            case = json.loads(line)
            yield compare_mapping(case, machine(case["machine"]))


def compare_mapping(case: Mapping[str, Any], machine: Machine) -> PeerResult:
    """Map one layer within the constraints that timeloop-mapper had."""
    shape, names = layer_of(case["problem"])
    space = MapSpace.from_reference(case["constraints"], names)
    objective = case["objective"]
    result = map_layer(shape, machine, objective=objective, space=space)
    events = count_events(Problem.from_shape(shape), machine, result.nest)
    energy = events.energy_pj(machine)
    best = case["best"]
    return PeerResult(
        case=case["id"],
        layer=case["layer"],
        machine=machine.name,
        objective=objective,
        result=result,
        ours=energy * events.cycles if objective == "edp" else energy,
        theirs=best["edp"] if objective == "edp" else best["energy_pj"],
    )
