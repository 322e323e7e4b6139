# SPDX-License-Identifier: Apache-2.0
"""The torch network gives the codes of the integer reference, layers on arrays theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hand_built import Hand
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from enos_compiler.crossbar.convolution import crossbar_convolution
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec, RangeMode
from enos_compiler.errors import RefusalError
from enos_compiler.evaluate.arrays import device_steps
from enos_compiler.evaluate.converters import calibrate, with_converters
from enos_compiler.evaluate.network import CodeNetwork
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Network
from enos_compiler.semantics.reference import execute, run

UNSIGNED, SIGNED = ValueFormat(-5, 0, 8), ValueFormat(-5, 128, 8)
some = settings(deadline=None, max_examples=25)


def images(network: Network, count: int = 3) -> torch.Tensor:
    """Random inputs over the whole range of the first input's codes."""
    value = network.values[network.inputs[0]]
    fmt = value.format
    assert fmt is not None
    codes = np.random.default_rng(5).uniform(-2, 2**fmt.bits, (count, *value.shape[1:]))
    return torch.from_numpy(((codes - fmt.zero_point) * fmt.scale).astype(np.float32))


def residual(operator: str, *, signed: bool, seed: int = 3, groups: int = 1) -> Network:
    """Two convolutions around a sum, a pool, a slice, a mean and a linear layer."""
    hand = Hand(seed)
    x = hand.input((2, 4, 9, 8), SIGNED if signed else UNSIGNED)
    bits = {"mac": 8, "mf": 6, "ef": 6, "shift": 4}.get(operator, 1)
    how: dict[str, Any] = {"operator": operator, "bits": bits, "groups": groups}
    wide = ValueFormat(-3, 0 if operator in ("mf", "xnor") else 128, 8)
    a = hand.conv(x, 6, (3, 3), wide, padding=(1, 1, 1, 1), **{**how, "groups": 1})
    b = hand.conv(a, 6, (3, 3), ValueFormat(-2, 128, 7), padding=(0, 1, 2, 1), **how)
    total = hand.vector("add", (a, b), ValueFormat(-2, 0, 8))
    pooled = hand.vector(
        "max_pool",
        (total,),
        ValueFormat(-2, 0, 8),
        kernel=(2, 2),
        stride=(2, 2),
        padding=(0, 0),
        dilation=(1, 1),
        ceil_mode=False,
    )
    part = hand.vector("slice", (pooled,), ValueFormat(-2, 0, 8), dim=3, start=0, stop=4, step=2)
    mean = hand.vector("mean", (part,), ValueFormat(-3, 0, 8), dims=(2, 3), keepdim=False)
    return hand.network(hand.linear(mean, 5, None, input_bits=6))


@pytest.mark.parametrize("operator", ["mac", "bw", "xnor", "mf", "ef", "shift"])
@pytest.mark.parametrize("groups", [1, 2])
def test_every_operator_equals_the_reference(operator: str, groups: int) -> None:
    network = residual(operator, signed=operator not in ("mf", "xnor"), groups=groups)
    x = images(network)
    wanted = run(network, (x.numpy(),))[0]
    assert len(np.unique(wanted)) > 5
    assert np.array_equal(CodeNetwork(network)(x).numpy(), wanted)


def test_an_operator_without_sums_of_products_equals_the_reference() -> None:
    hand = Hand(1)
    x = hand.input((2, 4, 6, 6), UNSIGNED)
    y = hand.conv(x, 5, (3, 3), SIGNED, operator="adder", bits=8)
    network = hand.network(y)
    x0 = images(network)
    assert np.array_equal(CodeNetwork(network)(x0).numpy(), run(network, (x0.numpy(),))[0])


def test_lines_and_activation_products_equal_the_reference() -> None:
    hand = Hand(7)
    x = hand.input((2, 4, 10), SIGNED)
    a = hand.conv(x, 4, (3,), SIGNED, padding=(1, 1))
    b = hand.vector("permute", (a,), SIGNED, dims=(0, 2, 1))
    network = hand.network(hand.matmul(a, b, ValueFormat(0, 128, 8)), symbolic=False)
    x0 = images(network, 2)
    assert np.array_equal(CodeNetwork(network)(x0).numpy(), run(network, (x0.numpy(),))[0])


@st.composite
def specs(draw: st.DrawFn) -> CrossbarSpec:
    return CrossbarSpec(
        rows=draw(st.integers(5, 40)),
        columns=64,
        cell=CellSpec(bits=draw(st.sampled_from([1, 2, 4]))),
        encoding=draw(st.sampled_from(["differential", "offset", "unit_column"])),
        dac=DacSpec(digit_bits=draw(st.sampled_from([None, 1, 2]))),
        adc=AdcSpec(bits=draw(st.integers(4, 7))),
    )


@some
@given(
    spec=specs(),
    operator=st.sampled_from(["mac", "bw", "xnor", "mf", "ef"]),
    mode=st.sampled_from(["calibrated", "least-error"]),
)
def test_lossless_converters_give_the_reference(
    spec: CrossbarSpec, operator: str, mode: RangeMode
) -> None:
    network = residual(operator, signed=operator not in ("mf", "xnor"), groups=2)
    spec = replace(spec, adc=replace(spec.adc, bits=24, range_mode=mode))
    x = images(network)
    arrays = calibrate(network, dict.fromkeys(network.layers, spec), (x,))
    found = CodeNetwork(network, device_steps(network, arrays))(x)
    assert np.array_equal(found.numpy(), run(network, (x.numpy(),))[0])


@some
@given(spec=specs(), signed=st.booleans(), bits=st.sampled_from([4, 8]))
def test_coarse_converters_give_the_codes_of_the_definition(
    spec: CrossbarSpec, signed: bool, bits: int
) -> None:
    """One mac layer, calibrated, against the integer crossbar convolution and its shift-add."""
    hand = Hand(9)
    x = hand.input((2, 8, 7, 7), SIGNED if signed else UNSIGNED)
    name = hand.conv(x, 6, (3, 3), None, bits=bits, groups=2, padding=(1, 1, 1, 1))
    network = hand.network(name)
    inputs = images(network)
    arrays = calibrate(network, {name: spec}, (inputs,))
    layer = network.layers[name]
    quantized = layer.quantized
    assert quantized is not None
    codes = execute(network, (inputs.numpy(),))[x]
    sums = crossbar_convolution(
        spec,
        "mac",
        quantized.tensors["weight"],
        codes,
        replace(layer.shape, n=len(codes)),
        bits,
        8,
        zero_point=quantized.input_formats[0].zero_point,
        steps_log2={"sum": tuple(np.ravel(arrays[name][0].steps).tolist())},
    )["sum"]
    total = sums * quantized.tensors["multiplier"][:, None, None] + quantized.bias[:, None, None]
    wanted = total * np.exp2(quantized.unit_exponent)[:, None, None]
    found = CodeNetwork(network, device_steps(network, arrays))(inputs)
    assert np.array_equal(found.numpy(), wanted.astype(np.float32))


@some
@given(
    spec=specs(),
    operator=st.sampled_from(["mac", "bw", "xnor", "mf", "ef"]),
    per_column=st.booleans(),
    mode=st.sampled_from(["full", "calibrated", "least-error"]),
)
def test_converters_that_travel_with_layers_equal_the_reference(
    spec: CrossbarSpec, operator: str, per_column: bool, mode: RangeMode
) -> None:
    network = residual(operator, signed=operator not in ("mf", "xnor"), groups=2)
    adc = replace(spec.adc, range_per_column=per_column, range_mode=mode)
    x = images(network)
    specs_of = dict.fromkeys(network.layers, replace(spec, adc=adc))
    network, said = with_converters(network, specs_of, (x[:1],))
    assume(said)
    found = CodeNetwork(network)(x).numpy()
    assert np.array_equal(found, run(network, (x.numpy(),))[0])


def test_shifted_weights_are_no_levels_of_cells() -> None:
    network = residual("shift", signed=False)
    spec = CrossbarSpec(rows=16, columns=16)
    with pytest.raises(RefusalError, match="shift does not run on crossbars"):
        calibrate(network, dict.fromkeys(network.layers, spec), (images(network),))
