# SPDX-License-Identifier: Apache-2.0
"""The closed set of functions that nodes of a canonical graph call, and their float meaning.

Tensors are positional; everything else is a keyword of integers, floats, strings and tuples, so
a graph can be written as JSON. Every function returns one tensor. Operands named `weight`, `bias`,
`mean` and `var` of layers and norms are `get_attr` nodes and are no values of the network; every
other tensor operand is a value, a `get_attr` among them a value of kind `constant`. The vector
operations `batch_norm`, `layer_norm` and `group_norm` name their parameters in
`Vector.attributes`, e.g. `{"weight": "norm.weight", "bias": None, "eps": 1e-5}`.
The table of an `embedding` is its second value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_OPS: tuple[str, ...] = ("sample", "sample_given")
"""Layers that draw from a Gaussian mixture: a constant one, or one that their inputs condition."""

LAYER_OPS: tuple[str, ...] = ("conv", "linear", "matmul", *SAMPLE_OPS)
"""Compute nodes; everything else is a vector operation."""

NORM_PARAMETERS: dict[str, tuple[str, ...]] = {
    "batch_norm": ("mean", "var", "weight", "bias"),
    "layer_norm": ("weight", "bias"),
    "group_norm": ("weight", "bias"),
}
"""Positional operands behind the input that are parameters, not values."""

CLAMPS: tuple[str, ...] = ("relu", "clip")
"""Elementwise functions that a requantisation computes by its bounds."""

REQUANTISING: tuple[str, ...] = (
    "add",
    "sub",
    "mul",
    "concat",
    "mean",
    "avg_pool",
    "batch_norm",
)
"""Vector operations that round into their output's format, so that a clamp fuses behind them."""


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """Convolve x (N, G*C, H, W) or (N, G*C, L) with weight (G*M, C, R, S) or (G*M, C, R).

    Args:
        x: input.
        weight: kernel.
        bias: (G*M,) or None.
        stride: one entry per spatial axis.
        padding: zeros before each spatial axis, then after each: (top, left, bottom, right) or
            (left, right).
        dilation: one entry per spatial axis.
        groups: G.
    """
    from torch.nn import functional as F  # noqa: N812 - the name torch's users know

    axes = x.dim() - 2
    begins, ends = padding[:axes], padding[axes:]
    function: Any = F.conv2d if axes == 2 else F.conv1d
    if begins != ends:
        pairs = zip(reversed(begins), reversed(ends), strict=True)
        x = F.pad(x, [extent for pair in pairs for extent in pair])
        begins = (0,) * axes
    result: Tensor = function(x, weight, bias, stride, begins, dilation, groups)
    return result


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map rows: x (..., C) times weight (M, C) transposed, plus bias (M,)."""
    from torch.nn import functional as F  # noqa: N812

    return F.linear(x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply activations: (..., N, C) by (..., C, M), leading extents equal."""
    return a @ b


def batch_norm(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
) -> Tensor:
    """Normalise channel axis 1 by running statistics: (x - mean) / sqrt(var + eps) * w + b."""
    from torch.nn import functional as F  # noqa: N812

    return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, shape: tuple[int, ...], eps: float
) -> Tensor:
    """Normalise over the trailing axes of extents `shape`."""
    from torch.nn import functional as F  # noqa: N812

    return F.layer_norm(x, shape, weight, bias, eps)


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, groups: int, eps: float
) -> Tensor:
    """Normalise each of `groups` runs of channels over channels and space."""
    from torch.nn import functional as F  # noqa: N812

    return F.group_norm(x, groups, weight, bias, eps)


def _elementwise_table() -> dict[str, Callable[..., Tensor]]:
    """Return the listed functions of one value by name: torch callables of (x, *parameters)."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    return {
        "relu": F.relu,
        "clip": torch.clamp,
        "affine": lambda x, a, b: a * x + b,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "silu": F.silu,
        "hardswish": F.hardswish,
        "hardsigmoid": F.hardsigmoid,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "leaky_relu": F.leaky_relu,
        "elu": F.elu,
        "softplus": F.softplus,
        "mish": F.mish,
        "exp": torch.exp,
        "log": torch.log,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "reciprocal": torch.reciprocal,
        "abs": torch.abs,
        "neg": torch.neg,
        "sign": torch.sign,
        "square": torch.square,
        "pow": torch.pow,
        "erf": torch.erf,
        "sin": torch.sin,
        "cos": torch.cos,
    }


def elementwise(x: Tensor, *, function: str, parameters: tuple[float, ...] = ()) -> Tensor:
    """Apply one of the listed functions to every element.

    Parameters, where there are any: clip (low, high), affine (a, b) for a*x + b,
    leaky_relu (slope), elu (alpha), pow (exponent).
    """
    return _elementwise_table()[function](x, *parameters)


def add(a: Tensor, b: Tensor) -> Tensor:
    """Sum with broadcasting."""
    return a + b


def sub(a: Tensor, b: Tensor) -> Tensor:
    """Difference with broadcasting."""
    return a - b


def mul(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise product with broadcasting."""
    return a * b


def concat(*xs: Tensor, dim: int) -> Tensor:
    """Join along axis `dim` >= 0."""
    import torch

    return torch.cat(xs, dim)


def max_pool(
    x: Tensor,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> Tensor:
    """Take the maximum of each window of the last axes; `padding` is the same on both sides."""
    from torch.nn import functional as F  # noqa: N812

    function: Any = F.max_pool2d if len(kernel) == 2 else F.max_pool1d
    result: Tensor = function(x, kernel, stride, padding, dilation, ceil_mode)
    return result


def avg_pool(
    x: Tensor,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    """Take the mean of each window of the last axes; `padding` is the same on both sides."""
    from torch.nn import functional as F  # noqa: N812

    function: Any = F.avg_pool2d if len(kernel) == 2 else F.avg_pool1d
    result: Tensor = function(x, kernel, stride, padding, ceil_mode, count_include_pad)
    return result


def mean(x: Tensor, *, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Average over axes `dims` (>= 0, ascending)."""
    return x.mean(dims, keepdim)


def resize_nearest(x: Tensor, *, scale: tuple[int, ...]) -> Tensor:
    """Repeat each element of the last axes `scale` times; (vertical, horizontal) or (along,)."""
    for axis, times in enumerate(scale, start=x.dim() - len(scale)):
        x = x.repeat_interleave(times, dim=axis)
    return x


def reshape(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """View with another shape; -1 stands where the batch is."""
    return x.reshape(shape)


def permute(x: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    """Reorder axes."""
    return x.permute(dims)


def slice_(x: Tensor, *, dim: int, start: int, stop: int, step: int) -> Tensor:
    """Take elements start, start + step, ... below stop of axis `dim`; all are >= 0, step >= 1."""
    index = (slice(None),) * dim + (slice(start, stop, step),)
    return x[index]


def pad(x: Tensor, *, pads: tuple[int, ...], value: float) -> Tensor:
    """Surround with `value`: elements before every axis, then after every axis."""
    from torch.nn import functional as F  # noqa: N812

    rank = x.dim()
    pairs = zip(reversed(pads[:rank]), reversed(pads[rank:]), strict=True)
    return F.pad(x, [extent for pair in pairs for extent in pair], value=value)


def expand(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """Repeat axes of extent 1; -1 keeps an axis as it is."""
    return x.expand(shape)


def interleave(*phases: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Merge phases of equal shape over the last axes: out[..., n*stride + i] = phase_i[..., n].

    Phases are in row-major order of their offsets (i, j); `stride` has one entry per axis.
    """
    import torch

    axes = len(stride)
    lead = phases[0].shape[:-axes]
    extents = phases[0].shape[-axes:]
    stacked = torch.stack(phases, dim=-1).reshape(*lead, *extents, *stride)
    order = [axis for pair in zip(range(axes), range(axes, 2 * axes), strict=True) for axis in pair]
    moved = stacked.permute(*range(len(lead)), *(len(lead) + axis for axis in order))
    return moved.reshape(*lead, *(n * s for n, s in zip(extents, stride, strict=True)))


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """Select rows of `weight` (entries, features) by integer `indices`."""
    from torch.nn import functional as F  # noqa: N812

    return F.embedding(indices, weight)


def softmax(x: Tensor, *, dim: int) -> Tensor:
    """Exponentials along axis `dim`, divided by their sum."""
    return x.softmax(dim)


def sample(
    start: Tensor, weights: Tensor, means: Tensor, covariances: Tensor, *, count: int
) -> Tensor:
    """Draw `count` points of a Gaussian mixture for each row of `start`: (N, count, D).

    The draws are the same in every row and in every call, so that a graph has one result.

    Args:
        start: (N, ...), its contents unread.
        weights: (K,).
        means: (K, D).
        covariances: (K, D, D).
        count: points of one row.
    """
    import torch

    dimensions = means.shape[1]
    if start.is_meta:
        return start.new_empty((start.shape[0], count, dimensions))
    uniform, normal = _draws(count, dimensions)
    which = torch.searchsorted(weights.cumsum(0), uniform).clamp(max=len(weights) - 1)
    factors = torch.linalg.cholesky(covariances)
    points: Tensor = means[which] + (factors[which] @ normal[..., None])[..., 0]
    return points.expand(start.shape[0], -1, -1)


def sample_given(logits: Tensor, means: Tensor, log_deviations: Tensor, *, count: int) -> Tensor:
    """Draw `count` points of the mixture that each row conditions: (N, count, D).

    The random numbers are the same in every row and in every call.

    Args:
        logits: (N, K); the weights are their softmax.
        means: (N, K * D).
        log_deviations: (N, K * D), natural logarithms of standard deviations.
        count: points of one row.
    """
    import torch

    rows, components = logits.shape
    dimensions = means.shape[1] // components
    if logits.is_meta:
        return logits.new_empty((rows, count, dimensions))
    uniform, normal = _draws(count, dimensions)
    shares = logits.softmax(-1).cumsum(-1)
    which = torch.searchsorted(shares, uniform.expand(rows, -1).contiguous())
    which = which.clamp(max=components - 1)[..., None].expand(-1, -1, dimensions)
    centre = means.view(rows, components, dimensions).gather(1, which)
    deviation = log_deviations.view(rows, components, dimensions).exp().gather(1, which)
    return centre + deviation * normal


def _draws(count: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """Return fixed uniform (count,) and normal (count, D) numbers."""
    import torch

    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(count, generator=generator)
    return uniform, torch.randn(count, dimensions, generator=generator)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "conv": conv,
    "linear": linear,
    "matmul": matmul,
    "sample": sample,
    "sample_given": sample_given,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "elementwise": elementwise,
    "add": add,
    "sub": sub,
    "mul": mul,
    "concat": concat,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "mean": mean,
    "resize_nearest": resize_nearest,
    "reshape": reshape,
    "permute": permute,
    "slice": slice_,
    "pad": pad,
    "expand": expand,
    "interleave": interleave,
    "embedding": embedding,
    "softmax": softmax,
}
"""Every canonical function by the name that `Node.op` carries."""

_NAMES: dict[Callable[..., Any], str] = {function: name for name, function in FUNCTIONS.items()}


def recordable(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let the frontend see calls of a registered vector operation's function in a user's model.

    To be put on the `function` of an operation registered under `enos_compiler.vector_ops`. Its
    tensors are positional and its other arguments keywords that JSON can hold.
    """

    @wraps(function)
    def visible(*tensors: Tensor, **attributes: Any) -> Tensor:
        from torch.overrides import handle_torch_function, has_torch_function

        if has_torch_function(tensors):
            seen: Tensor = handle_torch_function(visible, tensors, *tensors, **attributes)
            return seen
        return function(*tensors, **attributes)

    return visible


def op_name(function: Callable[..., Any]) -> str | None:
    """Return the canonical name of `function`: built in or a registered vector operation's.

    None for a function that is no canonical operation.
    """
    if function in _NAMES:
        return _NAMES[function]
    from enos_compiler import plugins

    for name in plugins.names("vector_ops"):
        if plugins.load("vector_ops", name).function is function:
            return name
    return None
