# SPDX-License-Identifier: Apache-2.0
"""What lies between layers: link transfers, narrowing, vector and host operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enos_compiler.cores.homes import is_view
from enos_compiler.cores.host import Host
from enos_compiler.cores.memory import Chip, Traffic
from enos_compiler.cores.vector import VectorUnit
from enos_compiler.errors import SpecError
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Network, Value, Vector
from enos_compiler.semantics.movement import SELECTING
from enos_compiler.semantics.widths import is_coded
from enos_compiler.spec import LinkSpec

INDEX_BITS = 64
"""Width of a token index, which carries no format."""


@dataclass(frozen=True, slots=True)
class Between:
    """Prices what happens between the layers of one chip."""

    chip: Chip
    vector_unit: VectorUnit
    host: Host
    links: Mapping[frozenset[str], LinkSpec]

    def edge_cost(
        self,
        value: Value,
        stored_bits: int,
        producer_core: str,
        consumer_core: str,
        consumer_bits: int,
    ) -> Cost:
        """Return the cost of handing a value to one consumer.

        A consumer narrower than the stored width gets a copy beside the value: one read at the
        stored width, one requantisation per element, one write at its own width. Between two
        cores that a link joins, the codes that are read cross it; cores without a link meet in
        the memory that is the value's home.
        """
        width = min(stored_bits, consumer_bits)
        events: Counter[Action] = Counter()
        cycles = 0
        if width < stored_bits:
            traffic = Traffic(self.chip)
            memory = self._memory(value)
            traffic.read(memory, value.elements, stored_bits)
            traffic.write(memory, value.elements, width)
            work, lane_cycles = self.vector_unit.work({"requantise": value.elements})
            events.update(traffic.events)
            events.update(work)
            cycles += max(traffic.cycles, lane_cycles)
        link = self.links.get(frozenset((producer_core, consumer_core)))
        if link is not None and producer_core != consumer_core:
            bits = value.elements * width
            events[link_action(link)] += bits
            cycles += -(-bits // link.bits_per_cycle.value)
        return Cost(events=dict(events), cycles=cycles, clock_ns=self.chip.clock_ns)

    def vector_cost(
        self,
        vector: Vector,
        network: Network,
        input_bits: int | Sequence[int],
        output_bits: int,
    ) -> Cost:
        """Return the cost of an operation: inputs from their homes, work, output to its home.

        `input_bits` is one width for all coded inputs, or one for each input in operand order.
        Float islands run on the host, which also pays for every byte that passes it. A view costs
        nothing: it moves no code.
        """
        from enos_compiler.semantics.registry import vector_op

        if is_view(network, vector):
            return Cost(clock_ns=self.chip.clock_ns)
        output = network.values[vector.output]
        inputs = [network.values[v] for v in vector.inputs]
        traffic = Traffic(self.chip)
        moved_bits = 0
        widths = [input_bits] * len(inputs) if isinstance(input_bits, int) else input_bits
        for value, asked in zip(inputs, widths, strict=True):
            width = asked if is_coded(value) else INDEX_BITS
            elements = value.elements
            if vector.op in SELECTING:
                elements = min(elements, output.elements)
            traffic.read(self._memory(value), elements, width)
            moved_bits += elements * width
        traffic.write(self._memory(output), output.elements, output_bits)
        moved_bits += output.elements * output_bits
        operations = vector_op(vector.op).lane_operations(
            tuple(v.shape for v in inputs), output.shape, vector.attributes
        )
        if vector.is_float or vector.core == self.host.name:
            work, cycles = self.host.work(operations, -(-moved_bits // 8))
        else:
            work, cycles = self.vector_unit.work(operations)
        events = traffic.events + work
        return Cost(
            events={a: n for a, n in sorted(events.items()) if n},
            cycles=max(cycles, traffic.cycles),
            clock_ns=self.chip.clock_ns,
        )

    def _memory(self, value: Value) -> str:
        if value.home is None:
            raise SpecError(
                "has no home yet",
                place=value.name,
                remedy="run attach-choices before pricing edges and vector operations",
            )
        return value.home.memory


def link_action(link: LinkSpec) -> Action:
    """Return the action of one bit that crosses a link."""
    return f"{link.name}.wire/transfer_bit"
