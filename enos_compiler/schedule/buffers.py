# SPDX-License-Identifier: Apache-2.0
"""Where values lie while a program runs: addresses from their homes, and who may touch them when.

Homes were decided over lifetimes in execution order, so values may share addresses. The rule that
keeps that right on parallel resources is one: two accesses to overlapping addresses, at least one
of them a write, happen in execution order. Running in execution order is therefore always feasible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from enos_compiler.cores.accounting import EdgeItem, layer_of_programming
from enos_compiler.cores.edges import INDEX_BITS
from enos_compiler.cores.homes import root_of
from enos_compiler.errors import PassError
from enos_compiler.ir.network import Layer, Network, Value
from enos_compiler.ir.packing import packed_bytes
from enos_compiler.ir.program import Buffer, Memory, copy_name
from enos_compiler.semantics.widths import SUM_BITS, is_coded, leaves_as_sums, stored_bits


def stored_form(network: Network, value: Value) -> tuple[int, int]:
    """Return the elements of a value and the bits of each: codes, 32-bit sums, 64-bit indices."""
    if not is_coded(value):
        return value.elements, INDEX_BITS
    bits = SUM_BITS if leaves_as_sums(network, value.name) else stored_bits(network, value.name)
    return value.elements, bits


def allocate(
    network: Network, edges: tuple[EdgeItem, ...], memories: Mapping[str, Memory]
) -> dict[str, Buffer]:
    """Return the buffers of all values and narrower copies, by name.

    A copy lies behind its value, and a view where what it views lies. Values without an address
    (in DRAM) get one each, in the order of `network.values`: nothing there shares addresses.

    Raises:
        PassError: a copy does not fit what its value's home reserves.
    """
    roots = {name: root_of(network, name) for name in network.values}
    narrowed = {roots[edge.value] for edge in edges if edge.narrows}
    buffers: dict[str, Buffer] = {}
    free: dict[str, int] = defaultdict(int)
    for value in network.values.values():
        if roots[value.name] != value.name:
            continue
        if value.home is None:
            raise PassError("has no home", place=f"value {value.name}", remedy="attach-choices")
        memory = value.home.memory
        elements, bits = stored_form(network, value)
        size = packed_bytes(elements, bits, memories[memory].word_bits)
        needed = 2 * size if value.name in narrowed else size
        address = value.home.address
        if address is None:
            address = free[memory]
            free[memory] += needed
        elif needed > value.home.reserved_bytes:
            raise PassError(
                f"needs {needed} bytes in {memory}, its home reserves {value.home.reserved_bytes}",
                place=f"value {value.name}",
                remedy="this is a defect of the homes; report it",
            )
        buffers[value.name] = Buffer(value.name, memory, address, size, elements, bits)
    for name, root in roots.items():
        buffers[name] = replace(buffers[root], name=name)
    for edge in edges:
        if edge.narrows:
            copy = _copy(buffers[edge.value], edge, memories)
            buffers[copy.name] = copy
    return buffers


def weights_name(network: Network, layer: Layer) -> str | None:
    """Return the name of the buffer that a layer's weights come from; None where none does.

    Layers that share weights share it; weights that stay in a core are there already.
    """
    if layer.shape.activation_product or layer_of_programming(network, layer) is not None:
        return None
    return f"{layer.tie}.weights"


def place_weights(
    network: Network, buffers: dict[str, Buffer], memory: str, memories: Mapping[str, Memory]
) -> None:
    """Add the buffers of weights that are loaded in every inference, behind all values."""
    free = max(
        (b.address + b.size_bytes for b in buffers.values() if b.memory == memory), default=0
    )
    for layer in network.layers.values():
        name = weights_name(network, layer)
        if name is None or name in buffers or layer.choice is None:
            continue
        elements, bits = layer.shape.volume("Weights"), layer.choice.bits.weight
        size = packed_bytes(elements, bits, memories[memory].word_bits)
        buffers[name] = Buffer(name, memory, free, size, elements, bits)
        free += size


def _copy(whole: Buffer, edge: EdgeItem, memories: Mapping[str, Memory]) -> Buffer:
    """Return the buffer of the copy that a narrowing makes, behind its value."""
    return Buffer(
        name=copy_name(edge.value, edge.consumer),
        memory=whole.memory,
        address=whole.address + whole.size_bytes,
        size_bytes=packed_bytes(whole.elements, edge.bits, memories[whole.memory].word_bits),
        elements=whole.elements,
        bits=edge.bits,
    )


@dataclass(frozen=True, slots=True)
class _Access:
    first: int
    end: int
    task: str
    writes: bool


@dataclass(slots=True)
class Hazards:
    """Finds, in execution order, which earlier tasks a task must wait for."""

    buffers: Mapping[str, Buffer]
    _seen: dict[str, list[_Access]] = field(default_factory=lambda: defaultdict(list))

    def add(self, task: str, reads: tuple[str, ...], writes: tuple[str, ...]) -> tuple[str, ...]:
        """Record a task's accesses and return the earlier tasks that they depend on."""
        accesses = [(self.buffers[name], False) for name in reads]
        accesses += [(self.buffers[name], True) for name in writes]
        waits: dict[str, None] = {}
        for buffer, is_write in accesses:
            end = buffer.address + buffer.size_bytes
            for earlier in self._seen[buffer.memory]:
                overlaps = earlier.first < end and buffer.address < earlier.end
                if overlaps and (is_write or earlier.writes) and earlier.task != task:
                    waits[earlier.task] = None
        for buffer, is_write in accesses:
            new = _Access(buffer.address, buffer.address + buffer.size_bytes, task, is_write)
            seen = self._seen[buffer.memory]
            if is_write:
                seen[:] = [a for a in seen if a.task == task or not _covers(new, a)]
            seen.append(new)
        return tuple(waits)


def _covers(new: _Access, old: _Access) -> bool:
    """Whether whoever waits for `old` will wait for `new`, which itself waits for `old`."""
    return new.first <= old.first and old.end <= new.end
