# SPDX-License-Identifier: Apache-2.0
"""Layers, homes and chips that the tests of the cores share."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st

from enos_compiler.cores.base import Homes
from enos_compiler.cores.target import Target, load_target
from enos_compiler.ir import Bits, Choice, Home, Layer, LayerShape

BUFFER = Home("buffer", 0, 0)
DRAM = Home("dram")
IN_BUFFER = Homes((BUFFER,), BUFFER)
OPERATORS = ("mac", "bw", "mf", "ef", "shift", "xnor")


@cache
def hybrid() -> Target:
    return load_target("hybrid")


def layer(shape: LayerShape, name: str = "layer", **fields: Any) -> Layer:
    inputs = ("a", "b") if shape.activation_product else ("x",)
    weight = None if shape.activation_product else "w"
    return Layer(name, "conv", inputs, name, shape=shape, weight=weight, weight_key="w", **fields)


def conv(c: int, m: int, p: int, *, k: int = 3, stride: int = 1, g: int = 1) -> LayerShape:
    return LayerShape(
        g=g, m=m, c=c, p=p, q=p, r=k, s=k, stride=(stride, stride), padding=(k // 2,) * 4
    )


def choices(target: Target, core: str, subject: Layer, *bits: Bits) -> list[Choice]:
    offered = target.cores[core].choices(subject, OPERATORS, bits, signed_input=False)
    return [o for o in offered if isinstance(o, Choice)]


@st.composite
def shapes(draw: st.DrawFn, largest: int = 6) -> LayerShape:
    extent = st.integers(1, largest)
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    pads = [draw(st.integers(0, reach[i % 2])) for i in range(4)]
    return LayerShape(
        g=draw(st.integers(1, 3)),
        n=draw(st.integers(1, 2)),
        m=draw(extent),
        c=draw(extent),
        p=draw(extent),
        q=draw(extent),
        r=kernel[0],
        s=kernel[1],
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        dilation=dilation,
        padding=(pads[0], pads[1], pads[2], pads[3]),
    )
