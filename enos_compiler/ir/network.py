# SPDX-License-Identifier: Apache-2.0
"""The network between passes: an fx graph of canonical operations and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from enos_compiler.ir.choice import Choice, Refusal
from enos_compiler.ir.cost import Cost
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.ir.program import Program
from enos_compiler.ir.shape import LayerShape

if TYPE_CHECKING:
    from torch import Tensor, fx

Fact = Literal[
    "shaped",
    "calibrated",
    "choices",
    "scored",
    "assigned",
    "tuned",
    "quantized",
    "mapped",
    "placed",
    "scheduled",
]

FACTS: tuple[Fact, ...] = get_args(Fact)
"""Facts in the order of the pipeline; ensuring one drops every later one."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a value rests: a memory of the target and, in a shared buffer, its first byte."""

    memory: str
    address: int | None = None
    reserved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor between nodes; its producer sets scale, zero point and width."""

    name: str
    """The fx node whose tensor this is: the last node of a fused chain."""
    shape: tuple[int, ...]
    kind: Literal["input", "constant", "internal"]
    producer: str
    """Layer or vector node, or the value's own name for inputs and constants."""
    dtype: str = "float32"
    range: tuple[float, float] | None = None
    """Least and greatest real value seen in calibration."""
    home: Home | None = None
    format: ValueFormat | None = None
    """None for an output that is dequantised and for values of a float island."""

    @property
    def elements(self) -> int:
        """Number of elements, batch included."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True, slots=True)
class Node:
    """What layers and vector operations share: a place in the graph with values around it."""

    name: str
    """The fx node that computes; norm and activation nodes behind it belong to it."""
    op: str
    inputs: tuple[str, ...]
    """Value names, in operand order."""
    output: str
    """Value name: the node itself or the last node fused behind it."""
    norm: str | None = None
    """The fused batch_norm node, if any."""
    activation: str | None = None
    """The fused relu or clip node, if any; it is the clamp of the requantisation."""
    origin: str = ""
    """The user's module path, for messages."""


@dataclass(frozen=True, slots=True)
class Layer(Node):
    """A compute node and, as passes add them, its annotations."""

    shape: LayerShape = field(default_factory=LayerShape)
    weight: str | None = None
    """Parameter name in the graph module; None for an activation product."""
    bias: str | None = None
    weight_key: str = ""
    """Layers with one key share weights: tied in operator, weight bits, core and core options."""
    first_or_last: bool = False
    """Reached from an input, or reaching an output, without passing another layer."""
    choices: tuple[Choice, ...] = ()
    costs: tuple[Cost, ...] = ()
    """One per choice, for one inference: reloads included, programming of residents not."""
    programming: tuple[Cost, ...] = ()
    """One per choice: writing resident weights, once per N inferences."""
    refusals: tuple[Refusal, ...] = ()
    scores: tuple[float, ...] | None = None
    """One per choice: expected loss of accuracy, in one unit for all layers."""
    choice: Choice | None = None
    quantized: QuantizedLayer | None = None
    mapping: Mapping[str, Any] | None = None
    placement: Mapping[str, Any] | None = None

    @property
    def tie(self) -> str:
        """Layers of one tie share weights; without any, the layer stands alone under its name."""
        return self.weight_key or self.name

    def cost_of(self, choice: Choice) -> Cost:
        """Return the cost per inference of one of the attached choices."""
        return self.costs[self.choices.index(choice)]

    def programming_of(self, choice: Choice) -> Cost:
        """Return the set-up cost of one of the attached choices."""
        return self.programming[self.choices.index(choice)]


@dataclass(frozen=True, slots=True)
class Vector(Node):
    """A node that is no layer: element-wise, pooling, normalisation, data movement."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    core: str = ""
    """The vector unit or the host that executes it."""
    is_float: bool = False
    """A float island, allowed by `--allow-float` only."""
    bits: int = 8
    """Width of the codes it produces; set by assign."""


@dataclass(frozen=True, slots=True)
class Network:
    """The object that travels through the pipeline; passes return changed copies.

    `graph` is treated as immutable too: a pass that changes it works on a copy.
    """

    name: str
    graph: fx.GraphModule
    example_inputs: tuple[Tensor, ...]
    batch: int = 1
    """Leading extent that the shapes are compiled and priced for."""
    batch_is_symbolic: bool = True
    """Whether every shape scales with the batch, so that the ONNX batch may be symbolic."""
    layers: Mapping[str, Layer] = field(default_factory=dict)
    """In execution order."""
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    """In execution order."""
    values: Mapping[str, Value] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    """Value names in the order of the model's result."""
    order: tuple[str, ...] = ()
    """Names of layers and vectors in execution order."""
    facts: frozenset[Fact] = frozenset()
    program: Program | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Versions, seed, spec hash, passes run."""
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What passes say for the report, by pass name."""

    def node(self, name: str) -> Layer | Vector:
        """Return the layer or vector node `name`."""
        return self.layers[name] if name in self.layers else self.vectors[name]

    def nodes(self) -> Iterator[Layer | Vector]:
        """Yield layers and vector nodes in execution order."""
        for name in self.order:
            yield self.node(name)

    def producer(self, value: str) -> Layer | Vector | None:
        """Return the node that computes `value`; None for inputs and constants."""
        producer = self.values[value].producer
        if producer in self.layers or producer in self.vectors:
            return self.node(producer)
        return None

    def consumers(self, value: str) -> tuple[Layer | Vector, ...]:
        """Return the nodes that read `value`, in execution order, each once."""
        return tuple(n for n in self.nodes() if value in n.inputs)

    def edges(self) -> tuple[tuple[str, str, str], ...]:
        """Return (value, producer, consumer) for every read, in execution order.

        The producer of an input or a constant is the value's own name.
        """
        return tuple(
            (value, self.values[value].producer, node.name)
            for node in self.nodes()
            for value in dict.fromkeys(node.inputs)
        )

    def tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer of the graph module by its qualified name."""
        target: Any = self.graph
        for part in name.split("."):
            target = getattr(target, part)
        return target  # type: ignore[no-any-return]

    def with_layers(self, changed: Mapping[str, Layer]) -> Network:
        """Return a copy with some layers replaced, order kept."""
        return replace(self, layers={**self.layers, **changed})

    def with_vectors(self, changed: Mapping[str, Vector]) -> Network:
        """Return a copy with some vector nodes replaced, order kept."""
        return replace(self, vectors={**self.vectors, **changed})

    def with_values(self, changed: Mapping[str, Value]) -> Network:
        """Return a copy with some values replaced."""
        return replace(self, values={**self.values, **changed})

    def with_section(self, name: str, content: Mapping[str, Any]) -> Network:
        """Return a copy with one pass's section of the report set."""
        return replace(self, sections={**self.sections, name: content})

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run at the compiled batch."""
        return sum(layer.shape.macs for layer in self.layers.values())
