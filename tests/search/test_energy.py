# SPDX-License-Identifier: Apache-2.0
"""Expected energy against the accounting of assigned networks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from small_network import build, chip, offer

from enos_compiler.assign.assignment import price
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Network
from enos_compiler.search.architecture import Architecture, class_of
from enos_compiler.search.energy import expected_energy


def pick(network: Network, rng: random.Random) -> dict[str, Choice]:
    """Return choices that the width rules admit, each the cheapest of its class."""
    while True:
        chosen = {n: rng.choice(layer.choices) for n, layer in network.layers.items()}
        widths = {n: c.bits for n, c in chosen.items()}
        if (
            widths["c1"].output >= max(widths["c2"].input, widths["c3"].input)
            and widths["c2"].output >= widths["c3"].input
            and widths["c3"].output >= widths["out"].input
        ):
            return chosen


def one_hot(architecture: Architecture, chosen: dict[str, Choice]) -> None:
    for logits, (name, space) in zip(architecture.free, architecture.spaces.items(), strict=True):
        wanted = space.classes.index(class_of(chosen[name]))
        logits.data = torch.full_like(logits, -1e4)
        logits.data[wanted] = 0.0
    architecture.draw()


@pytest.mark.parametrize("seed", range(12))
def test_certain_choice_costs_what_the_accounting_says(seed: int) -> None:
    network, target = offer(build(width=4), ("mac", "shift", "mf"), (8, 4)), chip()
    target.cores["mac"].leakage = 0.5
    chosen = pick(network, random.Random(seed))
    architecture = Architecture(network)
    one_hot(architecture, chosen)
    layers = {n: replace(layer, choice=chosen[n]) for n, layer in network.layers.items()}
    read = {"total": chosen["c3"].bits.input, "mean": chosen["out"].bits.input}
    read["pool"] = read["total"]
    vectors = {n: replace(v, bits=read[n]) for n, v in network.vectors.items()}
    assigned = network.with_layers(layers).with_vectors(vectors)
    expected = price(assigned, target).energy_pj
    with torch.no_grad():
        found = float(expected_energy(network, target)(architecture.drawn))
    assert found == pytest.approx(expected, rel=1e-5)


def test_reader_that_asks_more_than_is_stored_is_priced_at_what_is_stored() -> None:
    """A transfer between cores costs by its width, which is never above the stored one."""
    network, target = offer(build(width=4), ("mac", "mf"), (8, 4)), chip()
    energy = expected_energy(network, target)
    chosen = {
        "c1": Choice("mac", "mac", Bits(8, 8, 4)),
        "c3": Choice("mac", "mac", Bits(4, 4, 4)),
        "out": Choice("mac", "mac", Bits(4, 8, 4)),
    }
    totals = []
    for asked in (8, 4):
        architecture = Architecture(network)
        one_hot(architecture, {**chosen, "c2": Choice("xbar", "mf", Bits(asked, 4, 4))})
        own = energy.class_pj["c2"] @ architecture.probabilities["c2"]
        totals.append(float((energy(architecture.drawn) - own).detach()))
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    target.link_pj = 0
    without = expected_energy(network, target)(architecture.drawn) - own
    assert float(without.detach()) < totals[1] - 1


def test_gradient_is_the_difference_of_prices() -> None:
    """dE/dp of a layer without edges of its own is the price of each class."""
    network, target = offer(build(width=4), ("mac", "shift"), (8, 4)), chip()
    architecture = Architecture(network)
    energy = expected_energy(network, target)
    energy(architecture.drawn).backward()  # type: ignore[no-untyped-call]
    for logits in architecture.free:
        assert logits.grad is not None
        assert float(logits.grad.sum()) == pytest.approx(0.0, abs=1.0)
        assert float(logits.grad.abs().sum()) > 0


def test_layers_that_share_weights_share_logits() -> None:
    network = build(width=4)
    layers = {name: replace(network.layers[name], weight_key="common") for name in ("c2", "c3")}
    architecture = Architecture(offer(network.with_layers(layers), ("mac", "mf"), (8, 4)))
    assert list(architecture.shared) == ["common"]
    rows = architecture.spaces["c2"].tied_rows
    assert rows is not None
    architecture.shared["common"].data[rows[0]] = 50.0
    architecture.draw()
    for name in ("c2", "c3"):
        space = architecture.spaces[name]
        best = space.classes[int(architecture.probabilities[name].argmax())]
        tied = (best[0], best[1], best[2].weight)
        assert tied == (space.classes[0][0], space.classes[0][1], space.classes[0][2].weight)
