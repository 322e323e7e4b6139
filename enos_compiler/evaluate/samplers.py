# SPDX-License-Identifier: Apache-2.0
"""How well a compiled network samples: convergence, and uncertainty with and without a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from enos_compiler.ir.network import Layer, Network
from enos_compiler.ir.ops import SAMPLE_OPS, sample, sample_given
from enos_compiler.operators.sample import form_of, mixture_of, tables_of
from enos_compiler.sampling.chain import Chains
from enos_compiler.sampling.codes import MixtureCodes
from enos_compiler.sampling.diagnostics import Diagnosis, diagnose
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.mixture import Floats
from enos_compiler.sampling.randomness import Draws
from enos_compiler.sampling.run import Hardware, device_of, draws
from enos_compiler.semantics.operands import quantized
from enos_compiler.semantics.quantizer import dequantize
from enos_compiler.semantics.reference import execute

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

ROWS = 16
"""Inputs that are sampled from, at most."""
EXACT_DRAWS = 4096
"""Exact draws of one row that its uncertainty is measured on."""


@dataclass(frozen=True, slots=True)
class _Uncertainty:
    """Mean and standard deviation of the draws of each row, (rows, D)."""

    mean: Floats
    sd: Floats

    @classmethod
    def of(cls, points: Floats) -> _Uncertainty:
        """Measure points (rows, count, D)."""
        return cls(points.mean(1), points.std(1))

    def summary(self, exact: _Uncertainty) -> dict[str, float]:
        """Return the mean deviation, and how far the means are off in exact deviations."""
        shift = np.abs(self.mean - exact.mean) / np.maximum(exact.sd, 1e-12)
        return {"sd": float(self.sd.mean()), "mean_error_sd": float(shift.mean())}


def sampler_figures(
    network: Network, target: Target, inputs: tuple[Tensor, ...], seed: int
) -> dict[str, Any]:
    """Return for every layer that draws how well it does, as section `sample` of the report.

    Args:
        network: quantised.
        target: its cores say what their devices do.
        inputs: real inputs; a few rows are used.
        seed: of the device.
    """
    concerned = [layer for layer in network.layers.values() if layer.op in SAMPLE_OPS]
    if not concerned:
        return {}
    rows = tuple(tensor[:ROWS].numpy() for tensor in inputs)
    values = execute(network, rows)
    return {
        layer.name: _figures(network, layer, target, values, seed + number)
        for number, layer in enumerate(concerned)
    }


def _figures(
    network: Network, layer: Layer, target: Target, values: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    integers = quantized(layer)
    form = form_of(integers)
    drawn = Draws(integers.tensors["steps"], integers.tensors["uniforms"])
    codes = _mixtures(network, layer, values)
    runs = [_points(one, Chains(one, form), drawn) for one in codes]
    diagnoses = [diagnose(points, acceptance) for points, acceptance in runs]
    exact = _Uncertainty.of(_exact(network, layer, values)[: len(codes)])
    ideal = _Uncertainty.of(np.stack([points.reshape(-1, layer.shape.m) for points, _ in runs]))
    if layer.choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    core: Any = target.cores[layer.choice.core]  # it samples, or would not have taken the layer
    device = _on_device(codes, layer.shape.n, core.form(layer.choice), core.hardware(), seed)
    real = _Uncertainty.of(device)
    energy = layer.cost_of(layer.choice).energy_pj(target.energy_pj)
    effective = _known(np.mean([d.effective_samples.min() for d in diagnoses]))
    return {
        "rows": len(codes),
        "samples": layer.shape.n,
        "chains": form.chains,
        "acceptance": float(np.mean([d.acceptance.mean() for d in diagnoses])),
        "r_hat": _known(np.max([d.r_hat.max() for d in diagnoses])),
        "effective_samples": effective,
        "energy_per_effective_sample_pj": (
            energy / effective / layer.shape.p if effective else None
        ),
        "warnings": _warnings(diagnoses),
        "uncertainty": {
            "exact": exact.summary(exact),
            "ideal device": ideal.summary(exact),
            "real device": real.summary(exact),
        },
    }


def _known(figure: Any) -> float | None:
    """Return a figure, or None for chains too short to tell."""
    return float(figure) if np.isfinite(figure) else None


def _mixtures(network: Network, layer: Layer, values: Mapping[str, Any]) -> list[MixtureCodes]:
    """Return the integers of the mixture of every row; one of a constant mixture."""
    integers = quantized(layer)
    if layer.op == "sample":
        return [mixture_of(integers)]
    tables, shape = tables_of(integers), (layer.shape.r, layer.shape.m)
    logits, means, log_deviations = _read(network, layer, values)
    return [
        tables.codes(logits[row], means[row].reshape(shape), log_deviations[row].reshape(shape))
        for row in range(len(logits))
    ]


def _read(network: Network, layer: Layer, values: Mapping[str, Any]) -> list[Any]:
    """Return the codes that a layer reads, at the width that it reads."""
    from enos_compiler.semantics.quantizer import requantize

    found = []
    for name, fmt in zip(layer.inputs, quantized(layer).input_formats, strict=True):
        stored = network.values[name].format
        codes = values[name]
        if stored is not None and stored != fmt:
            codes = requantize(codes - stored.zero_point, stored.exponent, fmt)
        found.append(codes)
    return found


def _points(codes: MixtureCodes, chains: Chains, drawn: Draws) -> tuple[Floats, Floats]:
    """Return coordinates (draws of a chain, S, D) and acceptance (S,)."""
    trace = chains.run(drawn)
    return codes.real(trace.states), trace.acceptance


def _exact(network: Network, layer: Layer, values: Mapping[str, Any]) -> Floats:
    """Return exact draws (rows, count, D) of the mixtures that the integer network states."""
    if layer.op == "sample":
        node = next(n for n in network.graph.graph.nodes if n.name == layer.name)
        parts = [network.tensor(str(operand.target)) for operand in node.args[1:]]
        points = sample(torch.zeros(1), *parts, count=EXACT_DRAWS)
    else:
        read = _read(network, layer, values)
        formats = quantized(layer).input_formats
        real = [
            torch.from_numpy(np.asarray(dequantize(codes, fmt))).float()
            for codes, fmt in zip(read, formats, strict=True)
        ]
        points = sample_given(*real, count=EXACT_DRAWS)
    exact: Floats = points.detach().double().numpy()
    return exact


def _on_device(
    codes: list[MixtureCodes], samples: int, form: SamplerForm, hardware: Hardware, seed: int
) -> Floats:
    """Return the draws (rows, count, D) on one device, its random bits and imperfections in."""
    steps, random = form.iterations(samples), hardware.random
    found = []
    for one in codes:
        drawn = draws(form, one.dimensions, steps, seed=seed, random=random)
        device = device_of(one, form, hardware, seed=seed)
        points, _ = _points(one, Chains(one, form, device), drawn)
        found.append(points.reshape(-1, one.dimensions))
    return np.stack(found)


def _warnings(diagnoses: list[Diagnosis]) -> list[str]:
    """Return each warning once, the first row's that has it."""
    return list(dict.fromkeys(warning for d in diagnoses for warning in d.warnings()))[:3]
