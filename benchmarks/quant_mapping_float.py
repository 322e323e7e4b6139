# SPDX-License-Identifier: Apache-2.0
"""The networks of `quant_mapping.py`: MobileNets trained in float on CIFAR-10, or of full size."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.utils.data import Subset

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mobilenet_cifar10
from networks.mobile import MobileNetV1, MobileNetV2

from enos_compiler.frontend.calibrate import calibrate, example_batches
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.data import Data
from enos_compiler.frontend.trace import trace
from enos_compiler.ir.network import Network
from enos_compiler.search.evaluate import evaluate, module_predictor
from enos_compiler.search.train import EpochRecord, Settings, Trainer

NETWORKS = {"MobileNetV1": 1, "MobileNetV2": 2}
LEARNING_RATE = 4e-3
BATCH = 128
CALIBRATION_IMAGES = 256


@dataclass(frozen=True, slots=True)
class Knobs:
    """What decides a float network."""

    width: float
    epochs: int
    seed: int


def data(folder: str, images: int | None = None, validation: int | None = None) -> Data:
    """Return CIFAR-10, its training and validation splits cut to so many images.

    Raises:
        SystemExit: there is none.
    """
    splits = mobilenet_cifar10.data(folder)
    if splits is None:
        raise SystemExit("no CIFAR-10: --data names its folder")
    train = _first(splits["train"], images)
    return Data(train, _first(splits["validation"], validation), splits["test"], batch_size=BATCH)


def _first(split: Callable[[], Any], count: int | None) -> Callable[[], Any]:
    def opened() -> Any:
        found = split()
        return found if count is None else Subset(found, range(min(count, len(found))))

    return opened


def float_network(name: str, folder: str, out: Path, knobs: Knobs) -> Network:
    """Return a network trained in float and calibrated; trained, or trained on, at its first use.

    Its weights stand in `out/NAME.safetensors`, to compile the example with.
    """
    torch.manual_seed(knobs.seed)
    module = mobilenet_cifar10.model(version=NETWORKS[name], width=knobs.width)
    module = module.to(memory_format=torch.channels_last)
    splits = data(folder)
    settings = Settings(
        name=f"float-{name}",
        epochs=knobs.epochs,
        learning_rate=LEARNING_RATE,
        seed=knobs.seed,
        folder=out,
        fingerprint=f"{name} {knobs}",
        single_thread=True,
    )
    trainer = Trainer(module, splits, settings, on_epoch=_tell, say=_say)
    trainer.run()
    weights = {n: t.contiguous() for n, t in module.state_dict().items()}
    save_file(weights, out / f"{name}.safetensors")
    for split in ("validation", "test"):
        found = evaluate(module_predictor(module), splits, split)  # type: ignore[arg-type]
        _say(f"{name}: {split} accuracy {found.fraction:.2%}" if found else f"{name}: no {split}")
    inputs = mobilenet_cifar10.example_inputs(folder, CALIBRATION_IMAGES)
    return _calibrated(module.to(memory_format=torch.contiguous_format), inputs)


def full_network(name: str) -> Network:
    """Return the network at 224x224 with 1000 classes and random weights."""
    torch.manual_seed(0)
    constructor = {"MobileNetV1": MobileNetV1, "MobileNetV2": MobileNetV2}[name]
    return _calibrated(constructor(classes=1000), (torch.rand(1, 3, 224, 224),))


def _calibrated(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Network:
    lowered = lower(trace(module.eval(), inputs, batch=1))
    return calibrate(lowered, example_batches(lowered))


def _tell(record: EpochRecord) -> None:
    _say(f"float epoch {record.epoch}: loss {record.loss:.3f}, {record.validation_accuracy:.2%}")


def _say(line: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
