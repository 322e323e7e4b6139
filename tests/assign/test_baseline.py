# SPDX-License-Identifier: Apache-2.0
"""The baseline is mac 8/8 on the first core that takes it, attached or not."""

from __future__ import annotations

from typing import cast

from tiny_network import TinyCore, TinyTarget, attach, layer, network

from enos_compiler.assign.assignment import price
from enos_compiler.cores.baseline import baseline
from enos_compiler.cores.target import Target
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.network import Network


def _chain() -> Network:
    return network([layer("a", ("x",)), layer("b", ("a",))], ("b",))


def _chip(*cores: TinyCore) -> TinyTarget:
    return TinyTarget({core.name: core for core in cores})


def test_first_core_in_file_order_even_if_not_attached() -> None:
    chip = _chip(
        TinyCore("xbar", kind="crossbar", operators=("mf",)), TinyCore("mac"), TinyCore("other")
    )
    net = attach(_chain(), chip, ("mf",), [Bits(4, 4, 4)], seed=0)
    found = baseline(net, cast("Target", chip))
    assert found.name == "all-mac-digital-8/8"
    assert [str(n.choice) for n in found.network.layers.values()] == ["mac@mac 8/8/8"] * 2
    assert net.layers["a"].choice is None
    direct = [
        chip.cores["mac"].cost(n, n.choice, None).inference  # type: ignore[arg-type]
        for n in found.network.layers.values()
        if n.choice
    ]
    expected = sum(c.energy_pj(chip.energy_pj) for c in direct)
    assert price(found.network, cast("Target", chip)).energy_pj == expected


def test_without_mac_the_dearest_choice_stands_in() -> None:
    chip = _chip(TinyCore("xbar", kind="crossbar", operators=("mf",)))
    net = attach(_chain(), chip, ("mf",), [Bits(8, 8, 8), Bits(4, 4, 4)], seed=0)
    found = baseline(net, cast("Target", chip))
    assert found.name == "mac-8/8-else-dearest"
    assert [str(n.choice) for n in found.network.layers.values()] == ["mf@xbar 8/8/8"] * 2


def test_layers_that_share_weights_share_the_baseline() -> None:
    chip = _chip(TinyCore("mac", resident=True))
    net = network([layer("a", ("x",), "w"), layer("b", ("a",), "w")], ("b",))
    net = attach(net, chip, ("mac",), [Bits(8, 8, 8)], seed=0)
    found = baseline(net, cast("Target", chip))
    priced = price(found.network, cast("Target", chip))
    assert priced.programming_pj == 100 * 8 * 3 / chip.inferences_per_programming
