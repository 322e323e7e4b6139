# SPDX-License-Identifier: Apache-2.0
"""Scores without training: how much noise a choice makes, and how much of it reaches the output.

score = noise-to-signal of the choice at its own layer's output x gain of the layer, which is the
noise-to-signal at the network's output, in units of variance, that the choice alone is expected to
cause. Noise of the input and weight codes is measured together, once per (input bits, weight
bits); noise of the output codes apart, once per width; on crossbars what converters and devices do
to the layer's real inputs, once per array; they add. A narrow value between two layers is counted
at both, since either may be the one that rounds it. The gain is measured by one forward pass per
layer with its output perturbed.

Operators that need training are dropped: their error before it says nothing. A layer that has no
other keeps them, scored by the error left after the best gain and offset per channel, which a
retrained normalisation would find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from enos_compiler import plugins
from enos_compiler.assign.array_noise import ArrayNoise
from enos_compiler.ir.choice import Choice, Refusal
from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.kernels import extent_of, inside
from enos_compiler.ir.network import Layer, Network
from enos_compiler.ir.ops import SAMPLE_OPS
from enos_compiler.operators.base import Operator, TrainsItself
from enos_compiler.operators.quantize_network import is_plain_sum
from enos_compiler.semantics.quantizer import dequantize, quantize_codes

PERTURBATION = 1e-2
"""Noise-to-signal of the perturbed output: small enough to be linear, far above float32's own."""
WORK_MACS = 4e9
"""Fewer images are used where a forward pass on all of them would exceed it."""

Noise = dict[tuple[str, int, int, int], float]
"""Noise-to-signal at a layer's output by (operator, input bits, weight bits, kernel extent)."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Layers with scores, and what the report says of them."""

    layers: dict[str, Layer]
    gains: dict[str, float]
    arrays: dict[str, tuple[float, ...]]
    """What arrays add of it at the layer's own output, by layer and choice."""
    untrained: tuple[str, ...]
    """Layers with nothing but operators that need training."""
    dropped: int
    """Choices left out."""
    images: int


def score_layers(
    network: Network,
    *,
    images: int,
    seed: int,
    track: Callable[[Mapping[str, Layer]], Iterable[Layer]] = Mapping.values,
    cores: Mapping[str, Any] | None = None,
    training: bool = False,
) -> Sensitivity:
    """Score every choice of every layer on the example inputs.

    Args:
        network: calibrated, with choices.
        images: most rows of the example inputs that are run.
        seed: of the perturbations.
        track: yields the layers one by one, to show how far it is.
        cores: of the target; crossbars among them add the noise of their arrays.
        training: the network will be trained: operators that need it stay, scored by what is left
            after the best gain and offset per channel.
    """
    probe = _Probe(network, _rows(network, images))
    arrays = ArrayNoise(network, cores or {})
    layers: dict[str, Layer] = {}
    gains: dict[str, float] = {}
    added: dict[str, tuple[float, ...]] = {}
    untrained: list[str] = []
    dropped = 0
    with torch.no_grad():
        for layer in track(network.layers):
            if layer.op in SAMPLE_OPS:
                # one choice, whose noise is the point of it
                added[layer.name] = (0.0,) * len(layer.choices)
                layers[layer.name] = replace(layer, scores=added[layer.name])
                continue
            gains[layer.name] = probe.gain(layer, torch.Generator().manual_seed(seed))
            kept = [training or not _operator(c.operator).needs_training for c in layer.choices]
            if not any(kept):
                untrained.append(layer.name)
                kept = [True] * len(kept)
            dropped += len(kept) - sum(kept)
            rows = [row for row, keep in enumerate(kept) if keep]
            added[layer.name] = _of_arrays(layer, rows, probe, arrays)
            layers[layer.name] = _scored(layer, rows, probe, added[layer.name], gains[layer.name])
    return Sensitivity(layers, gains, added, tuple(untrained), dropped, len(probe.inputs[0]))


def noise_of_arrays(
    network: Network, *, images: int, cores: Mapping[str, Any]
) -> dict[str, tuple[float, ...]]:
    """Return the noise-to-signal that arrays add to each layer's own output, by layer and choice.

    Args:
        network: calibrated, with choices.
        images: most rows of the example inputs that are run.
        cores: of the target.
    """
    probe = _Probe(network, _rows(network, images))
    arrays = ArrayNoise(network, cores)
    with torch.no_grad():
        return {
            name: _of_arrays(layer, range(len(layer.choices)), probe, arrays)
            for name, layer in network.layers.items()
        }


def _of_arrays(
    layer: Layer, rows: Iterable[int], probe: _Probe, arrays: ArrayNoise
) -> tuple[float, ...]:
    if layer.weight is None:
        return (0.0,) * len(layer.choices)
    inputs = probe.found[layer.inputs[0]]
    return tuple(arrays.of(layer, layer.choices[row], inputs) for row in rows)


def _scored(
    layer: Layer, rows: list[int], probe: _Probe, added: tuple[float, ...], gain: float
) -> Layer:
    noise: Noise = {}
    output: dict[int, float] = {}
    scores = []
    for row, array in zip(rows, added, strict=True):
        choice = layer.choices[row]
        extent = extent_of(choice)
        key = (choice.operator, choice.bits.input, choice.bits.weight, extent)
        if key not in noise:
            noise[key] = probe.operand_noise(layer, choice)
        if choice.bits.output not in output:
            output[choice.bits.output] = probe.output_noise(layer, choice.bits.output)
        scores.append(gain * (noise[key] + output[choice.bits.output] + array))
    kept_operators = {(layer.choices[i].core, layer.choices[i].operator) for i in rows}
    left_out = dict.fromkeys((c.core, c.operator) for c in layer.choices)
    return replace(
        layer,
        choices=tuple(layer.choices[i] for i in rows),
        costs=tuple(layer.costs[i] for i in rows),
        programming=tuple(layer.programming[i] for i in rows),
        scores=tuple(scores),
        refusals=layer.refusals
        + tuple(
            Refusal(core, operator, "needs training, and sensitivity does none")
            for core, operator in left_out
            if (core, operator) not in kept_operators
        ),
    )


@dataclass(slots=True)
class _Probe:
    """The float network with every tensor of one forward pass at hand."""

    network: Network
    inputs: tuple[Tensor, ...]
    found: dict[str, Any] = field(default_factory=dict)
    _nodes: dict[str, fx.Node] = field(default_factory=dict)
    _codes: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _forms: dict[tuple[str, int, int], tuple[Tensor | None, Tensor | None]] = field(
        default_factory=dict
    )
    _weights_of: str = ""
    """The layer whose weights `_forms` holds."""

    def __post_init__(self) -> None:
        """Run the network once."""
        given = iter(self.inputs)
        with torch.no_grad():
            for node in self.network.graph.graph.nodes:
                self._nodes[node.name] = node
                if node.op == "placeholder":
                    self.found[node.name] = next(given)
                elif node.op == "get_attr":
                    self.found[node.name] = self.network.tensor(str(node.target)).detach()
                elif node.op == "call_function":
                    self.found[node.name] = self._run(node, self.found)

    def gain(self, layer: Layer, generator: torch.Generator) -> float:
        """Return noise-to-signal at the network's outputs per noise-to-signal at the layer's."""
        clean = self.found[layer.output]
        noise = torch.randn(clean.shape, generator=generator)
        noise *= (PERTURBATION * _power(clean) / noise.square().mean()).sqrt()
        changed: dict[str, Any] = {layer.output: clean + noise}
        for node in self.network.graph.graph.nodes:
            behind = any(source.name in changed for source in node.all_input_nodes)
            if node.op == "call_function" and behind and node.name not in changed:
                changed[node.name] = self._run(node, {**self.found, **changed})
        ratios = []
        for name in self.network.outputs:
            result = self.found[name]
            error = changed.get(name, result) - result
            ratios.append(float(error.square().mean() / _power(_varying(result))))
        return sum(ratios) / len(ratios) / PERTURBATION

    def operand_noise(self, layer: Layer, choice: Choice) -> float:
        """Return the noise-to-signal that the choice's input and weight codes cause."""
        operator = _operator(choice.operator)
        total = self._sum(layer, choice, operator)
        if operator.needs_training:
            total = _fitted(total, self.found[layer.name], layer)
        return _ratio(self._behind(layer, total), self.found[layer.output])

    def output_noise(self, layer: Layer, bits: int) -> float:
        """Return the noise-to-signal of the output's codes; 0 for a sum that is the result."""
        if is_plain_sum(self.network, layer):
            return 0.0
        return _ratio(self._rounded(layer.output, bits), self.found[layer.output])

    def _sum(self, layer: Layer, choice: Choice, operator: Operator) -> Tensor:
        node = self._nodes[layer.name]
        compute: Any = node.target
        x = self._rounded(layer.inputs[0], choice.bits.input)
        if layer.weight is None:
            right = self._rounded(layer.inputs[1], choice.bits.weight)
            return compute(x, right, **node.kwargs)  # type: ignore[no-any-return]
        weight, bias = self._operands(node)
        if isinstance(operator, TrainsItself):
            fmt = self._format(layer.inputs[0], choice.bits.input)
            total = operator.train_sum(x, weight, layer, choice.bits.weight, fmt)
            if bias is None:
                return total
            return total + bias.view(-1, *(1,) * (total.dim() - 2 if layer.op == "conv" else 0))
        extent = extent_of(choice)
        plain, signed = self._weights(layer, operator, weight, choice.bits.weight, extent)
        total = compute(
            x, torch.zeros_like(weight) if plain is None else plain, bias, **node.kwargs
        )
        if signed is not None:
            total = total + compute(torch.sign(x), signed, None, **node.kwargs)
        return total  # type: ignore[no-any-return]

    def _weights(
        self, layer: Layer, operator: Operator, weight: Tensor, bits: int, extent: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the operator's (A, B), rounded once per layer, operator, width and extent."""
        if self._weights_of != layer.name:
            self._forms.clear()
            self._weights_of = layer.name
        if (operator.name, bits, extent) not in self._forms:
            gain = self._gain(layer, weight)
            kept, margins = inside(weight, extent)
            plain, signed = operator.weight_forms(kept * gain, bits)
            self._forms[operator.name, bits, extent] = (
                None if plain is None else _padded(plain / gain, margins),
                None if signed is None else _padded(signed / gain, margins),
            )
        return self._forms[operator.name, bits, extent]

    def _operands(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        bias = node.args[2] if len(node.args) > 2 else None
        weight: Any = node.args[1]
        return self.found[weight.name], (
            self.found[bias.name] if isinstance(bias, fx.Node) else None
        )

    def _gain(self, layer: Layer, weight: Tensor) -> Tensor:
        """Return the fused normalisation's factor per channel, shaped for the weight."""
        if layer.norm is None:
            return weight.new_ones(())
        node = self._nodes[layer.norm]
        var, scale = (None if a is None else self.found[str(a)] for a in node.args[2:4])
        eps: Any = node.kwargs["eps"]
        gain: Tensor = torch.rsqrt(var + eps)
        gain = gain if scale is None else gain * scale
        gain = torch.where(gain == 0, torch.ones_like(gain), gain)
        return gain.view(-1, *(1,) * (weight.dim() - 1))

    def _behind(self, layer: Layer, total: Tensor) -> Tensor:
        """Run the nodes fused behind a layer on another sum."""
        changed = {layer.name: total}
        for name in (layer.norm, layer.activation):
            if name is not None:
                changed[name] = self._run(self._nodes[name], {**self.found, **changed})
        return changed[layer.output]

    def _rounded(self, value: str, bits: int) -> Tensor:
        if (value, bits) not in self._codes:
            fmt = self._format(value, bits)
            real = dequantize(quantize_codes(self.found[value].numpy(), fmt), fmt)
            self._codes[value, bits] = torch.from_numpy(real).float()
        return self._codes[value, bits]

    def _format(self, value: str, bits: int) -> ValueFormat:
        from enos_compiler.semantics.formats import format_at

        return format_at(self.network, value, bits)

    @staticmethod
    def _run(node: fx.Node, found: Mapping[str, Any]) -> Any:
        args: Any = fx.node.map_arg(node.args, lambda n: found[n.name])
        compute: Callable[..., Any] = node.target  # type: ignore[assignment]
        return compute(*args, **node.kwargs)


def _padded(form: Tensor, margins: tuple[int, ...]) -> Tensor:
    return torch.nn.functional.pad(form, margins) if margins else form


def _rows(network: Network, images: int) -> tuple[Tensor, ...]:
    """Return the example inputs' first rows, as many as the network and the time allow."""
    rows = network.batch
    if network.batch_is_symbolic:
        per_image = max(1.0, network.macs / network.batch)
        rows = max(1, min(images, int(WORK_MACS / per_image)))
    return tuple(tensor[:rows] for tensor in network.example_inputs)


def _fitted(total: Tensor, wanted: Tensor, layer: Layer) -> Tensor:
    """Return total * a + c with a, c per output channel of least squared error."""
    axis = 1 if layer.op == "conv" else wanted.dim() - 1
    rest = [i for i in range(wanted.dim()) if i != axis]
    mean, goal = total.mean(rest, keepdim=True), wanted.mean(rest, keepdim=True)
    centred = total - mean
    spread = centred.square().mean(rest, keepdim=True).clamp_min(1e-30)
    slope = (centred * (wanted - goal)).mean(rest, keepdim=True) / spread
    return slope * centred + goal


def _varying(result: Tensor) -> Tensor:
    """Return what tells one row of a result from another; of a single row, its entries apart."""
    return result - (result.mean(0) if len(result) > 1 else result.mean())


def _power(signal: Tensor) -> Tensor:
    return signal.square().mean().clamp_min(1e-30)


def _ratio(noisy: Tensor, clean: Tensor) -> float:
    return float((noisy - clean).square().mean() / _power(clean))


def _operator(name: str) -> Operator:
    operator: Operator = plugins.load("operators", name)()
    return operator
