# SPDX-License-Identifier: Apache-2.0
"""Which arrays of a chip the weights of its layers fill: the map of utilisation in the report.

Layers run one after another, so tiles of different layers may share an array; tiles of one layer
are read at once, so each lies in an array of its own. An assignment within the core's capacities
always fits its arrays, see `crossbar.packing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.accounting import pays_for_weights
from enos_compiler.cores.crossbar_data import tile_requests
from enos_compiler.crossbar.packing import Packing, TileRequest, pack
from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


def crossbar_map(
    network: Network, target: Target, details: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return, by core and size of array, which arrays resident weights fill and how far.

    A network that needs more arrays than the chip has (the baseline may) is drawn on as many as it
    needs; `used` then exceeds `count`.

    Args:
        network: assigned.
        target: the chip.
        details: placements by layer name, as crossbar cores give them (see `crossbar_data`).
    """
    wanted: dict[tuple[str, int, int], list[TileRequest]] = {}
    for name, detail in details.items():
        layer = network.layers[name]
        if layer.choice is None or "matrices" not in detail or not detail["resident"]:
            continue
        size = (layer.choice.core, int(detail["rows"]), int(detail["columns"]))
        if pays_for_weights(network, layer):
            wanted.setdefault(size, []).extend(tile_requests(name, detail))
    return [
        _filled(size, requests, target.cores[size[0]].capacities()[f"arrays_{size[1]}"])
        for size, requests in sorted(wanted.items())
    ]


def _filled(size: tuple[str, int, int], requests: list[TileRequest], count: int) -> dict[str, Any]:
    core, rows, columns = size
    packing = pack(requests, rows, columns, max(count, len(requests)))
    return {
        "core": core,
        "rows": rows,
        "columns": columns,
        "count": count,
        "used": packing.arrays,
        "utilisation": packing.utilisation,
        "arrays": _alike(packing, rows * columns),
    }


def _alike(packing: Packing, cells: int) -> list[dict[str, Any]]:
    """Return arrays filled alike, in the order of their first."""
    filled: dict[int, int] = {}
    layers: dict[int, dict[str, None]] = {}
    for site in packing.sites:
        area = site.request.rows * site.request.columns
        filled[site.array] = filled.get(site.array, 0) + area
        layers.setdefault(site.array, {})[site.request.layer] = None
    alike = Counter((filled[a] / cells, tuple(layers[a])) for a in sorted(filled))
    return [
        {"utilisation": share, "layers": list(names), "count": number}
        for (share, names), number in alike.items()
    ]
