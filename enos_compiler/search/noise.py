# SPDX-License-Identifier: Apache-2.0
"""What crossbars do to a layer's sum while a network trains: one sample of their noise.

Converters and devices change a sum by an error of a measured power, relative to the output's. A
mixture of candidates has the probability-weighted mean of their powers; one Gaussian sample of it
is added to the mixed sum, whatever the number of candidates. Its deviation is differentiable in the
probabilities, so that a noisy choice costs what its noise does to the loss. Digital choices have
none. Fine-tuning adds the noise of the choice that was made.

The power is taken relative to each output channel's own: behind a normalisation, which gives every
channel its scale, the error is then the measured share of the output's power.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from enos_compiler.assign.sensitivity import noise_of_arrays
from enos_compiler.cores.base import HasArrays
from enos_compiler.ir.network import Network
from enos_compiler.search.forms import Call, LayerForm
from enos_compiler.search.parallel import mean_over, normal_rows

IMAGES = 64
"""Example inputs on which choices are measured."""


def array_noise(network: Network, cores: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return the noise-to-signal of every choice at its layer's output; empty without crossbars.

    Args:
        network: calibrated, with choices.
        cores: of the target.
    """
    if not any(isinstance(core, HasArrays) for core in cores.values()):
        return {}
    return noise_of_arrays(network, images=IMAGES, cores=cores)


def chosen_noise(network: Network, cores: Mapping[str, Any]) -> dict[str, float]:
    """Return the noise-to-signal of the assigned choices of the layers that have any."""
    alone = {
        name: replace(layer, choices=(layer.choice,))
        for name, layer in network.layers.items()
        if layer.choice is not None
    }
    found = array_noise(network.with_layers(alone), cores)
    return {name: noise for name, (noise,) in found.items() if noise}


def standing_noise(
    measured: Mapping[str, Sequence[float]], rows: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """Return the noise-to-signal of every class of the layers that have any.

    The choice that stands for its class in the expected cost, the cheapest, gives the class its
    noise too: so price and noise are those of one choice that can be had.

    Args:
        measured: by layer and choice.
        rows: by layer and class, the choice that stands for it.
    """
    found = {
        name: torch.tensor([float(measured[name][row]) for row in standing])
        for name, standing in rows.items()
    }
    return {name: noise for name, noise in found.items() if bool(noise.any())}


@dataclass(frozen=True, slots=True)
class DisturbedForm:
    """A layer's form with noise, whether it trains or not."""

    form: LayerForm
    variance: float
    """Relative to that of each channel."""

    def __call__(self, call: Call) -> Tensor:
        """Return the form's sum with a sample of noise."""
        return disturbed(self.form(call), torch.tensor(self.variance), channels_of(call))


def channels_of(call: Call) -> int:
    """Return the axis of a layer's output channels."""
    return 1 if call.layer.op == "conv" else -1


def disturbed(total: Tensor, variance: Tensor, channels: int) -> Tensor:
    """Return a sum with one zero-mean Gaussian sample added.

    Args:
        total: (N, ...), of the whole batch's part of this process.
        variance: (), of the sample relative to that of each channel; carries the gradient.
        channels: axis of the output channels.
    """
    if not float(variance.detach()):
        return total  # no sample, and no gradient, which would be infinite
    with torch.no_grad():
        sample = normal_rows(total).mul_(_deviation(total.detach(), channels))
    return total + variance.sqrt() * sample


def _deviation(total: Tensor, channels: int) -> Tensor:
    """Return the deviation of each channel over the whole batch, shaped to be broadcast.

    Where a channel has one entry only, that of all entries.
    """
    axes = [axis for axis in range(total.dim()) if axis != channels % total.dim()]
    if total.numel() == total.shape[channels]:
        axes = list(range(total.dim()))
    mean = mean_over(total.mean(axes, keepdim=True))
    return mean_over((total - mean).square().mean(axes, keepdim=True)).sqrt()
