# SPDX-License-Identifier: Apache-2.0
"""Comparison with a folder of reference cases, count by count."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import isclose
from pathlib import Path
from typing import Any

from enos_compiler.errors import FormatError
from enos_compiler.mapping.count import count_events
from enos_compiler.mapping.events import LevelEvents, NestEvents, TensorEvents, WireEvents
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.problem import Problem

TOLERANCE = 1e-6
"""Relative tolerance of every real number; integers are compared exactly."""

_INTEGERS = (
    "tile_size",
    "partition_size",
    "utilized_capacity",
    "reads",
    "fills",
    "updates",
    "temporal_reductions",
    "address_generations",
    "vector_reads",
    "vector_fills",
    "vector_updates",
)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case compares."""

    case: str
    compared: int
    """Numbers compared."""
    differences: tuple[str, ...]
    """`path: ours, reference` for every number that differs."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


@dataclass(slots=True)
class _Comparison:
    compared: int
    differences: list[str]

    def integer(self, path: str, ours: int, theirs: float) -> None:
        self.compared += 1
        if ours != theirs:
            self.differences.append(f"{path}: {ours}, reference {theirs}")

    def real(self, path: str, ours: float, theirs: float) -> None:
        self.compared += 1
        if not isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=1e-12):
            self.differences.append(f"{path}: {ours!r}, reference {theirs!r}")


def compare_folder(folder: Path) -> Iterator[CaseResult]:
    """Count every case of `folder/model.jsonl` and compare all of its results.

    Raises:
        FormatError: the folder has no `model.jsonl`, or a line is no case.
    """
    cases = folder / "model.jsonl"
    if not cases.is_file():
        raise FormatError("no model.jsonl", place=str(folder), remedy="name a reference folder")

    @cache
    def machine(name: str) -> Machine:
        path = folder / "machines" / f"{name}.json"
        return Machine.from_reference(json.loads(path.read_text(encoding="utf-8")))

    with cases.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                case = json.loads(line)
                spec = machine(case["machine"])
            except (ValueError, KeyError, OSError) as error:
                raise FormatError(f"no case: {error}", place=f"{cases}:{number}") from error
            yield compare_case(case, spec)


def compare_case(case: Mapping[str, Any], machine: Machine) -> CaseResult:
    """Count one case and compare every count, capacity, cycle number and energy."""
    problem = Problem.from_reference(case["problem"])
    nest = Nest.from_reference(case["mapping"])
    events = count_events(problem, machine, nest, bits=case["bits"])
    found = _Comparison(0, [])
    theirs = case["results"]
    found.integer("macs", events.macs, theirs["macs"])
    found.integer("cycles", events.cycles, theirs["cycles"])
    found.real("energy_pj", events.energy_pj(machine), theirs["energy_pj"])
    found.real("utilization", events.utilization(machine), theirs["utilization"])
    mac = theirs["arithmetic"]
    found.integer("arithmetic.cycles", events.compute_cycles, mac["cycles"])
    found.integer("arithmetic.instances", events.used_macs, mac["utilized_instances"])
    found.real("arithmetic.energy_pj", events.macs * machine.compute.energy_pj, mac["energy_pj"])
    for s, storage in enumerate(theirs["storage"]):
        _compare_level(found, events, machine, s, storage)
    for s, network in enumerate(theirs["networks"]):
        _compare_wires(found, events, machine, s, network)
    return CaseResult(case["id"], found.compared, tuple(found.differences))


def _compare_level(
    found: _Comparison, events: NestEvents, machine: Machine, s: int, theirs: Mapping[str, Any]
) -> None:
    ours, spec = events.levels[s], machine.levels[s]
    leak = spec.leak_pj_per_cycle * events.busy_cycles * ours.instances
    found.integer(f"{ours.name}.cycles", ours.cycles, theirs["cycles"])
    found.integer(f"{ours.name}.leaks", ours.instances, theirs["leaks_per_cycle"])
    found.real(f"{ours.name}.slowdown", ours.slowdown, theirs["slowdown"])
    found.real(f"{ours.name}.leakage", leak, theirs["leakage_energy_pj"])
    total = leak
    for name, expected in theirs["tensors"].items():
        total += _compare_tensor(found, events, machine, s, name, expected)
    found.real(f"{ours.name}.energy", total, theirs["energy_total_pj"])


def _compare_tensor(
    found: _Comparison,
    events: NestEvents,
    machine: Machine,
    s: int,
    name: str,
    theirs: Mapping[str, Any],
) -> float:
    """Compare one tensor of one level and return its energy."""
    level, spec = events.levels[s], machine.levels[s]
    ours, path = level.tensors[name], f"{level.name}.{name}"
    for count in _INTEGERS:
        found.integer(f"{path}.{count}", getattr(ours, count), theirs[count])
    found.integer(f"{path}.keep", int(ours.keep), theirs["keep"])
    found.integer(f"{path}.instances", level.instances, theirs["utilized_instances"])
    found.integer(f"{path}.clusters", level.clusters, theirs["utilized_clusters"])
    found.integer(f"{path}.x", level.expansion[0], theirs["x_expansion"])
    found.integer(f"{path}.y", level.expansion[1], theirs["y_expansion"])
    for kind, rate in _rates(ours, level, events.compute_cycles).items():
        found.real(f"{path}.{kind}_bandwidth", rate, theirs[f"{kind}_bandwidth"])
    storage = level.clusters * (
        ours.vector_reads * spec.read_pj
        + ours.vector_fills * spec.fill_pj
        + ours.vector_updates * spec.update_pj
    )
    address = ours.address_generations * spec.address_pj * level.clusters
    found.real(f"{path}.storage_energy", storage, theirs["storage_energy_pj"])
    found.real(f"{path}.address_energy", address, theirs["address_generation_energy_pj"])
    found.real(f"{path}.reduction_energy", 0.0, theirs["temporal_reduction_energy_pj"])
    return storage + address


def _rates(ours: TensorEvents, level: LevelEvents, compute_cycles: int) -> dict[str, float]:
    """Words per cycle and instance."""
    scale = level.slowdown / compute_cycles
    reads, writes = ours.reads * scale, (ours.fills + ours.updates) * scale
    return {"read": reads, "write": writes, "shared": reads + writes}


def _compare_wires(
    found: _Comparison, events: NestEvents, machine: Machine, s: int, theirs: Mapping[str, Any]
) -> None:
    spec, instances = machine.levels[s], events.levels[s].instances
    total = 0.0
    for name, expected in theirs["tensors"].items():
        ours, path = events.wires[s][name], f"{spec.name}.wires.{name}"
        hop, router = spec.network.energy_per_hop_pj, spec.network.router_energy_pj
        links = ours.link_transfers * (hop + 2 * router)
        energy = ours.hops * hop + ours.router_passes * router
        found.integer(f"{path}.instances", instances, expected["utilized_instances"])
        found.real(f"{path}.links", links, expected["link_transfer_energy_pj"])
        found.real(f"{path}.energy", energy, expected["energy_pj_per_instance"])
        found.real(f"{path}.total", (energy + links) * instances, expected["energy_pj"])
        _compare_wire(found, path, ours, expected)
        total += (energy + links) * instances
    found.real(f"{spec.name}.wires.energy", total, theirs["energy_total_pj"])


def _compare_wire(
    found: _Comparison, path: str, ours: WireEvents, theirs: Mapping[str, Any]
) -> None:
    for count in ("fanout", "multicast_factor", "link_transfers", "spatial_reductions"):
        found.integer(f"{path}.{count}", getattr(ours, count), theirs[count])
    found.real(f"{path}.num_hops", ours.mean_hops, theirs["num_hops"])
    mine = sorted((i.multicast, i.scatter, i.accesses, i.hops) for i in ours.ingresses)
    other = sorted(
        (i["multicast"], i["scatter"], i["accesses"], i["hops"]) for i in theirs["ingresses"]
    )
    found.integer(f"{path}.ingresses", len(mine), len(other))
    for position, (a, b) in enumerate(zip(mine, other, strict=False)):
        found.integer(f"{path}.ingress{position}.multicast", a[0], b[0])
        found.integer(f"{path}.ingress{position}.scatter", a[1], b[1])
        found.real(f"{path}.ingress{position}.accesses", a[2], b[2])
        found.real(f"{path}.ingress{position}.hops", a[3], b[3])
