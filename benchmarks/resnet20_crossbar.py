# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the trained ResNet-20 on CIFAR-10 when every layer runs on crossbars.

    python benchmarks/resnet20_crossbar.py [--results FILE] [--blocks N] [--quick]

Sweeps one property at a time around a centre, and a few crosses: ADC bits, array size, cell bits,
and the spread of programmed conductances. Weights and activations have 8 bits, inputs enter bit by
bit, cells are differential pairs subtracted before the converter, whose step per layer and slice
errs least on 128 training images. Results are appended line by line, one line per setting, device
and block of 500 test images; a run that is interrupted goes on where it stopped. Reads
`$ENOS_SHARED/models` and `$ENOS_SHARED/data` (default `../shared`);
`benchmarks/resnet20_tables.py` makes the tables and the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.nonideal import NonIdealities
from enos_compiler.crossbar.spec import AdcSpec, CellSpec, CrossbarSpec
from enos_compiler.evaluate.arrays import TermOnArrays, device_steps
from enos_compiler.evaluate.converters import calibrate
from enos_compiler.evaluate.network import CodeNetwork
from enos_compiler.ir.network import Network

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "data" / "resnet20_crossbar.jsonl"
BLOCK = 500
"""Test images of one line."""
IMAGES = 10_000
DEVICES = 5
"""Samples of a device with spread."""
CHUNK = 20
"""Images that pass through the network together."""
NOISY_COST = 5
"""A block on a device with spread comes as late as this many blocks without."""


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One point of the sweep; the defaults are its centre."""

    adc_bits: int = 8
    size: int = 128
    """Rows and columns of an array."""
    cell_bits: int = 2
    variation: float = 0.0
    """Standard deviation of a programmed conductance over its target."""

    @property
    def spec(self) -> CrossbarSpec:
        """The arrays."""
        return CrossbarSpec(
            rows=self.size,
            columns=self.size,
            cell=CellSpec(bits=self.cell_bits),
            adc=AdcSpec(bits=self.adc_bits, range_mode="least-error"),
        )

    @property
    def errors(self) -> NonIdealities | None:
        """What is wrong with its devices."""
        if not self.variation:
            return None
        return NonIdealities(programming=CellNoise(self.variation, "proportional"))

    @property
    def devices(self) -> int:
        """Device samples that make a difference."""
        return DEVICES if self.variation else 1


CENTRE = Setting()
ADC_BITS = tuple(range(3, 11))
SIZES = (32, 64, 128, 256)
CELL_BITS = (1, 2, 4)
VARIATIONS = (0.0, 0.05, 0.1, 0.15, 0.2)
CROSS_ADC_BITS = 5
CROSS_VARIATION = 0.1


def settings() -> tuple[Setting, ...]:
    """Return all points, each once."""
    points = [replace(CENTRE, adc_bits=b) for b in ADC_BITS]
    for bits in (CENTRE.adc_bits, CROSS_ADC_BITS):
        points += [replace(CENTRE, adc_bits=bits, size=size) for size in SIZES]
        points += [replace(CENTRE, adc_bits=bits, cell_bits=cell) for cell in CELL_BITS]
    points += [replace(CENTRE, variation=v) for v in VARIATIONS]
    points += [replace(CENTRE, cell_bits=c, variation=CROSS_VARIATION) for c in CELL_BITS]
    return tuple(sorted(set(points)))


# What is evaluated


def shared() -> Path:
    """Return the folder with the trained network and the images."""
    return Path(os.environ.get("ENOS_SHARED", ROOT.parent / "shared"))


def quantised_network() -> Network:
    """Return the trained network with 8-bit weights and activations, calibrated as `enosc` does."""
    from enos_compiler.compiler import Hooks, run_passes
    from enos_compiler.cores.target import load_target
    from enos_compiler.frontend.trace import trace
    from enos_compiler.frontend.user import load_user_model
    from enos_compiler.pass_text import parse_passes

    weights = shared() / "models" / "resnet20_cifar10.safetensors"
    arguments = {"weights": str(weights), "data": str(shared() / "data")}
    user = load_user_model(f"{ROOT / 'examples' / 'resnet20_cifar10.py'}", arguments)
    steps = parse_passes(
        "canonicalize,calibrate,attach-choices{operators=mac weight_bits=8 activation_bits=8},"
        "sensitivity,assign{budget=baseline},quantize"
    )
    return run_passes(trace(user, batch=1), steps, load_target("digital"), Hooks(), user=user)[0]


def test_images() -> tuple[Tensor, Tensor]:
    """Return the normalised test images (N, 3, 32, 32) and their labels."""
    sys.path.insert(0, str(ROOT / "examples"))
    import cifar
    import resnet20_cifar10 as example

    images, labels = cifar.load(shared() / "data", "test")
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (example.MEAN, example.STD))
    return (torch.from_numpy(images).float() / 255 - mean) / std, torch.from_numpy(labels)


def digest(network: Network) -> str:
    """Return a hash of the network's codes, so that results of two networks never mix."""
    found = hashlib.sha256()
    for layer in network.layers.values():
        if layer.quantized is not None:
            for name in sorted(layer.quantized.tensors):
                found.update(layer.quantized.tensors[name].tobytes())
            found.update(layer.quantized.bias.tobytes())
            found.update(layer.quantized.unit_exponent.tobytes())
    return found.hexdigest()[:16]


# What is run, and what is left of it


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the results: a block of images on one device of one setting."""

    setting: Setting
    device: int
    block: int

    @property
    def turn(self) -> tuple[int, int, Setting]:
        """When it runs: all settings grow together, those with spread more slowly."""
        late = NOISY_COST * self.block if self.setting.variation else self.block
        return late, self.device, self.setting


def tasks(blocks: int) -> list[Task]:
    """Return every task of the first `blocks` blocks, in the order of their turns."""
    found = [
        Task(setting, device, block)
        for setting in settings()
        for device in range(setting.devices)
        for block in range(blocks)
    ]
    return sorted(found, key=lambda t: t.turn)


def read_results(path: Path, network: str | None = None) -> dict[Task, int]:
    """Return correct answers by task.

    Raises:
        ValueError: the results are those of another network.
    """
    done: dict[Task, int] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        if network is not None and row["network"] != network:
            raise ValueError(f"{path}: results of network {row['network']}, this is {network}")
        task = Task(Setting(**row["setting"]), row["device"], row["block"])
        done[task] = row["correct"]
    return done


@dataclass(slots=True)
class Sweep:
    """The network, the images, and the converter steps found so far."""

    network: Network
    images: Tensor
    labels: Tensor
    _arrays: dict[Setting, dict[str, tuple[TermOnArrays, ...]]] = field(default_factory=dict)

    def correct(self, task: Task) -> int:
        """Return correct answers of one task."""
        arrays = self.arrays(replace(task.setting, variation=0.0))
        seed = np.random.SeedSequence(0, spawn_key=(task.device,))
        errors = task.setting.errors
        wrong = dict.fromkeys(arrays, errors) if errors else None
        steps = device_steps(self.network, arrays, wrong, seed)
        run = CodeNetwork(self.network, steps)
        start = task.block * BLOCK
        found = 0
        for first in range(start, start + BLOCK, CHUNK):
            part = slice(first, first + CHUNK)
            found += int((run(self.images[part]).argmax(1) == self.labels[part]).sum())
        return found

    def arrays(self, setting: Setting) -> dict[str, tuple[TermOnArrays, ...]]:
        """Return the layers in cells of a setting, converters calibrated on training images."""
        if setting not in self._arrays:
            specs = dict.fromkeys(self.network.layers, setting.spec)
            self._arrays[setting] = calibrate(self.network, specs, self.network.example_inputs)
        return self._arrays[setting]


def run(path: Path, blocks: int) -> Iterator[tuple[Task, int]]:
    """Run what the file lacks, append each line as it is known, and yield it."""
    network = quantised_network()
    key = digest(network)
    done = read_results(path, key)
    left = [task for task in tasks(blocks) if task not in done]
    if not left:
        return
    sweep = Sweep(network, *test_images())
    path.parent.mkdir(parents=True, exist_ok=True)
    for task in left:
        correct = sweep.correct(task)
        row: dict[str, Any] = {
            "network": key,
            "setting": asdict(task.setting),
            "device": task.device,
            "block": task.block,
            "correct": correct,
        }
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        yield task, correct


def main() -> None:
    """Run the sweep, or what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument(
        "--blocks", type=int, default=IMAGES // BLOCK, metavar="N", help=f"of {BLOCK} images each"
    )
    parser.add_argument("--quick", action="store_true", help="one block")
    options = parser.parse_args()
    for task, correct in run(options.results, 1 if options.quick else options.blocks):
        place = f"{task.setting} device {task.device} block {task.block}"
        sys.stdout.write(f"{place}: {correct / BLOCK:.2%}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
