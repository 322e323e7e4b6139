# SPDX-License-Identifier: Apache-2.0
"""Sets the converters of layers on crossbars, and lets what they do travel with the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from enos_compiler.crossbar.blocks import IntArray
from enos_compiler.crossbar.calibrate import calibrate_steps, column_steps, full_steps
from enos_compiler.crossbar.layer import (
    array_form,
    conversions_differ,
    count_saturation,
    largest_total,
    without_array,
)
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.evaluate.arrays import TermOnArrays, input_columns, terms_on_arrays
from enos_compiler.evaluate.network import CodeNetwork
from enos_compiler.ir.network import Layer, Network
from enos_compiler.semantics.reference import run

Arrays = tuple[np.ndarray[Any, Any], ...]
Steps = tuple[IntArray, ...]
"""Per term: exponents (slices, 1), or (slices, columns of all groups)."""
CLIP_INPUTS = 8
"""Most real inputs on which clipped conversions are counted."""


def with_converters(
    network: Network, arrays: Mapping[str, CrossbarSpec], inputs: tuple[Tensor, ...]
) -> tuple[Network, dict[str, Any]]:
    """Return the network with an array on every layer whose converters change its sums.

    Full ranges reach as far as a layer's weights; calibrated ones as far as the inputs take its
    columns where every layer before it is exact, and those of least error as far as it pays; all
    are powers of two times a code's unit. Layers whose converters lose nothing of any input keep
    their operator's integers.

    Args:
        network: quantised.
        arrays: by layer name, of layers on crossbar cores.
        inputs: real inputs of the network, for ranges set from data.

    Returns:
        the network, and for each array its converters' bits and steps.
    """
    lossy = {n: s for n, s in arrays.items() if conversions_differ(network.layers[n], s)}
    steps = {n: _full(network.layers[n], s) for n, s in lossy.items() if not s.adc.set_from_data}
    wanted = {n: s for n, s in lossy.items() if n not in steps}
    if wanted:
        stored = calibrate(network, wanted, inputs)
        steps |= {n: tuple(np.asarray(term.steps) for term in terms) for n, terms in stored.items()}
    changed = {name: _with_array(network.layers[name], lossy[name], steps[name]) for name in lossy}
    return network.with_layers(changed), {
        name: {
            "adc_bits": spec.adc.bits,
            "range": spec.adc.range_mode,
            "steps_log2": [
                {"least": int(step.min()), "most": int(step.max())} for step in steps[name]
            ],
        }
        for name, spec in lossy.items()
    }


def without_converters(network: Network) -> Network:
    """Return the network with every layer's own integers, as if converters changed no sum."""
    return network.with_layers({n: without_array(layer) for n, layer in network.layers.items()})


def saturation(network: Network, inputs: Arrays) -> list[dict[str, Any]]:
    """Count, per layer whose converters change its sums, what they clip on real inputs.

    Args:
        network: quantised.
        inputs: real numbers in the order of the network's inputs.
    """
    with count_saturation() as tallies:
        run(network, inputs)
    return [
        {"layer": name, "conversions": seen.conversions, "saturated": seen.saturated}
        for name, seen in tallies.items()
    ]


def _with_array(layer: Layer, spec: CrossbarSpec, steps: Steps) -> Layer:
    if layer.quantized is None:
        raise ValueError(f"layer {layer.name} has no integers")
    quantized = replace(layer.quantized, array=array_form(layer, spec, steps))
    return replace(layer, quantized=replace(quantized, bound=largest_total(layer, quantized)))


def _full(layer: Layer, spec: CrossbarSpec) -> Steps:
    return tuple(term_steps(term, layer, spec) for term in terms_on_arrays(layer, spec))


def term_steps(
    term: TermOnArrays, layer: Layer, spec: CrossbarSpec, codes: Tensor | None = None
) -> IntArray:
    """Return what the converters of a term are set to: (slices, 1), or (slices, all columns).

    Groups lie side by side where each column has a step of its own; else the coarsest serves all.

    Args:
        term: stored in cells of `spec`.
        layer: whose term it is.
        spec: the array.
        codes: the layer's input, for ranges set from data.
    """
    per_column = spec.adc.range_per_column
    if not spec.adc.set_from_data:
        steps = [full_steps(m, term.input_bits, per_column=per_column) for m in term.matrices]
    elif codes is None:
        raise ValueError(f"the converter ranges of layer {layer.name} need its input")
    else:
        columns = input_columns(term, layer, codes)
        steps = [
            column_steps(m, columns[g], term.input_bits)
            if per_column
            else np.array(calibrate_steps(m, columns[g], term.input_bits), np.int64)[:, None]
            for g, m in enumerate(term.matrices)
        ]
    return np.concatenate(steps, axis=1) if per_column else np.asarray(np.max(steps, axis=0))


def calibrate(
    network: Network, specs: Mapping[str, CrossbarSpec], inputs: tuple[Tensor, ...]
) -> dict[str, tuple[TermOnArrays, ...]]:
    """Store layers in cells and set their converters by what inputs make of the columns.

    Args:
        network: quantised.
        specs: the arrays of each layer that lies on crossbars, their ranges set from data.
        inputs: real inputs of the network.
    """
    stored = {name: terms_on_arrays(network.layers[name], spec) for name, spec in specs.items()}
    found: dict[str, tuple[TermOnArrays, ...]] = {}

    def watch(name: str, operands: tuple[Tensor, ...]) -> None:
        if name in stored:
            layer, spec = network.layers[name], specs[name]
            found[name] = tuple(
                replace(term, steps=term_steps(term, layer, spec, operands[0]))
                for term in stored[name]
            )

    CodeNetwork(network)(*inputs, watch=watch)
    return found
