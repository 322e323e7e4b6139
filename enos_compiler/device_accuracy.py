# SPDX-License-Identifier: Apache-2.0
"""`enosc --evaluate`: accuracy of a compiled network on samples of its chip's crossbars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from enos_compiler.cores.base import HasArrays
from enos_compiler.cores.layer_costs import arrays_of, errors_of
from enos_compiler.errors import EnosError, UsageError
from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.evaluate.network import CodeNetwork
    from enos_compiler.frontend.data import Data
    from enos_compiler.frontend.user import UserModel
    from enos_compiler.options import Options

SECTION = "devices"
"""Section of the report."""


def require_evaluable(user: UserModel, target: Target) -> None:
    """Refuse an evaluation that cannot end well, before anything is compiled.

    Raises:
        UsageError: there are no test data, or the chip has no crossbars.
    """
    data = user.data()
    if data is None or data.test is None:
        raise UsageError(
            "there are no test data to measure accuracy on",
            place="--evaluate",
            remedy="give the model file a data() function with a test split",
        )
    if not any(isinstance(core, HasArrays) for core in target.cores.values()):
        raise UsageError(
            f"{target.name} has no crossbars, so every device computes the same",
            place="--evaluate",
            remedy="leave it out: the report has the compiled network's accuracy",
        )


def evaluate_on_devices(
    network: Network,
    target: Target,
    user: UserModel,
    options: Options,
    *,
    log: Callable[[str], None],
    progress: bool,
) -> dict[str, Any]:
    """Return the section of the report: accuracy with its interval, device by device.

    A bar shows how far it is, or a line in `log` for each device.

    Raises:
        EnosError: the network takes several inputs, or the targets are no class indices.
    """
    from enos_compiler.evaluate.converters import CLIP_INPUTS
    from enos_compiler.evaluate.study import study_devices
    from enos_compiler.search.evaluate import evaluate, fixed_batch

    data = _test_data(network, user)
    batch = fixed_batch(network)
    limit = options.evaluate_images or None

    def measure(codes: CodeNetwork) -> tuple[int, int]:
        found = evaluate(codes, data, batch=batch, limit=limit)
        if found is None:
            raise EnosError(
                "the targets of the test split are no class indices",
                place="--evaluate",
                remedy="evaluate a classifier, or leave --evaluate out",
            )
        return found.correct, found.answers

    errors = errors_of(network, target)
    size = batch or CLIP_INPUTS
    inputs = next(data.batches("test", batch_size=size, limit=size))[0]
    study = study_devices(
        network,
        arrays_of(network, target),
        errors,
        measure,
        (inputs,),
        devices=options.devices,
        seed=options.seed,
        track=_bar if progress else lambda devices: _lines(devices, log),
    )
    on_arrays = [layer.choice.core for layer in network.layers.values() if layer.choice]
    wrong = {
        name: list(core.errors.names)
        for name, core in target.cores.items()
        if isinstance(core, HasArrays) and name in on_arrays
    }
    return {**study.section(), "seed": options.seed, "nonidealities": wrong}


def _test_data(network: Network, user: UserModel) -> Data:
    data = user.data()
    if data is None or len(network.inputs) != 1:
        raise EnosError(
            f"the network takes {len(network.inputs)} inputs, test data give one",
            place="--evaluate",
            remedy="leave --evaluate out",
        )
    return data.for_network(network)


def _lines(devices: Sequence[int], log: Callable[[str], None]) -> Iterator[int]:
    for number, device in enumerate(devices, start=1):
        log(f"evaluate: device {number} of {len(devices)}")
        yield device


def _bar(devices: Sequence[int]) -> Iterable[int]:
    from tqdm import tqdm

    found: Iterable[int] = tqdm(
        devices, desc="devices", unit="device", leave=False, file=sys.stderr
    )
    return found
