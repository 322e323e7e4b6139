# SPDX-License-Identifier: Apache-2.0
"""The task graph of one inference: a task per layer, edge and vector operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import networkx as nx

from enos_compiler.cores.accounting import EdgeItem, Items, executing_core
from enos_compiler.cores.homes import is_view
from enos_compiler.cores.layer_costs import cost_of
from enos_compiler.cores.steps import LayerWork, Step, layer_steps
from enos_compiler.ir.cost import Cost
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.ir.program import Buffer, Memory, OpCode, copy_name
from enos_compiler.schedule.buffers import Hazards, allocate, place_weights, weights_name

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work before it has a time."""

    id: str
    resource: str
    op: OpCode
    cost: Cost
    owner: Mapping[str, str]
    """Whose events these are: one of layer, edge, vector, host, programs, and its name."""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    """Of a layer that runs in steps; its cost's cycles are those of their pipeline."""
    one_port: bool = False
    """Whether its steps load and store through one port."""

    @property
    def cycles(self) -> int:
        """How long it takes alone."""
        return self.cost.cycles


@dataclass(slots=True)
class TaskGraph:
    """Tasks in execution order, their dependencies and their buffers."""

    tasks: dict[str, Task] = field(default_factory=dict)
    graph: nx.DiGraph[str] = field(default_factory=nx.DiGraph)
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def resources(self) -> tuple[str, ...]:
        """Return what tasks occupy as a whole, in the order of the first task on each."""
        return tuple(dict.fromkeys(task.resource for task in self.tasks.values()))


def inference_tasks(network: Network, target: Target, items: Items) -> TaskGraph:
    """Return the task graph of one inference.

    A task waits for the producers of what it reads, for the transfers to its node, and for every
    earlier access to addresses that overlap what it reads or writes. An operation that leaves its
    codes where they are, for nothing, is no task: who reads its output waits for what it read.
    """
    memories = memories_of(target)
    found = TaskGraph(buffers=allocate(network, items.edges, memories))
    place_weights(network, found.buffers, target.chip.dram, memories)
    hazards = Hazards(found.buffers)
    into: dict[str, list[EdgeItem]] = {}
    for edge in items.edges:
        into.setdefault(edge.consumer, []).append(edge)
    made: dict[str, tuple[str, ...]] = {}
    for node in network.nodes():
        edges = into.get(node.name, [])
        for edge in edges:
            _add(found, hazards, _edge_task(edge, target), made)
        copies = {
            edge.value: copy_name(edge.value, edge.consumer) for edge in edges if edge.narrows
        }
        reads = tuple(copies.get(v, v) for v in dict.fromkeys(node.inputs))
        task = _node_task(network, node, target, items, reads)
        handed = tuple(_edge_id(edge) for edge in edges)
        if _does_nothing(network, node, task.cost):
            made[node.output] = (*_producers(reads, made), *handed)
            continue
        _add(found, hazards, task, made)
        found.graph.add_edges_from((edge, task.id) for edge in handed)
    return found


def memories_of(target: Target) -> dict[str, Memory]:
    """Return the chip's memories as a program states them."""
    return {
        name: Memory(array.capacity_bits // 8, array.word_bits, array.read, array.write)
        for name, array in target.memories.items()
    }


def set_up_tasks(network: Network, items: Items) -> TaskGraph:
    """Return the tasks that write resident weights, once per many inferences."""
    found = TaskGraph()
    for name, cost in items.programming.items():
        task = Task(
            f"program:{name}",
            executing_core(network, name),
            "program-weights",
            cost,
            {"programs": name},
        )
        found.tasks[task.id] = task
        found.graph.add_node(task.id)
    return found


def _does_nothing(network: Network, node: Layer | Vector, cost: Cost) -> bool:
    view = isinstance(node, Vector) and is_view(network, node)
    return view and not cost.events and not cost.cycles


def _add(found: TaskGraph, hazards: Hazards, task: Task, made: dict[str, tuple[str, ...]]) -> None:
    """Add a task with what it waits for; `made` names the tasks behind each buffer."""
    found.tasks[task.id] = task
    found.graph.add_node(task.id)
    waits = hazards.add(task.id, task.reads, task.writes)
    before = (*waits, *_producers(task.reads, made))
    found.graph.add_edges_from((earlier, task.id) for earlier in before)
    made.update(dict.fromkeys(task.writes, (task.id,)))


def _producers(reads: tuple[str, ...], made: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield the tasks behind the buffers that are read; inputs have none."""
    for name in reads:
        yield from made.get(name, ())


def _edge_id(edge: EdgeItem) -> str:
    return f"edge:{edge.name}"


def _edge_task(edge: EdgeItem, target: Target) -> Task:
    """A transfer occupies its link; a narrowing on one core occupies the vector unit."""
    owners = sorted({action.split(".", maxsplit=1)[0] for action in edge.cost.events})
    link = next((owner for owner in owners if owner in target.links), None)
    return Task(
        id=_edge_id(edge),
        resource=link or target.vector_unit.name,
        op="transfer" if link else "vector",
        cost=edge.cost,
        owner={"edge": edge.name},
        reads=(edge.value,),
        writes=(copy_name(edge.value, edge.consumer),) if edge.narrows else (),
    )


def _layer_task(
    network: Network, layer: Layer, target: Target, cost: Cost, reads: tuple[str, ...]
) -> Task:
    if layer.choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    whole = Task(
        id=f"layer:{layer.name}",
        resource=layer.choice.core,
        op="compute",
        cost=cost,
        owner={"layer": layer.name},
        reads=reads,
        writes=(layer.output,),
    )
    told = cost_of(network, layer, layer.choice, target).detail.get("work")
    if told is None:
        return whole
    work = LayerWork.from_detail(told)
    steps = layer_steps(layer.shape, work, cost.events)
    weights = weights_name(network, layer)
    reads = (*reads, weights) if weights else reads
    return replace(whole, reads=reads, steps=steps, one_port=work.one_port)


def _node_task(
    network: Network, node: Layer | Vector, target: Target, items: Items, reads: tuple[str, ...]
) -> Task:
    core = executing_core(network, node.name)
    op: OpCode
    if isinstance(node, Layer):
        return _layer_task(network, node, target, items.layers[node.name], reads)
    if node.name in items.host:
        op, kind, cost = "host", "host", items.host[node.name]
    else:
        op, kind, cost = "vector", "vector", items.vectors[node.name]
    return Task(f"{kind}:{node.name}", core, op, cost, {kind: node.name}, reads, (node.output,))
