# SPDX-License-Identifier: Apache-2.0
"""What crossbars do to a layer's sum while the supernet trains: one sample of the mixture's noise.

Converters and devices change a sum by an error of a measured power, relative to the output's. A
mixture of candidates has the probability-weighted mean of their powers; one Gaussian sample of it
is added to the mixed sum, whatever the number of candidates. Its deviation is differentiable in the
probabilities, so that a noisy choice costs what its noise does to the loss. Digital choices have
none.

The power is taken relative to each output channel's own: behind a normalisation, which gives every
channel its scale, the error is then the measured share of the output's power.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from enos_compiler.search.parallel import mean_over, normal_rows


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
