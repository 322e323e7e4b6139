# SPDX-License-Identifier: Apache-2.0
"""Rules that hold between passes; a broken one names the pass, the place and the rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from enos_compiler.errors import VerifyError
from enos_compiler.ir.network import Fact, Layer, Network

Problem = tuple[str, str]
"""Place and broken rule."""


def verify(network: Network, after: str) -> None:
    """Check every rule that the network's facts imply.

    Raises:
        VerifyError: names the pass `after`, the layer or value, and the rule.
    """
    for fact, rule in _RULES:
        if fact is None or fact in network.facts:
            for place, problem in rule(network):
                raise VerifyError(problem, place=f"after pass {after}: {place}")


def _graph(network: Network) -> Iterator[Problem]:
    names = {node.name for node in network.graph.graph.nodes}
    for node in network.nodes():
        chain = [n for n in (node.name, node.norm, node.activation, node.output) if n]
        for name in chain:
            if name not in names:
                yield node.name, f"names the node `{name}`, which the graph does not have"
        for value in (*node.inputs, node.output):
            if value not in network.values:
                yield node.name, f"reads or writes the unknown value `{value}`"
    if set(network.order) != set(network.layers) | set(network.vectors):
        yield "order", "must list every layer and vector node exactly once"
    if len(set(network.order)) != len(network.order):
        yield "order", "lists a node twice"
    for name in (*network.inputs, *network.outputs):
        if name not in network.values:
            yield name, "is an input or output without a value"


def _order(network: Network) -> Iterator[Problem]:
    ready = {v.name for v in network.values.values() if v.kind != "internal"}
    for node in network.nodes():
        for value in node.inputs:
            if value not in ready:
                yield node.name, f"reads `{value}` before it is produced"
        if node.output in ready:
            yield node.name, f"produces `{node.output}` a second time"
        if network.values[node.output].producer != node.name:
            yield node.output, f"names another producer than {node.name}"
        ready.add(node.output)


def _shapes(network: Network) -> Iterator[Problem]:
    for layer in network.layers.values():
        elements = network.values[layer.output].elements
        if layer.shape.volume("Outputs") != elements:
            yield layer.name, f"shape {layer.shape} gives {elements} outputs wrongly"
        if layer.weight is not None:
            count = network.tensor(layer.weight).numel()
            if layer.shape.volume("Weights") != count:
                yield layer.name, f"shape {layer.shape} does not fit {count} weights"
            if not layer.weight_key:
                yield layer.name, "has weights but no weight_key"


def _calibrated(network: Network) -> Iterator[Problem]:
    for value in network.values.values():
        if value.dtype == "float32":
            if value.range is None:
                yield value.name, "has no calibrated range"
            elif not value.range[0] <= value.range[1]:
                yield value.name, f"has the impossible range {value.range}"


def _choices(network: Network) -> Iterator[Problem]:
    for layer in network.layers.values():
        if not layer.choices:
            yield layer.name, "has no choice"
        if not len(layer.choices) == len(layer.costs) == len(layer.programming):
            yield layer.name, "needs one cost and one programming cost per choice"
        if len(set(layer.choices)) != len(layer.choices):
            yield layer.name, "lists a choice twice"
        for cost in (*layer.costs, *layer.programming):
            for action, count in cost.events.items():
                if type(count) is not int or count < 0:
                    yield layer.name, f"{action} = {count!r} must be a whole number >= 0"
    for value in network.values.values():
        if value.home is None:
            yield value.name, "has no home"


def _scored(network: Network) -> Iterator[Problem]:
    for layer in network.layers.values():
        if layer.scores is None or len(layer.scores) != len(layer.choices):
            yield layer.name, "needs one score per choice"
        elif any(not score < float("inf") for score in layer.scores):
            yield layer.name, "has a score that is not a finite number"


def _assigned(network: Network) -> Iterator[Problem]:
    tied: dict[str, Layer] = {}
    for layer in network.layers.values():
        if layer.choice is None or layer.choice not in layer.choices:
            yield layer.name, "is not assigned one of its choices"
            continue
        first = tied.setdefault(layer.tie, layer)
        if first.choice and first.choice.tied_fields != layer.choice.tied_fields:
            yield layer.name, f"shares weights with {first.name} but is assigned differently"
        for value in layer.inputs:
            width = _stored_bits(network, value)
            if width is not None and layer.choice.bits.input > width:
                yield (
                    layer.name,
                    f"reads {layer.choice.bits.input} bits of the {width} in `{value}`",
                )


def _stored_bits(network: Network, value: str) -> int | None:
    producer = network.producer(value)
    if producer is None:
        return None
    if isinstance(producer, Layer):
        return producer.choice.bits.output if producer.choice else None
    return None if producer.is_float else producer.bits


def _quantized(network: Network) -> Iterator[Problem]:
    for layer in network.layers.values():
        if layer.quantized is None:
            yield layer.name, "has no integer form"
    for value in network.values.values():
        form = value.format
        if form is None:
            continue
        if form.zero_point % 2:
            yield value.name, f"zero point {form.zero_point} is odd"
        if not 0 <= form.low <= form.high <= 2**form.bits - 1:
            yield value.name, f"code bounds {form.low}..{form.high} leave {form.bits} bits"


def _scheduled(network: Network) -> Iterator[Problem]:
    if network.program is None:
        yield "program", "is missing"
        return
    ends = {i.id: i.end_ns for i in network.program.instructions}
    busy: dict[str, float] = {}
    for instruction in sorted(network.program.instructions, key=lambda i: (i.start_ns, i.end_ns)):
        for earlier in instruction.after:
            if ends[earlier] > instruction.start_ns:
                yield instruction.id, f"starts before {earlier} has ended"
        if busy.get(instruction.resource, 0.0) > instruction.start_ns:
            yield instruction.id, f"overlaps another on {instruction.resource}"
        busy[instruction.resource] = instruction.end_ns


_RULES: tuple[tuple[Fact | None, Callable[[Network], Iterator[Problem]]], ...] = (
    ("shaped", _graph),
    ("shaped", _order),
    ("shaped", _shapes),
    ("calibrated", _calibrated),
    ("choices", _choices),
    ("scored", _scored),
    ("assigned", _assigned),
    ("quantized", _quantized),
    ("scheduled", _scheduled),
)
