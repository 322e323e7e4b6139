# SPDX-License-Identifier: Apache-2.0
"""`sample`: draws from a Gaussian mixture by Markov chains, bit true.

The random numbers of a compiled sampler are part of it: steps and uniforms that the seed gives. So
its results are one function of its inputs, equal in the reference, the simulator and ONNX. There
both are graph inputs, `<layer>/steps` and `<layer>/uniforms`, with these values as default: whoever
runs the file may feed fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from enos_compiler.errors import PassError
from enos_compiler.ir.choice import Bits
from enos_compiler.ir.formats import IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import Layer
from enos_compiler.ir.ops import SAMPLE_OPS
from enos_compiler.operators.base import FloatArray
from enos_compiler.sampling.chain import Chains
from enos_compiler.sampling.codes import MixtureCodes, encode
from enos_compiler.sampling.conditioned import LEVELS, HeadRanges, HeadTables, head_tables
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import GaussianMixture
from enos_compiler.sampling.randomness import Draws
from enos_compiler.sampling.run import draws

if TYPE_CHECKING:
    from torch import Tensor

    from enos_compiler.semantics.base import OnnxFunction

NAME = "sample"
_EXECUTED = (
    *("proposal_bits", "weight_bits", "bits_per_conversion", "adc_bits", "state_bits"),
    *("log_bits", "log_fraction_bits", "exponential_bits", "uniform_bits"),
    *("refresh", "chains", "burn_in", "thinning"),
)
"""Fields of the form that running a program needs; the rest went into its integers."""


@dataclass(frozen=True, slots=True, eq=False)
class SamplerProgram:
    """How a sampling layer is run, and what it draws from."""

    form: SamplerForm
    seed: int
    mixture: GaussianMixture | None = None
    """None where the layer's inputs condition it."""
    ranges: tuple[tuple[float, float], ...] = ()
    """Calibrated ranges of the inputs that condition it."""


class Sample:
    """Draws points; weights are precision matrices, totals are lattice coordinates."""

    name: ClassVar[str] = NAME
    needs_training: ClassVar[bool] = False
    weight_bits: ClassVar[tuple[int, ...]] = tuple(range(16, 1, -1))

    def refusal(self, layer: Layer, *, signed_input: bool) -> str | None:  # the contract's form
        """Return why the operator does not take this layer, or None."""
        if layer.op in SAMPLE_OPS:
            return None
        return "a sampler draws from mixtures; this layer sums products"

    def weight_forms(self, weight: Tensor, bits: int) -> tuple[Tensor | None, Tensor | None]:
        """Return nothing: a sampler has no differentiable sum."""
        return None, None

    def quantize(
        self,
        layer: Layer,
        weight: FloatArray,  # the contract's form
        gain: FloatArray,
        shift: FloatArray,
        bits: Bits,
        formats: tuple[ValueFormat, ...],
    ) -> QuantizedLayer:
        """Refuse: a sampler's integers depend on how it is run; see `quantize_sampler`."""
        raise PassError("draws from a mixture", place=layer.name, remedy="quantize_sampler")

    def accumulate(
        self, codes: tuple[IntArray, ...], layer: Layer, quantized: QuantizedLayer
    ) -> IntArray:
        """Return lattice coordinates (N, count, D), the origin included, int64."""
        form = form_of(quantized)
        tensors = quantized.tensors
        drawn = Draws(tensors["steps"], tensors["uniforms"])
        rows, count = len(codes[0]), layer.shape.n
        if layer.op == "sample":
            one = _drawn(mixture_of(quantized), form, drawn, count)
            return np.repeat(one[None], rows, axis=0) + quantized.bias
        shape = (layer.shape.r, layer.shape.m)
        tables = tables_of(quantized)
        found = [
            _drawn(
                tables.codes(codes[0][row], *(c[row].reshape(shape) for c in codes[1:])),
                form,
                drawn,
                count,
            )
            for row in range(rows)
        ]
        return np.stack(found) + quantized.bias

    def elementary_operations(self, bits: Bits, taps: int) -> Mapping[str, float]:
        """Return one product and one sum per entry of a precision matrix."""
        width = bits.input + bits.weight + (taps - 1).bit_length()
        return {f"multiply_{bits.input}x{bits.weight}": 1.0, f"add_{width}": 1.0}

    def onnx_body(self, layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
        """Return the ONNX local function that computes `total`."""
        from enos_compiler.operators.sample_onnx import sampler_function

        return sampler_function(layer, quantized)


def quantize_sampler(
    layer: Layer, formats: tuple[ValueFormat, ...], program: SamplerProgram
) -> QuantizedLayer:
    """Return the integers of a sampler: its mixture or its tables, and its random numbers.

    Args:
        layer: for its shape.
        formats: what the layer reads.
        program: how it is run.

    Raises:
        EnosError: a mixture that the form's words do not hold.
    """
    form, count, dimensions = program.form, layer.shape.n, layer.shape.m
    drawn = draws(form, dimensions, form.iterations(count), seed=program.seed)
    held: MixtureCodes | HeadTables
    if program.mixture is not None:
        held = encode(program.mixture, form)
    else:
        logits, means, log_deviations = (_reals(fmt) for fmt in formats)
        reach = program.ranges[1:]
        held = head_tables(HeadRanges(logits, means, log_deviations, *reach), form, dimensions)
    tensors = {k: v for k, v in held.tensors().items() if k not in ("exponent", "origin")}
    return QuantizedLayer(
        tensors={**tensors, "steps": drawn.steps, "uniforms": drawn.uniforms},
        bias=held.origin,
        unit_exponent=held.exponent,
        input_formats=formats,
        bound=2 ** (form.state_bits - 1) + int(np.abs(held.origin).max()),
        options={name: getattr(form, name) for name in _EXECUTED},
    )


def form_of(quantized: QuantizedLayer) -> SamplerForm:
    """Return the form that a sampler's integers are run in."""
    return SamplerForm(**{name: int(quantized.options[name]) for name in _EXECUTED})  # type: ignore[arg-type]  # integers by name


def mixture_of(quantized: QuantizedLayer) -> MixtureCodes:
    """Return the integers of a constant mixture."""
    tensors = quantized.tensors
    return MixtureCodes(
        tensors["precision"],
        tensors["scale"],
        tensors["means"],
        tensors["constants"],
        quantized.unit_exponent,
        quantized.bias,
    )


def tables_of(quantized: QuantizedLayer) -> HeadTables:
    """Return the tables of a conditioned mixture."""
    tensors = quantized.tensors
    return HeadTables(
        **{name: tensors[name] for name in ("logit", "mean", "deviation", "precision", "scale")},
        exponent=quantized.unit_exponent,
        origin=quantized.bias,
    )


def _drawn(codes: MixtureCodes, form: SamplerForm, drawn: Draws, count: int) -> IntArray:
    """Return states (count, D): samples of all chains, the earliest first."""
    states = Chains(codes, form).run(drawn).states
    return states.reshape(-1, codes.dimensions)[:count]


def _reals(fmt: ValueFormat) -> FloatArray:
    """Return the real value of every code of up to 8 bits."""
    levels = np.arange(LEVELS).clip(fmt.low, fmt.high) - fmt.zero_point
    return np.ldexp(levels.astype(np.float64), fmt.exponent)
