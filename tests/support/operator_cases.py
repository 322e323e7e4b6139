# SPDX-License-Identifier: Apache-2.0
"""Random layers of every kind, and the operators' integers from their definition, tap by tap."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.operators.adder import Adder
from enos_compiler.operators.bw import BinaryWeight
from enos_compiler.operators.ef import SignProduct
from enos_compiler.operators.mac import Mac
from enos_compiler.operators.mf import MultiplicationFree
from enos_compiler.operators.shift import Shift
from enos_compiler.operators.xnor import Xnor
from enos_compiler.operators.xnor2 import TwoPlaneXnor

OPERATORS: dict[str, Any] = {
    op.name: op
    for op in (
        Mac(),
        BinaryWeight(),
        MultiplicationFree(),
        SignProduct(),
        Shift(),
        Xnor(),
        TwoPlaneXnor(),
        Adder(),
    )
}
TRAINABLE = tuple(name for name in OPERATORS if name != "adder")


@dataclass(frozen=True)
class Case:
    """A layer, the shape of its weights and of one input."""

    layer: Layer
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.weight_shape[0]


@st.composite
def layers(draw: st.DrawFn) -> Case:
    """Convolutions (grouped, depthwise, dilated, strided, unevenly padded, 1-D) and linears."""
    kind = draw(st.sampled_from(["conv", "depthwise", "conv1d", "linear"]))
    extent = st.integers(1, 3)
    if kind == "linear":
        rows = draw(st.sampled_from([(1,), (3,), (2, 3)]))
        c, m = draw(st.integers(1, 9)), draw(st.integers(1, 5))
        shape = LayerShape(n=int(np.prod(rows)), m=m, c=c)
        return Case(_layer("linear", shape), (m, c), (*rows, c))
    flat = kind == "conv1d"
    g = draw(extent)
    c, m = (1, draw(extent)) if kind == "depthwise" else (draw(extent), draw(extent))
    r, s = draw(extent), 1 if flat else draw(extent)
    stride = (draw(extent), 1 if flat else draw(extent))
    dilation = (draw(extent), 1 if flat else draw(extent))
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    if flat:
        pads[1] = pads[3] = 0
    top, left, bottom, right = pads
    height = max((r - 1) * dilation[0] + 1 - top - bottom, 1) + draw(st.integers(0, 4))
    width = 1 if flat else max((s - 1) * dilation[1] + 1 - left - right, 1) + draw(extent)
    p = (height + top + bottom - (r - 1) * dilation[0] - 1) // stride[0] + 1
    q = (width + left + right - (s - 1) * dilation[1] - 1) // stride[1] + 1
    n = draw(st.integers(1, 2))
    shape = LayerShape(
        g=g,
        n=n,
        m=m,
        c=c,
        p=p,
        q=q,
        r=r,
        s=s,
        stride=stride,
        dilation=dilation,
        padding=(top, left, bottom, right),
    )
    if flat:
        return Case(_layer("conv", shape), (g * m, c, r), (n, g * c, height))
    return Case(_layer("conv", shape), (g * m, c, r, s), (n, g * c, height, width))


@st.composite
def formats(draw: st.DrawFn, *, signed: bool | None = None) -> ValueFormat:
    """Formats of 2..8 bits."""
    bits = draw(st.integers(2, 8))
    is_signed = draw(st.booleans()) if signed is None else signed
    return ValueFormat(draw(st.integers(-9, 2)), 2 ** (bits - 1) if is_signed else 0, bits)


def weight_bits(name: str) -> st.SearchStrategy[int]:
    """Widths that the operator offers."""
    return st.sampled_from(OPERATORS[name].weight_bits)


def _layer(op: str, shape: LayerShape) -> Layer:
    return Layer(name="layer", op=op, inputs=("x",), output="layer", shape=shape, weight="w")


def product_layer(g: int, n: int, c: int, m: int) -> Layer:
    """An activation product of (g, n, c) by (g, c, m)."""
    shape = LayerShape(g=g, n=n, m=m, c=c, activation_product=True)
    return Layer(name="product", op="matmul", inputs=("a", "b"), output="product", shape=shape)


def random_codes(rng: np.random.Generator, fmt: ValueFormat, shape: tuple[int, ...]) -> IntArray:
    """Codes over the whole range, the zero point often among them."""
    codes = rng.integers(fmt.low, fmt.high + 1, shape)
    codes[rng.random(shape) < 0.2] = fmt.zero_point
    return codes.astype(np.int64)


def sgn(value: int) -> int:
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)


def tap(name: str, x: int, index: tuple[int, ...], channel: int, quantized: QuantizedLayer) -> int:
    """One tap's contribution to the total, from the operator's definition."""
    t = quantized.tensors
    at = (channel, *index)
    if name in ("mac", "bw", "shift"):
        return int(t["multiplier"][channel]) * x * int(t["weight"][at])
    if name in ("xnor", "xnor2"):
        return int(t["multiplier"][channel]) * sgn(x) * int(t["weight"][at])
    if name == "adder":
        return int(t["multiplier"][channel]) * abs(x - int(t["weight"][at]))
    sign, size = int(t["sign"][at]), int(t["magnitude"][at])
    on_code, on_sign = int(t["code_multiplier"][channel]), int(t["sign_multiplier"][channel])
    if name == "mf":
        return on_code * sign * x + on_sign * sgn(x) * size
    return on_code * sign * x + on_sign * sgn(x) * sign * size


def by_definition(name: str, codes: IntArray, case: Case, quantized: QuantizedLayer) -> IntArray:
    """The total, one tap at a time; taps outside the input read zero."""
    steps = codes - quantized.input_formats[0].zero_point
    shape = case.layer.shape
    if case.layer.op == "linear":
        rows = steps.reshape(-1, shape.c)
        total = np.array(
            [
                [
                    sum(tap(name, int(row[k]), (k,), m, quantized) for k in range(shape.c))
                    for m in range(shape.m)
                ]
                for row in rows
            ],
            dtype=np.int64,
        )
        return (total + quantized.bias).reshape(*codes.shape[:-1], shape.m)
    flat = codes.ndim == 3
    if flat:
        steps = steps[..., None]
    n, _, height, width = steps.shape
    total = np.zeros((n, shape.g * shape.m, shape.p, shape.q), dtype=np.int64)
    for image, channel, p, q in itertools.product(*(range(e) for e in total.shape)):
        group = channel // shape.m
        for c, r, s in itertools.product(range(shape.c), range(shape.r), range(shape.s)):
            y = p * shape.stride[0] + r * shape.dilation[0] - shape.padding[0]
            x = q * shape.stride[1] + s * shape.dilation[1] - shape.padding[1]
            inside = 0 <= y < height and 0 <= x < width
            value = int(steps[image, group * shape.c + c, y, x]) if inside else 0
            index = (c, r) if flat else (c, r, s)
            total[image, channel, p, q] += tap(name, value, index, channel, quantized)
    total += quantized.bias[:, None, None]
    return total[..., 0] if flat else total


def float_layer(case: Case, x: NDArray[np.float64], weight: Any) -> Any:
    """The layer's product of real x with a torch weight, float64."""
    import torch

    from enos_compiler.ir import ops

    tensor = torch.from_numpy(np.array(x))
    if case.layer.op == "linear":
        return ops.linear(tensor, weight)
    axes = weight.dim() - 2
    shape = case.layer.shape
    top, left, bottom, right = shape.padding
    return ops.conv(
        tensor,
        weight,
        stride=shape.stride[:axes],
        padding=(top, left, bottom, right) if axes == 2 else (top, bottom),
        dilation=shape.dilation[:axes],
        groups=shape.g,
    )
