# SPDX-License-Identifier: Apache-2.0
"""Exported networks in ONNX Runtime, optimisation off and on, against the integer reference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hand_built import Hand
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from enos_compiler.errors import EnosError, PassError
from enos_compiler.export.check import compare
from enos_compiler.export.layers import _stored_weight, layer_form
from enos_compiler.export.onnx import export_onnx, save_onnx
from enos_compiler.ir.formats import QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Network
from enos_compiler.semantics import reference
from enos_compiler.semantics.quantizer import narrow, quantize_codes
from enos_compiler.semantics.registry import vector_op

UNSIGNED = ValueFormat(-5, 0, 8)
SIGNED = ValueFormat(-5, 128, 8)
OPERATORS = ("mac", "bw", "mf", "ef", "shift", "xnor", "xnor2", "adder")
some = settings(deadline=None, max_examples=20)


def images(network: Network, count: int = 3, seed: int = 0) -> tuple[NDArray[Any], ...]:
    """Random inputs that use the whole range of every input format, and a little more."""
    rng = np.random.default_rng(seed)
    arrays = []
    for name in network.inputs:
        value = network.values[name]
        shape = (count, *value.shape[1:]) if network.batch_is_symbolic else value.shape
        fmt = value.format
        if fmt is None:
            arrays.append(rng.integers(0, 20, shape))
            continue
        codes = rng.uniform(fmt.low - 2, fmt.high + 2, shape)
        arrays.append(((codes - fmt.zero_point) * fmt.scale).astype(np.float32))
    return tuple(arrays)


def assert_equal(network: Network, count: int = 3) -> onnx.ModelProto:
    """Assert that both modes give every output bit of the reference, and that it is not constant.

    Returns:
        The exported model.
    """
    model = export_onnx(network)
    given_images = images(network, count)
    result = compare(model, network, given_images)
    assert result.steps == {"off": 0, "on": 0}
    for output in reference.run(network, given_images):
        assert len(np.unique(output)) > min(3, output.size - 1)
    return model


def format_for(bits: int, zero: bool, exponent: int) -> ValueFormat:
    return ValueFormat(exponent, 0 if zero else 2 ** (bits - 1), bits)


@some
@given(data=st.data(), operator=st.sampled_from(OPERATORS))
def test_one_convolution_of_any_kind(data: st.DataObject, operator: str) -> None:
    draw = data.draw
    groups = draw(st.sampled_from([1, 2, 4]))
    axes = draw(st.sampled_from([1, 2]))
    dilation = draw(st.integers(1, 2))
    unsigned = operator in ("mf", "xnor") or (operator != "xnor2" and draw(st.booleans()))
    bits = {"mac": draw(st.integers(2, 8)), "shift": draw(st.integers(2, 4))}.get(operator, 1)
    if operator in ("mf", "ef"):
        bits = draw(st.sampled_from([4, 8]))
    if operator == "adder":
        bits = draw(st.integers(2, 4))
    hand = Hand(draw(st.integers(0, 2**20)))
    x = hand.input((1, 4, 11, 9)[: axes + 2], UNSIGNED if unsigned else SIGNED)
    y = hand.conv(
        x,
        8,
        draw(st.sampled_from([(3, 3), (1, 1), (3, 1), (2, 4)]))[:axes],
        format_for(draw(st.integers(2, 8)), draw(st.booleans()), draw(st.integers(-4, 2))),
        operator=operator,
        bits=bits,
        groups=groups,
        stride=draw(st.integers(1, 2)),
        dilation=dilation,
        padding=draw(st.tuples(*[st.integers(0, 2)] * (2 * axes))),
        input_bits=draw(st.integers(2, 4 if operator == "adder" else 8)),
    )
    network = hand.network(y)
    result = compare(export_onnx(network), network, images(network))
    assert result.max_steps == 0


@some
@given(
    operator=st.sampled_from(OPERATORS),
    rank=st.integers(2, 4),
    coded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_one_linear_layer_of_any_rank(operator: str, rank: int, coded: bool, seed: int) -> None:
    hand = Hand(seed)
    x = hand.input((1, 3, 5, 24)[4 - rank :] if rank > 2 else (1, 24), UNSIGNED)
    bits = {"mac": 8, "shift": 4, "mf": 8, "ef": 8}.get(operator, 1)
    output = ValueFormat(-2, 128, 8) if coded else None
    network = hand.network(hand.linear(x, 7, output, operator=operator, bits=bits))
    assert compare(export_onnx(network), network, images(network)).max_steps == 0


def residual_network(seed: int, operators: tuple[str, ...] = OPERATORS, width: int = 16) -> Network:
    """A residual network with narrowed edges, pools and a classifier."""
    rng = np.random.default_rng(seed)
    hand = Hand(seed)
    same = (1, 1, 1, 1)
    x = hand.input((1, 3, 16, 16), ValueFormat(-6, 128, 8))
    x = hand.conv(x, width, (3, 3), ValueFormat(-3, 0, 8), padding=same)
    for block in range(3):
        operator = str(rng.choice(operators))
        bits = {"mac": int(rng.integers(2, 9)), "shift": 4, "mf": 8, "ef": 8}.get(operator, 1)
        narrow = int(rng.choice([4, 6, 8]))
        a = hand.conv(
            x,
            width,
            (3, 3),
            ValueFormat(0, 0, int(rng.choice([4, 8]))),
            operator=operator,
            bits=bits,
            padding=same,
            input_bits=narrow,
        )
        b = hand.conv(a, width, (3, 3), ValueFormat(2, 128, 8), padding=same, bits=4 + block)
        x = hand.vector("add", (b, x), ValueFormat(2, 0, 8))
        if block == 0:
            window: dict[str, Any] = {
                "kernel": (2, 2),
                "stride": (2, 2),
                "padding": (0, 0),
                "ceil_mode": False,
            }
            x = hand.vector("max_pool", (x,), ValueFormat(2, 0, 8), dilation=(1, 1), **window)
    x = hand.vector("mean", (x,), ValueFormat(1, 0, 8), dims=(2, 3), keepdim=True)
    x = hand.vector("reshape", (x,), ValueFormat(1, 0, 8), shape=(-1, width))
    return hand.network(hand.linear(x, 10, None))


@pytest.mark.parametrize("seed", range(6))
def test_residual_networks_of_mixed_operators(seed: int) -> None:
    assert_equal(residual_network(seed))


def test_mac_networks_fuse_completely(tmp_path: Path) -> None:
    """Fusion is why Q/DQ is written: no float convolution is left when optimisation is on."""
    model = assert_equal(residual_network(0, ("mac",)))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options)
    left = Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)
    assert left["QLinearConv"] == 7
    assert left["QLinearAdd"] == 3
    assert not left["Conv"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 60))
def test_many_residual_networks(seed: int) -> None:
    assert_equal(residual_network(seed))


def with_multiplier(network: Network, layer: str, multiplier: int) -> Network:
    """Multiply a mac layer's scale mantissa, so that its totals leave float32."""
    node = network.layers[layer]
    old = node.quantized
    assert old is not None
    new = QuantizedLayer(
        {**old.tensors, "multiplier": old.tensors["multiplier"] * multiplier},
        old.bias * multiplier,
        old.unit_exponent - int(np.log2(abs(multiplier))),
        old.input_formats,
        old.bound * abs(multiplier),
    )
    return network.with_layers({layer: replace(node, quantized=new)})


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("kind", ["conv", "conv1d", "depthwise", "linear", "rows"])
def test_totals_above_float32_take_the_double_tail(kind: str, coded: bool) -> None:
    hand = Hand(5)
    output = ValueFormat(-1, 128, 8) if coded else None
    fmt = ValueFormat(-5, 128, 8)
    if kind == "linear":
        layer = hand.linear(hand.input((1, 40), fmt), 9, output)
    elif kind == "rows":
        layer = hand.linear(hand.input((1, 5, 40), fmt), 9, output)
    elif kind == "conv1d":
        layer = hand.conv(hand.input((1, 6, 20), fmt), 8, (3,), output, padding=(2, 1))
    else:
        x = hand.input((1, 8, 9, 9), fmt)
        groups = 8 if kind == "depthwise" else 1
        layer = hand.conv(x, 8, (3, 3), output, padding=(1, 2, 0, 1), stride=2, groups=groups)
    network = with_multiplier(hand.network(layer), layer, 70_001)
    assert layer_form(network.layers[layer]) == "integer"
    assert_equal(network)


def test_a_negative_multiplier_takes_the_local_function() -> None:
    hand = Hand(6)
    layer = hand.conv(hand.input((1, 4, 8, 8), UNSIGNED), 8, (3, 3), ValueFormat(-1, 128, 8))
    network = with_multiplier(hand.network(layer), layer, -1)
    assert layer_form(network.layers[layer]) in ("integer", "function")
    assert_equal(network)


def test_full_range_weights_and_codes_do_not_saturate() -> None:
    """int8 weights beyond 64 under uint8 codes beyond 127 would, on some processors."""
    hand = Hand(7)
    layer = hand.conv(hand.input((1, 32, 8, 8), UNSIGNED), 16, (1, 1), ValueFormat(2, 128, 8))
    network = hand.network(layer)
    node = network.layers[layer]
    assert node.quantized is not None
    extreme = np.where(np.arange(16 * 32).reshape(16, 32, 1, 1) % 3, 127, -128)
    tensors = {"weight": extreme, "multiplier": np.ones(16, dtype=np.int64)}
    bound = 32 * 128 * 255
    integers = QuantizedLayer(
        tensors, node.quantized.bias * 0, node.quantized.unit_exponent, (UNSIGNED,), bound
    )
    assert_equal(network.with_layers({layer: replace(node, quantized=integers)}))


@pytest.mark.parametrize(
    ("weight", "top", "container"),
    [(64, 255, np.int8), (65, 255, np.uint8), (127, 127, np.int8), (-128, 128, np.uint8)],
)
def test_weights_lie_in_the_container_that_cannot_saturate(
    weight: int, top: int, container: type[np.generic]
) -> None:
    """Two products of neighbours must fit 16 bits unless both operands are unsigned."""
    fmt = ValueFormat(0, 0, 8, 0, top)
    stored, zero = _stored_weight(np.array([[weight, 1]]), fmt)
    assert stored.dtype == container
    assert (stored.astype(np.int64) - zero).tolist() == [[weight, 1]]
    if container is np.int8:
        assert 2 * abs(weight) * top < 2**15


@pytest.mark.parametrize("features", [16, 600])
def test_activation_products(features: int) -> None:
    hand = Hand(8)
    a = hand.input((1, 2, 5, features), UNSIGNED)
    b = hand.input((1, 2, features, 6), SIGNED)
    product = hand.matmul(a, b, ValueFormat(3, 128, 8))
    form = layer_form(hand.layers[product])
    assert form == ("product" if features == 16 else "function")
    assert_equal(hand.network(product))


def test_narrower_readers_get_one_copy_per_width() -> None:
    hand = Hand(9)
    x = hand.conv(hand.input((1, 4, 8, 8), SIGNED), 8, (1, 1), ValueFormat(-3, 128, 8))
    readers = [
        hand.conv(x, 8, (1, 1), ValueFormat(0, 128, 8), input_bits=width) for width in (4, 4, 8, 2)
    ]
    model = assert_equal(hand.network(*readers))
    quantised = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(quantised) == 1 + 1 + 2 + 4


def test_a_sum_reads_no_wider_than_it_produces() -> None:
    """Its 8-bit operands are narrowed on their edges first; that rounds twice, by definition."""
    hand = Hand(15)
    fmt, output = ValueFormat(-5, 128, 8), ValueFormat(0, 8, 4)
    a, b = hand.input((1, 64), fmt), hand.input((1, 64), fmt)
    network = hand.network(hand.vector("add", (a, b), output))
    assert_equal(network)
    given_images = images(network)
    values = reference.execute(network, given_images)
    narrowed = fmt.narrowed(4)
    copies = tuple(narrow(values[name], fmt, 4) for name in (a, b))
    expected = vector_op("add").integers(copies, (narrowed, narrowed), output, {})
    wide = vector_op("add").integers((values[a], values[b]), (fmt, fmt), output, {})
    np.testing.assert_array_equal(values[network.outputs[0]], expected)
    assert (expected != wide).any()


def test_no_two_bare_pairs_follow_each_other() -> None:
    """A change of format between values keeps a Min, so that no optimiser merges the roundings."""
    hand = Hand(16)
    x = hand.input((1, 4, 6, 6), SIGNED)
    formats = [ValueFormat(e, 128, 8) for e in (-4, -3, -2, -1)]
    phases = tuple(hand.conv(x, 4, (1, 1), fmt) for fmt in formats)
    merged = hand.vector("interleave", phases, ValueFormat(-2, 128, 8), stride=(2, 2))
    model = assert_equal(hand.network(hand.conv(merged, 4, (3, 3), ValueFormat(0, 128, 8))))
    inside = [n for n in model.graph.node if n.name.startswith(f"{merged}/")]
    count = Counter(n.op_type for n in inside)
    assert count["QuantizeLinear"] == count["Min"] == 3


def test_every_kind_of_value_reaches_an_output() -> None:
    hand = Hand(10)
    tokens = hand.input((1, 6), None, top=20)
    table = hand.constant(hand.rng.normal(size=(20, 12)), ValueFormat(-6, 128, 8))
    x = hand.vector("embedding", (tokens, table), ValueFormat(-6, 128, 8))
    places = hand.constant(hand.rng.normal(size=(1, 6, 12)), ValueFormat(-6, 128, 8))
    x = hand.vector("add", (x, places), ValueFormat(-5, 128, 8))
    y = hand.linear(x, 12, ValueFormat(-2, 128, 8))
    y = hand.vector("elementwise", (y,), ValueFormat(-2, 32, 6), function="gelu", parameters=())
    z = hand.vector("permute", (y,), ValueFormat(-2, 32, 6), dims=(0, 2, 1))
    logits = hand.linear(y, 20, None)
    model = assert_equal(hand.network(x, z, logits, y))
    assert [o.name for o in model.graph.output] == [x, z, logits, y]


def test_batch_norm_before_a_layer() -> None:
    hand = Hand(11)
    x = hand.input((1, 6, 8, 8), SIGNED)
    parameters = {
        name: hand.parameter(np.abs(hand.rng.normal(size=6)) + 0.1)
        for name in ("mean", "var", "weight", "bias")
    }
    x = hand.vector("batch_norm", (x,), ValueFormat(-4, 0, 8), parameters, eps=1e-5)
    assert_equal(hand.network(hand.conv(x, 4, (3, 3), ValueFormat(-1, 128, 8))))


def test_an_input_may_be_an_output() -> None:
    hand = Hand(12)
    x = hand.input((1, 4, 8, 8), SIGNED)
    y = hand.conv(x, 4, (1, 1), None)
    model = assert_equal(hand.network(x, y))
    assert [o.name for o in model.graph.output] == [f"{x}_1", y]


def test_an_output_may_be_returned_twice() -> None:
    hand = Hand(18)
    y = hand.conv(hand.input((1, 4, 8, 8), SIGNED), 4, (1, 1), None)
    model = assert_equal(hand.network(y, y))
    assert [o.name for o in model.graph.output] == [y, f"{y}_1"]


def test_metadata_names_choice_and_price() -> None:
    hand = Hand(13)
    y = hand.conv(hand.input((1, 4, 8, 8), SIGNED), 4, (1, 1), None, operator="shift", bits=4)
    model = export_onnx(
        hand.network(y), costs={y: (12.5, 3.0)}, totals={"energy_pj": 99.0}, target="chip"
    )
    noted = [{p.key: p.value for p in n.metadata_props} for n in model.graph.node]
    assert [entry for entry in noted if entry] == [
        {
            "enos.layer": y,
            "enos.operator": "shift",
            "enos.core": "core",
            "enos.bits.input": "8",
            "enos.bits.weight": "4",
            "enos.bits.output": "8",
            "enos.energy_pj": "12.5",
            "enos.latency_ns": "3.0",
        }
    ]
    assert {p.key: p.value for p in model.metadata_props} == {
        "enos.network": "hand",
        "enos.batch": "1",
        "enos.energy_pj": "99.0",
        "enos.target": "chip",
    }
    assert [f.domain for f in model.functions] == ["enos"]
    assert b"/work" not in model.SerializeToString()
    assert b".py" not in model.SerializeToString()


def test_the_batch_is_symbolic_only_where_the_network_allows_it() -> None:
    for symbolic in (True, False):
        hand = Hand(14)
        y = hand.conv(hand.input((2, 4, 8, 8), SIGNED), 4, (1, 1), None)
        model = assert_equal(hand.network(y, symbolic=symbolic))
        for info in (model.graph.input[0], model.graph.output[0]):
            first = info.type.tensor_type.shape.dim[0]
            assert (first.dim_param, first.dim_value) == (("batch", 0) if symbolic else ("", 2))


def test_a_fixed_batch_is_compared_one_batch_at_a_time() -> None:
    hand = Hand(17)
    network = hand.network(hand.linear(hand.input((2, 8), SIGNED), 4, None), symbolic=False)
    two = tuple(np.concatenate([a, a[::-1]]) for a in images(network))
    result = compare(export_onnx(network), network, two)
    assert (result.max_steps, result.values) == (0, 16)


def test_large_tensors_lie_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = residual_network(1)
    monkeypatch.setattr("enos_compiler.export.onnx.EXTERNAL_BYTES", 100)
    path = tmp_path / "model.onnx"
    files = save_onnx(export_onnx(network), path)
    assert [f.name for f in files] == ["model.onnx", "model.onnx.data"]
    assert all(f.exists() for f in files)
    assert compare(path, network, images(network)).max_steps == 0


def test_a_large_model_runs_from_memory_and_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing moves tensors into the second file; the model at hand must keep them."""
    monkeypatch.setattr("enos_compiler.export.onnx.EXTERNAL_BYTES", 100)
    network = residual_network(1)
    model = export_onnx(network)
    before = [tensor.raw_data for tensor in model.graph.initializer]
    assert compare(model, network, images(network)).max_steps == 0
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        path, data = save_onnx(model, tmp_path / name / "model.onnx")
        assert data.stat().st_size > 100
        assert compare(path, network, images(network)).max_steps == 0
    assert [tensor.raw_data for tensor in model.graph.initializer] == before


def test_a_wrong_model_is_found_out() -> None:
    """The comparison itself can fail: one weight changed by one."""
    network = residual_network(2)
    model = export_onnx(network)
    layer = list(network.layers.values())[-1]
    assert layer.quantized is not None
    weight = layer.quantized.tensors["weight"].copy()
    weight[0, :] -= 1
    changed = replace(
        layer,
        quantized=replace(layer.quantized, tensors={**layer.quantized.tensors, "weight": weight}),
    )
    result = compare(model, network.with_layers({layer.name: changed}), images(network))
    assert result.max_steps > 0


def test_reference_frees_inner_values_and_keeps_all_on_request() -> None:
    network = residual_network(3)
    (x,) = images(network)
    values = reference.execute(network, (x,))
    assert set(values) == set(network.values)
    (logits,) = reference.run(network, (x,))
    np.testing.assert_array_equal(values[network.outputs[0]], logits)
    fmt = network.values[network.inputs[0]].format
    assert fmt is not None
    np.testing.assert_array_equal(values[network.inputs[0]], quantize_codes(x, fmt))


def test_double_precision_inputs_are_taken_as_float32() -> None:
    """Just above a tie in float64 is the tie itself in float32."""
    hand = Hand(19)
    network = hand.network(hand.linear(hand.input((1, 1), ValueFormat(0, 0, 8)), 2, None))
    tie = (np.array([[2.5 + 1e-12], [3.5 - 1e-12]]),)
    assert reference.input_codes(network, tie)["x0"].tolist() == [[2], [4]]
    assert compare(export_onnx(network), network, tie).max_steps == 0


def test_inputs_that_do_not_fit_are_refused() -> None:
    network = residual_network(4)
    (x,) = images(network)
    with pytest.raises(EnosError, match="takes 1"):
        reference.run(network, (x, x))
    with pytest.raises(EnosError, match="compiled for"):
        reference.run(network, (x[:, :, 1:],))
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(EnosError, match="NaN"):
        reference.run(network, (x,))


def test_a_layer_without_integers_is_refused() -> None:
    network = residual_network(5)
    first = next(iter(network.layers.values()))
    bare = network.with_layers({first.name: replace(first, quantized=None)})
    with pytest.raises(PassError, match="no integers"):
        export_onnx(bare)
