# SPDX-License-Identifier: Apache-2.0
"""A float ONNX file becomes the network that the file computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnx_files
import pytest
import torch
from onnx import TensorProto, helper

from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import load_user_model
from enos_compiler.ir.network import Network

node = helper.make_node


def imported(path: Path, **arguments: str) -> Network:
    return lower(trace(load_user_model(str(path), arguments)))


def close_to_runtime(network: Network, path: Path) -> None:
    """The canonical graph and ONNX Runtime agree to 1e-5 on the example inputs."""
    size = len(network.example_inputs[0]) if network.batch_is_symbolic else network.batch
    inputs = tuple(x[:size] for x in network.example_inputs)
    with torch.no_grad():
        found = network.graph(*inputs)
    expected = onnx_files.run(path, [x.numpy() for x in inputs])
    for real, right in zip(found, expected, strict=True):
        assert real.shape == right.shape
        assert np.abs(real.numpy() - right).max() <= 1e-5 * max(1.0, np.abs(right).max())


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("name", [n for n in networks.COVERAGE if n != "keyword"])
def test_exported_networks_compute_the_same(name: str, opset: int, tmp_path: Path) -> None:
    model, inputs = networks.build(name)
    path = onnx_files.export(model, inputs, tmp_path / f"{name}.onnx", opset=opset)
    network = imported(path)
    assert network.name == name
    close_to_runtime(network, path)
    own = lower(trace(model, inputs))
    assert network.macs == own.macs
    assert network.batch_is_symbolic == (name != "vit")  # the exporter puts its batch second


def test_convolutions_padded_to_the_same_size_compute_what_torch_computes(tmp_path: Path) -> None:
    """ONNX Runtime refuses dilation beside auto_pad, so torch is the judge here."""
    model, inputs = networks.build("keyword")
    network = imported(onnx_files.export(model, inputs, tmp_path / "keyword.onnx"))
    with torch.no_grad():
        torch.testing.assert_close(network.graph(*inputs)[0], model(*inputs), rtol=1e-5, atol=1e-5)


RNG = np.random.default_rng(0)


def weights(*shape: int) -> onnx_files.Array:
    return RNG.standard_normal(shape).astype(np.float32)


def numbers(*values: float) -> onnx_files.Array:
    return np.array(values, dtype=np.float32)


def extents(*values: int) -> onnx_files.Array:
    return np.array(values, dtype=np.int64)


IMAGE = {"x": ("n", 4, 6, 8)}
ROWS = {"x": ("n", 6)}
HAND_BUILT: dict[str, tuple[Any, ...]] = {
    "uneven pads": (
        [node("Conv", ["x", "w"], ["y"], pads=[0, 1, 2, 1], strides=[2, 1])],
        IMAGE,
        {"w": weights(3, 4, 3, 3)},
    ),
    "same upper": (
        [node("Conv", ["x", "w", "b"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
        IMAGE,
        {"w": weights(3, 4, 3, 3), "b": weights(3)},
    ),
    "same lower": (
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])],
        IMAGE,
        {"w": weights(3, 4, 2, 2)},
    ),
    "transposed, uneven pads": (
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[0, 1, 1, 0])],
        IMAGE,
        {"w": weights(4, 3, 3, 3)},
    ),
    "max pool, uneven pads": (
        [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])],
        IMAGE,
        {},
    ),
    "max pool, ceiling": (
        [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        IMAGE,
        {},
    ),
    "average pool, padded": (
        [
            node(
                "AveragePool",
                ["x"],
                ["y"],
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                count_include_pad=1,
            )
        ],
        IMAGE,
        {},
    ),
    "average pool, border apart": (
        [node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1, 1, 1, 1])],
        IMAGE,
        {},
    ),
    "global maximum": ([node("GlobalMaxPool", ["x"], ["y"])], IMAGE, {}),
    "batch norm": (
        [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=1e-3)],
        IMAGE,
        {"s": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.5},
    ),
    "instance norm": (
        [node("InstanceNormalization", ["x", "s", "b"], ["y"])],
        IMAGE,
        {"s": weights(4), "b": weights(4)},
    ),
    "gemm, scaled": (
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        ROWS,
        {"w": weights(5, 6), "b": weights(5)},
    ),
    "gemm, plain": (
        [node("Gemm", ["x", "w", "b"], ["y"])],
        ROWS,
        {"w": weights(6, 5), "b": weights(5)},
    ),
    "matmul and bias": (
        [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "b"], ["y"])],
        {"x": ("n", 3, 6)},
        {"w": weights(6, 5), "b": weights(5)},
    ),
    "clip, one bound": ([node("Clip", ["x", "", "high"], ["y"])], ROWS, {"high": np.float32(0.5)}),
    "maximum with a number": ([node("Max", ["x", "c"], ["y"])], ROWS, {"c": numbers(0.25)}),
    "hard sigmoid": ([node("HardSigmoid", ["x"], ["y"], alpha=0.3, beta=0.4)], ROWS, {}),
    "selu": ([node("Selu", ["x"], ["y"])], ROWS, {}),
    "slopes per channel": (
        [node("PRelu", ["x", "slope"], ["y"])],
        IMAGE,
        {"slope": weights(4, 1, 1)},
    ),
    "power": ([node("Pow", ["x", "k"], ["y"])], ROWS, {"k": numbers(2.0)}),
    "quotient": ([node("Div", ["x", "c"], ["y"])], ROWS, {"c": numbers(*range(1, 7))}),
    "number less a tensor": ([node("Sub", ["c", "x"], ["y"])], ROWS, {"c": np.float32(1.5)}),
    "sums over axes": ([node("ReduceSum", ["x", "axes"], ["y"])], IMAGE, {"axes": extents(2, 3)}),
    "mean without axis": ([node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)], IMAGE, {}),
    "nearest twice": (
        [
            node(
                "Resize",
                ["x", "", "scales"],
                ["y"],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        IMAGE,
        {"scales": numbers(1, 1, 2, 3)},
    ),
    "nearest by half pixels": (
        [node("Resize", ["x", "", "scales"], ["y"], mode="nearest")],
        IMAGE,
        {"scales": numbers(1, 1, 3, 2)},
    ),
    "depth to space": ([node("DepthToSpace", ["x"], ["y"], blocksize=2)], IMAGE, {}),
    "depth to space by columns": (
        [node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")],
        IMAGE,
        {},
    ),
    "space to depth": ([node("SpaceToDepth", ["x"], ["y"], blocksize=2)], IMAGE, {}),
    "reflected border": (
        [node("Pad", ["x", "pads"], ["y"], mode="reflect")],
        IMAGE,
        {"pads": extents(0, 0, 1, 2, 0, 0, 2, 1)},
    ),
    "border of a number": (
        [node("Pad", ["x", "pads", "v"], ["y"])],
        IMAGE,
        {"pads": extents(0, 0, 1, 0, 0, 0, 0, 1), "v": np.float32(0.5)},
    ),
    "scattered entries": (
        [node("Gather", ["x", "rows"], ["y"], axis=1)],
        IMAGE,
        {"rows": extents(3, 0, 1, -2)},
    ),
    "one entry": ([node("Gather", ["x", "row"], ["y"], axis=2)], IMAGE, {"row": np.int64(-1)}),
    "every other": (
        [node("Slice", ["x", "first", "last", "axes", "steps"], ["y"])],
        IMAGE,
        {"first": extents(1), "last": extents(2**40), "axes": extents(3), "steps": extents(2)},
    ),
    "equal parts": (
        [node("Split", ["x"], ["a", "b"], axis=1), node("Mul", ["a", "b"], ["y"])],
        IMAGE,
        {},
    ),
    "repeated": ([node("Tile", ["x", "times"], ["y"])], IMAGE, {"times": extents(1, 2, 1, 1)}),
    "gelu": ([node("Gelu", ["x"], ["y"], approximate="tanh")], ROWS, {}, 20),
    "mean, axes as a tensor": (
        [node("ReduceMean", ["x", "axes"], ["y"])],
        IMAGE,
        {"axes": extents(-1)},
        18,
    ),
    "shape of shapes": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axes"], ["lead"]),
            node("Concat", ["lead", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ],
        IMAGE,
        {"zero": np.int64(0), "axes": extents(0), "rest": extents(-1, 16)},
    ),
}


@pytest.mark.parametrize("name", HAND_BUILT)
def test_operations_compute_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    nodes, inputs, tensors, *rest = HAND_BUILT[name]
    path = tmp_path / "net.onnx"
    onnx.save(onnx_files.graph(nodes, inputs, tensors, opset=rest[0] if rest else 17), path)
    network = imported(path)
    assert network.batch_is_symbolic
    close_to_runtime(network, path)


def test_nodes_give_their_names_and_shared_tensors_stay_shared(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["in.put", "w"], ["a"], "first/layer", transB=1),
        node("Relu", ["a"], ["r"], "2nd"),
        node("Identity", ["w"], ["same"]),
        node("Gemm", ["r", "same"], ["y"], "last.layer", transB=1),
    ]
    path = tmp_path / "net.onnx"
    onnx.save(onnx_files.graph(nodes, {"in.put": ("n", 6)}, {"w": weights(6, 6)}), path)
    network = imported(path)
    assert list(network.layers) == ["first_layer", "last_layer"]
    assert network.inputs == ("in_put",)
    first, last = network.layers.values()
    assert first.weight_key == last.weight_key
    assert first.origin == "first_layer"


def test_group_norm_has_a_scale_per_channel(tmp_path: Path) -> None:
    """Shape inference knows no group norm; the output's shape is that of another operation."""
    given = {"s": weights(4), "b": weights(4)}
    model = onnx_files.graph([node("Relu", ["x"], ["y"])], IMAGE, given, opset=21)
    norm = node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    model.graph.node[0].CopyFrom(norm)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    close_to_runtime(imported(path), path)


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    model = onnx_files.graph([node("Relu", ["x"], ["y"])], ROWS)
    model.graph.node[0].CopyFrom(node("Twice", ["x"], ["y"], domain="own"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, opsets[:1]))
    model.opset_import.append(opsets[1])
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    close_to_runtime(imported(path), path)


def test_tensors_in_other_files_are_read(tmp_path: Path) -> None:
    nodes = [node("Gemm", ["x", "w"], ["y"], transB=1)]
    path = tmp_path / "net.onnx"
    model = onnx_files.graph(nodes, ROWS, {"w": weights(300, 6)})
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert (tmp_path / "net.data").stat().st_size == 300 * 6 * 4
    close_to_runtime(imported(path), path)


def test_a_file_of_a_fixed_batch_is_freed_where_its_nodes_allow(tmp_path: Path) -> None:
    model, inputs = networks.build("resnet20")
    path = onnx_files.export(model, tuple(x[:1] for x in inputs), tmp_path / "n.onnx", free=False)
    network = imported(path)
    assert network.batch_is_symbolic
    assert len(network.example_inputs[0]) == 8


def test_free_axes_take_their_extent_from_an_argument(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    nodes = [node("Relu", ["x"], ["y"])]
    onnx.save(onnx_files.graph(nodes, {"x": ("n", "length", 4)}), path)
    assert imported(path, length="7").values["x"].shape == (1, 7, 4)


def test_calibration_inputs_set_shapes_and_ranges(tmp_path: Path) -> None:
    path, arrays = tmp_path / "net.onnx", tmp_path / "inputs.npz"
    nodes = [node("Relu", ["x"], ["y"])]
    onnx.save(onnx_files.graph(nodes, {"x": ("n", "length", 4)}), path)
    np.savez(arrays, x=np.full((3, 5, 4), 2.0))
    network = trace(load_user_model(str(path), calibration=arrays))
    assert network.example_inputs[0].shape == (3, 5, 4)
    assert network.example_inputs[0].dtype == torch.float32
    assert network.sections["onnx"]["notes"] == ["calibrated on 3 inputs of inputs.npz"]


def test_drawn_inputs_are_said_and_depend_on_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(onnx_files.graph([node("Relu", ["x"], ["y"])], ROWS), path)
    one, same, other = (trace(load_user_model(str(path), seed=s)) for s in (1, 1, 2))
    assert torch.equal(one.example_inputs[0], same.example_inputs[0])
    assert not torch.equal(one.example_inputs[0], other.example_inputs[0])
    (note,) = one.sections["onnx"]["notes"]
    assert "8 random entries (seed 1)" in note


def test_token_ids_are_drawn_below_the_rows_of_their_table(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    nodes = [node("Gather", ["table", "x"], ["y"])]
    model = onnx_files.graph(
        nodes, {"x": ("n", 200)}, {"table": weights(3, 4)}, kind=TensorProto.INT64
    )
    onnx.save(model, path)
    network = imported(path)
    assert sorted(set(network.example_inputs[0].flatten().tolist())) == [0, 1, 2]
    close_to_runtime(network, path)
