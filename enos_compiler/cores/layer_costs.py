# SPDX-License-Identifier: Apache-2.0
"""How a network's layer is put to a core: operands at their homes, the sign of what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.base import HasArrays, Homes, Samples
from enos_compiler.crossbar.nonideal import NonIdealities
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.kernels import as_core_sees, own_extent, shape_at, with_extent
from enos_compiler.ir.network import Home, Layer, Network
from enos_compiler.operators.sample import SamplerProgram
from enos_compiler.sampling.mixture import GaussianMixture
from enos_compiler.semantics.widths import SUM_BITS, leaves_as_sums

if TYPE_CHECKING:
    from enos_compiler.cores.base import CoreCost
    from enos_compiler.cores.target import Target

BASELINE_BITS = Bits(8, 8, 8)


def homes_of(network: Network, layer: Layer) -> Homes:
    """Return where a layer's operands rest; a sum that leaves the network has 32 bits.

    Raises:
        ValueError: a value has no home yet.
    """
    return Homes(
        tuple(_home(network, value) for value in layer.inputs),
        _home(network, layer.output),
        SUM_BITS if leaves_as_sums(network, layer.output) else None,
    )


def cost_of(network: Network, layer: Layer, choice: Choice, target: Target) -> CoreCost:
    """Return what a choice costs, attached or not, with the mapping or placement behind it."""
    layer, choice = as_core_sees(layer, choice)
    return target.cores[choice.core].cost(layer, choice, homes_of(network, layer))


def details(
    network: Network, target: Target, *, on_crossbars: bool
) -> dict[str, Mapping[str, Any]]:
    """Return the placements of layers on crossbar cores, or the mappings of those on any other."""
    return {
        layer.name: cost_of(network, layer, layer.choice, target).detail
        for layer in network.layers.values()
        if layer.choice is not None
        and isinstance(target.cores[layer.choice.core], HasArrays) is on_crossbars
    }


def arrays_of(network: Network, target: Target) -> dict[str, CrossbarSpec]:
    """Return the array of every layer that is assigned to a crossbar core."""
    found: dict[str, CrossbarSpec] = {}
    for layer in network.layers.values():
        if layer.choice is not None:
            core = target.cores.get(layer.choice.core)
            if isinstance(core, HasArrays):
                found[layer.name] = core.array(layer.shape, layer.choice)
    return found


def samplers_of(network: Network, target: Target, seed: int) -> dict[str, SamplerProgram]:
    """Return how every layer that draws is run, each with random numbers of its own."""
    found: dict[str, SamplerProgram] = {}
    for number, layer in enumerate(network.layers.values()):
        core = target.cores.get(layer.choice.core) if layer.choice is not None else None
        if layer.choice is not None and isinstance(core, Samples):
            ranges = tuple(network.values[value].range or (0.0, 0.0) for value in layer.inputs)
            mixture = constant_mixture(network, layer) if layer.op == "sample" else None
            found[layer.name] = SamplerProgram(
                core.form(layer.choice), seed + number, mixture, ranges
            )
    return found


def constant_mixture(network: Network, layer: Layer) -> GaussianMixture:
    """Return the mixture of a layer that draws from a constant one."""
    node = next(n for n in network.graph.graph.nodes if n.name == layer.name)
    parts = (network.tensor(str(operand.target)) for operand in node.args[1:])
    return GaussianMixture(*(part.detach().double().numpy() for part in parts))


def errors_of(network: Network, target: Target) -> dict[str, NonIdealities]:
    """Return what is wrong with the devices of every layer that is assigned to a crossbar core."""
    found: dict[str, NonIdealities] = {}
    for layer in network.layers.values():
        if layer.choice is not None:
            core = target.cores.get(layer.choice.core)
            if isinstance(core, HasArrays):
                found[layer.name] = core.errors
    return found


def reads_signed(network: Network, layer: Layer) -> bool:
    """Tell whether an input's calibrated range reaches below zero; unknown ranges count as so."""
    ranges = [network.values[value].range for value in layer.inputs]
    return any(extremes is None or extremes[0] < 0 for extremes in ranges)


def baseline_offers(network: Network, layer: Layer, target: Target) -> list[Choice]:
    """Return mac 8/8 on the first core that takes it, with every core option; empty where none.

    A layer whose kernel is open has the user's own.
    """
    signed = reads_signed(network, layer)
    extent = own_extent(layer)
    if extent:
        layer = replace(layer, shape=shape_at(layer.shape, extent))
    for core in target.cores.values():
        offered = core.choices(layer, ("mac",), (BASELINE_BITS,), signed_input=signed)
        offers = [with_extent(offer, extent) for offer in offered if isinstance(offer, Choice)]
        if offers:
            return offers
    return []


def _home(network: Network, value: str) -> Home:
    home = network.values[value].home
    if home is None:
        raise ValueError(f"value {value} has no home")
    return home
