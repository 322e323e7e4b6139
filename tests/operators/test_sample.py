# SPDX-License-Identifier: Apache-2.0
"""Compiled samplers: ONNX Runtime draws what the integers draw; heads follow their mixtures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sampling_mixtures import TWO

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.operators.sample import (
    Sample,
    SamplerProgram,
    form_of,
    quantize_sampler,
    tables_of,
)
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.semantics.onnx_builder import OnnxBuilder

MODES = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
FORM = SamplerForm(chains=5, burn_in=6, thinning=2, refresh=7)
START = ValueFormat(exponent=-7, zero_point=0, bits=8)


def _layer(op: str, inputs: tuple[str, ...], shape: LayerShape) -> Layer:
    return Layer(name="draws", op=op, inputs=inputs, output="draws", shape=shape)


def _quantized(layer: Layer, program: SamplerProgram, *formats: ValueFormat) -> QuantizedLayer:
    return quantize_sampler(layer, formats, program)


def _onnx(layer: Layer, quantized: QuantizedLayer, codes: tuple[IntArray, ...]) -> list[np.ndarray]:
    """Return the body's totals in ONNX Runtime, optimisation off and on."""
    builder = OnnxBuilder()
    names = [f"codes_{i}" for i in range(len(codes))]
    result = builder.call(Sample().onnx_body(layer, quantized), names)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, c.shape)
        for name, c in zip(names, codes, strict=True)
    ]
    output = helper.make_tensor_value_info(
        result, TensorProto.FLOAT, (len(codes[0]), layer.shape.n, layer.shape.m)
    )
    model = helper.make_model(
        helper.make_graph(builder.nodes, "call", inputs, [output], builder.initializers),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("enos", 1)],
        functions=list(builder.functions.values()),
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    results = []
    for mode in MODES:
        options = ort.SessionOptions()
        options.graph_optimization_level = mode
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {n: c.astype(np.uint8) for n, c in zip(names, codes, strict=True)}
        results.append(session.run(None, feeds)[0])
    return results


FORMS = st.builds(
    lambda proposal, merged, adc, refresh, chains: replace(
        FORM,
        proposal_bits=proposal,
        bits_per_conversion=merged,
        adc_bits=adc,
        refresh=refresh,
        chains=chains,
    ),
    st.integers(4, 8),
    st.integers(1, 8),
    st.integers(4, 10),
    st.sampled_from([0, 3, 9]),
    st.integers(1, 6),
)


@settings(deadline=None, max_examples=12)
@given(form=FORMS, seed=st.integers(0, 2**16), count=st.integers(1, 40))
def test_constant_mixtures_draw_the_same_in_onnx(form: SamplerForm, seed: int, count: int) -> None:
    layer = _layer("sample", ("start",), LayerShape(n=count, m=2, c=2, r=2))
    quantized = _quantized(layer, SamplerProgram(form, seed, TWO), START)
    codes = (np.ones((3, 1), np.int64),)
    total = Sample().accumulate(codes, layer, quantized)
    assert total.shape == (3, count, 2)
    assert np.abs(total).max() < quantized.bound
    for result in _onnx(layer, quantized, codes):
        assert np.array_equal(result, total)


def _head(seed: int, rows: int) -> tuple[tuple[ValueFormat, ...], tuple[IntArray, ...]]:
    """Return the formats and random codes of a head of 3 components in 2 dimensions."""
    generator = np.random.default_rng(seed)
    formats = tuple(ValueFormat(exponent=e, zero_point=128, bits=8) for e in (-5, -5, -7))
    codes = tuple(generator.integers(60, 196, (rows, n)) for n in (3, 6, 6))
    return formats, codes


RANGES = ((-4.0, 4.0), (-4.0, 4.0), (-1.0, 1.0))


@settings(deadline=None, max_examples=12)
@given(form=FORMS, seed=st.integers(0, 2**16), count=st.integers(1, 40))
def test_conditioned_mixtures_draw_the_same_in_onnx(
    form: SamplerForm, seed: int, count: int
) -> None:
    layer = _layer("sample_given", ("l", "m", "d"), LayerShape(n=count, m=2, c=2, r=3))
    formats, codes = _head(seed, 4)
    quantized = _quantized(layer, SamplerProgram(form, seed, ranges=RANGES), *formats)
    total = Sample().accumulate(codes, layer, quantized)
    for result in _onnx(layer, quantized, codes):
        assert np.array_equal(result, total)


def test_a_head_draws_from_the_mixture_of_its_row() -> None:
    """Means of each row against the mixture's, within what its effective samples allow."""
    count = 4000
    layer = _layer("sample_given", ("l", "m", "d"), LayerShape(n=count, m=2, c=2, r=3))
    form = SamplerForm(chains=100, burn_in=200, thinning=10)
    formats, codes = _head(7, 5)
    quantized = _quantized(layer, SamplerProgram(form, 3, ranges=RANGES), *formats)
    total = Sample().accumulate(codes, layer, quantized)
    points = np.ldexp(total.astype(float), quantized.unit_exponent.astype(np.int32))
    for row, drawn in enumerate(points):
        logits, means, deviations = (
            np.ldexp(c[row].astype(float) - f.zero_point, f.exponent)
            for c, f in zip(codes, formats, strict=True)
        )
        weights = np.exp(logits) / np.exp(logits).sum()
        means, variances = means.reshape(3, 2), np.exp(2 * deviations.reshape(3, 2))
        mean = weights @ means
        spread = weights @ (variances + (means - mean) ** 2)
        # chains keep one sample in ten, and separated modes are crossed rarely: 1/8 is effective
        error = np.sqrt(spread / (count / 8))
        assert (np.abs(drawn.mean(0) - mean) < 4.5 * error).all()


def test_other_seeds_draw_other_points() -> None:
    layer = _layer("sample", ("start",), LayerShape(n=20, m=2, c=2, r=2))
    codes = (np.ones((1, 1), np.int64),)
    first, second, again = (
        Sample().accumulate(codes, layer, _quantized(layer, SamplerProgram(FORM, seed, TWO), START))
        for seed in (1, 2, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_the_form_survives_in_the_integers() -> None:
    layer = _layer("sample_given", ("l", "m", "d"), LayerShape(n=4, m=2, c=2, r=3))
    formats, _ = _head(0, 1)
    quantized = _quantized(layer, SamplerProgram(FORM, 0, ranges=RANGES), *formats)
    assert form_of(quantized) == FORM
    assert tables_of(quantized).precision.min() >= 1


def test_a_head_that_reaches_too_far_is_refused() -> None:
    layer = _layer("sample_given", ("l", "m", "d"), LayerShape(n=4, m=2, c=2, r=3))
    formats, _ = _head(0, 1)
    wide = (RANGES[0], (-500.0, 500.0), RANGES[2])
    with pytest.raises(InfeasibleError, match=r"state_bits: means from -500 .* 12 bits hold 4096"):
        _quantized(layer, SamplerProgram(FORM, 0, ranges=wide), *formats)
