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
from enos_compiler.crossbar.calibrate import Rule, calibrate_steps
from enos_compiler.crossbar.convolution import unfold
from enos_compiler.crossbar.fast import FastConvolution
from enos_compiler.crossbar.integer import IntegerMatrix, Stored, store
from enos_compiler.crossbar.layer import stored_form
from enos_compiler.crossbar.nonideal import NonIdealities, make_device
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.evaluate.layers import kernel, layer_step, layer_terms, to_images
from enos_compiler.evaluate.network import CodeNetwork, Step
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
    steps: tuple[int, ...] = (0,)
    """ADC step per slice, as a power of two."""

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
    """Store a quantised layer's terms in cells of `spec`."""
    terms, fmt = layer_terms(layer), quantized(layer).input_formats[0]
    return tuple(_store(layer, term, spec, fmt) for term in terms or ())


def _store(layer: Layer, term: Term, spec: CrossbarSpec, fmt: ValueFormat) -> TermOnArrays:
    sign = term.reads == "sign"
    bits, form = stored_form(layer, term)
    weight = kernel(term.weight, layer.shape).reshape(layer.shape.g, layer.shape.m, -1)
    matrices = tuple(store(spec, Stored(codes, bits, form)) for codes in weight)
    return TermOnArrays(matrices, 1 if sign else fmt.bits, sign, fmt.zero_point)


def calibrate(
    network: Network,
    specs: Mapping[str, CrossbarSpec],
    inputs: Tensor,
    *,
    rule: Rule = "range",
) -> dict[str, tuple[TermOnArrays, ...]]:
    """Store layers in cells and set their converters by what inputs make of the columns.

    Args:
        network: quantised.
        specs: the arrays of each layer that lies on crossbars.
        inputs: real inputs.
        rule: see `crossbar.calibrate`.
    """
    stored = {name: terms_on_arrays(network.layers[name], spec) for name, spec in specs.items()}
    found: dict[str, tuple[TermOnArrays, ...]] = {}

    def watch(name: str, operands: tuple[Tensor, ...]) -> None:
        if name in stored:
            layer = network.layers[name]
            found[name] = tuple(_set(term, layer, operands[0], rule) for term in stored[name])

    CodeNetwork(network)(inputs, watch=watch)
    return found


def _set(term: TermOnArrays, layer: Layer, codes: Tensor, rule: Rule) -> TermOnArrays:
    columns = input_columns(term, layer, codes)
    per_group = [
        calibrate_steps(matrix, columns[g], term.input_bits, rule=rule)
        for g, matrix in enumerate(term.matrices)
    ]
    return replace(term, steps=tuple(max(steps) for steps in zip(*per_group, strict=True)))


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
    errors: NonIdealities | None = None,
    seed: np.random.SeedSequence | int = 0,
) -> dict[str, Step]:
    """Return how layers on crossbars compute on one device.

    Args:
        network: quantised.
        arrays: from `calibrate`.
        errors: what is wrong with the device; None for the ideal one.
        seed: of the device; each layer and term draws from a stream of its own.
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    steps: dict[str, Step] = {}
    for index, (name, terms) in enumerate(arrays.items()):
        layer = network.layers[name]
        key = (*root.spawn_key, index)
        products = layer_terms(layer) or ()
        sums = [
            ArraySums(
                term,
                product,
                layer.shape,
                errors,
                np.random.SeedSequence(root.entropy, spawn_key=(*key, t)),
            )
            for t, (term, product) in enumerate(zip(terms, products, strict=True))
        ]
        step = layer_step(layer, products, sums, network.values[layer.output].format)
        steps[name] = lambda operands, step=step: step(operands[0])  # type: ignore[misc]
    return steps


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
