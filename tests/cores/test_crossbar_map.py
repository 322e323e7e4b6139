# SPDX-License-Identifier: Apache-2.0
"""The map of utilisation: every resident tile in an array, no array asked for twice at once."""

from __future__ import annotations

from dataclasses import replace

from core_layers import IN_BUFFER, conv, hybrid, layer
from torch import fx, nn

from enos_compiler.cores.crossbar_data import tile_requests
from enos_compiler.cores.crossbar_map import crossbar_map
from enos_compiler.ir import Bits, Choice, Layer, LayerShape, Network

EIGHT = Bits(8, 8, 8)


def placed(
    *subjects: tuple[str, LayerShape, Choice],
) -> tuple[Network, dict[str, dict[str, object]]]:
    core = hybrid().cores["xbar"]
    layers: dict[str, Layer] = {}
    details: dict[str, dict[str, object]] = {}
    for name, shape, choice in subjects:
        subject = replace(layer(shape, name), weight_key=name, choice=choice)
        layers[name] = subject
        details[name] = dict(core.cost(subject, choice, IN_BUFFER).detail)
    empty = fx.GraphModule(nn.Module(), fx.Graph())
    return Network("net", empty, (), layers=layers, order=tuple(layers)), details


def test_layers_share_arrays_and_tiles_of_one_layer_do_not() -> None:
    choice = Choice("xbar", "bw", EIGHT, (("rows", 128),))
    network, details = placed(("a", conv(4, 32, 4), choice), ("b", conv(4, 32, 4), choice))
    (found,) = crossbar_map(network, hybrid(), details)
    assert (found["used"], found["count"]) == (1, 96)
    assert found["arrays"] == [
        {"utilisation": 2 * 36 * 32 / 128**2, "layers": ["a", "b"], "count": 1}
    ]
    mf = Choice("xbar", "mf", Bits(8, 2, 8), (("rows", 128),))
    network, details = placed(("a", conv(4, 32, 4), mf))
    (found,) = crossbar_map(network, hybrid(), details)
    assert found["used"] == 2  # magnitudes and signs are read at once


def test_a_network_larger_than_the_chip_is_drawn_whole_and_reloaded_layers_are_not() -> None:
    kept = Choice("xbar", "mac", EIGHT, (("rows", 256),))
    reloaded = Choice("xbar", "mac", EIGHT, (("reload", 1), ("rows", 256)))
    shape = LayerShape(m=512, c=2048)
    network, details = placed(("a", shape, kept), ("b", shape, reloaded))
    (found,) = crossbar_map(network, hybrid(), details)
    assert found["used"] == 8 * 32 > found["count"]
    assert found["utilisation"] == 1
    assert {name for row in found["arrays"] for name in row["layers"]} == {"a"}


def test_requests_are_the_arrays_of_all_copies() -> None:
    choice = Choice("xbar", "mac", EIGHT, (("rows", 256),))
    _, details = placed(("a", conv(64, 64, 8), choice))
    detail = details["a"]
    assert len(tile_requests("a", detail)) == detail["arrays"]
    assert len(tile_requests("a", {**detail, "copies": 3})) == 3 * int(str(detail["arrays"]))
