# SPDX-License-Identifier: Apache-2.0
"""The baseline gives its weight memory to whom it serves most, and never more than there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small_network

from enos_compiler.cores.accounting import energy_pj
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.baseline import baseline
from enos_compiler.cores.nest_homes import RESIDENT
from enos_compiler.cores.target import Target, build_target, load_target
from enos_compiler.ir import Network
from enos_compiler.spec import check_target, find_target, parse_document


def with_memory(bits: int) -> Target:
    text = find_target("digital").read_text()
    assert "capacity_bits: {value: 2097152," in text
    text = text.replace("capacity_bits: {value: 2097152,", f"capacity_bits: {{value: {bits},")
    return build_target(check_target(parse_document(text, "small.yaml")))


@pytest.fixture(scope="module")
def network() -> Network:
    return small_network.build(images=4)


@pytest.mark.parametrize("bits", [64, 2_000, 22_000, 40_000, 2_097_152])
def test_the_weight_memory_is_never_overfull(network: Network, bits: int) -> None:
    target = with_memory(bits)
    attached, _ = attach_choices(network, target, Request(("mac",), (8,), (8,)))
    found = baseline(attached, target)
    core = target.cores["mac"]
    held = [
        core.capacity(layer.choice, layer)["weight_words"]
        for layer in found.network.layers.values()
        if layer.choice is not None and layer.choice.options == RESIDENT
    ]
    assert sum(held) <= core.capacities()["weight_words"]
    assert found.name == "all-mac-digital-8/8"
    if bits == 2_097_152:
        assert len(held) == len(network.layers)
    if bits == 22_000:
        assert len(held) == 3, "the two small layers and one of the large ones"


def test_more_memory_is_never_dearer(network: Network) -> None:
    energies = []
    for bits in (64, 2_000, 22_000, 40_000, 2_097_152):
        target = with_memory(bits)
        attached, _ = attach_choices(network, target, Request(("mac",), (8,), (8,)))
        layers = baseline(attached, target).network.layers.values()
        energies.append(
            sum(energy_pj(lay.cost_of(lay.choice), target) for lay in layers if lay.choice)
        )
    assert energies == sorted(energies, reverse=True)
    assert energies[0] > energies[-1]


def test_layers_with_shared_weights_agree_and_hold_them_once(network: Network) -> None:
    target = load_target("digital")
    shared = {n: replace(network.layers[n], weight_key="shared") for n in ("c2", "c3")}
    attached, _ = attach_choices(network.with_layers(shared), target, Request(("mac",), (8,), (8,)))
    found = baseline(attached, target).network.layers
    assert found["c2"].choice == found["c3"].choice


def test_crossbar_sizes_are_a_yardstick(network: Network) -> None:
    target = load_target("cim")
    attached, _ = attach_choices(network, target, Request(("mac",), (8,), (8,)))
    found = baseline(attached, target)
    assert found.name == "all-mac-crossbar-8/8"
    for layer in found.network.layers.values():
        assert layer.choice is not None
        prices = {c: energy_pj(layer.cost_of(c), target) for c in layer.choices}
        assert prices[layer.choice] == min(prices.values())
