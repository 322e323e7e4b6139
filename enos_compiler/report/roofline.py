# SPDX-License-Identifier: Apache-2.0
"""How near each layer comes to what its core and the chip's memories allow.

Source: Williams, Waterman and Patterson, "Roofline", CACM 2009 (remembered): attainable operations
per second = min(peak of the processor, bytes per second of the memory x operations per byte).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.base import Rated
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Layer, Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

_BYTE = 8


def roofline(network: Network, target: Target) -> dict[str, Any]:
    """Return the memories' bandwidths and, by layer, its traffic and the peak of its core.

    `memory` is the one that takes longest to move the layer's `bytes`; null where no chip memory
    is touched. `peak_macs_per_ns` holds for the layer's operator and widths; null where the core
    does not state it.
    """
    return {
        "memories": {
            name: {"bytes_per_ns": bits / _BYTE / target.clock_ns}
            for name, bits in target.chip.bits_per_cycle.items()
        },
        "layers": {
            layer.name: _point(layer, target)
            for layer in network.layers.values()
            if layer.choice is not None
        },
    }


def _point(layer: Layer, target: Target) -> dict[str, Any]:
    choice = layer.choice
    if choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    core = target.cores[choice.core]
    moved = moved_bytes(layer.cost_of(choice), target)
    rates = {name: bits / _BYTE for name, bits in target.chip.bits_per_cycle.items()}
    slowest = max(moved, key=lambda name: moved[name] / rates[name], default=None)
    return {
        "memory": slowest,
        "bytes": moved[slowest] if slowest is not None else 0,
        "peak_macs_per_ns": core.peak_macs_per_ns(choice) if isinstance(core, Rated) else None,
    }


def moved_bytes(cost: Cost, target: Target) -> dict[str, int]:
    """Return the bytes that a cost moves in and out of each memory of the chip, if any."""
    words: dict[str, Mapping[Action, int]] = {
        name: {action: cost.events.get(action, 0) for action in (array.read, array.write)}
        for name, array in target.chip.memories.items()
    }
    moved = {
        name: sum(counts.values()) * target.chip.memories[name].word_bits // _BYTE
        for name, counts in words.items()
    }
    return {name: count for name, count in moved.items() if count}
