# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from enos_compiler.errors import FormatError
from enos_compiler.ir import Bits, Choice, Cost, Home, Layer, LayerShape, Network, Value, ops
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.ir.printer import format_network
from enos_compiler.ir.serialize import load_network, save_network


@pytest.fixture
def network() -> Network:
    """A network with one linear layer called twice, in full annotation."""
    root, graph = nn.Module(), fx.Graph()
    root.register_parameter("fc_weight", nn.Parameter(torch.randn(4, 4)))
    root.register_buffer("order", torch.arange(3))
    x = graph.placeholder("x")
    weight = graph.get_attr("fc_weight")
    first = graph.create_node("call_function", ops.linear, (x, weight), {}, "first")
    second = graph.create_node("call_function", ops.linear, (first, weight), {}, "second")
    graph.output((second,))
    choice = Choice("mac", "mac", Bits(8, 4, 8), (("rows", 64),))
    form = ValueFormat(-4, 128, 8)
    quantized = QuantizedLayer(
        tensors={"codes": np.arange(16).reshape(4, 4)},
        bias=np.zeros(4, np.int64),
        unit_exponent=np.full(4, -9),
        input_formats=(form,),
        bound=12345,
    )
    layer = Layer(
        name="first",
        op="linear",
        inputs=("x",),
        output="first",
        shape=LayerShape(m=4, c=4),
        weight="fc_weight",
        weight_key="fc_weight",
        choices=(choice,),
        costs=(Cost({"mac.pe/multiply": 16}, 2, 0.5),),
        programming=(Cost(),),
        scores=(0.25,),
        choice=choice,
        quantized=quantized,
        mapping={"loops": (("M", 4), ("C", 4))},
    )
    values = {
        "x": Value("x", (1, 4), "input", "x", range=(-1.0, 1.0), home=Home("dram"), format=form),
        "first": Value("first", (1, 4), "internal", "first", home=Home("buffer", 64, 4)),
        "second": Value("second", (1, 4), "internal", "second"),
    }
    second_layer = replace(layer, name="second", inputs=("first",), output="second")
    return Network(
        name="tiny",
        graph=fx.GraphModule(root, graph),
        example_inputs=(torch.rand(2, 4),),
        layers={"first": layer, "second": second_layer},
        values=values,
        inputs=("x",),
        outputs=("second",),
        order=("first", "second"),
        facts=frozenset({"shaped"}),
        provenance={"seed": 3, "passes": ("canonicalize",)},
    )


def test_a_saved_network_loads_equal(network: Network, tmp_path: Path) -> None:
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert format_network(loaded) == format_network(network)
    assert loaded.layers["first"].costs == network.layers["first"].costs
    assert loaded.layers["first"].mapping == network.layers["first"].mapping
    assert loaded.provenance == network.provenance
    assert loaded.values == network.values
    before, after = network.layers["first"].quantized, loaded.layers["first"].quantized
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.tensors["codes"], after.tensors["codes"])
    assert after.input_formats == before.input_formats
    x = torch.rand(1, 4)
    torch.testing.assert_close(loaded.graph(x), network.graph(x), rtol=0, atol=0)
    assert loaded.tensor("fc_weight") is loaded.tensor("fc_weight")


def test_what_trains_still_trains_when_loaded(network: Network, tmp_path: Path) -> None:
    network.graph.register_parameter("frozen", nn.Parameter(torch.ones(2), requires_grad=False))
    with network.graph.graph.inserting_before():
        network.graph.graph.get_attr("frozen")
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert loaded.tensor("fc_weight").requires_grad
    assert not loaded.tensor("frozen").requires_grad
    document = json.loads((tmp_path / "network.json").read_text())
    assert document["trained"] == ["fc_weight"]


def test_saving_again_gives_the_same_bytes(network: Network, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    save_network(network, tmp_path / "one")
    save_network(load_network(tmp_path / "one"), tmp_path / "two")
    for name in ("network.json", "weights.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_file_is_a_pickle(network: Network, tmp_path: Path) -> None:
    save_network(network, tmp_path)
    for path in tmp_path.iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"linear"', '"os.system"', "neither canonical nor registered"),
        ('"call_function"', '"call_module"', "is not allowed"),
        ('"bound": 12345', '"bound": "many"', "'many' is not of type int"),
        ('"batch": 1,', "", "fields differ: ['batch']"),
        ('"kind": "input"', '"kind": "weird"', "'weird' is not of type"),
        ('"seed": 3', '"seed": 4', "was changed after it was written"),
        ('"kind": "internal"', '"kind": "constant"', "was changed after it was written"),
    ],
)
def test_hand_edited_files_are_refused(
    network: Network, tmp_path: Path, old: str, new: str, message: str
) -> None:
    save_network(network, tmp_path)
    path = tmp_path / "network.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        load_network(tmp_path)
    assert message in str(caught.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_refused_with_their_place(
    data: st.DataObject, network: Network, tmp_path: Path
) -> None:
    """Bits are flipped, ends cut off, and values put where others belong."""
    save_network(network, tmp_path)
    path = tmp_path / data.draw(st.sampled_from(["network.json", "weights.safetensors"]))
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "graft"]))
    if kind == "flip":
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif path.suffix == ".json":
        document = json.loads(content)
        holder, key = data.draw(st.sampled_from(_slots(document)))
        before = holder[key]
        odd = [None, -1, 2**70, 0.5, "x", [], {}, [[1]], {"node": "first"}, {"array": "no"}]
        holder[key] = data.draw(st.sampled_from(odd))
        if holder[key] == before:
            return
        content = bytearray(json.dumps(document).encode())
    else:
        content += b"more"
    before_bytes = path.read_bytes()
    path.write_bytes(content)
    if path.suffix == ".json" and _content(content) == _content(before_bytes):
        load_network(tmp_path)  # white space alone was changed
        return
    with pytest.raises(FormatError) as caught:
        load_network(tmp_path)
    assert caught.value.place


def _content(text: bytes | bytearray) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _slots(value: Any) -> list[tuple[Any, Any]]:
    """Return every place of a JSON document that holds a value, as (container, key)."""
    keys = value.items() if isinstance(value, dict) else enumerate(value)
    slots = []
    for key, item in keys:
        slots.append((value, key))
        if isinstance(item, (dict, list)):
            slots += _slots(item)
    return slots


def test_weights_of_another_network_are_refused(network: Network, tmp_path: Path) -> None:
    save_network(network, tmp_path)
    path = tmp_path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="does not belong to the network"):
        load_network(tmp_path)


def test_missing_fields_name_the_path(network: Network, tmp_path: Path) -> None:
    save_network(network, tmp_path)
    path = tmp_path / "network.json"
    document = json.loads(path.read_text())
    del document["network"]["layers"]["first"]["choice"]["operator"]
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError) as caught:
        load_network(tmp_path)
    assert str(caught.value) == "layers.first.choice: Choice has missing ['operator']"
