# SPDX-License-Identifier: Apache-2.0
"""Lowers pooling, averages, resizing and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import fx

from enos_compiler.frontend.lower_elementwise import affine, function_of
from enos_compiler.frontend.lower_layers import Extents, batched, per_axis
from enos_compiler.frontend.lowering import Builder, lowers


@lowers("max_pool1d", "max_pool2d")
def max_pool(
    b: Builder,
    input: fx.Node,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> fx.Node:
    """Maximum of windows."""
    if return_indices:
        raise b.error("max pooling with positions", "pool without return_indices")
    axes = _axes(b)
    x, was_unbatched = batched(b, input, axes)
    y = b.emit(
        "max_pool",
        x,
        kernel=per_axis(kernel_size, axes),
        stride=per_axis(stride or kernel_size, axes),
        padding=per_axis(padding, axes),
        dilation=per_axis(dilation, axes),
        ceil_mode=bool(ceil_mode),
    )
    return b.reshape(y, lambda s: s[1:]) if was_unbatched else y


@lowers("max_pool1d_with_indices", "max_pool2d_with_indices", "max_unpool2d", "lp_pool2d")
def pool_with_indices(b: Builder, *_: Any, **__: Any) -> fx.Node:
    """Refuse pools that return or take positions, and powers."""
    raise b.error("this pool is not supported", "use max or average pooling without positions")


@lowers("avg_pool1d", "avg_pool2d")
def avg_pool(
    b: Builder,
    input: fx.Node,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> fx.Node:
    """Mean of windows; one window over everything is a global average."""
    axes = _axes(b)
    kernel, pads = per_axis(kernel_size, axes), per_axis(padding, axes)
    x, was_unbatched = batched(b, input, axes)
    if kernel == x.meta["shape"][2:] and set(pads) == {0}:
        y = b.emit("mean", x, dims=tuple(range(2, 2 + axes)), keepdim=True)
    else:
        y = b.emit(
            "avg_pool",
            x,
            kernel=kernel,
            stride=per_axis(stride or kernel_size, axes),
            padding=pads,
            ceil_mode=bool(ceil_mode),
            count_include_pad=bool(count_include_pad) or set(pads) == {0},
        )
    if divisor_override is not None:
        if set(pads) != {0} and not count_include_pad:
            raise b.error("divisor_override beside padding", "leave one of the two out")
        y = affine(b, y, prod(kernel) / divisor_override, 0.0)
    return b.reshape(y, lambda s: s[1:]) if was_unbatched else y


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_avg_pool(b: Builder, input: fx.Node, output_size: Any) -> fx.Node:
    """Mean over an even grid of windows."""
    kernel = _even_windows(b, input, output_size)
    if kernel == (1,) * len(kernel):
        return input
    return avg_pool(b, input, kernel)


@lowers("adaptive_max_pool1d", "adaptive_max_pool2d")
def adaptive_max_pool(
    b: Builder, input: fx.Node, output_size: Any, return_indices: bool = False
) -> fx.Node:
    """Maximum over an even grid of windows."""
    return max_pool(b, input, _even_windows(b, input, output_size), return_indices=return_indices)


def _axes(b: Builder) -> int:
    """Return the number of spatial axes that the current call's name states."""
    call = str(b.current.meta["call"]) if b.current is not None else "2d"
    return 1 if call.endswith("1d") else 2


def _even_windows(b: Builder, x: fx.Node, output_size: Any) -> tuple[int, ...]:
    """Return the window of an adaptive pool.

    Raises:
        FrontendError: the outputs do not divide the input evenly.
    """
    axes = _axes(b)
    extents = x.meta["shape"][-axes:]
    wanted = (
        (output_size,) * axes
        if output_size is None or isinstance(output_size, int)
        else output_size
    )
    sizes = tuple(n if size is None else size for n, size in zip(extents, wanted, strict=True))
    if any(n % size for n, size in zip(extents, sizes, strict=True)):
        raise b.error(
            f"adaptive pooling from {extents} to {sizes} has windows of unequal size",
            "choose output sizes that divide the input, or resize the input",
        )
    return tuple(n // size for n, size in zip(extents, sizes, strict=True))


@lowers("mean")
def mean(
    b: Builder, input: fx.Node, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> fx.Node:
    """Average over axes."""
    del dtype
    rank = len(input.meta["shape"])
    if dim is None or dim == ():
        dims = tuple(range(rank))
    else:
        chosen = (dim,) if isinstance(dim, int) else dim
        dims = tuple(sorted(b.axis(input, d) for d in chosen))
    _keep_batch(b, input, dims)
    return b.emit("mean", input, dims=dims, keepdim=bool(keepdim))


@lowers("sum")
def sum_(
    b: Builder, input: fx.Node, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> fx.Node:
    """Sum over axes, the average times the count."""
    y = mean(b, input, dim, keepdim, dtype=dtype)
    count = prod(input.meta["shape"]) // prod(y.meta["shape"])
    return affine(b, y, float(count), 0.0)


@lowers("amax")
def amax(b: Builder, input: fx.Node, dim: Any = (), keepdim: bool = False) -> fx.Node:
    """Maximum over trailing axes, as a pool."""
    rank = len(input.meta["shape"])
    chosen = (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple(sorted(b.axis(input, d) for d in chosen))
    if dims != tuple(range(rank - len(dims), rank)) or rank - len(dims) != 2:
        raise b.error(f"maximum over axes {dims}", "take it over all axes behind the channels")
    extents = input.meta["shape"][-len(dims) :]
    y = b.emit(
        "max_pool",
        input,
        kernel=extents,
        stride=extents,
        padding=(0,) * len(dims),
        dilation=(1,) * len(dims),
        ceil_mode=False,
    )
    return y if keepdim else b.reshape(y, lambda s: s[: -len(dims)])


def _keep_batch(b: Builder, x: fx.Node, dims: Sequence[int]) -> None:
    """Refuse reductions over the axis that carries the batch."""
    if any(x.meta["shape"][d] != x.meta["grown"][d] for d in dims):
        raise b.error("a reduction over the batch", "reduce over the other axes")


@lowers("interpolate", "upsample", "upsample_nearest")
def interpolate(
    b: Builder,
    input: fx.Node,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> fx.Node:
    """Nearest resizing by whole factors, up by repeating or down by skipping."""
    del align_corners, recompute_scale_factor, antialias  # without effect on nearest
    if mode != "nearest":
        raise b.error(
            f"interpolation mode `{mode}` is not supported",
            "use mode='nearest', or a transposed convolution",
        )
    extents = input.meta["shape"][2:]
    axes = len(extents)
    if size is not None:
        targets = per_axis(size, axes)
    else:
        factors = (scale_factor,) * axes if isinstance(scale_factor, int | float) else scale_factor
        targets = tuple(int(n * f) for n, f in zip(extents, factors, strict=True))
    if any(t % n and n % t for n, t in zip(extents, targets, strict=True)):
        raise b.error(
            f"nearest resizing from {extents} to {targets} is by no whole factor",
            "resize by whole factors",
        )
    x = input
    for axis, (n, target) in enumerate(zip(extents, targets, strict=True), start=2):
        if target < n:
            x = b.emit("slice", x, dim=axis, start=0, stop=n, step=n // target)
    scale = tuple(max(t // n, 1) for n, t in zip(extents, targets, strict=True))
    return b.emit("resize_nearest", x, scale=scale) if max(scale) > 1 else x


@lowers("batch_norm")
def batch_norm(
    b: Builder,
    input: fx.Node,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> fx.Node:
    """Batch normalisation by running statistics."""
    del momentum
    if training or running_mean is None or running_var is None:
        raise b.error(
            "batch normalisation by the statistics of the batch itself",
            "use track_running_stats=True and evaluation mode, or group normalisation",
        )
    return b.emit("batch_norm", input, running_mean, running_var, weight, bias, eps=float(eps))


@lowers("layer_norm")
def layer_norm(
    b: Builder,
    input: fx.Node,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> fx.Node:
    """Layer normalisation."""
    del cudnn_enable
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    return b.emit("layer_norm", input, weight, bias, shape=shape, eps=float(eps))


@lowers("group_norm")
def group_norm(
    b: Builder,
    input: fx.Node,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> fx.Node:
    """Group normalisation."""
    return b.emit("group_norm", input, weight, bias, groups=int(num_groups), eps=float(eps))


@lowers("instance_norm")
def instance_norm(
    b: Builder,
    input: fx.Node,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> fx.Node:
    """Instance normalisation: group normalisation of one channel each, or a batch norm."""
    if not use_input_stats:
        return batch_norm(
            b, input, running_mean, running_var, weight, bias, momentum=momentum, eps=eps
        )
    return group_norm(b, input, input.meta["shape"][1], weight, bias, eps)


@lowers("rms_norm")
def rms_norm(
    b: Builder,
    input: fx.Node,
    normalized_shape: Any,
    weight: Any = None,
    eps: float | None = None,
) -> fx.Node:
    """X / sqrt(mean(x^2) + eps) * w over the trailing axes."""
    import torch

    rank = len(input.meta["shape"])
    dims = tuple(range(rank - len(normalized_shape), rank))
    power = b.emit("mean", function_of(b, input, "square"), dims=dims, keepdim=True)
    floor = torch.finfo(torch.float32).eps if eps is None else float(eps)
    y = b.emit("mul", input, function_of(b, affine(b, power, 1.0, floor), "rsqrt"))
    return y if weight is None else b.emit("mul", y, weight)
