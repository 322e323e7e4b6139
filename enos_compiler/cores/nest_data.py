# SPDX-License-Identifier: Apache-2.0
"""Nests as data: their events by name, and the mapping that a cost's detail keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from enos_compiler.cores.loopnest_spec import OUTERMOST, SHARED, LoopNestSpec
from enos_compiler.cores.nest_homes import NestTask
from enos_compiler.cores.nest_work import nest_work
from enos_compiler.ir.cost import Action
from enos_compiler.ir.shape import TENSORS, LayerShape
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.mapper import COVERED, OUTSIDE, Certificate, MapResult
from enos_compiler.mapping.nest import Nest


def nest_actions(events: NestEvents, machine: Machine) -> dict[str, int]:
    """Return the integer events of a nest, `LEVEL/action`, summed over instances.

    Wires and addresses are events where they have a price.
    """
    out = {"element/tap": events.macs}
    for spec, level, wires in zip(machine.levels, events.levels, events.wires, strict=True):
        for tensor, counts in level.tensors.items():
            moved = {
                "read": counts.vector_reads,
                "fill": counts.vector_fills,
                "update": counts.vector_updates,
            }
            for kind, count in moved.items():
                out[f"{spec.name}/{kind}_{tensor.lower()}"] = count * level.clusters
        if spec.address_pj:
            addresses = level.total("address_generations") * level.clusters
            out[f"{spec.name}/address"] = addresses
        if spec.network.energy_per_hop_pj:
            hops = sum(wire.hops + wire.link_transfers for wire in wires.values())
            out[f"{spec.name}_wires/half_hop"] = round(2 * hops) * level.instances
        if spec.network.router_energy_pj:
            passes = sum(wire.router_passes + 2 * wire.link_transfers for wire in wires.values())
            out[f"{spec.name}_wires/router"] = passes * level.instances
    return {action: count for action, count in out.items() if count}


def nest_prices(core: str, spec: LoopNestSpec) -> dict[Action, tuple[float, str]]:
    """Return energy in pJ and source of every event at a core's own levels, and of stated taps."""
    table = {
        f"{core}.element/{operator}": (float(price.value), str(price.source))
        for operator, price in spec.element.operator_pj.items()
    }
    for level in spec.levels:
        place = f"{core}.{level.name}"
        kinds = {"read": level.read_pj, "fill": level.fill_pj, "update": level.update_pj}
        for kind, price in kinds.items():
            for tensor in TENSORS:
                entry = (float(price.value), str(price.source))
                table[f"{place}/{kind}_{tensor.lower()}"] = entry
        if level.address_pj:
            table[f"{place}/address"] = (
                float(level.address_pj.value),
                str(level.address_pj.source),
            )
        if wires := level.wires:
            hop = wires.hop_pj
            table[f"{place}_wires/half_hop"] = (float(hop.value) / 2, str(hop.source))
            if router := wires.router_pj:
                table[f"{place}_wires/router"] = (float(router.value), str(router.source))
    return table


def nest_detail(task: NestTask, nest: Nest, events: NestEvents, machine: Machine) -> dict[str, Any]:
    """Return a nest as JSON-able data, the form of `CoreCost.detail`.

    `shape` has the bounds, padded ones included; `bits` the widths that operands take in words;
    `homes` the level that each tensor ends at. `levels`, innermost first, are in the reference's
    form (`level`, `keep`, `temporal`, `spatial_x`, `spatial_y`), with `tiles` in elements, `words`
    that they take, `capacity_words`, `instances` in use and the `cycles` that the level alone
    would take. `work` is what each step loads, computes and stores, see `cores.steps`. A mapping
    that was searched for adds `mapper`, its price by the mapper's own rule, and `certificate`.
    """
    levels = []
    entries = nest.as_reference(machine)
    for entry, level, spec in zip(entries, events.levels, machine.levels, strict=True):
        kept = {t: c for t, c in level.tensors.items() if c.keep}
        levels.append(
            {
                **entry,
                "tiles": {t: c.tile_size for t, c in kept.items()},
                "words": {t: c.utilized_capacity for t, c in kept.items()},
                "capacity_words": spec.capacity,
                "instances": level.instances,
                "cycles": level.cycles,
            }
        )
    return {
        "dataflow": "loop-nest",
        "shape": {str(dim): bound for dim, bound in task.shape.bounds.items()},
        "bits": asdict(task.widths),
        "homes": asdict(task.homes),
        "levels": levels,
        "cycles": events.cycles,
        "compute_cycles": events.compute_cycles,
        "utilisation": events.utilization(machine),
        "work": nest_work(nest, events, machine, task.widths, (OUTERMOST, SHARED)).as_detail(),
    }


def certificate_data(result: MapResult) -> dict[str, Any]:
    """Return what was proven about a mapping as JSON-able data."""
    certificate = result.certificate
    return {
        "objective": result.objective,
        **asdict(certificate),
        "optimal": certificate.optimal,
        "covered": COVERED,
        "outside": OUTSIDE,
    }


def with_taps(found: Mapping[str, Any], tap_pj: float) -> dict[str, Any]:
    """Return an answer, found without the energy of taps, with it: every nest has as many.

    Args:
        found: events, cycles and detail; its objective multiplies no energy by cycles.
        tap_pj: energy of one tap.
    """
    detail = found["detail"]
    taps_pj = tap_pj * found["events"]["element/tap"]
    mapper = detail["mapper"] | {"energy_pj": detail["mapper"]["energy_pj"] + taps_pj}
    certificate = dict(detail["certificate"])
    if certificate["objective"] == "energy":
        for bound in ("value", "lower_bound"):
            certificate[bound] += taps_pj
    return {**found, "detail": {**detail, "mapper": mapper, "certificate": certificate}}


def read_mapping(shape: LayerShape, detail: Mapping[str, Any]) -> MapResult:
    """Return the mapping of a layer that a cost's detail holds."""
    proven = detail["certificate"]
    bounds: dict[str, Any] = {dim.lower(): n for dim, n in detail["shape"].items()}
    return MapResult(
        shape=replace(shape, **bounds),  # its bounds may be padded
        nest=Nest.from_reference(detail["levels"]),
        energy_pj=detail["mapper"]["energy_pj"],
        cycles=detail["mapper"]["cycles"],
        objective=proven["objective"],
        certificate=Certificate(**{f.name: proven[f.name] for f in fields(Certificate)}),
    )
