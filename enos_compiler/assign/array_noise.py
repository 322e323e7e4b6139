# SPDX-License-Identifier: Apache-2.0
"""The noise that arrays add to a candidate: what converters and devices do to its real inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from enos_compiler.cores.base import HasArrays
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.kernels import fitted, with_extent
from enos_compiler.ir.network import Layer, Network
from enos_compiler.operators.quantize_network import quantize_layer
from enos_compiler.semantics.formats import activation_clip, format_at
from enos_compiler.semantics.quantizer import quantize_codes
from enos_compiler.semantics.widths import layer_asks

IMAGES = 4
"""Most inputs that are run: every output position of each is a sample."""


@dataclass(slots=True)
class ArrayNoise:
    """Noise-to-signal of candidates on crossbar cores, each figure measured once.

    It depends on the array, converters included, and on neither copies nor where weights rest.

    Args:
        network: calibrated.
        cores: of the target, by name; what is no crossbar core adds nothing.
    """

    network: Network
    cores: Mapping[str, Any] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def of(self, layer: Layer, choice: Choice, inputs: Tensor) -> float:
        """Return the power of what arrays change in the layer's output over the output's power.

        Args:
            layer: with stored weights.
            choice: one of its candidates.
            inputs: its real inputs, images first.
        """
        core = self.cores.get(choice.core)
        if not isinstance(core, HasArrays) or layer.weight is None:
            return 0.0
        bits = choice.bits
        array = core.array(layer.shape, choice)
        key = (layer.name, choice.core, choice.operator, bits.input, bits.weight, array)
        if key not in self._known:
            self._known[key] = self._measure(core, layer, choice, inputs[:IMAGES])
        return self._known[key]

    def _measure(self, core: HasArrays, layer: Layer, choice: Choice, inputs: Tensor) -> float:
        # With its kernel cut to what the choice keeps, as the array would hold it.
        network = fitted(self.network.with_layers({layer.name: replace(layer, choice=choice)}))
        candidate, value = network.layers[layer.name], layer.inputs[0]
        choice = with_extent(choice, 0)
        if core.is_exact(candidate.shape, choice):
            return 0.0  # the integers need not be made to know it
        asked = layer_asks(layer, value, choice.bits.input, choice.bits.weight)
        fmt = format_at(network, value, asked)
        candidate = replace(candidate, quantized=quantize_layer(network, candidate, {value: fmt}))
        codes = torch.from_numpy(quantize_codes(inputs.numpy(), fmt)).to(torch.uint8)
        clip = activation_clip(network, layer) or (-inf, inf)
        return core.noise_to_signal(candidate, choice, codes, clip)
