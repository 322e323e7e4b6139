# SPDX-License-Identifier: Apache-2.0
"""Gives values their homes and layers their choices, each priced once per distinct question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.base import Core, CoreCost, Samples
from enos_compiler.cores.layer_costs import baseline_offers, homes_of, reads_signed
from enos_compiler.errors import RefusalError
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.kernels import (
    as_core_sees,
    check_extents,
    grown,
    shape_at,
    takes_part,
    with_extent,
)
from enos_compiler.ir.network import Layer, Network
from enos_compiler.ir.ops import SAMPLE_OPS
from enos_compiler.ir.shape import LayerShape

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

FIRST_LAST_WEIGHT_BITS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks to be tried."""

    operators: Sequence[str]
    weight_bits: Sequence[int]
    activation_bits: Sequence[int]
    first_last_free: bool = False
    kernels: Sequence[int] = ()
    """Kernel extents that convolutions may have instead of their own; odd."""

    @property
    def widths(self) -> tuple[Bits, ...]:
        """Every combination of input, weight and output widths, widest first."""
        activations = sorted(set(self.activation_bits), reverse=True)
        weights = sorted(set(self.weight_bits), reverse=True)
        return tuple(Bits(*b) for b in product(activations, weights, activations))


@dataclass(slots=True)
class PriceBook:
    """Costs by what they depend on: shape, choice and the kinds of homes."""

    target: Target
    known: dict[tuple[LayerShape, Choice, Any], CoreCost] = field(default_factory=dict)

    def cost(self, network: Network, layer: Layer, choice: Choice) -> CoreCost:
        """Return what a choice costs, asking its core at most once."""
        homes = homes_of(network, layer)
        layer, choice = as_core_sees(layer, choice)
        key = (layer.shape, choice, homes.memories)
        if key not in self.known:
            self.known[key] = self.target.cores[choice.core].cost(layer, choice, homes)
        return self.known[key]


def attach_choices(
    network: Network,
    target: Target,
    request: Request,
    track: Callable[[Mapping[str, Layer]], Iterable[Layer]] = Mapping.values,
) -> tuple[Network, dict[str, Any]]:
    """Return the network with homes, choices, costs and refusals, and what there is to report.

    First and last layers are mac with 8-bit weights on the baseline core, unless the request
    frees them or no core of the target takes mac. `track` yields the layers one by one, to show
    how far it is: a core may search for the best mapping of each choice.

    Raises:
        RefusalError: a layer that no core takes, with every core's reason.
    """
    extents = _kernels(network, request)
    network = with_homes(grown(network, {n: max(e) for n, e in extents.items()}), target)
    book = PriceBook(target)
    notes: list[str] = []
    changed = {
        layer.name: _with_choices(
            network, layer, target, request, book, notes, extents.get(layer.name, ())
        )
        for layer in track(network.layers)
    }
    network = network.with_layers(changed)
    return network, _summary(network, target, book, notes)


def with_homes(network: Network, target: Target) -> Network:
    """Return the network with a home for every value and a unit for every vector operation."""
    homes = target.homes(network)
    network = network.with_values(
        {name: replace(value, home=homes[name]) for name, value in network.values.items()}
    )
    return network.with_vectors(
        {
            name: replace(v, core=target.host.name if v.is_float else target.vector_unit.name)
            for name, v in network.vectors.items()
        }
    )


def _with_choices(
    network: Network,
    layer: Layer,
    target: Target,
    request: Request,
    book: PriceBook,
    notes: list[str],
    kernels: tuple[int, ...],
) -> Layer:
    operators, widths, cores = tuple(request.operators), request.widths, dict(target.cores)
    # No sum of products can be drawn: a refusal only where nothing else was asked for.
    operators = tuple(name for name in operators if name != "sample") or operators
    if layer.op in SAMPLE_OPS:
        widest = max(b.input for b in widths)
        operators, widths = ("sample",), (Bits(widest, widest, widest),)
    elif layer.first_or_last and not request.first_last_free:
        baseline = baseline_offers(network, layer, target)
        if not baseline:
            notes.append(f"{layer.name}: no core takes mac at 8/8 bits, so it is free")
        else:
            core = baseline[0].core
            operators, cores = ("mac",), {core: target.cores[core]}
            widths = tuple(dict.fromkeys(b._replace(weight=FIRST_LAST_WEIGHT_BITS) for b in widths))
    found = list(_at_extents(network, layer, cores, operators, widths, kernels))
    choices = tuple(dict.fromkeys(o for o in found if isinstance(o, Choice)))
    refusals = tuple(dict.fromkeys(o for o in found if isinstance(o, Refusal)))
    if not choices:
        raise _refused(layer, refusals)
    costs = [book.cost(network, layer, choice) for choice in choices]
    return replace(
        layer,
        choices=choices,
        costs=tuple(c.inference for c in costs),
        programming=tuple(c.programming for c in costs),
        refusals=refusals,
    )


def _kernels(network: Network, request: Request) -> dict[str, tuple[int, ...]]:
    """Return the kernel extents of the layers that may have several, each one's own first."""
    check_extents(request.kernels)
    found = {}
    for layer in network.layers.values():
        fixed = layer.first_or_last and not request.first_last_free
        if request.kernels and not fixed and takes_part(network, layer):
            found[layer.name] = tuple(dict.fromkeys((layer.shape.r, *request.kernels)))
    return {name: extents for name, extents in found.items() if len(extents) > 1}


def _at_extents(
    network: Network,
    layer: Layer,
    cores: dict[str, Core],
    operators: tuple[str, ...],
    widths: tuple[Bits, ...],
    kernels: tuple[int, ...],
) -> Iterator[Choice | Refusal]:
    """Yield what the cores take at each kernel extent, the layer's own first."""
    if not kernels:
        yield from _offers(network, layer, cores, operators, widths)
    for extent in kernels:
        seen = replace(layer, shape=shape_at(layer.shape, extent))
        for offer in _offers(network, seen, cores, operators, widths):
            yield with_extent(offer, extent) if isinstance(offer, Choice) else offer


def _offers(
    network: Network,
    layer: Layer,
    cores: dict[str, Core],
    operators: tuple[str, ...],
    widths: tuple[Bits, ...],
) -> Iterator[Choice | Refusal]:
    """Yield what the cores take; a network output has one width, the widest requested.

    It leaves as sums, dequantised: its own width is never seen.
    """
    if layer.output in network.outputs and not network.consumers(layer.output):
        widest = max(b.output for b in widths)
        widths = tuple(b for b in widths if b.output == widest)
    signed = reads_signed(network, layer)
    for core in cores.values():
        if layer.op in SAMPLE_OPS and not isinstance(core, Samples):
            yield Refusal(core.name, "sample", "only a sampling core draws from mixtures")
        elif layer.op in SAMPLE_OPS or not isinstance(core, Samples):
            # a sampler is no candidate for sums of products, and no refusal worth a line
            yield from core.choices(layer, operators, widths, signed_input=signed)


def _refused(layer: Layer, refusals: tuple[Refusal, ...]) -> RefusalError:
    reasons = "".join(f"\n  {r.core}, {r.operator}: {r.reason}" for r in refusals)
    remedy = "more operators or widths, a target with a digital core, or --first-last free"
    if layer.op in SAMPLE_OPS:
        remedy = "a target with a sampling core large enough, such as mc2ram"
    return RefusalError(
        f"no core takes {layer.op} {layer.shape}{reasons}",
        place=f"layer {layer.name}" + (f" ({layer.origin})" if layer.origin else ""),
        remedy=remedy,
    )


def _summary(network: Network, target: Target, book: PriceBook, notes: list[str]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for value in network.values.values():
        if value.home is not None:
            counts[value.home.memory] = counts.get(value.home.memory, 0) + 1
    ends = [
        v.home.address + v.home.reserved_bytes
        for v in network.values.values()
        if v.home is not None and v.home.address is not None
    ]
    return {
        "choices": sum(len(layer.choices) for layer in network.layers.values()),
        "distinct_prices": len(book.known),
        "values_by_home": counts,
        "shared_buffer_bytes": max(ends, default=0),
        "shared_buffer_capacity_bytes": (
            target.chip.memories[target.chip.shared].capacity_bits // 8 if target.chip.shared else 0
        ),
        "notes": notes,
    }
