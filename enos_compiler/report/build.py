# SPDX-License-Identifier: Apache-2.0
"""`report.json`: the one source of every number that is shown anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from enos_compiler.cores.accounting import Items, Totals, energy_pj, itemise, totals
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Layer, Network
from enos_compiler.ir.program import Program
from enos_compiler.report.roofline import roofline
from enos_compiler.report.timeline import timeline
from enos_compiler.report.topology import topology

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

SCHEMA = "enos-report/1"
PRICING = "pricing"
"""Section with the price and the source of every action that occurs."""
OFFERS = "offers"
"""Section with the operators that each core offers to at least one layer."""
GRAPH = "graph"
"""Section with the operations in execution order and what each reads."""
TIMELINE = "timeline"
"""Section with what each resource does when."""
ROOFLINE = "roofline"
"""Section with bandwidths, traffic and peaks."""


class Span(NamedTuple):
    """A stretch of time."""

    start_ns: float
    end_ns: float


def build_report(
    network: Network,
    target: Target,
    *,
    accuracy: Mapping[str, Any] | None,
    checks: Mapping[str, Any],
    seed: int,
    model_name: str,
) -> dict[str, Any]:
    """Return the report of a scheduled network, in the form of `report.schema.json`.

    Every energy is events x price and every total the sum of its rows.

    Args:
        network: assigned and scheduled.
        target: the chip that it was compiled for.
        accuracy: fractions `reference` and `compiled` and the number of `images`, if measured.
        checks: `level` and the results of what ran; what is absent did not run.
        seed: of the compilation.
        model_name: as the user calls it.

    Raises:
        ValueError: the network is not scheduled.
    """
    if network.program is None:
        raise ValueError(f"network {network.name} is not scheduled")
    items = itemise(network, target)
    spent = totals(items, target, network.program.makespan_ns)
    provenance = network.provenance
    return {
        "schema": SCHEMA,
        "model": model_name,
        "target": target.name,
        "batch": network.batch,
        "versions": dict(provenance.get("versions", {})),
        "spec_sha256": target.spec_sha256,
        "seed": seed,
        "passes": list(provenance.get("passes", ())),
        "totals": _totals(network, target, spent, network.program),
        "baseline": _baseline(network),
        "budget": _budget(network, spent),
        "layers": _layers(network, items, target),
        "edges": [
            {
                "from": edge.producer,
                "to": edge.consumer,
                "bits": edge.bits,
                "energy_pj": energy_pj(edge.cost, target),
            }
            for edge in items.edges
        ],
        "vector": [_operation(network, name, items, target) for name in items.vectors],
        "host": [_operation(network, name, items, target) for name in items.host],
        "refusals": [
            {"layer": n.name, "core": r.core, "operator": r.operator, "reason": r.reason}
            for n in network.layers.values()
            for r in n.refusals
        ],
        "accuracy": None if accuracy is None else dict(accuracy),
        "checks": complete_checks(checks),
        "sections": {
            **{name: dict(content) for name, content in network.sections.items()},
            OFFERS: _offers(network, target),
            PRICING: _pricing(items, target, network.program),
            GRAPH: topology(network),
            TIMELINE: timeline(network.program),
            ROOFLINE: roofline(network, target),
        },
    }


def complete_checks(checks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block of checks; what did not run is null."""
    known = ("level", "onnx_max_steps", "simulator_max_steps", "events_equal")
    return {**dict.fromkeys(known), **checks}


def _totals(
    network: Network, target: Target, spent: Totals, program: Program
) -> dict[str, float | int]:
    return {
        "energy_pj": spent.energy_pj,
        "latency_ns": program.makespan_ns,
        "edp_pj_ns": spent.energy_pj * program.makespan_ns,
        "area_um2": target.area_um2(),
        "macs": network.macs,
        "layers_pj": spent.layers_pj,
        "edges_pj": spent.edges_pj,
        "vector_pj": spent.vector_pj,
        "host_pj": spent.host_pj,
        "programming_pj": spent.programming_pj,
        "leakage_pj": spent.leakage_pj,
    }


def _baseline(network: Network) -> dict[str, Any]:
    """Return the baseline as the schedule pass timed it."""
    return dict(network.sections["schedule"]["baseline"])


def _budget(network: Network, spent: Totals) -> dict[str, Any] | None:
    """Return the budget; null where the assignment had none."""
    found = network.sections.get("assign", {})
    allowed = found.get("budget_pj")
    if allowed is None:
        return None
    return {
        "spec": found["budget"],
        "energy_pj": allowed,
        "floor_pj": found["floor_pj"],
        "slack_pj": allowed - spent.energy_pj,
    }


def _layers(network: Network, items: Items, target: Target) -> list[dict[str, Any]]:
    when = _spans(network)
    return [_layer(network.layers[name], items, target, when[name]) for name in items.layers]


def _layer(layer: Layer, items: Items, target: Target, when: Span) -> dict[str, Any]:
    choice = layer.choice
    if choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    cost = items.layers[layer.name]
    components = cost.components_pj(target.energy_pj)
    return {
        "name": layer.name,
        "kind": layer.op,
        "core": choice.core,
        "operator": choice.operator,
        "bits": choice.bits._asdict(),
        "options": dict(choice.options),
        "macs": layer.shape.macs,
        "energy_pj": sum(components.values()),
        "latency_ns": cost.latency_ns,
        "start_ns": when.start_ns,
        "end_ns": when.end_ns,
        "events": dict(sorted(cost.events.items())),
        "components": components,
        "score": _score(layer, choice),
    }


def _score(layer: Layer, choice: Choice) -> float | None:
    """Return the score of the choice; the minus of a negative zero is dropped."""
    return None if layer.scores is None else layer.scores[layer.choices.index(choice)] + 0.0


def _operation(network: Network, name: str, items: Items, target: Target) -> dict[str, Any]:
    cost = items.vectors[name] if name in items.vectors else items.host[name]
    return {
        "name": name,
        "op": network.vectors[name].op,
        "energy_pj": energy_pj(cost, target),
        "latency_ns": cost.latency_ns,
    }


def _spans(network: Network) -> dict[str, Span]:
    """Return from when to when each layer runs, ns, over all of its instructions."""
    found: dict[str, Span] = {}
    for one in network.program.instructions if network.program else ():
        if one.layer is not None:
            seen = found.get(one.layer, Span(one.start_ns, one.end_ns))
            found[one.layer] = Span(min(seen.start_ns, one.start_ns), max(seen.end_ns, one.end_ns))
    return found


def _offers(network: Network, target: Target) -> dict[str, list[str]]:
    """Return by core what its layers could choose from, so that a refusal of all stands out."""
    offered: dict[str, set[str]] = {core: set() for core in target.cores}
    for layer in network.layers.values():
        for choice in layer.choices:
            offered[choice.core].add(choice.operator)
    return {core: sorted(operators) for core, operators in offered.items()}


def _pricing(items: Items, target: Target, program: Program) -> dict[str, Any]:
    """Return the prices behind the energies, with their sources, and what the set-up costs."""
    costs = (*items.costs(), *items.programming.values())
    actions = sorted({action for cost in costs for action in cost.events})
    set_up = {name: energy_pj(cost, target) for name, cost in items.programming.items()}
    return {
        "inferences_per_programming": target.inferences_per_programming,
        "set_up": {
            "energy_pj": sum(set_up.values()),
            "latency_ns": max((i.end_ns for i in program.setup), default=0.0),
            "layers_pj": set_up,
        },
        "leakage_mw": dict(target.leakage_by_owner()),
        "prices": {
            action: {"energy_pj": target.energy_pj(action), "source": target.source(action)}
            for action in actions
        },
    }


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json`."""
    text = files("enos_compiler.report").joinpath("report.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
