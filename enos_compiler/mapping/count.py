# SPDX-License-Identifier: Apache-2.0
"""Counting: from a nest to accesses, transfers, cycles, in the way Timeloop counts.

Source: the counting rules of NVlabs/timeloop 4cf6d4c and, for operands of different width, of
ehw-fit/timeloop-with-quantization ad96bc3 (arXiv 2404.05368); rules reconstructed, and held to both
programs' output by `enos_compiler.mapping.reference`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor, prod

from enos_compiler.mapping.events import (
    Ingress,
    LevelEvents,
    NestEvents,
    TensorEvents,
    WireEvents,
)
from enos_compiler.mapping.machine import Machine, StorageLevel
from enos_compiler.mapping.nest import Nest, check_nest, operands_per_word, tile_boxes
from enos_compiler.mapping.problem import Problem, TensorSpec
from enos_compiler.mapping.reuse import Loop, Sliding, Step, delivered, tile_steps
from enos_compiler.mapping.spread import Fanout, Traffic, child_offsets, spread


@dataclass(frozen=True, slots=True)
class CountingRule:
    """Choices of the counting rule; the defaults are the reference's."""

    sliding: Sliding = "two-iteration"
    """How far overlap of successive input tiles is kept; see `reuse.Sliding`."""
    forwarding: bool = True
    """Whether neighbours pass data on where the nest does not forbid it. The reference checks the
    four neighbours and the one step before, and lets a row of MACs keep a running sum for free."""

    def describe(self) -> str:
        """Return the rule in a sentence."""
        sliding = {
            "two-iteration": "input tiles overlap as far as Timeloop's two-iteration walk sees",
            "innermost": "input tiles overlap along the innermost loop that moves them",
            "exact": "input tiles keep every element that the next one needs",
        }[self.sliding]
        passing = "neighbours pass data on" if self.forwarding else "no data between neighbours"
        name = _NAMES.get(self, "a rule of its own")
        return f"counted by {name}: {sliding}; {passing}"


REFERENCE = CountingRule()
PLAIN = CountingRule(sliding="innermost", forwarding=False)
"""The rule that the mapper optimises: additive along the hierarchy."""
EXACT = CountingRule(sliding="exact", forwarding=False)
"""What buffers that each hold one tile do, element by element."""


_NAMES = {
    REFERENCE: "the reference rule (Timeloop's)",
    PLAIN: "the plain rule",
    EXACT: "the exact rule",
}


@dataclass(slots=True)
class _Flow:
    """Traffic of one tensor through one level while the rules are applied to it."""

    size: int
    partition: int
    accesses: dict[tuple[int, int], Fraction]
    hops: dict[tuple[int, int], float]
    links: int
    fanout: int
    sent: Fraction = field(init=False)
    """Accesses that this level serves to the inside."""
    share: Fraction = Fraction(0)
    """Elements that one instance of this level receives from outside."""
    peer: Fraction = Fraction(0)
    """Elements that one instance receives from, and gives to, its neighbours."""

    def __post_init__(self) -> None:
        self.sent = sum(self.accesses.values(), Fraction(0))

    @property
    def received(self) -> Fraction:
        """Elements received by all children together."""
        return sum((key[0] * count for key, count in self.accesses.items()), Fraction(0))


def count_events(
    problem: Problem,
    machine: Machine,
    nest: Nest,
    *,
    bits: Mapping[str, int] | Sequence[Mapping[str, int]] | None = None,
    finished: Sequence[Mapping[str, int]] | None = None,
    rule: CountingRule = REFERENCE,
) -> NestEvents:
    """Count every event of `nest`.

    Args:
        problem: bounds and tensors.
        machine: levels, fan-outs and limits.
        nest: the mapping.
        bits: operand width of each tensor, for all levels or level by level; None lets every
            operand take one word.
        finished: widths by level that hold instead where no sum comes back to its home unfinished.
        rule: how reuse is counted.

    Raises:
        MappingError: the nest does not fit the machine.
    """
    widths = _per_level(bits, len(machine.levels))
    check_nest(problem, machine, nest, widths)
    loops = _flatten(problem, nest)
    flows = {
        tensor.name: _tensor_flows(problem, machine, nest, tensor, loops, rule)
        for tensor in problem.tensors
    }
    if finished is not None and not _sums_return(problem, nest, flows):
        widths = finished
    compute_cycles = nest.compute_cycles
    levels = [
        _level_events(problem, machine, nest, flows, s, None if widths is None else widths[s])
        for s in range(len(machine.levels))
    ]
    busy = max(compute_cycles, *(level.cycles for level in levels))
    latency = sum(
        level.network.fill_latency_cycles + level.network.drain_latency_cycles
        for level in machine.levels
    )
    wires = [
        {tensor.name: _wire_events(machine, flows, tensor, s, widths) for tensor in problem.tensors}
        for s in range(len(machine.levels))
    ]
    return NestEvents(
        macs=problem.macs,
        compute_cycles=compute_cycles,
        busy_cycles=busy,
        cycles=busy + latency,
        used_macs=nest.used_macs,
        levels=tuple(levels),
        wires=tuple(wires),
    )


def _sums_return(problem: Problem, nest: Nest, flows: Mapping[str, Sequence[_Flow]]) -> bool:
    """Whether the home of a tensor that collects sums hands any of them back in."""
    ends = (
        flows[tensor.name][nest.home(tensor.name)]
        for tensor in problem.tensors
        if tensor.read_write
    )
    return any(_round(flow.sent + flow.peer - flow.partition) for flow in ends)


def _per_level(
    bits: Mapping[str, int] | Sequence[Mapping[str, int]] | None, levels: int
) -> Sequence[Mapping[str, int]] | None:
    if bits is None:
        return None
    return [bits] * levels if isinstance(bits, Mapping) else bits


def _flatten(problem: Problem, nest: Nest) -> tuple[list[Loop], list[Loop]]:
    """Temporal and spatial loops, each inner to outer over the whole nest."""
    stride = dict.fromkeys(problem.dims, 1)
    temporal: list[Loop] = []
    spatial: list[Loop] = []
    for level, entry in enumerate(nest.levels):
        inside_out = ((spatial, reversed(entry.spatial)), (temporal, reversed(entry.temporal)))
        for target, loops in inside_out:
            for dim, factor in loops:
                target.append(Loop(level, dim, factor, stride[dim]))
                stride[dim] *= factor
    return temporal, spatial


def _tensor_flows(
    problem: Problem,
    machine: Machine,
    nest: Nest,
    tensor: TensorSpec,
    loops: tuple[list[Loop], list[Loop]],
    rule: CountingRule,
) -> list[_Flow]:
    """Traffic of one tensor at every level, bypasses applied."""
    sizes = [tensor.volume(box) for box in tile_boxes(problem, nest)]
    home = nest.home(tensor.name)
    partitions = _partitions(problem, nest, tensor, sizes, home)
    flows = []
    for s in range(len(nest.levels)):
        traffic = (
            _traffic(problem, machine, nest, tensor, loops, s, rule) if s <= home else Traffic()
        )
        accesses = {key: Fraction(count) for key, count in traffic.accesses.items()}
        fanout = prod(loop.factor for loop in loops[1] if loop.level == s)
        flows.append(
            _Flow(sizes[s], partitions[s], accesses, traffic.hops, traffic.link_transfers, fanout)
        )
    for s in range(home):
        flows[s].share = flows[s + 1].received / flows[s + 1].fanout
    _bypass(nest, tensor, flows, home)
    for s in range(1, home + 1):
        if flows[s].links:
            flows[s - 1].peer += Fraction(flows[s].links, nest.instances(s - 1))
    return flows


def _partitions(
    problem: Problem, nest: Nest, tensor: TensorSpec, sizes: Sequence[int], home: int
) -> list[int]:
    """Distinct elements that one instance of each level sees; floored level by level."""
    parts = [0] * len(sizes)
    parts[home] = tensor.volume(dict(problem.bounds))
    inner = [dict.fromkeys(problem.dims, 1), *tile_boxes(problem, nest)]
    for s in range(home - 1, -1, -1):
        outside = nest.levels[s + 1]
        parts[s] = parts[s + 1]
        if outside.spatial:
            span = dict(inner[s + 1])
            for dim, factor in outside.spatial:
                span[dim] *= factor
            parts[s] = parts[s + 1] * sizes[s] // tensor.volume(span)
    return parts


def _traffic(
    problem: Problem,
    machine: Machine,
    nest: Nest,
    tensor: TensorSpec,
    loops: tuple[list[Loop], list[Loop]],
    s: int,
    rule: CountingRule,
) -> Traffic:
    """What level `s` exchanges with its children, as if it kept the tensor."""
    above = [loop for loop in loops[0] if loop.level >= s]
    across = [loop for loop in loops[1] if loop.level == s]
    if s == 0:
        extents = tuple(1 for _ in tensor.ranks)
    else:
        extents = tensor.extents(tile_boxes(problem, nest)[s - 1])
    steps = tile_steps(tensor, extents, above, rule.sliding)
    whole = tuple((0, extent) for extent in extents)
    if s == 0:  # a MAC keeps nothing from one cycle to the next
        steps = [Step(step.weight, step.translation, (whole,), step.factor) for step in steps]
    if not across:
        count = delivered(steps, prod(extents))
        return Traffic({(1, 1): count}, {(1, 1): 0.0})
    entry = nest.levels[s]
    mesh_x, mesh_y = machine.fanout(s)
    fanout = Fanout(
        offsets=child_offsets(tensor, across),
        columns=max(mesh_x, entry.used_x),
        rows=max(mesh_y, entry.used_y),
        multicast=tensor.name not in entry.no_multicast,
        forwarding=rule.forwarding and tensor.name not in entry.no_forwarding,
    )
    first = Step(1, tuple(0 for _ in extents), (whole,), 1)
    return spread(fanout, steps, first)


def _bypass(nest: Nest, tensor: TensorSpec, flows: list[_Flow], home: int) -> None:
    """Let the level outside serve what a bypassed level would have served."""
    for s in range(home):
        if tensor.name in nest.levels[s].keep:
            continue
        inner, outer = flows[s], flows[s + 1]
        scale = inner.sent * outer.fanout / outer.received
        outer.accesses = {key: count * scale for key, count in outer.accesses.items()}
        outer.links = 0
        outer.sent = sum(outer.accesses.values(), Fraction(0))
        inner.size = inner.partition = 0
        inner.sent = inner.share = Fraction(0)


def _round(value: Fraction) -> int:
    """Nearest integer, half away from zero."""
    return floor(value + Fraction(1, 2)) if value >= 0 else -floor(-value + Fraction(1, 2))


def _tensor_events(
    tensor: TensorSpec, flow: _Flow, spec: StorageLevel, per_word: int, at_home: bool
) -> TensorEvents:
    """Counts of a kept tensor, packed into words."""
    if tensor.read_write:
        updates = _round(flow.sent)
        reads = reductions = _round(flow.sent + flow.peer - flow.partition)
        fills = _round(flow.share + flow.peer - (0 if at_home else flow.partition))
    else:
        updates = reductions = 0
        reads = _round(flow.sent + flow.peer)
        fills = int(flow.share + flow.peer)

    def packed(count: int) -> int:
        return -(-count // per_word)

    def blocks(count: int) -> int:
        return -(-packed(count) // spec.block_size)

    return TensorEvents(
        keep=True,
        tile_size=flow.size,
        partition_size=flow.partition,
        utilized_capacity=packed(flow.size),
        reads=packed(reads),
        fills=packed(fills),
        updates=packed(updates),
        temporal_reductions=packed(reductions),
        address_generations=packed(updates if tensor.read_write else reads) + packed(fills),
        vector_reads=blocks(reads),
        vector_fills=blocks(fills),
        vector_updates=blocks(updates),
    )


def _level_events(
    problem: Problem,
    machine: Machine,
    nest: Nest,
    flows: Mapping[str, Sequence[_Flow]],
    s: int,
    bits: Mapping[str, int] | None,
) -> LevelEvents:
    spec = machine.levels[s]
    x, y = nest.outside(s)
    tensors = {}
    for tensor in problem.tensors:
        per_word = operands_per_word(machine, s, tensor.name, bits)
        tensors[tensor.name] = (
            _tensor_events(
                tensor, flows[tensor.name][s], spec, per_word, s == nest.home(tensor.name)
            )
            if tensor.name in nest.levels[s].keep
            else TensorEvents()
        )
    slowdown = _slowdown(spec, list(tensors.values()), nest.compute_cycles)
    return LevelEvents(
        name=spec.name,
        instances=nest.instances(s),
        expansion=(x, y),
        clusters=min(x * y, spec.instances // spec.cluster_size),
        cycles=ceil(nest.compute_cycles / slowdown),
        slowdown=slowdown,
        tensors=tensors,
    )


def _slowdown(spec: StorageLevel, events: Sequence[TensorEvents], compute_cycles: int) -> float:
    """Speed that the level's bandwidth allows, as a fraction of full speed.

    In floating point and in this order: where the traffic takes a whole number of cycles, the last
    bit decides whether the reference counts one more.
    """
    reads = sum(event.reads / compute_cycles for event in events)
    writes = sum((event.fills + event.updates) / compute_cycles for event in events)
    limits = (
        (spec.read_bandwidth, reads),
        (spec.write_bandwidth, writes),
        (spec.shared_bandwidth, reads + writes),
    )
    return min([1.0, *(limit / need for limit, need in limits if limit is not None and need > 0)])


def _wire_events(
    machine: Machine,
    flows: Mapping[str, Sequence[_Flow]],
    tensor: TensorSpec,
    s: int,
    widths: Sequence[Mapping[str, int]] | None,
) -> WireEvents:
    flow, spec = flows[tensor.name][s], machine.levels[s]
    per_word = operands_per_word(machine, s, tensor.name, None if widths is None else widths[s])
    twice = tensor.read_write and not spec.reduction_supported
    ingresses = []
    reductions = Fraction(0)
    passes = Fraction(0)
    for key, accesses in flow.accesses.items():
        words = 2 * accesses - flow.partition if twice else accesses
        if per_word > 1:
            words = Fraction(ceil(words), per_word)
        hops = flow.hops[key]
        if words:
            reductions = Fraction(int(reductions + (key[0] - 1) * words))
            passes = Fraction(int(passes + (1 + floor(Fraction(hops) / words)) * words))
        ingresses.append(Ingress(key[0], key[1], float(words), hops))
    return WireEvents(
        fanout=flow.fanout,
        multicast_factor=max((key[0] for key, n in flow.accesses.items() if n), default=0),
        ingresses=tuple(ingresses),
        link_transfers=-(-flow.links // per_word),
        spatial_reductions=int(reductions) if tensor.read_write else 0,
        router_passes=int(passes),
    )
