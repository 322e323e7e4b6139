# SPDX-License-Identifier: Apache-2.0
"""Small networks and an invented chip, for tests of assignment, schedule and report.

Prices are whole pJ, so that energies are exact. Nothing here is traced or trained.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

from enos_compiler.cores.base import CoreCost, Homes
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Cost
from enos_compiler.ir.network import Home, Layer, Network, Value, Vector
from enos_compiler.ir.shape import LayerShape

BUFFER = Home("buffer", 0, 64)
DRAM = Home("dram")


@dataclass
class TinyCore:
    """A core that takes mac (and what `operators` says) at any widths."""

    name: str
    kind: str = "digital"
    operators: tuple[str, ...] = ("mac",)
    crossbars: int | None = None
    """How many there are; a layer holds one per 8 weight-bit channels."""
    resident: bool = False
    leakage: float = 0.0

    def choices(
        self,
        layer: Layer,  # noqa: ARG002  # the contract's parameter
        operators: Iterable[str],
        widths: Iterable[Bits],
        *,
        signed_input: bool,  # noqa: ARG002  # the contract's parameter
    ) -> Iterable[Choice | Refusal]:
        for operator in operators:
            if operator not in self.operators:
                yield Refusal(self.name, operator, f"{self.kind} cores do not execute {operator}")
                continue
            for bits in widths:
                yield Choice(self.name, operator, bits)

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:  # noqa: ARG002
        rng = random.Random(f"{layer.name}/{choice}")
        work = layer.shape.macs * choice.bits.weight
        events = {
            f"{self.name}.pe/operate": work + rng.randrange(8),
            f"{self.name}.port/read": 3 * choice.bits.input + choice.bits.output,
        }
        programming = (
            Cost({f"{self.name}.cell/write": 100 * choice.bits.weight}, cycles=50)
            if self.resident
            else Cost()
        )
        detail = {"layer": layer.name, "choice": str(choice)}
        return CoreCost(Cost(events, cycles=work // 4 + 1), programming, detail)

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, int]:  # noqa: ARG002
        return {} if self.crossbars is None else {"crossbars": choice.bits.weight // 4 + 1}

    def capacities(self) -> Mapping[str, int]:
        return {} if self.crossbars is None else {"crossbars": self.crossbars}

    def leakage_mw(self) -> float:
        return self.leakage


def _memory(name: str) -> SimpleNamespace:
    """Return a memory of bytes."""
    return SimpleNamespace(
        capacity_bits=8 << 20, word_bits=8, read=f"{name}.array/read", write=f"{name}.array/write"
    )


@dataclass
class TinyTarget:
    """An invented chip."""

    cores: dict[str, TinyCore]
    link_pj: int = 2
    narrow_pj: int = 5
    inferences_per_programming: int = 10
    name: str = "tiny"
    spec_sha256: str = "0" * 64
    vector_unit: Any = field(default_factory=lambda: SimpleNamespace(name="vec"))
    host: Any = field(default_factory=lambda: SimpleNamespace(name="host"))
    memories: dict[str, Any] = field(
        default_factory=lambda: {name: _memory(name) for name in ("buffer", "dram")}
    )
    clock_ns: float = 1.0
    chip: Any = field(
        default_factory=lambda: SimpleNamespace(bits_per_cycle={}, memories={}, dram="dram")
    )
    links: dict[str, Any] = field(default_factory=lambda: {"link": SimpleNamespace(name="link")})

    def energy_pj(self, action: str) -> float:
        owner = action.split(".", maxsplit=1)[0]
        prices = {"link": self.link_pj, "narrow": self.narrow_pj, "vec": 1, "host": 7, "xbar": 2}
        return float(prices.get(owner, 3))

    def source(self, action: str) -> str:
        return f"invented for {action}"

    def edge_cost(
        self, value: Value, stored: int, producer_core: str, consumer_core: str, bits: int
    ) -> Cost:
        events, cycles = {}, 0
        layer_cores = set(self.cores)
        if producer_core != consumer_core and {producer_core, consumer_core} <= layer_cores:
            events["link.wire/transfer"] = value.elements * bits
            cycles += 2
        if bits < stored:
            events["narrow.lane/requantise"] = value.elements * (stored - bits)
            cycles += 3
        return Cost(events, cycles)

    def vector_cost(
        self, vector: Vector, network: Network, input_bits: int, output_bits: int
    ) -> Cost:
        amount = network.values[vector.output].elements * (
            len(vector.inputs) * input_bits + output_bits
        )
        return Cost({f"{vector.core}.lane/operate": amount}, cycles=4)

    def leakage_mw(self) -> float:
        return sum(core.leakage for core in self.cores.values())

    def leakage_by_owner(self) -> dict[str, float]:
        return {name: core.leakage for name, core in self.cores.items()}

    def area_um2(self) -> float:
        return 1000.0


def layer(name: str, inputs: tuple[str, ...], weight_key: str = "", macs: int = 16) -> Layer:
    """Return a linear layer of `macs` multiply-accumulates."""
    return Layer(
        name=name,
        op="linear",
        inputs=inputs,
        output=name,
        shape=LayerShape(m=4, c=macs // 4),
        weight=f"{name}.weight",
        weight_key=weight_key or name,
    )


def network(nodes: list[Layer | Vector], outputs: tuple[str, ...], elements: int = 4) -> Network:
    """Return a network whose only input is `x`; every value has `elements` elements."""
    kinds: dict[str, Any] = {"x": "input", **{n.output: "internal" for n in nodes}}
    producers = {n.output: n.name for n in nodes}
    values = {
        name: Value(
            name=name,
            shape=(1, elements),
            kind=kind,
            producer=producers.get(name, name),
            range=(0.0, 1.0),
            home=DRAM if kind == "input" or name in outputs else BUFFER,
        )
        for name, kind in kinds.items()
    }
    return Network(
        name="tinynet",
        graph=cast("Any", None),
        example_inputs=(),
        layers={n.name: n for n in nodes if isinstance(n, Layer)},
        vectors={n.name: n for n in nodes if isinstance(n, Vector)},
        values=values,
        inputs=("x",),
        outputs=outputs,
        order=tuple(n.name for n in nodes),
        facts=frozenset({"shaped", "calibrated"}),
    )


def attach(
    net: Network, target: TinyTarget, operators: tuple[str, ...], widths: list[Bits], seed: int
) -> Network:
    """Return the network with every choice of every core, its costs and invented scores."""
    rng = random.Random(seed)
    layers = {}
    for node in net.layers.values():
        homes = Homes(
            tuple(cast("Home", net.values[v].home) for v in node.inputs),
            cast("Home", net.values[node.output].home),
        )
        offers = [
            offer
            for core in target.cores.values()
            for offer in core.choices(node, operators, widths, signed_input=False)
        ]
        choices = tuple(o for o in offers if isinstance(o, Choice))
        priced = [target.cores[c.core].cost(node, c, homes) for c in choices]
        layers[node.name] = replace(
            node,
            choices=choices,
            costs=tuple(p.inference for p in priced),
            programming=tuple(p.programming for p in priced),
            refusals=tuple(o for o in offers if isinstance(o, Refusal)),
            scores=tuple(_score(c, rng) for c in choices),
        )
    return replace(net.with_layers(layers), facts=net.facts | {"choices", "scored"})


def _score(choice: Choice, rng: random.Random) -> float:
    """Narrow and multiplication-free is worse; a multiple of 1/1024, so that sums are exact."""
    penalty = sum(8 - bits for bits in choice.bits) + (0 if choice.operator == "mac" else 4)
    return (64 * penalty + rng.randrange(64)) / 1024
