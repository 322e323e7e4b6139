# SPDX-License-Identifier: Apache-2.0
"""Lowers transposed convolutions to convolutions without inserted zeros."""

from __future__ import annotations

from math import ceil, prod

from torch import Tensor, fx

from enos_compiler.frontend.lower_layers import Extents, batched, per_axis, require_constant
from enos_compiler.frontend.lowering import Builder, Shape, lowers


@lowers("conv_transpose1d", "conv_transpose2d")
def conv_transpose(
    b: Builder,
    input: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None = None,
    stride: Extents = 1,
    padding: Extents = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
) -> fx.Node:
    """Transposed convolution as one convolution per output phase and an interleave.

    Output row o = stride * n + i takes the kernel rows r with (o + padding - r) divisible by the
    stride: r = r0 + stride * t with r0 = (i + padding) mod stride, from input row n + d - t with
    d = (i + padding - r0) / stride. So phase i is a convolution with the kernel rows r0, r0 +
    stride, ... in reverse order, which multiplies no inserted zeros.
    """
    require_constant(b, weight, "transposed convolution")
    axes = len(weight.meta["shape"]) - 2
    if set(per_axis(dilation, axes)) != {1}:
        raise b.error(
            f"a transposed convolution of dilation {dilation} has no dense phases",
            "use dilation 1, or nearest upsampling and a dilated convolution",
        )
    x, was_unbatched = batched(b, input, axes)
    strides, pads = per_axis(stride, axes), per_axis(padding, axes)
    kernel, extents = weight.meta["shape"][2:], x.meta["shape"][2:]
    outputs = tuple(
        (n - 1) * s - 2 * p + k + extra
        for n, s, p, k, extra in zip(
            extents, strides, pads, kernel, per_axis(output_padding, axes), strict=True
        )
    )
    plans = [
        [_phase(i, s, p, k, n, ceil(o / s)) for i in range(s)]
        for s, p, k, n, o in zip(strides, pads, kernel, extents, outputs, strict=True)
    ]
    phases = [
        _phase_conv(b, x, weight, bias, groups, offsets, plans) for offsets in _offsets(strides)
    ]
    y = phases[0] if len(phases) == 1 else b.emit("interleave", *phases, stride=strides)
    for axis, extent in enumerate(outputs, start=2):
        if y.meta["shape"][axis] != extent:
            y = b.emit("slice", y, dim=axis, start=0, stop=extent, step=1)
    return b.reshape(y, lambda s: s[1:]) if was_unbatched else y


class _Phase:
    """One phase of one axis: which kernel rows, and the zeros or the crop around the input."""

    def __init__(self, first: int, taps: int, before: int, after: int) -> None:
        self.first, self.taps = first, taps
        self.before, self.after = before, after


def _phase(i: int, stride: int, padding: int, kernel: int, extent: int, outputs: int) -> _Phase:
    """Return phase `i` of an axis; `before` and `after` are negative where the input is cropped."""
    first = (i + padding) % stride
    taps = max(ceil((kernel - first) / stride), 0)
    offset = (i + padding - first) // stride
    reach = max(taps, 1)
    return _Phase(first, taps, reach - 1 - offset, outputs + offset - extent)


def _offsets(strides: Shape) -> list[Shape]:
    """Return all phases' offsets in row-major order."""
    offsets: list[Shape] = [()]
    for stride in strides:
        offsets = [(*lead, i) for lead in offsets for i in range(stride)]
    return offsets


def _phase_conv(
    b: Builder,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    groups: int,
    offsets: Shape,
    plans: list[list[_Phase]],
) -> fx.Node:
    """Append the convolution of one phase."""
    phases = [plan[i] for plan, i in zip(plans, offsets, strict=True)]
    for axis, phase in enumerate(phases, start=2):
        start, stop = max(-phase.before, 0), x.meta["shape"][axis] - max(-phase.after, 0)
        if (start, stop) != (0, x.meta["shape"][axis]):
            x = b.emit("slice", x, dim=axis, start=start, stop=stop, step=1)
    strides = tuple(len(plan) for plan in plans)
    suffix = "phase" + "_".join(map(str, offsets))
    rows = "_".join(f"{p.first}of{stride}" for p, stride in zip(phases, strides, strict=True))
    taken = b.derive(weight, f"rows_{rows}", lambda w: _phase_kernel(w, phases, strides, groups))
    hint = b.current.meta["hint"] if b.current is not None else "conv"
    axes = len(phases)
    return b.emit(
        "conv",
        x,
        taken,
        bias,
        name=f"{hint}_{suffix}" if prod(strides) > 1 else None,
        stride=(1,) * axes,
        padding=tuple(max(p.before, 0) for p in phases) + tuple(max(p.after, 0) for p in phases),
        dilation=(1,) * axes,
        groups=groups,
    )


def _phase_kernel(weight: Tensor, phases: list[_Phase], strides: Shape, groups: int) -> Tensor:
    """Return one phase's kernel (G*M, C, ...) of a transposed kernel (G*C, M, ...).

    A phase without taps (kernel smaller than stride) is one zero tap: its outputs are the bias.
    """
    inputs, per_group = weight.shape[0] // groups, weight.shape[1]
    kernel = weight.reshape(groups, inputs, per_group, *weight.shape[2:]).transpose(1, 2)
    kernel = kernel.reshape(groups * per_group, inputs, *weight.shape[2:])
    for axis, (phase, stride) in enumerate(zip(phases, strides, strict=True), start=2):
        if phase.taps:
            rows = [phase.first + stride * t for t in reversed(range(phase.taps))]
            kernel = kernel[(slice(None),) * axis + (rows,)]
        else:
            kernel = kernel.narrow(axis, 0, 1) * 0
    return kernel
