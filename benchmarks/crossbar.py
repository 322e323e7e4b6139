# SPDX-License-Identifier: Apache-2.0
"""Time ResNet-20 on crossbars against plain float32 convolutions, in one run.

    python benchmarks/crossbar.py [--quick] [--json FILE]

Batch 64 of 3x32x32, two threads, 256-row arrays, differential cells subtracted before an 8-bit ADC
with power-of-two steps calibrated on the float network. Every ratio is the time of the crossbar
network over the time of the float network in the same round (lower is better), the median of
all rounds:

dac_adc_ratio     8-bit sign-magnitude DAC (rectified inputs use its 128 non-negative codes), one
                  read and one conversion per row block; limit 1.5
noisy_ratio       the same with programming error and read noise of 2 % of the on conductance in
                  every cell (perturbed levels rounded to 127 steps of their column's largest);
                  limit 3
bit_serial_ratio  8-bit unsigned inputs bit by bit, a conversion per bit; limit 8
sliced_ratio      the same with weights in 2-bit cells, a conversion per bit and slice; limit 25

Converters that happen to lose nothing are kept: every conversion is carried out. Public simulators
are timed beside them where they are installed, on a few images (`crossbar_peers.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Threads that wait for each other sleep, else a busy machine measures their spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import crossbar_peers
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from enos_compiler.crossbar.calibrate import calibrate_steps
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.convolution import unfold
from enos_compiler.crossbar.fast import FastConvolution
from enos_compiler.crossbar.integer import Stored, store
from enos_compiler.crossbar.nonideal import NonIdealities, make_device
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec, DacSpec
from enos_compiler.ir.shape import LayerShape

LIMITS = {"dac_adc_ratio": 1.5, "noisy_ratio": 3.0, "bit_serial_ratio": 8.0, "sliced_ratio": 25.0}
CHUNK = 16
"""Images that pass through the crossbar network together, so that a layer stays in the cache."""
PEER_IMAGES = 4
"""Images that a peer is timed on: some take over a second for each."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and an identity, zero-padded where channels grow."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.grow = stride, outputs - inputs

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the identity at the block's resolution and width."""
        if self.grow:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, 0, self.grow))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's rectified sum."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """The CIFAR network of 20 layers: 3 stages of 3 blocks, 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        plan = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2
        plan += [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.ModuleList(ResidualBlock(*p) for p in plan)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = functional.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


@dataclass
class Layer:
    """One convolution on crossbars and the digital work behind it."""

    product: FastConvolution
    gain: Tensor
    shift: Tensor
    out_scale: float
    top: int

    def __call__(
        self, codes: Tensor, residual: Tensor | None = None, scale: float = 0.0, run: int = 0
    ) -> Tensor:
        """Normalise, add the residual, rectify and round to the next layer's codes."""
        y = self.product(codes, run=run)
        y = torch.addcmul(self.shift, y.to(torch.float32), self.gain)
        if residual is not None:
            y.add_(residual, alpha=scale / self.out_scale)
        return y.round_().clamp_(0, self.top).to(torch.uint8)


class CrossbarResNet20:
    """The network with every convolution on crossbars and codes between them."""

    def __init__(
        self, net: ResNet20, images: Tensor, spec: CrossbarSpec, bits: int, noise: float
    ) -> None:
        self.net, self.spec, self.noise, self.seed, self.runs = net, spec, noise, 0, 0
        self.bits, self.top = bits, (1 << bits) - 1
        self.in_scale = float(images.max()) / self.top
        sample = images[:2]
        codes = self.encode(sample)
        value = functional.relu(net.norm(net.conv(sample)))
        self.first = self.layer(net.conv, net.norm, codes, self.in_scale, value)
        codes, scale = self.first(codes), self.first.out_scale
        self.pairs: list[tuple[Layer, Layer, ResidualBlock]] = []
        for block in net.blocks:
            inner = functional.relu(block.norm1(block.conv1(value)))
            one = self.layer(block.conv1, block.norm1, codes, scale, inner)
            middle, value = one(codes), block(value)
            two = self.layer(block.conv2, block.norm2, middle, one.out_scale, value)
            codes = two(middle, block.shortcut(codes), scale)
            scale = two.out_scale
            self.pairs.append((one, two, block))
        self.last_scale = scale

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes of real images, channels last."""
        codes = (images / self.in_scale).round_().clamp_(0, self.top).to(torch.uint8)
        return codes.contiguous(memory_format=torch.channels_last)

    def layer(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, codes: Tensor, scale: float, output: Tensor
    ) -> Layer:
        """Quantise weights to 8 bits, store them, and calibrate the converter on `codes`."""
        weight = conv.weight.detach()
        step = float(weight.abs().max()) / 127
        extent = int(codes.shape[2] - 1) // conv.stride[0] + 1
        shape = LayerShape(
            n=codes.shape[0],
            m=weight.shape[0],
            c=weight.shape[1],
            p=extent,
            q=extent,
            r=3,
            s=3,
            stride=(conv.stride[0], conv.stride[0]),
            padding=(1, 1, 1, 1),
        )
        levels = torch.round(weight / step).to(torch.int64).flatten(1).numpy()
        matrix = store(self.spec, Stored(levels, 8))
        columns = unfold(codes.numpy().astype(np.int64), shape)[0][:, ::3]
        steps = calibrate_steps(matrix, columns, self.bits)
        self.seed += 1
        if self.noise:
            errors = NonIdealities(programming=CellNoise(self.noise))
            matrix = make_device(matrix, errors, self.seed).matrix
        product = FastConvolution(
            [matrix],
            shape,
            self.bits,
            steps_log2=steps,
            read_noise=CellNoise(self.noise),
            seed=self.seed,
            shortcut=False,
            round_levels=True,
        )
        out_scale = float(output.max()) / self.top
        root = torch.sqrt(norm.running_var + norm.eps)
        gain = norm.weight.detach() / root
        shift = norm.bias.detach() - norm.running_mean * gain
        return Layer(
            product,
            (gain * (step * scale / out_scale))[:, None, None],
            (shift / out_scale)[:, None, None],
            out_scale,
            self.top,
        )

    def chunk(self, run: int, images: Tensor) -> Tensor:
        """Return the logits of a few images, with the noise of a numbered run."""
        with torch.inference_mode():
            codes = self.first(self.encode(images), run=run)
            scale = self.first.out_scale
            for one, two, block in self.pairs:
                codes = two(one(codes, run=run), block.shortcut(codes), scale, run=run)
                scale = two.out_scale
            return self.net.head(codes.to(torch.float32).mean((2, 3)) * scale)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits; chunks go to as many threads as torch has."""
        parts = images.split(CHUNK)
        first, self.runs = self.runs, self.runs + len(parts)
        return torch.cat(list(workers().map(self.chunk, range(first, self.runs), parts)))


@cache
def workers() -> ThreadPoolExecutor:
    """Return threads that compute alone: chunks never wait for each other, small steps would."""
    return ThreadPoolExecutor(
        torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)
    )


def build(net: ResNet20, images: Tensor) -> dict[str, CrossbarResNet20]:
    """Return the four crossbar networks by the name of their ratio."""

    def spec(cell_bits: int, digit_bits: int | None) -> CrossbarSpec:
        return CrossbarSpec(
            rows=256,
            columns=256,
            cell=CellSpec(bits=cell_bits),
            dac=DacSpec(digit_bits=digit_bits),
            adc=AdcSpec(bits=8),
        )

    plans = {
        "dac_adc_ratio": (spec(7, None), 7, 0.0),
        "noisy_ratio": (spec(7, None), 7, 0.02),
        "bit_serial_ratio": (spec(7, 1), 8, 0.0),
        "sliced_ratio": (spec(2, 1), 8, 0.0),
    }
    return {name: CrossbarResNet20(net, images, *plan) for name, plan in plans.items()}


def measure(
    runs: dict[str, Callable[[Tensor], Tensor]], x: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Return the times of each run in seconds, one per round, all runs in every round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(x)
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(x)
            times[name].append(time.perf_counter() - start)
    return times


def peer_ratios(net: nn.Module, images: Tensor, float32_s: float) -> dict[str, float]:
    """Return how many times longer than float32 each installed peer takes for an image.

    Args:
        net: the float network.
        images: of which a few are taken.
        float32_s: time of the float network for all of them.
    """
    few = images[:PEER_IMAGES]
    found = {}
    for name, convert in crossbar_peers.installed()[0].items():
        peer = convert(net)
        (seconds,) = measure({name: peer}, few, 1)[name]
        found[name] = seconds / len(few) / (float32_s / len(images))
    return found


def main() -> None:
    """Run the benchmark and print, or write, its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five rounds instead of fifteen")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        net = ResNet20().eval()
        images = torch.rand(64, 3, 32, 32)
        networks = build(net, images)
        reference = net(images)
        errors = {
            f"{name.removesuffix('_ratio')}_logit_error": float(
                (run(images) - reference).norm() / reference.norm()
            )
            for name, run in networks.items()
        }
        times = measure({"float32": net, **networks}, images, 5 if options.quick else 15)
        peers = peer_ratios(net, images, statistics.median(times["float32"]))
    figures = {
        name: statistics.median(t / f for t, f in zip(times[name], times["float32"], strict=True))
        for name in LIMITS
    }
    result = {**figures, **peers, **errors, "float32_ms": min(times["float32"]) * 1e3}
    for name, value in result.items():
        limit = f"  (limit {LIMITS[name]})" if name in LIMITS else ""
        sys.stdout.write(f"{name:26s} {value:10.4f}{limit}\n")
    for peer in crossbar_peers.installed()[1]:
        sys.stdout.write(f"{peer:26s} not installed\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
