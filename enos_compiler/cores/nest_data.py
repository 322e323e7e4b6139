# SPDX-License-Identifier: Apache-2.0
"""Nests as data: their events by name, and the mapping that a cost's detail keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.machine import Machine
from enos_compiler.mapping.mapper import COVERED, OUTSIDE, Certificate, MapResult
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.prices import Widths


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


def nest_detail(
    shape: LayerShape, nest: Nest, events: NestEvents, machine: Machine, widths: Widths
) -> dict[str, Any]:
    """Return a nest as JSON-able data, innermost level first; its levels are in reference form."""
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
        "shape": {str(dim): bound for dim, bound in shape.bounds.items()},
        "bits": asdict(widths),
        "levels": levels,
        "cycles": events.cycles,
        "compute_cycles": events.compute_cycles,
        "utilisation": events.utilization(machine),
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
