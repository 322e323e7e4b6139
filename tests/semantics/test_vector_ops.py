# SPDX-License-Identifier: Apache-2.0
"""Vector operations: integers against fractions or torch, and ONNX Runtime against integers."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from fractions import Fraction
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from enos_compiler import plugins
from enos_compiler.errors import EnosError, UsageError
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.onnx_builder import OPSET, OnnxBuilder
from enos_compiler.semantics.quantizer import dequantize, quantize_codes
from enos_compiler.semantics.registry import built_in, vector_op

Codes = NDArray[np.int64]
exact = settings(deadline=None, max_examples=25)
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def in_onnx_runtime(
    name: str,
    codes: tuple[Codes, ...],
    formats: tuple[ValueFormat, ...],
    output: ValueFormat,
    attributes: Mapping[str, Any],
    shape: tuple[int, ...],
) -> list[Codes]:
    """Run one operation on uint8 inputs, optimisation off and on."""
    builder = OnnxBuilder(scope=name)
    names = tuple(builder.reserve(f"x{i}") for i in range(len(codes)))
    inputs = []
    for label, array in zip(names, codes, strict=True):
        builder.set_shape(label, array.shape)
        inputs.append(helper.make_tensor_value_info(label, TensorProto.UINT8, array.shape))
    result = vector_op(name).onnx(builder, names, formats, output, attributes)
    graph = helper.make_graph(
        builder.nodes,
        "one",
        inputs,
        [helper.make_tensor_value_info(result, TensorProto.UINT8, shape)],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    results = []
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options)
        feeds = {n: c.astype(np.uint8) for n, c in zip(names, codes, strict=True)}
        results.append(session.run(None, feeds)[0].astype(np.int64))
    return results


def check(
    name: str,
    codes: tuple[Codes, ...],
    formats: tuple[ValueFormat, ...],
    output: ValueFormat,
    attributes: Mapping[str, Any] | None = None,
) -> Codes:
    """Assert that both modes equal the integers; return those."""
    expected = vector_op(name).integers(codes, formats, output, attributes or {})
    for found in in_onnx_runtime(name, codes, formats, output, attributes or {}, expected.shape):
        np.testing.assert_array_equal(found, expected)
    assert expected.min() >= output.low
    assert expected.max() <= output.high
    return expected


@st.composite
def stored(draw: st.DrawFn, spread: int = 4) -> ValueFormat:
    bits = draw(st.integers(2, 8))
    zero_point = draw(st.sampled_from([0, 2 ** (bits - 1)]))
    low = draw(st.sampled_from([0, zero_point // 2]))
    high = draw(st.sampled_from([2**bits - 1, zero_point + 2 ** (bits - 1) - 1]))
    return ValueFormat(draw(st.integers(-spread, spread)), zero_point, bits, low, high)


def every_pair(a: ValueFormat, b: ValueFormat) -> tuple[Codes, Codes]:
    left, right = np.meshgrid(
        np.arange(a.low, a.high + 1), np.arange(b.low, b.high + 1), indexing="ij"
    )
    return left, right


def exact_codes(reals: list[Fraction], fmt: ValueFormat) -> list[int]:
    steps = (round(r / Fraction(2) ** fmt.exponent) + fmt.zero_point for r in reals)
    return [min(max(s, fmt.low), fmt.high) for s in steps]


def fractions(codes: Codes, fmt: ValueFormat) -> list[Fraction]:
    unit = Fraction(2) ** fmt.exponent
    return [(int(c) - fmt.zero_point) * unit for c in codes.ravel()]


@exact
@given(a=stored(), b=stored(), output=stored(), name=st.sampled_from(["add", "sub", "mul"]))
def test_two_operands_for_every_pair(
    a: ValueFormat, b: ValueFormat, output: ValueFormat, name: str
) -> None:
    codes = every_pair(a, b)
    result = check(name, codes, (a, b), output)
    pairs = zip(fractions(codes[0], a), fractions(codes[1], b), strict=True)
    assert result.ravel().tolist() == exact_codes(
        [getattr(operator, name)(x, y) for x, y in pairs], output
    )


@pytest.mark.parametrize("spread", [14, 15, 30, 43])
@pytest.mark.parametrize("name", ["add", "sub"])
def test_sums_of_far_scales(name: str, spread: int) -> None:
    a, b = ValueFormat(0, 128, 8), ValueFormat(-spread, 128, 8)
    for output in (ValueFormat(-spread + 2, 128, 8), ValueFormat(1, 128, 8)):
        codes = tuple(c[::5, ::3] for c in every_pair(a, b))
        result = check(name, codes, (a, b), output)
        sign = 1 if name == "add" else -1
        pairs = zip(fractions(codes[0], a), fractions(codes[1], b), strict=True)
        assert result.ravel().tolist() == exact_codes([x + sign * y for x, y in pairs], output)


def test_sums_of_absurdly_far_scales_are_refused() -> None:
    with pytest.raises(EnosError, match="more than"):
        vector_op("add").integers(
            (np.zeros(1, np.int64),) * 2,
            (ValueFormat(0, 0, 8), ValueFormat(-44, 0, 8)),
            ValueFormat(0, 0, 8),
            {},
        )


def test_operands_broadcast_and_may_be_one_value() -> None:
    rng = np.random.default_rng(0)
    fmt, output = ValueFormat(-3, 128, 8), ValueFormat(-2, 128, 8)
    a, b = rng.integers(0, 256, (2, 3, 4, 4)), rng.integers(0, 256, (3, 1, 1))
    for name in ("add", "sub", "mul"):
        assert check(name, (a, b), (fmt, fmt), output).shape == a.shape


@exact
@given(formats=st.lists(stored(), min_size=1, max_size=3), output=stored())
def test_concat(formats: list[ValueFormat], output: ValueFormat) -> None:
    codes = tuple(np.arange(f.low, f.high + 1).reshape(1, -1) for f in formats)
    result = check("concat", codes, tuple(formats), output, {"dim": 1})
    reals = [r for c, f in zip(codes, formats, strict=True) for r in fractions(c, f)]
    assert result.ravel().tolist() == exact_codes(reals, output)


def test_concat_of_one_format_moves_codes() -> None:
    fmt = ValueFormat(-3, 0, 4)
    codes = np.arange(16).reshape(1, 16)
    result = check("concat", (codes, codes), (fmt, fmt), fmt, {"dim": 1})
    assert result.ravel().tolist() == [*range(16), *range(16)]


FUNCTIONS: list[tuple[str, tuple[float, ...]]] = [
    ("relu", ()),
    ("clip", (-0.5, 0.75)),
    ("affine", (0.3, -0.1)),
    ("sigmoid", ()),
    ("gelu", ()),
    ("hardswish", ()),
    ("log", ()),
    ("rsqrt", ()),
    ("exp", ()),
    ("reciprocal", ()),
    ("leaky_relu", (0.1,)),
]


@pytest.mark.parametrize(("function", "parameters"), FUNCTIONS)
@pytest.mark.parametrize("zero_point", [0, 128])
def test_elementwise_for_every_code(
    function: str, parameters: tuple[float, ...], zero_point: int
) -> None:
    fmt, output = ValueFormat(-5, zero_point, 8), ValueFormat(-6, 128, 8)
    attributes = {"function": function, "parameters": parameters}
    codes = np.arange(256).reshape(1, -1)
    result = check("elementwise", (codes,), (fmt,), output, attributes)
    real = torch.from_numpy(dequantize(codes, fmt))
    expected = vector_op("elementwise").function(real, **attributes).numpy()
    expected = np.where(np.isnan(expected), 0.0, expected)
    np.testing.assert_array_equal(result, quantize_codes(expected, output))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_batch_norm_has_a_table_per_channel(rank: int, affine: bool) -> None:
    rng = np.random.default_rng(1)
    channels = 5
    parameters = {
        "mean": rng.normal(size=channels),
        "var": rng.uniform(0.1, 2, channels),
        "weight": rng.normal(size=channels) if affine else None,
        "bias": rng.normal(size=channels) if affine else None,
    }
    fmt, output = ValueFormat(-4, 128, 8), ValueFormat(-3, 0, 6)
    codes = rng.integers(0, 256, (2, channels, 6, 7)[:rank])
    result = check("batch_norm", (codes,), (fmt,), output, {**parameters, "eps": 1e-3})
    tensors = [None if p is None else torch.from_numpy(p) for p in parameters.values()]
    real = vector_op("batch_norm").function(
        torch.from_numpy(dequantize(codes, fmt)), *tensors, eps=1e-3
    )
    assert np.abs(result - quantize_codes(real.numpy(), output)).max() == 0


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    kernel = draw(st.sampled_from([(2, 2), (3, 3), (3, 2), (4, 4), (5, 5), (3,), (2,)]))
    axes = len(kernel)
    return {
        "kernel": kernel,
        "stride": draw(st.tuples(*[st.integers(1, 3)] * axes)),
        "padding": draw(st.tuples(*[st.integers(0, k // 2) for k in kernel])),
        "ceil_mode": draw(st.booleans()),
    }


@exact
@given(window=windows(), dilation=st.integers(1, 2), fmt=stored(), seed=st.integers(0, 9))
def test_max_pool(window: dict[str, Any], dilation: int, fmt: ValueFormat, seed: int) -> None:
    axes = len(window["kernel"])
    codes = np.random.default_rng(seed).integers(fmt.low, fmt.high + 1, (2, 3, 11, 10)[: axes + 2])
    attributes = {**window, "dilation": (dilation,) * axes}
    result = check("max_pool", (codes,), (fmt,), fmt, attributes)
    real = vector_op("max_pool").function(torch.from_numpy(codes).double(), **attributes)
    np.testing.assert_array_equal(result, real.numpy())


@exact
@given(
    window=windows(), include=st.booleans(), fmt=stored(), output=stored(), seed=st.integers(0, 9)
)
def test_avg_pool(
    window: dict[str, Any], include: bool, fmt: ValueFormat, output: ValueFormat, seed: int
) -> None:
    axes = len(window["kernel"])
    codes = np.random.default_rng(seed).integers(fmt.low, fmt.high + 1, (2, 3, 11, 10)[: axes + 2])
    attributes = {**window, "count_include_pad": include}
    result = check("avg_pool", (codes,), (fmt,), output, attributes)
    real = vector_op("avg_pool").function(torch.from_numpy(dequantize(codes, fmt)), **attributes)
    distance = np.abs(real.numpy() / output.scale + output.zero_point - result)
    inside = (result > output.low) & (result < output.high)
    assert (distance[inside] <= 0.5 + 1e-9).all()


@exact
@given(
    extents=st.tuples(st.integers(1, 60), st.integers(1, 9)),
    keepdim=st.booleans(),
    fmt=stored(),
    output=stored(12),
    seed=st.integers(0, 99),
)
def test_mean(
    extents: tuple[int, int], keepdim: bool, fmt: ValueFormat, output: ValueFormat, seed: int
) -> None:
    codes = np.random.default_rng(seed).integers(fmt.low, fmt.high + 1, (2, 40, *extents))
    result = check("mean", (codes,), (fmt,), output, {"dims": (2, 3), "keepdim": keepdim})
    count = extents[0] * extents[1]
    sums = [sum(fractions(image, fmt)) / count for image in codes.reshape(80, -1)]
    assert result.ravel().tolist() == exact_codes([Fraction(s) for s in sums], output)


def every_sum(count: int) -> tuple[Codes, Codes]:
    """Return 0 .. 255 * count and rows of `count` codes with these sums."""
    sums = np.arange(0, 255 * count + 1)
    return sums, np.minimum(np.maximum(sums[:, None] - 255 * np.arange(count), 0), 255)


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (7, 7), (2, 7), (6, 5)])
def test_windowed_average_of_every_sum(kernel: tuple[int, int]) -> None:
    """ONNX Runtime's fused average misses ties over 2x7 and 6x5; the exported form does not."""
    count = kernel[0] * kernel[1]
    sums, codes = every_sum(count)
    attributes: dict[str, Any] = {"kernel": kernel, "stride": kernel, "padding": (0, 0)}
    attributes |= {"ceil_mode": False, "count_include_pad": True}
    for exponent in (-4, -1, 0, 2, 4):
        fmt, output = ValueFormat(0, 0, 8), ValueFormat(exponent, 0, 8)
        images = codes.reshape(1, -1, *kernel)
        result = check("avg_pool", (images,), (fmt,), output, attributes)
        reals = [Fraction(int(s), count) for s in sums]
        assert result.ravel().tolist() == exact_codes(reals, output)


@pytest.mark.parametrize("count", [9, 13, 14, 26, 28, 36, 49, 60])
def test_mean_of_every_sum(count: int) -> None:
    """Ties between two codes are where a float average goes wrong."""
    sums, codes = every_sum(count)
    codes = codes.reshape(1, -1, count)
    for exponent in (-2, -1, 0, 1, 2):
        output = ValueFormat(exponent, 0, 8)
        result = check(
            "mean", (codes,), (ValueFormat(0, 0, 8),), output, {"dims": (2,), "keepdim": False}
        )
        reals = [Fraction(int(s), count) for s in sums]
        assert result.ravel().tolist() == exact_codes(reals, output)


def test_mean_of_many_elements_just_below_a_tie() -> None:
    """253.5 - 1 / 400,002: float32 takes it for the tie and rounds to 254."""
    count = 200_001
    codes = np.full((1, 1, count), 253)
    codes[..., : count // 2] = 254
    fmt = ValueFormat(0, 0, 8)
    result = check("mean", (codes,), (fmt,), fmt, {"dims": (2,), "keepdim": False})
    assert result.item() == 253


MOVES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("reshape", (2, 3, 4, 4), {"shape": (-1, 48)}),
    ("permute", (2, 3, 4, 5), {"dims": (0, 2, 3, 1)}),
    ("slice", (2, 9, 4), {"dim": 1, "start": 1, "stop": 8, "step": 3}),
    ("pad", (2, 3, 4, 4), {"pads": (0, 0, 1, 2, 0, 0, 3, 0), "value": 0.0}),
    ("pad", (2, 3, 4), {"pads": (0, 0, 1, 0, 0, 1), "value": -0.5}),
    ("expand", (2, 1, 4), {"shape": (-1, 3, 4)}),
    ("resize_nearest", (2, 3, 4, 5), {"scale": (2, 3)}),
    ("resize_nearest", (2, 3, 4), {"scale": (2,)}),
]


@pytest.mark.parametrize(("name", "shape", "attributes"), MOVES)
def test_movement_equals_torch(
    name: str, shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    fmt = ValueFormat(-3, 128, 8)
    codes = np.random.default_rng(2).integers(0, 256, shape)
    result = check(name, (codes,), (fmt,), fmt, attributes)
    real = vector_op(name).function(torch.from_numpy(dequantize(codes, fmt)), **attributes)
    np.testing.assert_array_equal(dequantize(result, fmt), real.numpy())


@pytest.mark.parametrize("stride", [(2, 2), (3, 1), (2,), (1, 4)])
def test_interleave_rounds_each_phase_and_merges(stride: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    shape = (2, 3, 4, 5)[: len(stride) + 2]
    formats = [ValueFormat(int(rng.integers(-5, 0)), 128, 8) for _ in range(np.prod(stride))]
    codes = tuple(rng.integers(0, 256, shape) for _ in formats)
    output = ValueFormat(-2, 128, 8)
    result = check("interleave", codes, tuple(formats), output, {"stride": stride})
    phases = [torch.from_numpy(dequantize(c, f)) for c, f in zip(codes, formats, strict=True)]
    real = vector_op("interleave").function(*phases, stride=stride)
    np.testing.assert_array_equal(result, quantize_codes(real.numpy(), output))


def test_embedding_selects_rows() -> None:
    rng = np.random.default_rng(4)
    table_format, output = ValueFormat(-5, 128, 8), ValueFormat(-4, 64, 7)
    table, indices = rng.integers(0, 256, (50, 6)), rng.integers(0, 50, (2, 7))
    result = vector_op("embedding").integers(
        (indices, table), (ValueFormat(0, 0, 8), table_format), output, {}
    )
    real = dequantize(table, table_format)[indices]
    np.testing.assert_array_equal(result, quantize_codes(real, output))
    for outside in (-1, 50):
        indices[1, 2] = outside
        with pytest.raises(EnosError, match=r"give indices in 0\.\.49"):
            vector_op("embedding").integers(
                (indices, table), (ValueFormat(0, 0, 8), table_format), output, {}
            )


NORMS: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {"dim": 2}),
    ("softmax", {"dim": 1}),
    ("layer_norm", {"shape": (16,), "eps": 1e-5, "weight": np.linspace(0.5, 2, 16), "bias": None}),
    ("layer_norm", {"shape": (8, 16), "eps": 1e-5, "weight": None, "bias": None}),
    ("group_norm", {"groups": 2, "eps": 1e-5, "weight": None, "bias": np.linspace(-1, 1, 6)}),
    ("group_norm", {"groups": 3, "eps": 0.1, "weight": np.linspace(-2, 1, 6), "bias": None}),
]


@pytest.mark.parametrize("exponent", [-7, -4, 1])
@pytest.mark.parametrize(("name", "attributes"), NORMS)
def test_norms_and_softmax(name: str, attributes: dict[str, Any], exponent: int) -> None:
    """Integers follow the float64 meaning to half a step, and ONNX Runtime follows the integers."""
    fmt = ValueFormat(exponent, 128, 8)
    output = ValueFormat(-8, 0, 8) if name == "softmax" else ValueFormat(-5, 128, 8)
    codes = np.random.default_rng(5).integers(0, 256, (2, 6, 8, 16))
    codes[0, :, 0] = 77
    result = check(name, (codes,), (fmt,), output, attributes)
    tensors = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in attributes.items()
    }
    parameters = [tensors.pop(p) for p in vector_op(name).parameters]
    real = vector_op(name).function(
        torch.from_numpy(dequantize(codes, fmt)), *parameters, **tensors
    )
    distance = np.abs(real.numpy() / output.scale + output.zero_point - result)
    inside = (result > output.low) & (result < output.high)
    assert (distance[inside] <= 0.5 + 1e-6).all()
    assert len(np.unique(result)) > 4 or name == "softmax"


def test_a_constant_row_without_epsilon_gives_the_bias() -> None:
    codes = np.full((1, 2, 4), 9)
    attributes = {"shape": (4,), "eps": 0.0, "weight": None, "bias": np.ones(4)}
    output = ValueFormat(-3, 128, 8)
    result = check("layer_norm", (codes,), (ValueFormat(-3, 128, 8),), output, attributes)
    assert (result == 136).all()


def test_norms_refuse_what_int64_cannot_sum() -> None:
    codes = np.zeros((1, 2**24 + 1), dtype=np.int64)
    attributes = {"shape": (2**24 + 1,), "eps": 1e-5, "weight": None, "bias": None}
    fmt = ValueFormat(-3, 128, 8)
    with pytest.raises(EnosError, match="fewer elements"):
        vector_op("layer_norm").integers((codes,), (fmt,), fmt, attributes)


def test_work_is_counted_for_every_operation() -> None:
    window = {"kernel": (2, 2), "stride": (2, 2), "dims": (2, 3)}
    for name in built_in():
        work = vector_op(name).lane_operations(((1, 3, 8, 8),), (1, 3, 4, 4), window)
        assert set(work) <= {"add", "multiply", "compare", "lookup", "move"}
        assert all(count > 0 for count in work.values())
        assert bool(work) != (name == "reshape")


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(UsageError, match="soft_max"):
        vector_op("soft_max")


class Doubled(VectorOp):
    """A stranger's operation: twice the value, saturating."""

    name = "doubled"
    function = staticmethod(lambda x: 2 * x)
    keeps_format = True

    def integers(self, codes: Any, formats: Any, output: Any, _: Any) -> Codes:
        steps: Codes = 2 * (codes[0] - formats[0].zero_point) + output.zero_point
        return steps.clip(output.low, output.high)

    def lane_operations(self, _: Any, output_shape: Any, __: Any) -> Any:
        return {"add": int(np.prod(output_shape))}

    def onnx(self, builder: OnnxBuilder, inputs: Any, formats: Any, output: Any, _: Any) -> str:
        finer = ValueFormat(formats[0].exponent + 1, formats[0].zero_point, 8)
        return builder.quantize(builder.dequantize(inputs[0], finer), output)


def test_a_strangers_operation_comes_by_entry_point(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(plugins.load.cache_clear)
    point = EntryPoint("doubled", f"{__name__}:Doubled", "enos_compiler.vector_ops")
    monkeypatch.setattr(plugins, "_points", lambda _group: {"doubled": point})
    plugins.load.cache_clear()
    fmt = ValueFormat(-3, 128, 8)
    codes = np.arange(256).reshape(1, -1)
    result = check("doubled", (codes,), (fmt,), fmt)
    assert result[0, [0, 100, 128, 130, 255]].tolist() == [0, 72, 128, 132, 255]
    assert not vector_op("doubled").asks_output_width
