# SPDX-License-Identifier: Apache-2.0
"""Layers on crossbars: their totals from the definition, conversion by conversion; ONNX bodies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper
from operator_cases import OPERATORS, Case, formats, layers, random_codes, weight_bits

from enos_compiler.crossbar.integer import required_adc_bits
from enos_compiler.crossbar.layer import (
    CrossbarArithmetic,
    array_form,
    conversions_differ,
    count_saturation,
    largest_total,
    row_reads,
    stored_form,
    stored_groups,
)
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.errors import RefusalError
from enos_compiler.ir import Bits, Choice, IntArray, Layer, QuantizedLayer, ValueFormat
from enos_compiler.ir.codec import decode, encode
from enos_compiler.operators.terms import Term
from enos_compiler.semantics.onnx_builder import OnnxBuilder

NAMES = ("mac", "bw", "xnor", "mf", "ef")
ARITHMETIC = CrossbarArithmetic()


@st.composite
def arrays(draw: st.DrawFn) -> CrossbarSpec:
    rows = draw(st.integers(2, 12))
    return CrossbarSpec(
        rows=rows,
        columns=64,
        cell=CellSpec(bits=draw(st.integers(1, 3))),
        encoding=draw(st.sampled_from(["differential", "offset", "unit_column"])),
        subtract_before_adc=draw(st.booleans()),
        rows_at_once=draw(st.none() | st.integers(1, rows)),
        dac=DacSpec(digit_bits=draw(st.integers(1, 8))),
        adc=AdcSpec(bits=draw(st.integers(2, 7))),
    )


@dataclass(frozen=True)
class OnArray:
    """A layer that carries an array, and one input."""

    layer: Layer
    codes: IntArray

    @property
    def quantized(self) -> QuantizedLayer:
        assert self.layer.quantized is not None
        return self.layer.quantized

    @property
    def plain(self) -> QuantizedLayer:
        return replace(self.quantized, array=None)


@st.composite
def layers_on_arrays(draw: st.DrawFn, name: str) -> OnArray:
    case: Case = draw(layers())
    fmt: ValueFormat = draw(formats(signed=False if name in ("mf", "xnor") else None))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    bits = Bits(fmt.bits, draw(weight_bits(name)), 8)
    quantized = OPERATORS[name].quantize(
        case.layer,
        rng.normal(0, 1, case.weight_shape),
        rng.normal(0, 1, case.channels),
        rng.normal(0, 1, case.channels),
        bits,
        (fmt,),
    )
    layer = replace(case.layer, choice=Choice("xbar", name, bits), quantized=quantized)
    spec = draw(arrays())
    steps = []
    for term in OPERATORS[name].terms(quantized):
        width, form = stored_form(layer, term)
        matrices = stored_groups(layer, term, spec, form, width)
        columns = draw(st.sampled_from([1, sum(m.outputs + m.unit_column for m in matrices)]))
        steps.append(rng.integers(0, 4, (matrices[0].layout.slices, columns)))
    quantized = replace(quantized, array=array_form(layer, spec, tuple(steps)))
    quantized = replace(quantized, bound=largest_total(layer, quantized))
    layer = replace(layer, quantized=quantized)
    return OnArray(layer, random_codes(rng, fmt, case.input_shape))


def total_by_definition(on_array: OnArray) -> tuple[list[int], int]:
    """Every output from single cells and conversions, in Python; and the conversions clipped."""
    layer, quantized = on_array.layer, on_array.quantized
    form, fmt, shape = quantized.array, quantized.input_formats[0], layer.shape
    assert form is not None
    assert layer.choice is not None
    images = on_array.codes
    if layer.op != "conv":
        images = images.reshape(-1, images.shape[-1], 1, 1)
    elif images.ndim == 3:
        images = images[..., None]
    found, clipped = [], 0
    taps = list(product(range(shape.c), range(shape.r), range(shape.s)))
    terms = OPERATORS[layer.choice.operator].terms(quantized)
    for n, g, m, p, q in product(
        range(len(images)), *map(range, (shape.g, shape.m, shape.p, shape.q))
    ):
        channel = g * shape.m + m
        total = int(quantized.bias[channel])
        for term, how in zip(terms, form.reads, strict=True):
            weights = [int(w) for w in term.weight.reshape(-1, len(taps))[channel]]
            sums = 0
            for read in row_reads(term, fmt):
                values = [_row(images, n, g, tap, p, q, shape, read.value, fmt) for tap in taps]
                column = g * (shape.m + _units(form, how)) + m
                part, over = _read(weights, values, read.bits, form, how, column, shape, g)
                sums += read.sign * part
                clipped += over
            if term.reads == "code":
                sums -= fmt.zero_point * sum(weights)
            total += int(term.multiplier[channel]) * sums
        found.append(total)
    return found, clipped


def _units(form: Any, how: Any) -> int:
    return int(form.encoding == "unit_column" and how.form != "unsigned")


def _row(
    images: IntArray, n: int, g: int, tap: Any, p: int, q: int, shape: Any, value: str, fmt: Any
) -> int:
    c, r, s = tap
    y = p * shape.stride[0] + r * shape.dilation[0] - shape.padding[0]
    x = q * shape.stride[1] + s * shape.dilation[1] - shape.padding[1]
    inside = 0 <= y < images.shape[2] and 0 <= x < images.shape[3]
    code = int(images[n, g * shape.c + c, y, x]) if inside else fmt.zero_point
    if value == "code":
        return code
    return int(code > fmt.zero_point) if value == "positive" else int(code < fmt.zero_point)


def _read(
    weights: list[int],
    values: list[int],
    bits: int,
    form: Any,
    how: Any,
    column: int,
    shape: Any,
    g: int,
) -> tuple[int, int]:
    """One column's sum of one read; for a unit column, that of the unit subtracted."""
    differential = form.encoding == "differential" and how.form != "unsigned"
    if how.form == "unsigned":
        planes, gain, offset = [weights], 1, 0
    elif differential:
        planes, gain, offset = [[max(w, 0) for w in weights], [max(-w, 0) for w in weights]], 1, 0
    elif how.form == "binary":
        planes, gain, offset = [[(w + 1) // 2 for w in weights]], 2, 1
    else:
        half = 1 << (how.bits - 1)
        planes, gain, offset = [[w + half for w in weights]], 1, half
    total, over = _column(planes, values, bits, form, how, column, differential)
    if _units(form, how):
        unit_at = g * (shape.m + 1) + shape.m
        unit, _ = _column([[offset] * len(weights)], values, bits, form, how, unit_at, False)
        return gain * total - unit, over
    return gain * total - offset * sum(values), over


def _column(
    planes: list[list[int]],
    values: list[int],
    bits: int,
    form: Any,
    how: Any,
    column: int,
    differential: bool,
) -> tuple[int, int]:
    digit_bits = form.digit_bits or bits
    signed = form.encoding == "differential" and how.form != "unsigned" and form.subtract_before_adc
    top = (1 << (form.adc_bits - signed)) - 1
    low = -top if signed else 0
    total, over = 0, 0
    for array in range(0, len(values), form.rows):
        end = min(array + form.rows, len(values))
        for first in range(array, end, form.rows_at_once):
            rows = range(first, min(first + form.rows_at_once, end))
            for place in range(0, bits, digit_bits):
                for i in range(how.steps.shape[0]):
                    cells = i * form.cell_bits
                    sides = [
                        sum(
                            ((values[k] >> place) & ((1 << digit_bits) - 1))
                            * ((plane[k] >> cells) & ((1 << form.cell_bits) - 1))
                            for k in rows
                        )
                        for plane in planes
                    ]
                    if signed:
                        sides = [sides[0] - sides[1]]
                    step = int(how.steps[i, column if how.steps.shape[1] > 1 else 0])
                    codes = [round(side / 2**step) for side in sides]  # half to even
                    over += sum(not low <= code <= top for code in codes)
                    codes = [min(max(code, low), top) for code in codes]
                    value = codes[0] - (codes[1] if len(codes) > 1 else 0)
                    total += value << (step + place + cells)
    return total, over


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_totals_are_those_of_single_conversions(name: str, data: st.DataObject) -> None:
    on_array = data.draw(layers_on_arrays(name))
    with count_saturation() as tallies:
        total = ARITHMETIC.accumulate((on_array.codes,), on_array.layer, on_array.quantized)
    expected, clipped = total_by_definition(on_array)
    found = total if on_array.layer.op == "conv" else total.reshape(-1, total.shape[-1])
    assert found.ravel().tolist() == expected
    assert np.abs(total).max(initial=0) <= on_array.quantized.bound
    seen = tallies["layer"]
    form = on_array.quantized.array
    assert form is not None
    if form.encoding != "unit_column":
        assert seen.saturated == clipped
    assert seen.conversions > 0


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_onnx_bodies_equal_the_arrays(name: str, data: st.DataObject) -> None:
    on_array = data.draw(layers_on_arrays(name))
    total = ARITHMETIC.accumulate((on_array.codes,), on_array.layer, on_array.quantized)
    for result in run(on_array, total.shape):
        assert np.array_equal(result, total)


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_totals_beyond_float32_are_exact(data: st.DataObject) -> None:
    on_array = data.draw(layers_on_arrays("mac"))
    factor = 2**25 + 1
    tensors = {
        key: tensor * factor if key == "multiplier" else tensor
        for key, tensor in on_array.quantized.tensors.items()
    }
    wide = replace(on_array.quantized, tensors=tensors, bias=on_array.quantized.bias * factor + 1)
    wide = replace(wide, bound=largest_total(on_array.layer, wide))
    wider = OnArray(replace(on_array.layer, quantized=wide), on_array.codes)
    total = ARITHMETIC.accumulate((wider.codes,), wider.layer, wide)
    for result in run(wider, total.shape):
        assert np.array_equal(result, total)


def run(on_array: OnArray, shape: tuple[int, ...]) -> list[Any]:
    """The layer's function in a model of its own, optimisations off and on."""
    function = ARITHMETIC.onnx_body(on_array.layer, on_array.quantized)
    builder = OnnxBuilder()
    result = builder.call(function, ["codes"])
    kind = TensorProto.DOUBLE if "Double" in function.name else TensorProto.FLOAT
    graph = helper.make_graph(
        builder.nodes,
        "call",
        [helper.make_tensor_value_info("codes", TensorProto.UINT8, on_array.codes.shape)],
        [helper.make_tensor_value_info(result, kind, shape)],
        builder.initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("enos", 1)],
        functions=list(builder.functions.values()),
        ir_version=10,
    )
    checker.check_model(model, full_check=True)
    results = []
    for mode in (
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = ort.SessionOptions()
        options.graph_optimization_level = mode
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results.append(session.run(None, {"codes": on_array.codes.astype(np.uint8)})[0])
    return results


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_converters_change_a_sum_where_a_column_outgrows_them(
    name: str, data: st.DataObject
) -> None:
    """As every column of the stored weights tells, also where the array's sizes alone would do."""
    on_array = data.draw(layers_on_arrays(name))
    layer = replace(on_array.layer, quantized=on_array.plain)
    spec = replace(data.draw(arrays()), adc=AdcSpec(bits=data.draw(st.integers(1, 16))))
    needed = [
        bits
        for term in OPERATORS[name].terms(on_array.plain)
        for width, form in [stored_form(layer, term)]
        for matrix in stored_groups(layer, term, spec, form, width)
        for one in row_reads(term, on_array.plain.input_formats[0])
        for bits in required_adc_bits(matrix, one.bits)
    ]
    assert conversions_differ(layer, spec) == (max(needed) > spec.adc.bits)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_converters_that_lose_nothing_give_the_operator(name: str, data: st.DataObject) -> None:
    """Wide enough converters of step 1 are found lossless, and are the plain integers."""
    on_array = data.draw(layers_on_arrays(name))
    plain = replace(on_array.layer, quantized=on_array.plain)
    spec = replace(data.draw(arrays()), adc=AdcSpec(bits=16))
    assert not conversions_differ(plain, spec)
    steps = []
    for term in OPERATORS[name].terms(on_array.plain):
        width, form = stored_form(plain, term)
        slices = stored_groups(plain, term, spec, form, width)[0].layout.slices
        steps.append(np.zeros((slices, 1), np.int64))
    wide = replace(on_array.plain, array=array_form(plain, spec, tuple(steps)))
    total = ARITHMETIC.accumulate((on_array.codes,), plain, wide)
    expected = OPERATORS[name].accumulate((on_array.codes,), plain, on_array.plain)
    assert np.array_equal(total, expected)


def test_the_form_survives_being_saved() -> None:
    spec = CrossbarSpec(rows=4, columns=8, cell=CellSpec(bits=1), encoding="offset")
    shape_layer = Layer("layer", "linear", ("x",), "layer", weight="w")
    fmt = ValueFormat(0, 0, 4)
    bits = Bits(4, 4, 8)
    layer = replace(shape_layer, shape=replace(shape_layer.shape, m=2, c=9))
    quantized = OPERATORS["mac"].quantize(
        layer, np.ones((2, 9)), np.ones(2), np.zeros(2), bits, (fmt,)
    )
    layer = replace(layer, choice=Choice("xbar", "mac", bits), quantized=quantized)
    steps = (np.array([[1], [0], [0], [2]]),)
    quantized = replace(quantized, array=array_form(layer, spec, steps))
    tensors: dict[str, Any] = {}
    again: QuantizedLayer = decode(encode(quantized, tensors), QuantizedLayer, tensors, "layer")
    codes = (np.arange(18).reshape(2, 9) % 16,)
    assert again.array is not None
    assert np.array_equal(
        ARITHMETIC.accumulate(codes, layer, again), ARITHMETIC.accumulate(codes, layer, quantized)
    )


def test_an_operator_without_levels_is_refused() -> None:
    layer = Layer("layer", "linear", ("x",), "layer", choice=Choice("xbar", "shift", Bits(8, 4, 8)))
    weights = np.ones((1, 1), np.int64)
    with pytest.raises(RefusalError, match="shift does not run on crossbars"):
        stored_form(layer, Term("code", weights, weights[0]))
