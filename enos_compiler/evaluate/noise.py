# SPDX-License-Identifier: Apache-2.0
"""What arrays and converters do to one layer, as one figure: noise-to-signal at its output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from enos_compiler.crossbar.integer import holds_every_sum
from enos_compiler.crossbar.montecarlo import error_to_signal
from enos_compiler.crossbar.nonideal import NonIdealities
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.evaluate.arrays import ArraySums, terms_on_arrays
from enos_compiler.evaluate.converters import term_steps
from enos_compiler.evaluate.layers import ExactSums, Sums, layer_step, layer_terms
from enos_compiler.ir.network import Layer
from enos_compiler.semantics.operands import quantized


def changes_nothing(spec: CrossbarSpec, errors: NonIdealities, taps: int, input_bits: int) -> bool:
    """Whether an array gives every layer of so many taps its exact sums."""
    return not errors.names and holds_every_sum(spec, taps, input_bits)


def noise_to_signal(
    layer: Layer,
    spec: CrossbarSpec,
    errors: NonIdealities,
    codes: Tensor,
    *,
    clip: tuple[float, float] = (-np.inf, np.inf),
    seed: int = 0,
) -> float:
    """Return the power of what an array changes in a layer's output over the output's power.

    One device is drawn; its error is averaged over all outputs and inputs. Converter ranges are
    set as a compilation sets them: full, or by these very codes.

    Args:
        layer: with the integers of the choice in question.
        spec: the array.
        errors: what is wrong with it.
        codes: the layer's input, in the format that it reads.
        clip: bounds of the activation behind the sum, real numbers.
        seed: of the device.
    """
    terms = layer_terms(layer) or ()
    fmt = quantized(layer).input_formats[0]
    stored = [
        replace(term, steps=term_steps(term, layer, spec, codes))
        for term in terms_on_arrays(layer, spec)
    ]
    roots = np.random.SeedSequence(seed).spawn(len(terms))
    noisy = [
        ArraySums(term, product, layer.shape, errors, root)
        for term, product, root in zip(stored, terms, roots, strict=True)
    ]
    exact = [ExactSums(product, layer.shape, fmt) for product in terms]

    def output(sums: list[Sums]) -> Tensor:
        with torch.inference_mode():
            return layer_step(layer, terms, sums, None)(codes).clamp_(*clip)

    ideal = output(list(exact)).numpy()
    return error_to_signal(ideal, output(list(noisy)).numpy()) if ideal.any() else 0.0
