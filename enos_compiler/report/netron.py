# SPDX-License-Identifier: Apache-2.0
"""`model.netron.json`: what each node of `model.onnx` costs, for the model viewer Netron.

Open `model.onnx` in Netron (netron.app), then drop this file on the window: the properties of a
node then show its row of the report under "Metrics".

Source: Netron's reader of attachments (version 9, seen): `signature`, and in `metadata` and
`metrics` entries of `kind`, `target` (the node's name), `name`, `value`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SIGNATURE = "netron:attachment"
_LAYER = "enos.layer"
"""Metadata of the node that computes a layer: its name."""
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Constant"})
"""Nodes around an operation's own that only change how its codes are held."""


def netron_attachment(report: Mapping[str, Any], model: ModelProto) -> dict[str, Any]:
    """Return the attachment for an exported model.

    A row of the report goes to one node: the one that computes it. The totals go to the graph.
    """
    metadata: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    nodes = _own_nodes(model.graph.node)
    for row in report["layers"]:
        if row["name"] in nodes:
            target = nodes[row["name"]]
            metadata += _entries("node", target, _choice(row))
            metrics += _entries("node", target, _layer_metrics(row, report["totals"]))
    for row in (*report["vector"], *report["host"]):
        if row["name"] in nodes:
            costs = {key: row[key] for key in ("energy_pj", "latency_ns")}
            metrics += _entries("node", nodes[row["name"]], costs)
    metrics += _entries("graph", model.graph.name, report["totals"])
    metadata += _entries("graph", model.graph.name, _provenance(report))
    return {"signature": SIGNATURE, "metadata": metadata, "metrics": metrics}


def write_netron(report: Mapping[str, Any], model: ModelProto, path: Path) -> None:
    """Write the attachment for an exported model."""
    attachment = netron_attachment(report, model)
    path.write_text(json.dumps(attachment, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _own_nodes(nodes: Iterable[NodeProto]) -> dict[str, str]:
    """Return the node that computes each operation.

    The exporter marks that of a layer in its metadata and names nodes `operation/Type`.
    """
    conversions: dict[str, str] = {}
    others: dict[str, str] = {}
    marked: dict[str, str] = {}
    for node in nodes:
        owner, slash, _ = node.name.rpartition("/")
        if slash:
            kind = conversions if node.op_type in _CONVERSIONS else others
            kind.setdefault(owner, node.name)
        marked |= {p.value: node.name for p in node.metadata_props if p.key == _LAYER}
    return {**conversions, **others, **marked}


def _choice(row: Mapping[str, Any]) -> dict[str, Any]:
    bits = row["bits"]
    return {
        "operator": row["operator"],
        "core": row["core"],
        "bits (input/weight/output)": f"{bits['input']}/{bits['weight']}/{bits['output']}",
        **row["options"],
    }


def _layer_metrics(row: Mapping[str, Any], totals: Mapping[str, Any]) -> dict[str, Any]:
    share = row["energy_pj"] / totals["energy_pj"] if totals["energy_pj"] else 0.0
    named = {key: row[key] for key in ("macs", "energy_pj", "latency_ns", "start_ns", "end_ns")}
    scored = {} if row["score"] is None else {"score": row["score"]}
    parts = {f"{name} (pJ)": spent for name, spent in row["components"].items()}
    return {**named, "share of the energy": share, **scored, **parts}


def _provenance(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "target": report["target"],
        "seed": report["seed"],
        "spec_sha256": report["spec_sha256"],
        "passes": " ".join(report["passes"]),
    }


def _entries(kind: str, target: str, content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in content.items():
        yield {"kind": kind, "target": target, "name": name, "value": value}
