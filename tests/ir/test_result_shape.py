# SPDX-License-Identifier: Apache-2.0
"""The shape rule of every canonical function tells what the function returns."""

from __future__ import annotations

import subprocess
import sys
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.ir.ops import FUNCTIONS, SAMPLE_OPS
from enos_compiler.ir.result_shape import RULES

Shape = tuple[int, ...]
Call = tuple[list[Shape | None], dict[str, Any]]
"""Shapes of the operands, and the attributes."""


def _shape(data: st.DataObject, least: int = 1, most: int = 4, top: int = 5) -> Shape:
    return tuple(data.draw(st.lists(st.integers(1, top), min_size=least, max_size=most)))


def _each(data: st.DataObject, axes: int, least: int, most: int) -> tuple[int, ...]:
    return tuple(data.draw(st.integers(least, most)) for _ in range(axes))


def _conv(data: st.DataObject) -> Call:
    axes, groups = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    channels, outputs = data.draw(st.integers(1, 3)), groups * data.draw(st.integers(1, 3))
    x = (data.draw(st.integers(1, 2)), groups * channels, *_each(data, axes, 5, 9))
    weight = (outputs, channels, *_each(data, axes, 1, 3))
    bias = data.draw(st.sampled_from([None, (outputs,)]))
    attributes = {
        "stride": _each(data, axes, 1, 3),
        "padding": _each(data, 2 * axes, 0, 2),
        "dilation": _each(data, axes, 1, 2),
        "groups": groups,
    }
    return [x, weight, bias], attributes


def _linear(data: st.DataObject) -> Call:
    x = _shape(data)
    return [x, (data.draw(st.integers(1, 4)), x[-1]), None], {}


def _matmul(data: st.DataObject) -> Call:
    lead, (n, c, m) = _shape(data, 0, 2), _each(data, 3, 1, 4)
    return [(*lead, n, c), (*lead, c, m)], {}


def _normalised(data: st.DataObject, op: str) -> Call:
    x = _shape(data, 3, 4)
    if op == "batch_norm":
        return [x, *[(x[1],)] * 4], {"eps": 1e-5}
    if op == "layer_norm":
        return [x, (x[-1],), None], {"shape": (x[-1],), "eps": 1e-5}
    return [(2, 4, 3), None, (4,)], {"groups": 2, "eps": 1e-5}


def _binary(data: st.DataObject) -> Call:
    whole = _shape(data)
    a = tuple(data.draw(st.sampled_from([1, extent])) for extent in whole)
    b = tuple(
        e if mine == 1 else data.draw(st.sampled_from([1, e]))
        for mine, e in zip(a, whole, strict=True)
    )
    return [a, b[data.draw(st.integers(0, len(b))) :]], {}


def _concat(data: st.DataObject) -> Call:
    x = _shape(data)
    dim = data.draw(st.integers(0, len(x) - 1))
    extents = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    return [(*x[:dim], extent, *x[dim + 1 :]) for extent in extents], {"dim": dim}


def _pool(data: st.DataObject, op: str) -> Call:
    axes = data.draw(st.integers(1, 2))
    x = (2, 3, *_each(data, axes, 5, 9))
    kernel = _each(data, axes, 1, 3)
    attributes: dict[str, Any] = {
        "kernel": kernel,
        "stride": _each(data, axes, 1, 4),
        "padding": tuple(data.draw(st.integers(0, extent // 2)) for extent in kernel),
        "ceil_mode": data.draw(st.booleans()),
    }
    if op == "max_pool":
        return [x], attributes | {"dilation": _each(data, axes, 1, 2)}
    return [x], attributes | {"count_include_pad": data.draw(st.booleans())}


def _mean(data: st.DataObject) -> Call:
    x = _shape(data)
    dims = data.draw(st.sets(st.integers(0, len(x) - 1), min_size=1))
    return [x], {"dims": tuple(sorted(dims)), "keepdim": data.draw(st.booleans())}


def _moved(data: st.DataObject, op: str) -> Call:
    x = _shape(data, 2, 4)
    if op == "resize_nearest":
        return [x], {"scale": _each(data, len(x) - 1, 1, 3)}
    if op == "reshape":
        front = data.draw(st.sampled_from([x[0], -1]))
        return [x], {"shape": (front, prod(x[1:]))}
    if op == "permute":
        return [x], {"dims": tuple(data.draw(st.permutations(range(len(x)))))}
    if op == "slice":
        dim = data.draw(st.integers(0, len(x) - 1))
        start, stop, step = data.draw(st.tuples(*[st.integers(0, 7)] * 2, st.integers(1, 3)))
        return [x], {"dim": dim, "start": start, "stop": stop, "step": step}
    if op == "pad":
        return [x], {"pads": _each(data, 2 * len(x), 0, 2), "value": 0.0}
    if op == "expand":
        ones = tuple(data.draw(st.sampled_from([1, extent])) for extent in x)
        wanted = (
            data.draw(st.sampled_from([-1, e])) if o == e else e
            for o, e in zip(ones, x, strict=True)
        )
        return [ones], {"shape": (*_shape(data, 0, 1), *wanted)}
    stride = _each(data, data.draw(st.integers(1, len(x))), 1, 2)
    return [x] * prod(stride), {"stride": stride}


def _call(data: st.DataObject, op: str) -> Call:
    if op in ("batch_norm", "layer_norm", "group_norm"):
        return _normalised(data, op)
    if op in ("add", "sub", "mul"):
        return _binary(data)
    if op in ("max_pool", "avg_pool"):
        return _pool(data, op)
    if op in ("elementwise", "softmax"):
        return [_shape(data)], {"function": "relu"} if op == "elementwise" else {"dim": 0}
    if op == "embedding":
        return [_shape(data, 1, 2), (7, 3)], {}
    made = {"conv": _conv, "linear": _linear, "matmul": _matmul, "concat": _concat, "mean": _mean}
    return made[op](data) if op in made else _moved(data, op)


def test_every_function_that_draws_nothing_has_a_rule() -> None:
    assert set(RULES) == set(FUNCTIONS) - set(SAMPLE_OPS)


@pytest.mark.parametrize("op", RULES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_rules_tell_the_shape(op: str, data: st.DataObject) -> None:
    shapes, attributes = _call(data, op)
    operands = [None if shape is None else torch.zeros(shape) for shape in shapes]
    if op == "embedding" and operands[0] is not None:
        operands[0] = operands[0].long()
    result = FUNCTIONS[op](*operands, **attributes)
    assert RULES[op](*shapes, **attributes) == tuple(result.shape)
    assert result.dtype == torch.float32


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        (
            "conv",
            [(1, 3, 8), (4, 2, 3)],
            {**dict.fromkeys(("stride", "dilation"), (1,)), "padding": (0, 0), "groups": 1},
        ),
        ("linear", [(2, 3), (4, 5)], {}),
        ("matmul", [(2, 3), (4, 5)], {}),
        ("add", [(2, 3), (2, 4)], {}),
        ("concat", [(2, 3), (3, 3)], {"dim": 1}),
        ("reshape", [(2, 3)], {"shape": (4, -1)}),
        ("expand", [(2, 3)], {"shape": (2, 4)}),
        ("interleave", [(2, 3), (2, 4)], {"stride": (2,)}),
    ],
)
def test_what_a_function_does_not_take_has_no_shape(
    op: str, shapes: list[Shape], attributes: dict[str, Any]
) -> None:
    with pytest.raises(RuntimeError):
        FUNCTIONS[op](*(torch.zeros(shape) for shape in shapes), **attributes)
    with pytest.raises(ValueError, match=r"\d"):
        RULES[op](*shapes, **attributes)


def test_a_network_is_lowered_without_torchs_compiler() -> None:
    """Its import takes longer than all lowering, and nothing of it is needed."""
    program = (
        "import sys, torch; from torch import nn; from enos_compiler.frontend.trace import trace;"
        "from enos_compiler.frontend.canonical import lower;"
        "net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.AvgPool2d(2),"
        "nn.Flatten(), nn.Linear(18, 2), nn.LayerNorm(2));"
        "lower(trace(net, (torch.ones(2, 1, 8, 8),)));"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
