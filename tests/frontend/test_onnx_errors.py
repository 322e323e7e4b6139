# SPDX-License-Identifier: Apache-2.0
"""ONNX files that cannot be compiled: refused with what and where, whatever bytes they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnx_files
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from enos_compiler.errors import EnosError, FrontendError, UsageError
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import load_user_model

node = helper.make_node
IMAGE = {"x": ("n", 4, 6, 8)}
ROWS = {"x": ("n", 6)}


def weights(*shape: int) -> Any:
    return np.ones(shape, dtype=np.float32)


def refusal(path: Path, **options: Any) -> EnosError:
    with pytest.raises((FrontendError, UsageError)) as caught:
        lower(trace(load_user_model(str(path), **options)))
    assert caught.value.remedy
    assert str(path) in str(caught.value.place) or caught.value.place is None
    return caught.value


def remedy(path: Path) -> str | None:
    """Return the way out of a refusal; None for a file that is a network after all."""
    try:
        lower(trace(load_user_model(str(path))))
    except EnosError as error:
        return error.remedy or ""
    return None


def saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path


REFUSED_NODES: dict[str, tuple[Any, Any, Any, tuple[str, ...]]] = {
    "unknown operation": (
        node("CumSum", ["x", "axis"], ["y"], "running"),
        ROWS,
        {"axis": np.int64(1)},
        ("node `running` (CumSum)", "operation `CumSum` is not supported"),
    ),
    "nameless node": (node("Hardmax", ["x"], ["y"]), ROWS, {}, ("node `y` (Hardmax)",)),
    "linear resizing": (
        node("Resize", ["x", "", "scales"], ["y"], "up", mode="linear"),
        IMAGE,
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        ("node `up` (Resize)", "mode `linear`"),
    ),
    "uneven maximum": (
        node("MaxPool", ["x"], ["y"], "pool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        IMAGE,
        {},
        ("node `pool` (MaxPool)", "pads (0, 0, 1, 1) that differ"),
    ),
    "three axes": (
        node("Conv", ["x", "w"], ["y"], "conv3d"),
        {"x": ("n", 4, 6, 8, 8)},
        {"w": weights(2, 4, 3, 3, 3)},
        ("node `conv3d` (Conv)", "3 spatial axes"),
    ),
    "weights from the input": (
        node("Conv", ["x", "x"], ["y"], "self"),
        {"x": (4, 4, 3, 3)},
        {},
        ("node `self` (Conv)", "weights of a convolution depend on the input"),
    ),
    "a squeezed extent": (
        node("Squeeze", ["x", "axes"], ["y"], "drop"),
        {"x": ("n", "m", 6)},
        {"axes": np.array([1], np.int64)},
        ("axis 1 of input `x` is free (`m`)",),
    ),
    "recurrence": (
        node("LSTM", ["x", "w", "r"], ["", "y"], "memory", hidden_size=2),
        {"x": (5, 1, 3)},
        {"w": weights(1, 8, 3), "r": weights(1, 8, 2)},
        ("node `memory` (LSTM)", "recurrent layer `LSTM` is not supported"),
    ),
}


@pytest.mark.parametrize("name", REFUSED_NODES)
def test_a_node_that_cannot_be_compiled_is_named(name: str, tmp_path: Path) -> None:
    made, inputs, tensors, messages = REFUSED_NODES[name]
    path = saved(tmp_path / "net.onnx", onnx_files.graph([made], inputs, tensors))
    text = str(refusal(path))
    for message in messages:
        assert message in text, text


def test_a_quantised_network_is_told_from_a_float_one(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    made = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantise"),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    path = saved(tmp_path / "net.onnx", onnx_files.graph(made, ROWS, tensors))
    error = refusal(path)
    assert "quantised already" in error.message
    assert "node `quantise` (QuantizeLinear)" in str(error.place)
    assert "float network" in str(error.remedy)


def test_old_opsets_and_foreign_domains_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx", onnx_files.graph([node("Relu", ["x"], ["y"])], ROWS))
    model = onnx.load(path)
    model.opset_import[0].version = 11
    assert "opset is 11, read are 13 to" in refusal(saved(path, model)).message
    model.opset_import[0].version = 17
    model.opset_import.append(helper.make_opsetid("acme", 1))
    model.graph.node[0].domain = "acme"
    assert "domain `acme`" in refusal(saved(path, model)).message


def test_float64_is_refused_with_the_tensor(tmp_path: Path) -> None:
    made = [node("MatMul", ["x", "w"], ["y"])]
    model = onnx_files.graph(made, ROWS, {"w": np.ones((6, 2))}, kind=TensorProto.DOUBLE)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    error = refusal(saved(tmp_path / "net.onnx", model))
    assert "input `x` is of type double" in error.message


def test_free_axes_and_unknown_ones_are_named(tmp_path: Path) -> None:
    made = [node("Relu", ["x"], ["y"])]
    path = saved(tmp_path / "net.onnx", onnx_files.graph(made, {"x": ("n", "length")}))
    assert "--model-arg length=N" in str(refusal(path).remedy)
    assert "length=zero is no extent" in str(refusal(path, model_args={"length": "zero"}))
    assert "no input has a free axis `lenght` behind the batch" in str(
        refusal(path, model_args={"lenght": "4"})
    )


def test_calibration_files_are_checked(tmp_path: Path) -> None:
    made = [node("Add", ["x", "z"], ["y"])]
    both = {"x": ("n", 6), "z": ("n", 6)}
    path = saved(tmp_path / "net.onnx", onnx_files.graph(made, both))
    arrays = tmp_path / "inputs.npz"

    def message() -> str:
        with pytest.raises(FrontendError) as caught:
            load_user_model(str(path), calibration=arrays).example_inputs()
        return str(caught.value)

    assert "cannot be read as arrays" in message()
    arrays.write_bytes(b"PK\x03\x04 nonsense")
    assert "cannot be read as arrays" in message()
    np.savez(arrays, x=weights(2, 6))
    assert "there is no array `z`" in message()
    np.savez(arrays, x=weights(2, 6), z=weights(2, 5))
    assert "array `z` of shape (2, 5) does not fit the input (n, 6)" in message()
    with pytest.raises(UsageError, match="example inputs itself"):
        load_user_model("examples/digits.py", calibration=arrays)


def test_tensors_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(24))
    folder = tmp_path / "inside"
    folder.mkdir()
    model = onnx_files.graph([node("Add", ["x", "w"], ["y"])], ROWS, {"w": weights(6)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for location in ("../secret.bin", str(secret)):
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
        error = refusal(saved(folder / "net.onnx", model))
        assert "no readable ONNX file" in error.message


def test_vast_extents_are_refused_before_they_are_filled(tmp_path: Path) -> None:
    shape = {"shape": np.array([1 << 20, 1 << 20], np.int64)}
    made = [node("ConstantOfShape", ["shape"], ["c"]), node("Add", ["x", "c"], ["y"])]
    path = saved(tmp_path / "net.onnx", onnx_files.graph(made, {"x": ("n", 1)}, shape))
    assert "1,099,511,627,776 elements" in refusal(path).message


@pytest.fixture(scope="module")
def network_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model, inputs = networks.build("resnet20")
    folder = tmp_path_factory.mktemp("whole")
    return onnx_files.export(model, inputs, folder / "net.onnx").read_bytes()


def test_a_name_that_is_no_text_is_refused(network_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network_bytes.replace(b"/stages/stages.0/conv1/Conv", b"\xff" * 27))
    with pytest.raises(FrontendError, match="a name in it is no UTF-8 text"):
        load_user_model(str(path)).model()


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    cut=st.one_of(st.none(), st.integers(0, 90_000)),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=6),
)
@example(cut=0, flips=[])
@example(cut=50, flips=[])
@example(cut=None, flips=[(0.0, 3)])
@example(cut=None, flips=[(0.03125, 7)])  # a name that is no text
def test_damaged_files_are_refused_or_compute_finite_numbers(
    cut: int | None, flips: list[tuple[float, int]], network_bytes: bytes, tmp_path: Path
) -> None:
    """Flips near the ends hit the graph's structure, those between them the weights."""
    damaged = bytearray(network_bytes[:cut])
    for place, bit in flips:
        if damaged:
            damaged[round(place * (len(damaged) - 1))] ^= 1 << bit
    path = tmp_path / "net.onnx"
    path.write_bytes(damaged)
    assert remedy(path) != ""


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_structures_put_together_wrongly_are_refused(
    data: st.DataObject, network_bytes: bytes, tmp_path: Path
) -> None:
    """Edits of the decoded graph reach behind the parser: names, attributes, extents, types."""
    model = onnx.load_from_string(network_bytes)
    nodes, tensors = model.graph.node, model.graph.initializer
    for _ in range(data.draw(st.integers(1, 3))):
        chosen = nodes[data.draw(st.integers(0, len(nodes) - 1))]
        kind = data.draw(st.sampled_from(["operation", "operand", "attribute", "extent", "drop"]))
        if kind == "operation":
            chosen.op_type = data.draw(
                st.sampled_from(["Add", "MatMul", "Resize", "Gather", "Slice", "Split", "Pad"])
            )
        elif kind == "operand" and chosen.input:
            names = [t.name for t in tensors] + [n.output[0] for n in nodes] + [""]
            index = data.draw(st.integers(0, len(chosen.input) - 1))
            chosen.input[index] = data.draw(st.sampled_from(names))
        elif kind == "attribute" and chosen.attribute:
            attribute = data.draw(st.sampled_from(list(chosen.attribute)))
            if attribute.ints:
                attribute.ints[0] = data.draw(st.sampled_from([-1, 0, 7, 2**31, 2**62]))
            else:
                attribute.i = data.draw(st.sampled_from([-3, 0, 2, 2**40]))
        elif kind == "extent":
            tensor = data.draw(st.sampled_from(list(tensors)))
            if tensor.dims:
                tensor.dims[0] = data.draw(st.sampled_from([0, 1, 5, 2**40]))
        elif len(nodes) > 1:
            nodes.remove(chosen)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert remedy(path) != ""


def test_scalars_of_every_stored_form_are_read(tmp_path: Path) -> None:
    """A constant may hold its number in a node, in raw bytes or in a typed field."""
    typed = helper.make_tensor("t", TensorProto.FLOAT, [], [0.5])
    made = [
        node("Constant", [], ["a"], value=typed),
        node("Constant", [], ["b"], value_float=0.25),
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(0.125, np.float32))),
        node("Add", ["a", "b"], ["ab"]),
        node("Add", ["ab", "c"], ["abc"]),
        node("Add", ["x", "abc"], ["y"]),
    ]
    path = saved(tmp_path / "net.onnx", onnx_files.graph(made, ROWS))
    network = lower(trace(load_user_model(str(path))))
    (vector,) = network.vectors.values()
    assert vector.attributes["parameters"] == (1.0, 0.875)
