# SPDX-License-Identifier: Apache-2.0
"""Crossbar convolutions in torch: the same codes as `integer.read`, at the speed of convolutions.

One convolution per row block: input digits are its batch, weight slices (and the planes of pairs
that are converted apart) its output channels. Where levels and digits fit eight bits, it is
oneDNN's quantised convolution, whose rescaling to eight bits *is* the converter of a narrow ADC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from enos_compiler.crossbar.blocks import digit_widths
from enos_compiler.crossbar.converters import code_limits
from enos_compiler.crossbar.fastint8 import QuantizedConvolution, exact_here
from enos_compiler.crossbar.fastnoise import NormalStream, RowPower
from enos_compiler.crossbar.integer import (
    IntegerMatrix,
    StoredBlock,
    floor_per_input,
    required_adc_bits,
    sums_signed,
)
from enos_compiler.errors import SpecError
from enos_compiler.ir.shape import LayerShape

if TYPE_CHECKING:
    from torch import Tensor

Backend = Literal["int8", "float"]
EXACT_FLOAT32 = 1 << 24


@dataclass(slots=True)
class _Block:
    """One row block as a convolution over the channels that it touches."""

    first: int
    last: int
    weight: Tensor
    """(G * parts * S * M', channels, R, S), scaled levels in float32."""
    power: RowPower
    reach: float
    """Largest sum of a column's absolute levels."""
    level: float
    """Largest absolute level."""
    quantized: QuantizedConvolution | None = None


class FastConvolution:
    """A convolution on crossbars with its weights in place.

    Calling it with codes (N, G * C, H, W) returns the accumulators (N, G * M, P, Q), equal to
    `convolution.crossbar_convolution` element by element, as float32 while they stay below 2^24,
    else float64.

    Args:
        matrices: one stored matrix per group, from `integer.store` (perturbed ones included).
        shape: the layer's nest; N is free at the call.
        input_bits: width of the inputs, sign included.
        inputs_signed: inputs carry a sign (float backend).
        steps_log2: ADC step, one exponent or one per slice.
        read_noise: standard deviation of a cell's conductance in each access, in cell steps; it
            enters as its exact sum, sigma * sqrt(planes * sum of squared row values) per column.
        seed: of the read noise.
        pad_code: code outside the input.
        backend: `int8` where it is exact on this processor, or `float`; None chooses.
        shortcut: replace converters that lose nothing by one convolution with the whole weights.
    """

    def __init__(
        self,
        matrices: Sequence[IntegerMatrix],
        shape: LayerShape,
        input_bits: int,
        *,
        inputs_signed: bool = False,
        steps_log2: int | Sequence[int] = 0,
        read_noise: float = 0.0,
        seed: int = 0,
        pad_code: int = 0,
        backend: Backend | None = None,
        shortcut: bool = True,
    ) -> None:
        first = matrices[0]
        if len(matrices) != shape.g or first.rows != shape.taps or first.outputs != shape.m:
            raise SpecError(
                f"{len(matrices)} matrices of {first.outputs} x {first.rows} do not make {shape}",
                place="matrices",
                remedy="one stored matrix (M, C * R * S) per group",
            )
        self.spec, self.layout, self.shape = first.spec, first.layout, shape
        self.outputs = first.outputs + first.unit_column
        self.unit_column, self.floor = first.unit_column, floor_per_input(first)
        self.noise, self.pad_code = read_noise, pad_code
        self.normals = NormalStream(seed)
        self.signed_inputs = inputs_signed
        slices = self.layout.slices
        self.steps = (steps_log2,) * slices if isinstance(steps_log2, int) else tuple(steps_log2)
        self.both = sums_signed(first, inputs_signed)
        self.low, self.high = code_limits(self.spec.adc.bits, self.both)
        ideal = self.spec.adc.law == "ideal"
        if ideal:
            self.steps = (0,) * slices
        exact = shortcut and not read_noise
        self.joined = exact and (ideal or self._loses_nothing(matrices, input_bits))
        """No converter is left: one convolution with the whole weights and inputs."""
        self.magnitude = input_bits - inputs_signed
        self.access_width = self.spec.dac.digit_bits or self.magnitude
        whole = self.joined or not self.spec.adc.per_digit
        self.digit_width = self.magnitude if whole else self.access_width
        self.digits = digit_widths(self.magnitude, self.digit_width)
        if self.joined:
            matrices = [_recombined(m) for m in matrices]
            self.steps = (0,)
        self.slices = len(self.steps)
        self.parts = self.layout.planes
        if self.parts == 2 and (self.spec.subtract_before_adc or self.joined):
            self.parts = 1
        self.blocks = [self._block(matrices, i) for i in range(len(matrices[0].blocks))]
        self.backend = backend or self._best_backend()
        self.dtype = self._accumulator_type()

    def _loses_nothing(self, matrices: Sequence[IntegerMatrix], input_bits: int) -> bool:
        """Step 1 and wide enough codes in every slice of every group, exact levels."""
        exact = all(
            np.array_equal(level, np.rint(level))
            for m in matrices
            for b in m.blocks
            for level in b.levels
        )
        need = [
            required_adc_bits(m, input_bits, inputs_signed=self.signed_inputs) for m in matrices
        ]
        widest = max(max(n) for n in need)
        return exact and not any(self.steps) and widest <= self.spec.adc.bits

    def _block(self, matrices: Sequence[IntegerMatrix], index: int) -> _Block:
        import torch

        shape = self.shape
        rows = matrices[0].blocks[index].rows
        kernel = shape.r * shape.s
        first, last = rows.start // kernel, ceil(rows.stop / kernel)
        groups = []
        for matrix in matrices:
            planes = []
            for scale, levels in zip(self.steps, matrix.blocks[index].levels, strict=True):
                joint = levels[:1] - levels[1:] if self.parts < len(levels) else levels
                planes.append(joint * 2.0**-scale)
            groups.append(np.stack(planes, axis=1))
        stacked = np.stack(groups)  # (G, parts, slices, rows, columns)
        full = np.zeros((*stacked.shape[:3], (last - first) * kernel, self.outputs))
        offset = rows.start - first * kernel
        count = rows.stop - rows.start
        full[..., offset : offset + count, :] = stacked
        mask = np.zeros((shape.g, (last - first) * kernel))
        mask[:, offset : offset + count] = 1
        taps = (last - first, shape.r, shape.s)
        weight = np.moveaxis(full, 4, 3).reshape(-1, *taps)
        unscaled = stacked * np.exp2(np.array(self.steps))[None, None, :, None, None]
        return _Block(
            first,
            last,
            torch.from_numpy(weight.astype(np.float32)),
            RowPower(torch.from_numpy(mask.reshape(-1, *taps).astype(np.float32))),
            float(np.abs(unscaled).sum(axis=3).max(initial=0.0)),
            float(np.abs(unscaled).max(initial=0.0)),
        )

    @property
    def _digit_top(self) -> int:
        return (1 << max(self.digits)) - 1

    def _best_backend(self) -> Backend:
        """int8 where levels, digits and the pairwise sums of the processor's product fit."""
        exact = all(bool((w == w.round()).all()) for w in (self._levels(b) for b in self.blocks))
        top = max(b.level for b in self.blocks)
        fits = exact and not self.signed_inputs and top <= 127 and self._digit_top <= 255
        reach = max(b.reach for b in self.blocks) * self._digit_top < EXACT_FLOAT32
        return "int8" if fits and reach and exact_here(int(top), self._digit_top) else "float"

    def _levels(self, block: _Block) -> Tensor:
        """Integer levels of a block: the weights without the steps."""
        import torch

        return block.weight * torch.exp2(self._steps_per_channel())[:, None, None, None]

    def _steps_per_channel(self) -> Tensor:
        import torch

        steps = torch.tensor(self.steps, dtype=torch.float32)
        return steps.repeat_interleave(self.outputs).repeat(self.shape.g * self.parts)

    def _accumulator_type(self) -> Any:
        """float32 while every partial sum of codes is exact in it."""
        import torch

        top = float(sum(b.reach for b in self.blocks)) * (1 << self.magnitude)
        if not self.joined and self.spec.adc.law != "ideal":
            weights = sum(1 << (i * self.spec.cell.bits + s) for i, s in enumerate(self.steps))
            places = sum(1 << (k * self.digit_width) for k in range(len(self.digits)))
            top = float(max(abs(self.low), self.high)) * len(self.blocks) * weights * places
        top = top * self.layout.gain + self.layout.offset * self.shape.taps * (1 << self.magnitude)
        return torch.float32 if top < EXACT_FLOAT32 else torch.float64

    def __call__(self, x: Tensor) -> Tensor:
        """Accumulators of codes (N, G * C, H, W); any integer or float dtype that holds them."""
        import torch

        with torch.inference_mode():
            x, padding = self._padded(x)
            planes = self._planes(x)
            n = x.shape[0]
            total: Tensor | None = None
            for block in self.blocks:
                part = self._channels(planes, block)
                codes = self._codes(block, part, padding)
                total = self._shift_add(codes, n, total)
            if total is None:
                raise SpecError("the matrix has no rows", place="matrices", remedy="C * R * S >= 1")
            return self._recover(total, x, padding)

    def _padded(self, x: Tensor) -> tuple[Tensor, list[int]]:
        import torch

        top, left, bottom, right = self.shape.padding
        if (top, left) == (bottom, right) and not self.pad_code:
            return x, [top, left]
        wide = torch.nn.functional.pad(x, (left, right, top, bottom), value=self.pad_code)
        return wide, [0, 0]

    def _planes(self, x: Tensor) -> Tensor:
        """Digits (K * N, G * C, H, W), channels last: bytes for int8, else float32."""
        import torch

        kind = torch.uint8 if self.backend == "int8" else torch.float32
        layout = torch.channels_last
        if len(self.digits) == 1:
            return x.to(kind).contiguous(memory_format=layout)
        codes = x.to(torch.uint8 if self.magnitude <= 8 and not self.signed_inputs else torch.int32)
        codes = codes.contiguous(memory_format=layout)
        sign, codes = (codes.sign(), codes.abs()) if self.signed_inputs else (None, codes)
        out = torch.empty(
            (len(self.digits) * x.shape[0], *x.shape[1:]), dtype=kind, memory_format=layout
        )
        mask = (1 << self.digit_width) - 1
        for k, plane in enumerate(out.chunk(len(self.digits))):
            digit = (codes >> (k * self.digit_width)) & mask
            plane.copy_(digit if sign is None else digit * sign)
        return out

    def _channels(self, planes: Tensor, block: _Block) -> Tensor:
        """The channels that a block's rows lie in, of every group."""
        import torch

        shape = self.shape
        if block.first == 0 and block.last == shape.c:
            return planes
        grouped = planes.view(planes.shape[0], shape.g, shape.c, *planes.shape[2:])
        part = grouped[:, :, block.first : block.last].flatten(1, 2)
        return part.contiguous(memory_format=torch.channels_last)

    def _conv(self, x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
        import torch

        shape = self.shape
        return torch.nn.functional.conv2d(
            x, weight, None, shape.stride, tuple(padding), shape.dilation, shape.g
        )

    def _quantized(self, block: _Block, x: Tensor, padding: list[int], kind: Any) -> Tensor:
        """Int8 convolution of oneDNN: column sums in ADC steps, rounded and clipped to `kind`."""
        import torch

        if block.quantized is None:
            shape = self.shape
            levels, scales = self._levels(block), torch.exp2(-self._steps_per_channel())
            block.quantized = QuantizedConvolution(
                levels, scales, shape.stride, padding, shape.dilation, shape.g
            )
        return block.quantized(x, kind)

    def _codes(self, block: _Block, x: Tensor, padding: list[int]) -> Tensor:
        """Codes of one block, (K * N, G * parts * S * M', P, Q)."""
        import torch

        ideal = self.spec.adc.law == "ideal"
        narrow = self.spec.adc.bits <= 8 and not (self.noise or self.joined or ideal)
        if self.backend == "int8" and narrow:
            codes = self._quantized(block, x, padding, torch.int8 if self.both else torch.uint8)
            if self.both or self.spec.adc.bits < 8:
                codes = codes.clamp_(self.low, self.high)
            return codes
        if self.backend == "int8":
            sums = self._quantized(block, x, padding, torch.float32)
        else:
            exact = block.reach * self._digit_top < EXACT_FLOAT32
            kind = torch.float32 if exact else torch.float64
            sums = self._conv(x.to(kind), block.weight.to(kind), padding)
        if self.noise:
            self._add_noise(sums, block, x, padding)
        if self.joined or ideal:
            return sums
        return sums.round_().clamp_(self.low, self.high)

    def _add_noise(self, sums: Tensor, block: _Block, x: Tensor, padding: list[int]) -> None:
        """Add the access's noise in place: one normal per column, scaled by the rows' norm."""
        import torch

        def conv(lines: Tensor, weight: Tensor) -> Tensor:
            return self._conv(lines, weight, padding)

        values = x.to(torch.float32)
        if max(self.digits) > self.access_width:
            accesses = len(digit_widths(self.magnitude, self.access_width))
            powers = [
                block.power(self._digit(values, k), conv).mul_(4.0 ** (k * self.access_width))
                for k in range(accesses)
            ]
            power = torch.stack(powers).sum(0)
        else:
            power = block.power(values, conv)
        planes = self.layout.planes if self.parts == 1 else 1
        uniform = len(set(self.steps)) == 1
        scale = 2.0 ** -self.steps[0] if uniform else 1.0
        spread = power.sqrt_().mul_(self.noise * planes**0.5 * scale)
        n, channels, rows, columns = sums.shape
        draw = self.normals.draw(sums.numel()).view(n, rows, columns, channels).permute(0, 3, 1, 2)
        if not uniform:
            draw *= torch.exp2(-self._steps_per_channel())[:, None, None]
        split = (n, self.shape.g, -1, rows, columns)
        sums.view(split).addcmul_(draw.view(split), spread.unsqueeze(2))

    def _digit(self, values: Tensor, k: int) -> Tensor:
        """Row values of access k where the digits are summed in analog."""
        scale = 2.0 ** (k * self.access_width)
        return (values.abs() / scale).floor_().remainder_(2.0**self.access_width)

    def _shift_add(self, codes: Tensor, n: int, total: Tensor | None) -> Tensor:
        """Add up digits, slices and parts of one block's codes, (N, G * M', P, Q)."""
        extent = (self.shape.g, self.parts, self.slices, self.outputs)
        pieces = codes.view(len(self.digits), n, *extent, *codes.shape[2:])
        for k in range(len(self.digits)):
            for p in range(self.parts):
                for s in range(self.slices):
                    place = s * self.spec.cell.bits
                    factor = (1 - 2 * p) * (1 << (place + k * self.digit_width + self.steps[s]))
                    piece = pieces[k, :, :, p, s].flatten(1, 2)
                    if total is None:
                        fresh = piece.shape == codes.shape and codes.dtype == self.dtype
                        total = codes if fresh else self._copied(piece)
                        if factor != 1:
                            total *= factor
                    else:
                        total.add_(piece, alpha=factor)
        if total is None:
            raise SpecError("the inputs have no digits", place="input_bits", remedy="1 or more")
        return total

    def _copied(self, piece: Tensor) -> Tensor:
        import torch

        return piece.to(self.dtype, memory_format=torch.channels_last, copy=True)

    def _recover(self, total: Tensor, x: Tensor, padding: list[int]) -> Tensor:
        """Take away the empty cells' floor and the offset of the encoding, as `integer.read`."""
        import torch

        gain, offset = self.layout.gain, self.layout.offset
        if self.spec.adc.law == "ideal" and self.backend == "float":
            total = total.round_()
        if self.unit_column:
            split = total.view(len(total), self.shape.g, self.outputs, *total.shape[2:])
            total = (gain * split[:, :, :-1] - split[:, :, -1:]).flatten(1, 2)
            offset = 0
        elif gain != 1:
            total = gain * total
        if not (offset or self.floor):
            return total
        ones = torch.ones(
            (self.shape.g, self.shape.c, self.shape.r, self.shape.s), dtype=self.dtype
        )
        x_sum = self._conv(x.to(self.dtype), ones, padding).round_()
        rest = offset * x_sum
        if self.floor:
            rest += (x_sum.to(torch.float64) * self.floor).round_().to(self.dtype)
        return total - rest.repeat_interleave(self.shape.m, dim=1)


def _recombined(matrix: IntegerMatrix) -> IntegerMatrix:
    """The same matrix with its slices joined: one level per weight and plane."""
    place = 2.0 ** (matrix.spec.cell.bits * np.arange(matrix.layout.slices))
    blocks = tuple(
        StoredBlock(b.rows, (np.tensordot(place, np.stack(b.levels), axes=1),))
        for b in matrix.blocks
    )
    return replace(matrix, blocks=blocks)
