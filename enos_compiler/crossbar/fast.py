# SPDX-License-Identifier: Apache-2.0
"""Crossbar convolutions in torch: the same codes as `integer.read`, at the speed of convolutions.

One convolution per row block: input digits are its batch, weight slices (and the planes of pairs
that are converted apart) its output channels. Where levels and digits fit eight bits, it is
oneDNN's quantised convolution, whose rescaling to eight bits *is* the converter of a narrow ADC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from enos_compiler.crossbar.adc_errors import ConverterErrors
from enos_compiler.crossbar.blocks import IntArray, digit_widths
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.converters import code_limits
from enos_compiler.crossbar.fastblock import TOP_LEVEL, Block, make_block
from enos_compiler.crossbar.fastint8 import QuantizedConvolution, exact_here
from enos_compiler.crossbar.fastnoise import FastConverters, NormalStream
from enos_compiler.crossbar.integer import (
    IntegerMatrix,
    Steps,
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
        steps_log2: ADC steps; columns are those of all groups side by side.
        read_noise: error of every cell in each access, as in `nonideal`: its exact sum enters,
            one normal per column value.
        converters: what is wrong with the converters, one per group.
        seed: of the read noise.
        pad_code: code outside the input.
        backend: `int8` where it is exact on this processor, or `float`; None chooses.
        shortcut: replace converters that lose nothing by one convolution with the whole weights.
        round_levels: round perturbed levels to 127 steps of the largest of their column, so that
            int8 products serve: an error of at most 0.4 % of it, far below any spread of cells
            that is worth simulating, at a fraction of the time.
    """

    def __init__(
        self,
        matrices: Sequence[IntegerMatrix],
        shape: LayerShape,
        input_bits: int,
        *,
        inputs_signed: bool = False,
        steps_log2: Steps = 0,
        read_noise: CellNoise | None = None,
        converters: Sequence[ConverterErrors] | None = None,
        seed: int = 0,
        pad_code: int = 0,
        backend: Backend | None = None,
        shortcut: bool = True,
        round_levels: bool = False,
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
        self.noise = read_noise if read_noise is not None and read_noise.sigma else None
        self.pad_code = pad_code
        self.on_level = (1 << self.spec.cell.bits) - 1 + first.floor_level
        self.seed, self.normals = seed, NormalStream(seed)
        self.signed_inputs = inputs_signed
        self.steps = self._all_steps(steps_log2)
        """(groups, slices, columns)"""
        self.both = sums_signed(first, inputs_signed)
        self.low, self.high = code_limits(self.spec.adc.bits, self.both)
        ideal = self.spec.adc.law == "ideal"
        if ideal:
            self.steps = np.zeros_like(self.steps)
        exact = shortcut and self.noise is None and converters is None
        self.joined = exact and (ideal or self._loses_nothing(matrices, input_bits))
        """No converter is left: one convolution with the whole weights and inputs."""
        self.magnitude = input_bits - inputs_signed
        self.access_width = self.spec.dac.digit_bits or self.magnitude
        whole = self.joined or not self.spec.adc.per_digit
        self.digit_width = self.magnitude if whole else self.access_width
        self.digits = digit_widths(self.magnitude, self.digit_width)
        if self.joined:
            matrices = [_recombined(m) for m in matrices]
            self.steps = self.steps[:, :1]
        self.slices = self.steps.shape[1]
        self.parts = self.layout.planes
        if self.parts == 2 and (self.spec.subtract_before_adc or self.joined):
            self.parts = 1
        self.converters = None if converters is None else FastConverters(converters, self.parts)
        self.blocks = [
            make_block(matrices, i, shape, self.steps, parts=self.parts, rounded=round_levels)
            for i in range(len(matrices[0].blocks))
        ]
        self.backend = backend or self._best_backend()
        self.dtype = self._accumulator_type()

    def _all_steps(self, steps_log2: Steps) -> IntArray:
        given = np.asarray(steps_log2, np.int64)
        slices, columns = self.layout.slices, self.shape.g * self.outputs
        rows = given.reshape(len(given), -1) if given.ndim else np.full((slices, 1), given)
        if rows.shape not in ((slices, 1), (slices, columns)):
            raise SpecError(
                f"steps of shape {given.shape} are not those of {slices} slices",
                place="steps_log2",
                remedy=f"one exponent, one per slice, or ({slices}, {columns})",
            )
        wide = np.broadcast_to(rows, (slices, columns))
        return wide.reshape(slices, self.shape.g, self.outputs).transpose(1, 0, 2)

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
        return exact and not self.steps.any() and widest <= self.spec.adc.bits

    @property
    def _digit_top(self) -> int:
        return (1 << max(self.digits)) - 1

    def _best_backend(self) -> Backend:
        """int8 where levels, digits and the pairwise sums of the processor's product fit."""
        exact = all(bool((b.levels == b.levels.round()).all()) for b in self.blocks)
        top = max(float(b.levels.abs().max()) for b in self.blocks)
        fits = exact and not self.signed_inputs and top <= TOP_LEVEL and self._digit_top <= 255
        reach = max(b.whole_reach for b in self.blocks) * self._digit_top < EXACT_FLOAT32
        return "int8" if fits and reach and exact_here(int(top), self._digit_top) else "float"

    @property
    def _one_step(self) -> bool:
        """All slices and columns share a step."""
        return bool((self.steps == self.steps[0, 0, 0]).all())

    def _per_channel(self, values: IntArray) -> Tensor:
        """Values (groups, slices, columns) in the order of output channels, (channels, 1, 1)."""
        import torch

        wide = np.repeat(values[:, None], self.parts, axis=1).reshape(-1, 1, 1)
        return torch.from_numpy(np.ascontiguousarray(wide, np.float32))

    def _accumulator_type(self) -> Any:
        """float32 while every partial sum of codes is exact in it."""
        import torch

        top = float(sum(b.reach for b in self.blocks)) * (1 << self.magnitude)
        if not self.joined and self.spec.adc.law != "ideal":
            coarsest = self.steps.max(axis=(0, 2)).tolist()
            weights = sum(1 << (i * self.spec.cell.bits + s) for i, s in enumerate(coarsest))
            places = sum(1 << (k * self.digit_width) for k in range(len(self.digits)))
            top = float(max(abs(self.low), self.high)) * len(self.blocks) * weights * places
        top = top * self.layout.gain + self.layout.offset * self.shape.taps * (1 << self.magnitude)
        return torch.float32 if top < EXACT_FLOAT32 else torch.float64

    def __call__(self, x: Tensor, *, run: int | None = None) -> Tensor:
        """Accumulators of codes (N, G * C, H, W); any integer or float dtype that holds them.

        Args:
            x: the codes.
            run: draws the read noise of this number, so that calls from several threads give the
                same in any order; None draws on from where the last such call ended.
        """
        import torch

        normals = self.normals if run is None else NormalStream((self.seed, run))
        with torch.inference_mode():
            x, padding = self._padded(x)
            planes = self._planes(x)
            n = x.shape[0]
            total: Tensor | None = None
            for number, block in enumerate(self.blocks):
                part = self._channels(planes, block)
                codes = self._codes(number, part, padding, normals)
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

    def _channels(self, planes: Tensor, block: Block) -> Tensor:
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

    def _quantized(self, block: Block, x: Tensor, padding: list[int], kind: Any) -> Tensor:
        """Int8 convolution of oneDNN: column sums in ADC steps, rounded and clipped to `kind`."""
        if block.quantized is None:
            shape = self.shape
            block.quantized = QuantizedConvolution(
                block.levels, block.scale, shape.stride, padding, shape.dilation, shape.g
            )
        return block.quantized(x, kind)

    def _sums(self, block: Block, x: Tensor, padding: list[int], normals: NormalStream) -> Tensor:
        """Column sums of one block in ADC steps, with all that is wrong with them, float."""
        import torch

        if self.backend == "int8":
            sums = self._quantized(block, x, padding, torch.float32)
        else:
            exact = block.reach * self._digit_top < EXACT_FLOAT32
            kind = torch.float32 if exact else torch.float64
            sums = self._conv(x.to(kind), block.weight(kind), padding)
        if self.noise is not None:
            self._add_noise(sums, block, x, padding, normals)
        return sums

    def _codes(self, number: int, x: Tensor, padding: list[int], normals: NormalStream) -> Tensor:
        """Codes of one block, (K * N, G * parts * S * M', P, Q)."""
        import torch

        block = self.blocks[number]
        unconverted = self.joined or self.spec.adc.law == "ideal"
        clean = self.noise is None and self.converters is None and not unconverted
        if self.backend == "int8" and self.spec.adc.bits <= 8 and clean:
            codes = self._quantized(block, x, padding, torch.int8 if self.both else torch.uint8)
            if self.both or self.spec.adc.bits < 8:
                codes = codes.clamp_(self.low, self.high)
            return codes
        sums = self._sums(block, x, padding, normals)
        if self.converters is not None:
            sums = self.converters.distort(sums, number)
        return sums if unconverted else sums.round_().clamp_(self.low, self.high)

    def saturation(self, x: Tensor) -> tuple[int, int]:
        """Return how many conversions of codes (N, G * C, H, W) clip, and how many there are."""
        import torch

        clipped = conversions = 0
        if self.joined or self.spec.adc.law == "ideal":
            return 0, 0
        with torch.inference_mode():
            x, padding = self._padded(x)
            planes = self._planes(x)
            for number, block in enumerate(self.blocks):
                sums = self._sums(block, self._channels(planes, block), padding, self.normals)
                if self.converters is not None:
                    sums = self.converters.distort(sums, number)
                sums.round_()
                clipped += int(((sums < self.low) | (sums > self.high)).sum())
                conversions += sums.numel()
        return clipped, conversions

    def _add_noise(
        self, sums: Tensor, block: Block, x: Tensor, padding: list[int], normals: NormalStream
    ) -> None:
        """Add the access's noise in place: one normal per column, scaled by what conducts."""
        import torch

        noise = self.noise
        if noise is None:
            return

        def conv(lines: Tensor, weight: Tensor) -> Tensor:
            return self._conv(lines, weight, padding)

        accesses = len(digit_widths(max(self.digits), self.access_width))
        power: Tensor | None = None
        for k in range(accesses):
            values = x.to(torch.float32, copy=True) if accesses == 1 else self._digit(x, k)
            if noise.kind == "proportional":
                part = conv(values.mul_(values), block.squares)
            else:
                part = block.power(values, conv, padding)
            if power is None:
                power = part
            else:
                power.add_(part, alpha=4.0 ** (k * self.access_width))
        if power is None:
            raise SpecError("the inputs have no digits", place="input_bits", remedy="1 or more")
        spread = power.sqrt_().mul_(self._noise_level)
        n, channels, rows, columns = sums.shape
        split = (n, self.shape.g, -1, rows, columns)
        spread = spread.unsqueeze(2) if noise.kind == "independent" else spread.view(split)
        for half in normals.halves(sums.numel()):
            draw = half.view(n, rows, columns, channels).permute(0, 3, 1, 2)
            if not self._one_step:
                draw = draw * self._per_channel(np.exp2(-self.steps))
            sums.view(split).addcmul_(draw.view(split), spread)

    @property
    def _noise_level(self) -> float:
        """Spread of a cell in ADC steps, both cells of a pair together.

        Proportional noise has it relative, and the cells' sizes in its power.
        """
        if self.noise is None:
            return 0.0
        scale = 2.0 ** -self.steps[0, 0, 0] if self._one_step else 1.0
        if self.noise.kind == "proportional":
            return self.noise.sigma * scale
        planes = self.layout.planes if self.parts == 1 else 1
        return float(self.noise.sigma * self.on_level * planes**0.5 * scale)

    def _digit(self, x: Tensor, k: int) -> Tensor:
        """Row values of access k where the digits are summed in analog."""
        import torch

        scale = 2.0 ** (k * self.access_width)
        values = x.to(torch.float32).abs()
        return (values / scale).floor_().remainder_(2.0**self.access_width)

    def _shift_add(self, codes: Tensor, n: int, total: Tensor | None) -> Tensor:
        """Add up digits, slices and parts of one block's codes, (N, G * M', P, Q)."""
        summed = self._over_digits(codes, n)
        places = self.steps[0, :, 0].tolist()
        if (self.steps != self.steps[:1, :, :1]).any():
            places = [0] * self.slices
            summed = summed.to(self.dtype) * self._per_channel(1 << self.steps)
        extent = (n, self.shape.g, self.parts, self.slices, self.outputs)
        pieces = summed.view(*extent, *summed.shape[2:])
        for p in range(self.parts):
            for s in range(self.slices):
                factor = (1 - 2 * p) * (1 << (s * self.spec.cell.bits + places[s]))
                piece = pieces[:, :, p, s].flatten(1, 2)
                if total is None:
                    fresh = piece.shape == summed.shape and summed.dtype == self.dtype
                    total = summed if fresh else self._copied(piece)
                    if factor != 1:
                        total *= factor
                else:
                    total.add_(piece, alpha=factor)
        if total is None:
            raise SpecError("the matrix has no slices", place="matrices", remedy="1 or more")
        return total

    def _over_digits(self, codes: Tensor, n: int) -> Tensor:
        """Add up the digits of all channels, (N, channels, P, Q).

        Digits lie one behind the other in memory, so this is the fast half of the shift-and-add;
        bytes are summed in 16 bits where the largest codes fit.
        """
        import torch

        if len(self.digits) == 1:
            return codes
        parts = torch.split(codes, n)
        if codes.dtype in (torch.int8, torch.uint8):
            places = sum(1 << (k * self.digit_width) for k in range(len(self.digits)))
            fits = max(abs(self.low), self.high) * places < 1 << 15
            total = parts[0].to(torch.int16 if fits else self.dtype)
        else:
            total = parts[0].to(self.dtype)
        spare = torch.empty_like(total)
        for k, part in enumerate(parts[1:], 1):
            same = part if part.dtype == total.dtype else spare.copy_(part)
            total.add_(same, alpha=1 << (k * self.digit_width))
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
