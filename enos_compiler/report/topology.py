# SPDX-License-Identifier: Apache-2.0
"""Which operation reads which: the network as a graph of names, for the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from enos_compiler.cores.accounting import executing_core
from enos_compiler.ir.network import Layer, Network, Vector


def topology(network: Network) -> dict[str, Any]:
    """Return inputs, outputs and operations in execution order, each with the ones it reads.

    Constants are left out: they come from no operation. Names are those of the report's rows.
    """
    return {
        "inputs": list(network.inputs),
        "outputs": [network.values[name].producer for name in network.outputs],
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "core": executing_core(network, node.name),
                "reads": list(_readings(network, node)),
            }
            for node in network.nodes()
        ],
    }


def _readings(network: Network, node: Layer | Vector) -> Iterator[str]:
    """Yield the inputs and operations whose values a node reads, each once."""
    producers = (network.values[name].producer for name in node.inputs)
    for name in dict.fromkeys(producers):
        if name in network.inputs or name in network.layers or name in network.vectors:
            yield name
