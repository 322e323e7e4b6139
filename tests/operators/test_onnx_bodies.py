# SPDX-License-Identifier: Apache-2.0
"""ONNX bodies in ONNX Runtime, optimisation off and on: the same totals, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from operator_cases import (
    OPERATORS,
    TRAINABLE,
    Case,
    formats,
    layers,
    product_layer,
    random_codes,
    weight_bits,
)

from enos_compiler.errors import EnosError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.operators.base import Operator
from enos_compiler.operators.mac import Mac
from enos_compiler.semantics.base import OnnxFunction
from enos_compiler.semantics.onnx_builder import OnnxBuilder
from enos_compiler.semantics.quantizer import EXACT_FLOAT32

SEEDS = st.integers(0, 2**32 - 1)
MODES = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def _run(
    function: OnnxFunction, codes: tuple[IntArray, ...], shape: tuple[int, ...]
) -> list[NDArray[np.generic]]:
    """Call the function in a model of its own; one result per optimisation mode."""
    builder = OnnxBuilder()
    names = [f"codes_{i}" for i in range(len(codes))]
    result = builder.call(function, names)
    double = "Double" in function.name
    model = helper.make_model(
        helper.make_graph(
            builder.nodes,
            "call",
            [
                helper.make_tensor_value_info(n, TensorProto.UINT8, c.shape)
                for n, c in zip(names, codes, strict=True)
            ],
            [
                helper.make_tensor_value_info(
                    result, TensorProto.DOUBLE if double else TensorProto.FLOAT, shape
                )
            ],
            builder.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("enos", 1)],
        functions=list(builder.functions.values()),
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    feeds = {n: c.astype(np.uint8) for n, c in zip(names, codes, strict=True)}
    results = []
    for mode in MODES:
        options = ort.SessionOptions()
        options.graph_optimization_level = mode
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results.append(session.run(None, feeds)[0])
    return results


def _assert_equal(
    operator: Operator, layer: Layer, codes: tuple[IntArray, ...], quantized: QuantizedLayer
) -> None:
    total = operator.accumulate(codes, layer, quantized)
    for result in _run(operator.onnx_body(layer, quantized), codes, total.shape):
        assert np.array_equal(result, total)


@settings(deadline=None, max_examples=40)
@given(case=layers(), bits=st.integers(2, 4), signed=st.booleans(), seed=SEEDS, wide=st.booleans())
def test_thermometer_body_equals_the_integers(
    case: Case, bits: int, signed: bool, seed: int, wide: bool
) -> None:
    """Every kind of layer of adder; `wide` multiplies the total beyond what float32 holds."""
    rng = np.random.default_rng(seed)
    fmt = ValueFormat(-2, 2 ** (bits - 1) if signed else 0, bits)
    weight = rng.normal(0, 1, case.weight_shape)
    gain, shift = rng.normal(0, 1, case.channels), rng.normal(0, 1, case.channels)
    adder = OPERATORS["adder"]
    quantized = adder.quantize(case.layer, weight, gain, shift, Bits(bits, bits, 8), (fmt,))
    if wide:
        factor = 2**25 + 1
        tensors = {**quantized.tensors, "multiplier": quantized.tensors["multiplier"] * factor}
        quantized = replace(quantized, tensors=tensors, bound=quantized.bound * factor)
    codes = random_codes(rng, fmt, case.input_shape)
    _assert_equal(adder, case.layer, (codes,), quantized)


@settings(deadline=None, max_examples=20)
@pytest.mark.parametrize("name", TRAINABLE)
@given(data=st.data(), case=layers(), fmt=formats(), seed=SEEDS, wide=st.booleans())
def test_bodies_equal_the_integers(
    name: str, data: st.DataObject, case: Case, fmt: ValueFormat, seed: int, wide: bool
) -> None:
    """Every kind of layer; `wide` multiplies the total beyond what float32 holds."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, case.weight_shape)
    gain, shift = rng.normal(0, 1, case.channels), rng.normal(0, 1, case.channels)
    bits = Bits(fmt.bits, data.draw(weight_bits(name)), 8)
    quantized = OPERATORS[name].quantize(case.layer, weight, gain, shift, bits, (fmt,))
    if wide:
        factor = 2**25 + 1
        quantized = replace(
            quantized,
            tensors={
                key: tensor * factor if "multiplier" in key else tensor
                for key, tensor in quantized.tensors.items()
            },
            bias=quantized.bias * factor + 1,
            bound=quantized.bound * factor + 1,
        )
    _assert_equal(
        OPERATORS[name], case.layer, (random_codes(rng, fmt, case.input_shape),), quantized
    )


@pytest.mark.parametrize("name", TRAINABLE)
def test_wide_layers_are_exact_at_the_extremes(name: str) -> None:
    """3 x 3 x 512 taps of full 8-bit inputs: the largest sums are reached and equal."""
    rng = np.random.default_rng(0)
    shape = LayerShape(m=4, c=512, p=2, q=2, r=3, s=3, padding=(1, 1, 1, 1))
    layer = Layer(name="wide", op="conv", inputs=("x",), output="wide", shape=shape, weight="w")
    weight = np.abs(rng.normal(0, 1, (4, 512, 3, 3))) + 1
    fmt = ValueFormat(-6, 0, 8)
    operator = OPERATORS[name]
    bits = Bits(8, operator.weight_bits[-1], 8)
    ones = np.ones(4)
    quantized = operator.quantize(layer, weight, ones, ones / 3, bits, (fmt,))
    if name in ("mac", "shift"):
        assert quantized.bound >= EXACT_FLOAT32
    codes = np.full((1, 512, 2, 2), 255, dtype=np.int64)
    codes[0, :, 1, 1] = rng.integers(0, 256, 512)
    _assert_equal(operator, layer, (codes,), quantized)


def test_a_sum_too_long_for_any_digit_is_an_error() -> None:
    shape = LayerShape(m=1, c=70_000)
    layer = Layer(name="long", op="linear", inputs=("x",), output="long", shape=shape, weight="w")
    quantized = Mac().quantize(
        layer,
        np.ones((1, 70_000)),
        np.ones(1),
        np.zeros(1),
        Bits(8, 2, 8),
        (ValueFormat(0, 0, 8),),
    )
    with pytest.raises(EnosError, match="even for one digit"):
        Mac().onnx_body(layer, quantized)


@settings(deadline=None, max_examples=20)
@given(left=formats(), right=formats(), seed=SEEDS, long=st.booleans())
def test_product_bodies(left: ValueFormat, right: ValueFormat, seed: int, long: bool) -> None:
    rng = np.random.default_rng(seed)
    contracted = 1500 if long else 7
    layer = product_layer(2, 3, contracted, 4)
    none = np.zeros(0)
    quantized = Mac().quantize(
        layer, none, none, none, Bits(left.bits, right.bits, 8), (left, right)
    )
    codes = (
        random_codes(rng, left, (2, 3, contracted)),
        random_codes(rng, right, (2, contracted, 4)),
    )
    _assert_equal(Mac(), layer, codes, quantized)
