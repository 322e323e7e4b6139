# SPDX-License-Identifier: Apache-2.0
"""ONNX convolutions, products and pools in torch calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from enos_compiler.frontend.onnx_table import Attributes, OnnxInputError, integers_of, onnx

Extents = tuple[int, ...]


def _windows(attributes: Attributes, x: Tensor, kernel: Extents) -> tuple[Extents, ...]:
    """Return strides, dilations, and pads before and behind each spatial axis."""
    axes = x.dim() - 2
    if axes not in (1, 2):
        raise OnnxInputError(
            f"`{attributes.operation}` over {axes} spatial axes is not supported: a layer has two",
            "fold axes into the batch or the channels",
        )
    strides = attributes.integers("strides") or (1,) * axes
    dilations = attributes.integers("dilations") or (1,) * axes
    pads = attributes.integers("pads") or (0,) * (2 * axes)
    begins, ends = pads[:axes], pads[axes:]
    auto = attributes.text("auto_pad", "NOTSET")
    if auto == "VALID":
        begins = ends = (0,) * axes
    elif auto != "NOTSET":
        begins, ends = _same_pads(auto, x.shape[2:], kernel, strides, dilations)
    if min(strides) < 1 or min(dilations) < 1 or min(begins + ends) < 0:
        raise OnnxInputError(
            f"strides {strides}, dilations {dilations}, pads {begins + ends}",
            "strides and dilations are at least 1, pads at least 0",
        )
    return strides, dilations, begins, ends


def _same_pads(
    auto: str, extents: Sequence[int], kernel: Extents, strides: Extents, dilations: Extents
) -> tuple[Extents, Extents]:
    """Return the pads with which the output has one element per stride of the input."""
    begins, ends = [], []
    for n, k, s, d in zip(extents, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        begins.append(large if auto == "SAME_LOWER" else small)
        ends.append(small if auto == "SAME_LOWER" else large)
    return tuple(begins), tuple(ends)


def _torch_pads(begins: Extents, ends: Extents) -> list[int]:
    """Return pads in torch's order, last axis first."""
    pairs = zip(reversed(begins), reversed(ends), strict=True)
    return [n for pair in pairs for n in pair]


@onnx("Conv")
def conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution over one or two axes; uneven pads are zeros put before it."""
    strides, dilations, begins, ends = _windows(attributes, x, tuple(weight.shape[2:]))
    if begins != ends:
        x = F.pad(x, _torch_pads(begins, ends))
        begins = (0,) * len(begins)
    function: Any = F.conv2d if x.dim() == 4 else F.conv1d
    groups = attributes.integer("group", 1)
    result: Tensor = function(x, weight, bias, strides, begins, dilations, groups)
    return result


@onnx("ConvTranspose")
def conv_transpose(
    attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Transposed convolution; uneven pads are cut off behind it."""
    attributes.refuse("auto_pad", "NOTSET", "VALID")
    if "output_shape" in attributes.values:
        raise OnnxInputError("an output_shape", "export with pads and output_padding instead")
    strides, dilations, begins, ends = _windows(attributes, x, tuple(weight.shape[2:]))
    extra = attributes.integers("output_padding") or (0,) * len(strides)
    function: Any = F.conv_transpose2d if x.dim() == 4 else F.conv_transpose1d
    groups = attributes.integer("group", 1)
    even = begins == ends
    pads = begins if even else (0,) * len(begins)
    y: Tensor = function(x, weight, bias, strides, pads, extra, groups, dilations)
    if even:
        return y
    inside = (slice(b, n - e) for b, e, n in zip(begins, ends, y.shape[2:], strict=True))
    return y[(slice(None), slice(None), *inside)]


@onnx("Gemm")
def gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Matrix product, scaled and transposed as asked, plus c."""
    if attributes.integer("transA", 0):
        a = a.transpose(0, 1)
    alpha, beta = attributes.number("alpha", 1.0), attributes.number("beta", 1.0)
    if c is not None and beta != 1.0:
        c = torch.mul(c, beta)
    if alpha != 1.0:
        b = torch.mul(b, alpha)
    if attributes.integer("transB", 0):
        is_bias = c is None or (c.dim() == 1 and attributes.is_constant(2))
        y = F.linear(a, b, c if is_bias else None)
        return y if is_bias else torch.add(y, c)  # type: ignore[arg-type]  # c is there
    if c is not None and c.dim() == 1 and attributes.is_constant(1) and attributes.is_constant(2):
        return torch.addmm(c, a, b)
    y = torch.matmul(a, b)
    return y if c is None else torch.add(y, c)


@onnx("MatMul")
def matmul(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product."""
    del attributes
    return torch.matmul(a, b)


@onnx("Einsum")
def einsum(attributes: Attributes, *operands: Tensor) -> Tensor:
    """Product by the letters of the axes."""
    return torch.einsum(attributes.text("equation", ""), *operands)


@onnx("MaxPool")
def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Maximum of windows."""
    attributes.refuse_more_than(1)
    kernel = attributes.integers("kernel_shape") or ()
    strides, dilations, begins, ends = _windows(attributes, x, kernel)
    ceil_mode = bool(attributes.integer("ceil_mode", 0))
    function: Any = F.max_pool2d if x.dim() == 4 else F.max_pool1d
    if begins == ends:
        result: Tensor = function(x, kernel, strides, begins, dilations, ceil_mode)
        return result
    wanted = _pooled_extents(x, kernel, strides, dilations, begins, ends, ceil_mode=ceil_mode)
    y: Tensor = function(x, kernel, strides, begins, dilations, True)
    if any(n < m for n, m in zip(y.shape[2:], wanted, strict=True)):
        raise OnnxInputError(
            f"pads {begins + ends} that differ at the two ends",
            "pad with a Pad node, or with the same number at both ends",
        )
    return y[(slice(None), slice(None), *(slice(0, n) for n in wanted))]


def _pooled_extents(
    x: Tensor,
    kernel: Extents,
    strides: Extents,
    dilations: Extents,
    begins: Extents,
    ends: Extents,
    *,
    ceil_mode: bool,
) -> Extents:
    """Return how many windows ONNX puts on each axis."""
    counts = []
    for n, k, s, d, b, e in zip(x.shape[2:], kernel, strides, dilations, begins, ends, strict=True):
        reach = n + b + e - d * (k - 1) - 1
        count = (-(-reach // s) if ceil_mode else reach // s) + 1
        counts.append(count - 1 if ceil_mode and (count - 1) * s >= n + b else count)
    return tuple(counts)


@onnx("AveragePool")
def average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Average of windows."""
    kernel = attributes.integers("kernel_shape") or ()
    strides, dilations, begins, ends = _windows(attributes, x, kernel)
    if set(dilations) != {1}:
        raise OnnxInputError(f"dilations {dilations}", "average over adjacent elements")
    counts_pads = bool(attributes.integer("count_include_pad", 0))
    if begins != ends:
        if not counts_pads:
            raise OnnxInputError(
                f"pads {begins + ends} that differ at the two ends",
                "export with count_include_pad = 1, or the same pads at both ends",
            )
        x = F.pad(x, _torch_pads(begins, ends))
        begins = (0,) * len(begins)
    ceil_mode = bool(attributes.integer("ceil_mode", 0))
    function: Any = F.avg_pool2d if x.dim() == 4 else F.avg_pool1d
    result: Tensor = function(x, kernel, strides, begins, ceil_mode, counts_pads)
    return result


@onnx("GlobalAveragePool")
def global_average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Average over all axes behind the channels."""
    del attributes
    return torch.mean(x, tuple(range(2, x.dim())), keepdim=True)


@onnx("GlobalMaxPool")
def global_max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Maximum over all axes behind the channels."""
    del attributes
    return torch.amax(x, tuple(range(2, x.dim())), keepdim=True)


_NEAREST = {
    ("asymmetric", "floor"),
    *(
        (how, rounding)
        for how in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
        for rounding in ("round_prefer_floor", "round_prefer_ceil")
    ),
}
"""(coordinates, rounding) for which each element repeats a whole number of times."""


@onnx("Resize")
def resize(
    attributes: Attributes,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Nearest resizing by whole factors."""
    del roi
    mode = attributes.text("mode", "nearest")
    if mode != "nearest":
        raise OnnxInputError(
            f"resizing by mode `{mode}` is not supported",
            "resize to the nearest, or use a transposed convolution",
        )
    how = attributes.text("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.text("nearest_mode", "round_prefer_floor")
    targets = _resized(attributes, x, scales, sizes)
    whole = all(t % n == 0 for n, t in zip(x.shape, targets, strict=True))
    if not whole or (how, rounding) not in _NEAREST:
        raise OnnxInputError(
            f"nearest resizing from {tuple(x.shape)} to {targets} with coordinates `{how}` "
            f"rounded by `{rounding}`",
            "resize up by whole factors, with asymmetric coordinates and floor",
        )
    if targets[:2] != tuple(x.shape[:2]):
        raise OnnxInputError("resizing of the batch or the channels", "resize spatial axes alone")
    return x if targets == tuple(x.shape) else F.interpolate(x, targets[2:], mode="nearest")


def _resized(
    attributes: Attributes, x: Tensor, scales: Tensor | None, sizes: Tensor | None
) -> Extents:
    """Return the extents that scales or sizes ask for."""
    axes = attributes.integers("axes") or tuple(range(x.dim()))
    targets = list(x.shape)
    if sizes is not None and sizes.numel():
        wanted = integers_of(sizes, "sizes") or ()
        attributes.refuse("keep_aspect_ratio_policy", "stretch")
    elif scales is not None and scales.numel():
        wanted = tuple(
            int(targets[axis] * scale) for axis, scale in zip(axes, scales.tolist(), strict=True)
        )
    else:
        raise OnnxInputError("neither scales nor sizes", "give one of the two")
    for axis, extent in zip(axes, wanted, strict=True):
        targets[axis] = extent
    return tuple(targets)
