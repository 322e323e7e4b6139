# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG005 - every case takes the module and its input
"""Each torch call that has a lowering gives the same numbers through it, at any batch."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.ir.network import Network

MAP = (2, 8, 6, 6)
ROWS = (2, 5, 8)


class Given(nn.Module):
    """A module around a function of its input and some parameters."""

    mask: Tensor

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.function = function
        self.vector = nn.Parameter(torch.rand(8, generator=generator) + 0.5)
        self.matrix = nn.Parameter(torch.randn(8, 8, generator=generator))
        self.kernel = nn.Parameter(torch.randn(8, 4, 3, 3, generator=generator))
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).tril())

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def lowered(model: nn.Module, x: Tensor, *, symbolic: bool = True) -> Network:
    """Lower and compare at batch 1 and 3 with the model itself."""
    model.eval()
    network = lower(trace(model, (x,)))
    assert network.batch_is_symbolic == symbolic, network.sections
    batches = (1, x.shape[0], 3) if symbolic else (network.batch,)
    for batch in batches:
        rows = x[torch.arange(batch) % x.shape[0]]
        with torch.no_grad():
            expected, (result,) = model(rows), network.graph(rows)
        assert result.shape == expected.shape
        scale = max(1.0, float(expected.abs().max()))
        assert float((result - expected).abs().max()) <= 1e-5 * scale
    return network


POSITIVE: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "log": lambda m, x: x.log(),
    "sqrt": lambda m, x: torch.sqrt(x),
    "rsqrt": lambda m, x: x.rsqrt(),
    "reciprocal": lambda m, x: x.reciprocal(),
    "pow": lambda m, x: x**1.7,
    "root": lambda m, x: x**0.5,
    "rdiv": lambda m, x: 2 / x,
    "div": lambda m, x: x / (x + 1.0),
}

ELEMENTWISE: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "relu6": lambda m, x: F.relu6(x),
    "hardtanh": lambda m, x: F.hardtanh(x, -0.5, 0.7),
    "clamp": lambda m, x: x.clamp(-0.3, 0.4),
    "clamp_min": lambda m, x: torch.clamp(x, min=0),
    "clamp_max": lambda m, x: x.clamp(max=0.2),
    "sigmoid": lambda m, x: x.sigmoid(),
    "tanh": lambda m, x: torch.tanh(x),
    "silu": lambda m, x: F.silu(x),
    "hardswish": lambda m, x: F.hardswish(x),
    "hardsigmoid": lambda m, x: F.hardsigmoid(x),
    "gelu": lambda m, x: F.gelu(x),
    "gelu_tanh": lambda m, x: F.gelu(x, approximate="tanh"),
    "leaky_relu": lambda m, x: F.leaky_relu(x, 0.2),
    "elu": lambda m, x: F.elu(x, 0.7),
    "selu": lambda m, x: F.selu(x),
    "softplus": lambda m, x: F.softplus(x, 2.0),
    "softsign": lambda m, x: F.softsign(x),
    "mish": lambda m, x: F.mish(x),
    "logsigmoid": lambda m, x: F.logsigmoid(x),
    "exp": lambda m, x: x.exp(),
    "abs": lambda m, x: abs(x),
    "neg": lambda m, x: -x,
    "sign": lambda m, x: x.sign(),
    "square": lambda m, x: x**2,
    "erf": lambda m, x: x.erf(),
    "sin_cos": lambda m, x: x.sin() + x.cos(),
    "prelu": lambda m, x: F.prelu(x, m.vector),
    "prelu_one": lambda m, x: F.prelu(x, m.vector[:1]),
    "scalars": lambda m, x: 1 - (2 * x + 1) / 3 - 0.5,
    "self_product": lambda m, x: x * x,
    "alpha": lambda m, x: torch.add(x, x.sin(), alpha=3) - torch.sub(x, x.cos(), alpha=2),
    "iadd": lambda m, x: x.sin().add_(x).mul_(2.0),
    "channel_scale": lambda m, x: x * m.vector.view(1, -1, 1, 1),
    "channel_divide": lambda m, x: x / m.vector[:, None, None],
    "rsub_tensor": lambda m, x: m.vector.view(1, -1, 1, 1) - x,
    "maximum": lambda m, x: x.maximum(x.sin()),
    "minimum": lambda m, x: torch.minimum(x, x.cos()),
    "glu": lambda m, x: F.glu(x, 1),
    "addcmul": lambda m, x: torch.addcmul(x, x.sin(), x.cos(), value=0.5),
    "lerp": lambda m, x: torch.lerp(x, x.sin(), 0.3),
    "masked_fill": lambda m, x: x.masked_fill(torch.eye(6, dtype=torch.bool), 2.0),
    "where": lambda m, x: torch.where(torch.eye(6, dtype=torch.bool), x, x.sin()),
    "where_number": lambda m, x: torch.where(torch.eye(6, dtype=torch.bool), 0.0, x),
    "dropout": lambda m, x: F.dropout(x, 0.5, m.training),
    "softmax": lambda m, x: F.softmax(x, dim=1),
    "log_softmax": lambda m, x: F.log_softmax(x, dim=-1),
}

MOVEMENT: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "view": lambda m, x: x.view(x.size(0), -1, 3),
    "flatten": lambda m, x: torch.flatten(x, 1),
    "flatten_inside": lambda m, x: x.flatten(1, 2),
    "unflatten": lambda m, x: x.unflatten(1, (2, 4)),  # type: ignore[no-untyped-call]
    "reshape_batch": lambda m, x: x.reshape(x.shape[0] * 8, 36).view(-1, 8, 36),
    "squeeze": lambda m, x: x[:, :1].squeeze(1).unsqueeze(-1),
    "permute": lambda m, x: x.permute(0, 2, 3, 1).contiguous(),
    "two_permutes": lambda m, x: x.permute(0, 2, 3, 1).transpose(1, 3) + 0.0,
    "movedim": lambda m, x: x.movedim(1, -1),
    "mT": lambda m, x: x.mT,
    "expand": lambda m, x: x[:, :1].expand(-1, 4, -1, -1),
    "expand_as": lambda m, x: x.mean(1, keepdim=True).expand_as(x),
    "repeat": lambda m, x: x.repeat(1, 2, 1, 1),
    "repeat_one": lambda m, x: x[:, :1].repeat(1, 5, 1, 1),
    "repeat_interleave": lambda m, x: x.repeat_interleave(2, dim=1),
    "cat": lambda m, x: torch.cat([x, x.sin(), x[:, :2]], dim=1),
    "stack": lambda m, x: torch.stack([x, x.sin()], dim=1),
    "hstack": lambda m, x: torch.hstack([x, x]),
    "chunk": lambda m, x: torch.cat(x.chunk(3, dim=1)[::-1], 1),
    "split": lambda m, x: torch.cat(torch.split(x, [3, 3, 2], 1)[0:2], 1),
    "split_size": lambda m, x: x.split(4, 1)[1],  # type: ignore[no-untyped-call]
    "tensor_split": lambda m, x: x.tensor_split(3, 1)[0],
    "unbind": lambda m, x: x.unbind(1)[3],
    "unpack": lambda m, x: operator.sub(*x.chunk(2, 1)),
    "narrow": lambda m, x: x.narrow(1, 2, 3),
    "select": lambda m, x: x.select(1, -1),
    "getitem": lambda m, x: x[:, 1:-1, ::2, None, -1],
    "ellipsis": lambda m, x: x[..., 1:3],
    "roll": lambda m, x: torch.roll(x, (1, -2), (2, 3)),
    "pad": lambda m, x: F.pad(x, (1, 0, 2, 1)),
    "pad_value": lambda m, x: F.pad(x, (1, 1), value=0.5),
    "pad_negative": lambda m, x: F.pad(x, (-1, 2)),
    "pad_reflect": lambda m, x: F.pad(x, (2, 1, 1, 2), mode="reflect"),
    "pad_replicate": lambda m, x: F.pad(x, (2, 1, 0, 1), mode="replicate"),
    "pad_circular": lambda m, x: F.pad(x, (2, 1, 1, 1), mode="circular"),
    "channel_shuffle": lambda m, x: F.channel_shuffle(x, 4),
    "pixel_shuffle": lambda m, x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda m, x: F.pixel_unshuffle(x, 2),
    "nearest": lambda m, x: F.interpolate(x, scale_factor=2),
    "nearest_size": lambda m, x: F.interpolate(x, size=(12, 3)),
    "constant_token": lambda m, x: torch.cat(
        [m.kernel[:1, :1, :1].expand(len(x), 1, 6, 3), x[..., :3]], 1
    ),
    "zeros_token": lambda m, x: torch.cat([x, x.new_zeros(x.shape[0], 2, 6, 6)], 1),
    "to": lambda m, x: x.to(torch.float32).float().type_as(x).clone().detach(),
}

POOLING: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "max_pool": lambda m, x: F.max_pool2d(x, 3, 2, 1),
    "max_pool_ceil": lambda m, x: F.max_pool2d(x, 4, 3, ceil_mode=True),
    "avg_pool": lambda m, x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool_exclude": lambda m, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg_pool_all": lambda m, x: F.avg_pool2d(x, x.shape[-1]),
    "avg_pool_divisor": lambda m, x: F.avg_pool2d(x, 2, divisor_override=3),
    "adaptive_avg": lambda m, x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_one": lambda m, x: F.adaptive_avg_pool2d(x, 1),
    "adaptive_none": lambda m, x: F.adaptive_avg_pool2d(x, (None, 1)),
    "adaptive_max": lambda m, x: F.adaptive_max_pool2d(x, 1),
    "mean": lambda m, x: x.mean((-2, -1)),
    "sum": lambda m, x: x.sum(1, keepdim=True),
    "amax": lambda m, x: x.amax((2, 3)),
    "batch_norm": lambda m, x: F.batch_norm(x, m.vector, m.vector, m.vector, m.vector),
    "group_norm": lambda m, x: F.group_norm(x, 4, m.vector, m.vector),
    "instance_norm": lambda m, x: F.instance_norm(x),
    "layer_norm": lambda m, x: F.layer_norm(x, (6, 6)),
}

CONVOLUTION: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "grouped": lambda m, x: F.conv2d(x, m.kernel, stride=2, padding=1, groups=2),
    "dilated": lambda m, x: F.conv2d(x, m.kernel, m.vector, padding=2, dilation=2, groups=2),
    "same": lambda m, x: F.conv2d(x, m.kernel[:, :, :2], padding="same", groups=2),
    "valid": lambda m, x: F.conv2d(x, m.kernel, padding="valid", groups=2),
    "depthwise": lambda m, x: F.conv2d(x, m.kernel[:, :1], padding=(0, 1), groups=8),
    "padded": lambda m, x: F.conv2d(F.pad(x, (0, 1, 2, 1)), m.kernel, stride=2, groups=2),
    "standardised": lambda m, x: F.conv2d(x, m.kernel - m.kernel.mean(), groups=2),
    "transposed": lambda m, x: F.conv_transpose2d(x, m.kernel, stride=2, padding=1),
    "transposed_out": lambda m, x: F.conv_transpose2d(
        x, m.kernel, m.vector, stride=2, padding=1, output_padding=1, groups=2
    ),
    "transposed_gap": lambda m, x: F.conv_transpose2d(x, m.kernel, stride=4, groups=4),
    "transposed_crop": lambda m, x: F.conv_transpose2d(x, m.kernel, stride=(1, 2), padding=2),
}

TOKENS: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "linear": lambda m, x: F.linear(x, m.matrix, m.vector),
    "matmul": lambda m, x: x @ m.matrix,
    "matmul_left": lambda m, x: m.matrix @ x.transpose(1, 2),
    "addmm": lambda m, x: torch.addmm(m.vector, x[:, 0], m.matrix),
    "bmm": lambda m, x: torch.bmm(x, x.transpose(1, 2)),
    "matmul_broadcast": lambda m, x: x[:, None].expand(-1, 3, -1, -1) @ x[:, None].mT,
    "attention": lambda m, x: F.scaled_dot_product_attention(x, x, x),
    "attention_causal": lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "attention_mask": lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=m.mask),
    "attention_by_hand": lambda m, x: (
        (x @ x.mT / 8**0.5).masked_fill(~m.mask, float("-inf")).softmax(-1) @ x
    ),
    "attention_bias": lambda m, x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.zeros(5, 5).masked_fill(~m.mask, float("-inf")), scale=0.2
    ),
    "rms_norm": lambda m, x: F.rms_norm(x, (8,), m.vector, 1e-6),
    "einsum_weight": lambda m, x: torch.einsum("bnc,dc->bnd", x, m.matrix),
    "einsum_heads": lambda m, x: torch.einsum(
        "bnhd,bmhd->bhnm", x.view(-1, 5, 2, 4), x.view(-1, 5, 2, 4)
    ),
    "einsum_permute": lambda m, x: torch.einsum("abc->acb", x),
}


def cases(table: dict[str, Callable[[Given, Tensor], Tensor]]) -> list[object]:
    return [pytest.param(function, id=name) for name, function in table.items()]


@pytest.mark.parametrize("function", cases(ELEMENTWISE | MOVEMENT | POOLING | CONVOLUTION))
def test_calls_on_feature_maps(function: Callable[[Given, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    lowered(Given(function), torch.randn(MAP))


@pytest.mark.parametrize("function", cases(POSITIVE))
def test_calls_on_positive_numbers(function: Callable[[Given, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    lowered(Given(function), torch.rand(MAP) + 0.1)


@pytest.mark.parametrize("function", cases(TOKENS))
def test_calls_on_rows(function: Callable[[Given, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    lowered(Given(function), torch.randn(ROWS))


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    extra=st.integers(0, 3),
    groups=st.sampled_from([1, 2]),
    length=st.integers(2, 6),
)
def test_transposed_convolution_is_its_phases(
    kernel: int, stride: int, padding: int, extra: int, groups: int, length: int
) -> None:
    """Every kernel, stride, padding and output padding that torch takes, on one axis."""
    extent = (length - 1) * stride - 2 * padding + kernel + extra
    if extra >= stride or extent < 1:
        return
    torch.manual_seed(kernel)
    layer = nn.ConvTranspose1d(4, 6, kernel, stride, padding, extra, groups)
    network = lowered(layer, torch.randn(2, 4, length))
    assert len(network.layers) == stride
    if kernel % stride == 0 and extent % stride == 0:
        taps = sum(layer.shape.taps for layer in network.layers.values())
        assert taps == 4 // groups * kernel


def test_masks_leave_ranges_for_the_visible_scores() -> None:
    """A hidden score saturates a little below the least visible one; it sets no range."""
    from enos_compiler.frontend.calibrate import MASK_MARGIN, calibrate, example_batches

    torch.manual_seed(0)
    x = torch.randn(ROWS)
    network = lowered(Given(TOKENS["attention_causal"]), x)
    network = calibrate(network, example_batches(network))
    (masked,) = [v for v in network.vectors.values() if v.op == "add"]
    scores = (x @ x.mT / 8**0.5)[:, torch.ones(5, 5, dtype=torch.bool).tril()]
    extremes = network.values[masked.output].range
    assert extremes is not None
    low, high = extremes
    assert low == pytest.approx(float(scores.min()) - MASK_MARGIN, abs=1e-5)
    assert high == pytest.approx(float(scores.max()), abs=1e-5)


def test_a_sequence_that_leads_fixes_the_batch() -> None:
    """The batch on another axis computes the same, but no exported batch may be symbolic."""
    model = Given(lambda m, x: (x.transpose(0, 1) @ m.matrix).transpose(0, 1))
    network = lowered(model, torch.randn(ROWS), symbolic=False)
    assert "`transpose` does not lead with it" in network.sections["canonicalize"]["note"]
