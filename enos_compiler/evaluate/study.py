# SPDX-License-Identifier: Apache-2.0
"""Accuracy over samples of a device: mean, confidence interval, what the converters clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from enos_compiler.crossbar.montecarlo import Estimate, monte_carlo
from enos_compiler.crossbar.nonideal import NonIdealities
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.evaluate.arrays import ArrayStep, device_steps, terms_on_arrays
from enos_compiler.evaluate.network import CodeNetwork
from enos_compiler.ir.network import Network

CONFIDENCE = 0.95
Measure = Callable[[CodeNetwork], tuple[int, int]]
"""Correct answers and answers of a network on the user's data."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A fraction and the interval that holds it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DeviceStudy:
    """What a network on crossbars achieves, device by device."""

    ideal: float
    """Accuracy with the converters and nothing wrong."""
    devices: tuple[float, ...]
    """Accuracy of each device; empty where nothing is wrong with them."""
    answers: int
    """Images that every device answered."""
    saturation: Mapping[str, tuple[int, int]]
    """By layer, conversions of the first device that clip, and all, on `saturation_inputs`."""
    saturation_inputs: int
    confidence: float = CONFIDENCE

    @property
    def between_devices(self) -> Interval | None:
        """The mean over devices on these very images; None without samples."""
        if not self.devices:
            return None
        values = iter(self.devices)
        found: Estimate = monte_carlo(
            lambda _: next(values), devices=len(self.devices), confidence=self.confidence
        )
        return Interval(found.mean, found.low, found.high)

    @property
    def accuracy(self) -> Interval:
        """The accuracy on new devices and new images.

        Images are a sample as well: the half-widths of Student's interval over devices and of
        Wilson's over images add in squares.
        """
        spread = self.between_devices
        mean = self.ideal if spread is None else spread.mean
        half = 0.0 if spread is None else spread.high - spread.mean
        low, high = wilson(mean, self.answers, self.confidence)
        return Interval(
            mean,
            max(0.0, mean - float(np.hypot(half, mean - low))),
            min(1.0, mean + float(np.hypot(half, high - mean))),
        )

    def section(self) -> dict[str, Any]:
        """Return the section of the report."""
        found, between = self.accuracy, self.between_devices
        return {
            "images": self.answers,
            "confidence": self.confidence,
            "accuracy": found.mean,
            "low": found.low,
            "high": found.high,
            "ideal": self.ideal,
            "devices": list(self.devices),
            "between_devices": None if between is None else [between.low, between.high],
            "saturation": {
                "inputs": self.saturation_inputs,
                "layers": {
                    name: {"clipped": clipped, "conversions": conversions}
                    for name, (clipped, conversions) in self.saturation.items()
                },
            },
        }


def wilson(fraction: float, count: int, confidence: float) -> tuple[float, float]:
    """Return the score interval of a fraction of `count` independent answers.

    Source: E. B. Wilson, JASA 22 (1927) (remembered).
    """
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    centre = fraction + z**2 / (2 * count)
    reach = z * (fraction * (1 - fraction) / count + z**2 / (4 * count**2)) ** 0.5
    scale = 1 + z**2 / count
    return (centre - reach) / scale, (centre + reach) / scale


def study_devices(
    network: Network,
    specs: Mapping[str, CrossbarSpec],
    errors: Mapping[str, NonIdealities],
    measure: Measure,
    inputs: Sequence[Tensor],
    *,
    devices: int,
    seed: int,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> DeviceStudy:
    """Measure a network on samples of its devices; digital layers stay exact.

    Device i is the same for one seed, whatever the number of devices.

    Args:
        network: quantised.
        specs: arrays by layer, of every layer on crossbars.
        errors: what is wrong with them, by layer.
        measure: counts correct answers of a network.
        inputs: real inputs on which clipped conversions are counted.
        devices: samples, at least 2; none are drawn where nothing is wrong.
        seed: of the study.
        track: yields the devices one by one, to show how far it is.
    """
    arrays = {n: terms_on_arrays(network.layers[n], spec) for n, spec in specs.items()}
    wrong = {n: e for n, e in errors.items() if e.names and n in arrays}
    ideal_steps = device_steps(network, arrays)
    correct, answers = measure(CodeNetwork(network, ideal_steps))
    saturation = {} if wrong else count_saturation(network, ideal_steps, inputs)
    samples = []
    if wrong:
        roots = np.random.SeedSequence(seed).spawn(devices)
        for index in track(range(devices)):
            steps = device_steps(network, arrays, wrong, roots[index])
            samples.append(measure(CodeNetwork(network, steps))[0] / answers)
            saturation = saturation or count_saturation(network, steps, inputs)
    return DeviceStudy(correct / answers, tuple(samples), answers, saturation, len(inputs[0]))


def count_saturation(
    network: Network, steps: Mapping[str, ArrayStep], inputs: Sequence[Tensor]
) -> dict[str, tuple[int, int]]:
    """Return, by layer on crossbars, conversions that clip and conversions made."""
    found: dict[str, tuple[int, int]] = {}

    def watch(name: str, operands: tuple[Tensor, ...]) -> None:
        if name in steps:
            found[name] = steps[name].saturation(operands)

    CodeNetwork(network, steps)(*inputs, watch=watch)
    return found
