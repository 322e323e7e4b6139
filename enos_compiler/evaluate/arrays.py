# SPDX-License-Identifier: Apache-2.0
"""Layers on crossbars in torch: which arrays, which converter steps, which device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from enos_compiler.crossbar.adc_errors import ConverterErrors
from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.convolution import unfold
from enos_compiler.crossbar.fast import FastConvolution
from enos_compiler.crossbar.integer import IntegerMatrix, Steps, Stored, store
from enos_compiler.crossbar.layer import stored_form
from enos_compiler.crossbar.nonideal import NonIdealities, make_device
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.evaluate.layers import (
    LayerStep,
    kernel,
    layer_step,
    layer_terms,
    to_images,
)
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Layer, Network
from enos_compiler.ir.shape import LayerShape
from enos_compiler.operators.terms import Term
from enos_compiler.semantics.operands import quantized

CALIBRATION_COLUMNS = 1024
"""Input vectors of a layer that calibrate its converters."""


@dataclass(frozen=True, slots=True)
class TermOnArrays:
    """One term of a layer, stored in cells; what its converters are set to."""

    matrices: tuple[IntegerMatrix, ...]
    """One per group."""
    input_bits: int
    reads_sign: bool
    zero_point: int
    steps: Steps = 0
    """Of the converters."""

    def row_values(self, codes: Tensor) -> tuple[Tensor, ...]:
        """Return what the rows are driven with: a second read, subtracted, for negative signs."""
        if not self.reads_sign:
            return (codes,)
        above = (codes > self.zero_point).to(torch.uint8)
        return (above, (codes < self.zero_point).to(torch.uint8)) if self.zero_point else (above,)

    @property
    def pad(self) -> int:
        """Row value outside the input."""
        return 0 if self.reads_sign else self.zero_point


def terms_on_arrays(layer: Layer, spec: CrossbarSpec) -> tuple[TermOnArrays, ...]:
    """Store a quantised layer's terms in cells of `spec`; converters as the layer has them."""
    terms, integers = layer_terms(layer) or (), quantized(layer)
    stored = [_store(layer, term, spec, integers.input_formats[0]) for term in terms]
    if integers.array is None:
        return tuple(stored)
    return tuple(
        replace(term, steps=read.steps)
        for term, read in zip(stored, integers.array.reads, strict=True)
    )


def _store(layer: Layer, term: Term, spec: CrossbarSpec, fmt: ValueFormat) -> TermOnArrays:
    sign = term.reads == "sign"
    bits, form = stored_form(layer, term)
    weight = kernel(term.weight, layer.shape).reshape(layer.shape.g, layer.shape.m, -1)
    matrices = tuple(store(spec, Stored(codes, bits, form)) for codes in weight)
    return TermOnArrays(matrices, 1 if sign else fmt.bits, sign, fmt.zero_point)


def input_columns(
    term: TermOnArrays, layer: Layer, codes: Tensor, limit: int = CALIBRATION_COLUMNS
) -> IntArray:
    """Return row values (G, C * R * S, B) of at most `limit` positions, evenly spread."""
    shape = layer.shape
    images = to_images(codes, layer)[: max(1, -(-4 * limit // (shape.p * shape.q)))]
    values = torch.cat(term.row_values(images)).to(torch.int64).numpy()
    columns = unfold(values, replace(shape, n=len(values)), term.pad)
    return columns[:, :, :: max(1, columns.shape[2] // limit)]


def device_steps(
    network: Network,
    arrays: Mapping[str, tuple[TermOnArrays, ...]],
    errors: Mapping[str, NonIdealities] | None = None,
    seed: np.random.SeedSequence | int = 0,
) -> dict[str, ArrayStep]:
    """Return how layers on crossbars compute on one device.

    Args:
        network: quantised.
        arrays: stored layers by name.
        errors: what is wrong with the device, by layer; nothing with those that are absent.
        seed: of the device; each layer and term draws from a stream of its own.
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    steps: dict[str, ArrayStep] = {}
    for index, (name, terms) in enumerate(arrays.items()):
        layer = network.layers[name]
        key = (*root.spawn_key, index)
        products = layer_terms(layer) or ()
        sums = [
            ArraySums(
                term,
                product,
                layer.shape,
                (errors or {}).get(name),
                np.random.SeedSequence(root.entropy, spawn_key=(*key, t)),
            )
            for t, (term, product) in enumerate(zip(terms, products, strict=True))
        ]
        output = network.values[layer.output].format
        steps[name] = ArrayStep(layer, tuple(sums), layer_step(layer, products, sums, output))
    return steps


@dataclass(frozen=True, slots=True)
class ArrayStep:
    """A layer on one device."""

    layer: Layer
    sums: tuple[ArraySums, ...]
    step: LayerStep

    def __call__(self, operands: tuple[Tensor, ...]) -> Tensor:
        """Return the layer's output."""
        return self.step(operands[0])

    def saturation(self, operands: tuple[Tensor, ...]) -> tuple[int, int]:
        """Return how many conversions clip, and how many there are."""
        images = to_images(operands[0], self.layer)
        counts = [sums.saturation(images) for sums in self.sums]
        return sum(c for c, _ in counts), sum(n for _, n in counts)


class ArraySums:
    """The sums of one term as one device gives them."""

    def __init__(
        self,
        term: TermOnArrays,
        product: Term,
        shape: LayerShape,
        errors: NonIdealities | None,
        seed: np.random.SeedSequence,
    ) -> None:
        self._term = term
        matrices: Sequence[IntegerMatrix] = term.matrices
        self.offset: IntArray | None = None
        if term.zero_point and not term.reads_sign:
            self.offset = term.zero_point * kernel(product.weight, shape).sum(axis=(1, 2, 3))
        converters: list[ConverterErrors] = []
        if errors is not None and errors.names:
            devices = [
                make_device(matrix, errors, part)
                for matrix, part in zip(matrices, seed.spawn(len(matrices)), strict=True)
            ]
            matrices = [device.matrix for device in devices]
            converters = [d.converters for d in devices if d.converters is not None]
        self.convolution = FastConvolution(
            matrices,
            shape,
            term.input_bits,
            steps_log2=term.steps,
            read_noise=errors.read_noise if errors else None,
            converters=converters or None,
            seed=int(seed.generate_state(1)[0]),
            pad_code=term.pad,
            round_levels=True,
        )

    def __call__(self, codes: Tensor) -> Tensor:
        """Return the sums."""
        first, *negative = (self.convolution(x) for x in self._term.row_values(codes))
        return first - negative[0] if negative else first

    def saturation(self, codes: Tensor) -> tuple[int, int]:
        """Return how many conversions clip, and how many there are."""
        counts = [self.convolution.saturation(x) for x in self._term.row_values(codes)]
        return sum(c for c, _ in counts), sum(n for _, n in counts)
