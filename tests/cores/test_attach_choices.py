# SPDX-License-Identifier: Apache-2.0
"""Choices, prices and refusals on a small network, and what lies between its layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small_network
from core_layers import hybrid

from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import load_target
from enos_compiler.errors import RefusalError, SpecError
from enos_compiler.ir import Network, Vector
from enos_compiler.ir.verify import verify
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pipeline


@pytest.fixture(scope="module")
def network() -> Network:
    return small_network.build(images=4)


def attached(network: Network, text: str, target: str = "hybrid", **options: bool) -> Network:
    context = Context(target=load_target(target), **options)  # type: ignore[arg-type]
    return Pipeline(parse_passes(text)).run(network, context)


def test_every_layer_has_choices_with_costs(network: Network) -> None:
    found = attached(network, "attach-choices")
    verify(found, "attach-choices")
    inner = found.layers["c2"]
    assert {(c.core, c.operator) for c in inner.choices} == {
        ("mac", o) for o in ("mac", "bw", "mf", "ef", "shift", "xnor", "adder")
    } | {("xbar", o) for o in ("mac", "bw", "mf", "ef", "xnor")}
    assert {c.bits.input for c in inner.choices} == {8, 4}
    assert {v.core for v in found.vectors.values()} == {"vector"}
    by_core = {(r.core, r.operator) for r in inner.refusals}
    assert {("mac", "xnor2"), ("xbar", "adder"), ("xbar", "shift")} <= by_core
    assert {c.bits.input for c in inner.choices if c.operator == "adder"} == {4}


def test_drawing_is_refused_to_a_convolution_only_where_it_was_asked_for(network: Network) -> None:
    found = attached(network, "attach-choices")
    assert all(r.operator != "sample" for layer in found.layers.values() for r in layer.refusals)
    with pytest.raises(RefusalError, match=r"\n  mac, sample: .*\n  xbar, sample: "):
        attached(network, "attach-choices{operators=sample}", first_last_free=True)


def test_first_and_last_layers_are_mac_on_the_baseline_core(network: Network) -> None:
    found = attached(network, "attach-choices{weight_bits=4}")
    for name in ("c1", "out"):
        assert {(c.core, c.operator, c.bits.weight) for c in found.layers[name].choices} == {
            ("mac", "mac", 8)
        }
    assert {c.bits.output for c in found.layers["out"].choices} == {8}
    free = attached(network, "attach-choices{weight_bits=4}", first_last_free=True)
    assert {c.core for c in free.layers["c1"].choices} == {"mac", "xbar"}


def test_on_a_chip_of_crossbars_the_baseline_core_is_one(network: Network) -> None:
    found = attached(network, "attach-choices", "cim")
    assert {(c.core, c.operator) for c in found.layers["c1"].choices} == {("xbar", "mac")}
    assert {dict(c.options)["rows"] for c in found.layers["c1"].choices} == {64, 128, 256}


def test_an_operator_offers_the_widest_weights_within_the_request(network: Network) -> None:
    found = attached(network, "attach-choices{weight_bits=8 activation_bits=8}")
    widths = {(c.operator, c.bits.weight) for c in found.layers["c2"].choices}
    assert {("shift", 4), ("bw", 1), ("xnor", 1), ("mac", 8), ("mf", 8)} <= widths


def test_signed_inputs_close_mf_and_xnor_and_open_xnor2(network: Network) -> None:
    changed = replace(network.values["r1"], range=(-1.0, 1.0))
    found = attached(network.with_values({"r1": changed}), "attach-choices")
    assert {c.operator for c in found.layers["c2"].choices} == {
        *("mac", "bw", "ef", "shift", "xnor2", "adder")
    }


def test_a_layer_that_no_core_takes_names_every_reason(network: Network) -> None:
    with pytest.raises(RefusalError) as caught:
        attached(network, "attach-choices{operators=shift}", "cim")
    assert str(caught.value) == (
        "layer c2: no core takes conv M16 C16 P8 Q8 R3 S3\n"
        "  xbar, shift: shift is no sum these crossbars read; they take bw, ef, mac, mf, xnor\n"
        "  try: more operators or widths, a target with a digital core, or --first-last free"
    )


def test_equal_questions_are_priced_once(network: Network) -> None:
    found = attached(network, "attach-choices{activation_bits=8}")
    twin = replace(found.layers["c2"], name="twin")
    target = hybrid()
    both = replace(found, layers={**found.layers, "twin": twin})
    request = Request(("mac",), (8,), (8,))
    _, alone = attach_choices(found, target, request)
    _, two = attach_choices(both, target, request)
    assert two["distinct_prices"] == alone["distinct_prices"]
    assert two["choices"] > alone["choices"]


def test_a_float_island_needs_leave(network: Network) -> None:
    island = replace(network.vectors["mean"], op="softmax", is_float=True)
    changed = network.with_vectors({"mean": island})
    with pytest.raises(RefusalError, match="softmax has no integer form and would run in float"):
        attached(changed, "attach-choices")


def test_homes_are_asked_for_before_edges_are_priced(network: Network) -> None:
    homeless = replace(network.values["r1"], home=None)
    with pytest.raises(SpecError, match="r1: has no home yet"):
        hybrid().edge_cost(homeless, 8, "mac", "mac", 4)


def test_edges(network: Network) -> None:
    target = hybrid()
    found = attached(network, "attach-choices")
    value = found.values["r1"]
    elements = value.elements
    assert elements == 16 * 8 * 8
    assert not target.edge_cost(value, 8, "mac", "mac", 8).events
    assert not target.edge_cost(value, 8, "vector", "xbar", 8).events  # they meet in the buffer
    assert target.edge_cost(value, 8, "mac", "xbar", 8).events == {
        "bridge.wire/transfer_bit": 8 * elements
    }
    assert target.edge_cost(value, 8, "xbar", "mac", 4).events == {
        "bridge.wire/transfer_bit": 4 * elements,
        "buffer.array/read_64b": elements // 8,
        "buffer.array/write_64b": elements // 16,
        "vector.lanes/requantise": elements,
    }
    assert target.edge_cost(value, 4, "mac", "mac", 8) == target.edge_cost(
        value, 4, "mac", "mac", 4
    )


def test_vector_operations_read_work_and_write(network: Network) -> None:
    target = hybrid()
    found = attached(network, "attach-choices")
    elements = 16 * 8 * 8
    cost = target.vector_cost(found.vectors["total"], found, (8, 4), 8)
    assert cost.events == {
        "buffer.array/read_64b": elements // 8 + elements // 16,
        "buffer.array/write_64b": elements // 8,
        "vector.lanes/add": elements,
    }
    assert cost == target.vector_cost(found.vectors["total"], found, (8, 4), 8)
    island = replace(found.vectors["total"], is_float=True, core="host")
    events = target.vector_cost(island, found, 8, 8).events
    assert events["host.core/operation"] == elements
    assert events["host.port/byte"] == 3 * elements
    assert not any(action.startswith("vector") for action in events)


def test_a_view_costs_nothing(network: Network) -> None:
    found = attached(network, "attach-choices")
    shape = replace(found.values["r1"], name="flat", shape=(1, 1024), producer="flat")
    view = Vector("flat", "reshape", ("r1",), "flat", attributes={"shape": (-1, 1024)})
    wider = found.with_values({"flat": shape}).with_vectors({"flat": view})
    cost = hybrid().vector_cost(view, wider, 8, 8)
    assert not cost.events
    assert cost.cycles == 0
