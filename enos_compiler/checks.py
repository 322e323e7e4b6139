# SPDX-License-Identifier: Apache-2.0
"""What is checked and measured of a compiled network: equality, accuracy, noise."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np

from enos_compiler.cores.accounting import events_by_item, itemise
from enos_compiler.errors import EnosError
from enos_compiler.evaluate.converters import CLIP_INPUTS, saturation
from enos_compiler.export.check import OnnxSession, chunks, compare, output_steps
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network
from enos_compiler.options import FULL_CHECK_MACS, Check, Options
from enos_compiler.report.build import complete_checks
from enos_compiler.schedule.executable import executable
from enos_compiler.semantics.reference import run
from enos_compiler.simulate.replay import replay

if TYPE_CHECKING:
    from onnx import ModelProto

    from enos_compiler.cores.target import Target
    from enos_compiler.search.evaluate import Predict

Arrays = tuple[np.ndarray[Any, Any], ...]

REPLAYED_INPUTS = 2
"""Inputs that the program is replayed on; each takes one whole run of it."""


def check_level(network: Network, options: Options) -> Check:
    """Return how much is checked: as asked, or by the size of the network."""
    if options.check:
        return options.check
    return "full" if network.macs <= FULL_CHECK_MACS else "sampled"


def check_compiled(
    onnx: ModelProto,
    network: Network,
    target: Target,
    user: UserModel,
    options: Options,
    *,
    exported: Network | None = None,
) -> dict[str, Any]:
    """Compare the ONNX file and the replayed program with the integer reference and the costs.

    Args:
        onnx: the exported model.
        network: compiled.
        target: what its costs are those of.
        user: gives real inputs.
        options: how much is checked.
        exported: what the file holds where it leaves converters out; else the network.

    Returns:
        the report's block of checks.

    Raises:
        EnosError: an output differs although no float island is in the way, or an event does.
    """
    level = check_level(network, options)
    if level == "none":
        return complete_checks({"level": level})
    inputs = _real_inputs(network, user, options.check_images if level == "full" else 1)
    return complete_checks(
        {
            "level": level,
            "onnx_max_steps": _check_onnx(onnx, exported or network, inputs),
            **_check_program(network, target, inputs, level),
        }
    )


def converter_section(
    network: Network, user: UserModel, options: Options
) -> dict[str, dict[str, Any]]:
    """Return what converters of crossbars clip on real inputs; empty where none changes a sum."""
    layers = network.layers.values()
    if not any(n.quantized is not None and n.quantized.array is not None for n in layers):
        return {}
    level = check_level(network, options)
    counted: list[dict[str, Any]] = []
    inputs: Arrays = ()
    if level != "none":
        inputs = _real_inputs(network, user, CLIP_INPUTS if level == "full" else 1)
        counted = saturation(network, inputs)
    section = {
        "onnx": options.onnx_fidelity,
        "inputs": len(inputs[0]) if inputs else 0,
        "layers": counted,
    }
    return {"converters": section}


def _check_onnx(onnx: ModelProto, network: Network, inputs: Arrays) -> int:
    """Return the largest difference between ONNX Runtime, optimised or not, and the reference."""
    steps = compare(onnx, network, inputs).max_steps
    if steps > 0 and not any(vector.is_float for vector in network.vectors.values()):
        raise EnosError(
            f"ONNX Runtime differs from the integer reference by {steps} output steps",
            place="check of model.onnx",
            remedy="this is a defect: report it with the model; --check none skips the check",
        )
    return steps


def _check_program(
    network: Network, target: Target, inputs: Arrays, level: Check
) -> dict[str, Any]:
    """Replay the program; return the largest difference and whether events equal the costs."""
    rows = network.batch * (REPLAYED_INPUTS if network.batch_is_symbolic else 1)
    few = _whole_batches(tuple(a[:rows] for a in inputs), network)
    done = replay(executable(network), few, level="full" if level == "full" else "sampled")
    steps = max(
        output_steps(network, name, found, right)
        for name, found, right in zip(network.outputs, done.outputs, run(network, few), strict=True)
    )
    priced = events_by_item(itemise(network, target))
    equal = {**done.setup_events, **done.events} == priced
    if steps > 0 or not equal:
        what = f"by {steps} output steps" if steps else "in its events"
        raise EnosError(
            f"the replayed program differs from what was compiled {what}",
            place="check of program.json",
            remedy="this is a defect: report it with the model; --check none skips the check",
        )
    return {"simulator_max_steps": steps, "events_equal": equal}


def output_noise(network: Network, canonical: Network, images: int) -> dict[str, Any] | None:
    """Return how far the compiled outputs lie from the float network's on the example inputs.

    Returns:
        `snr_db`, signal over noise power of all outputs in dB, and `inputs`, how many were run;
        None where the outputs are equal or nothing but zeros.
    """
    import torch

    inputs = _whole_batches(tuple(t[:images].numpy() for t in network.example_inputs), network)
    signal = noise = 0.0
    for part in chunks(network, inputs):
        with torch.no_grad():
            float_outputs = canonical.graph(*(torch.from_numpy(array) for array in part))
        for real, found in zip(float_outputs, run(network, part), strict=True):
            wanted = real.numpy().astype(np.float64)
            signal += float(np.sum(wanted**2))
            noise += float(np.sum((found - wanted) ** 2))
    if signal == 0 or noise == 0:
        return None
    return {"snr_db": 10 * log10(signal / noise), "inputs": len(inputs[0])}


def measure_accuracy(
    onnx: ModelProto, network: Network, canonical: Network, user: UserModel
) -> dict[str, Any] | None:
    """Return accuracies on the whole test set: of the float network and of the ONNX file.

    The float network is the user's, or the one that the search trained from an untrained network.
    Where converters change sums, the file computes them digit by digit, forty times slower than
    the codes in torch: those answer in its place, the check holds that the two are equal.

    Args:
        onnx: the file.
        network: what the file holds.
        canonical: the float network.
        user: whose data are read.
    """
    data = user.data()
    if data is None or data.test is None or len(network.inputs) != 1:
        return None
    from enos_compiler.search.evaluate import evaluate, fixed_batch, module_predictor

    data = data.for_network(network)
    batch = fixed_batch(network)
    reference = network.sections.get("search", {}).get("float", {}).get("test_accuracy")
    if reference is None:
        measured = evaluate(module_predictor(canonical.graph), data, batch=batch)
        reference = measured.fraction if measured else None
    compiled = evaluate(_predictor(onnx, network), data, batch=batch)
    if reference is None or compiled is None:
        return None
    return {"reference": reference, "compiled": compiled.fraction, "images": compiled.answers}


def _predictor(onnx: ModelProto, network: Network) -> Predict:
    """Return what answers a batch as the ONNX file does."""
    import torch

    from enos_compiler.evaluate.network import CodeNetwork

    layers = network.layers.values()
    if any(n.quantized is not None and n.quantized.array is not None for n in layers):
        return CodeNetwork(network)
    session = OnnxSession(onnx, "on")
    return lambda images: torch.from_numpy(session.run((images.numpy(),))[0])


def _real_inputs(network: Network, user: UserModel, images: int) -> Arrays:
    """Return real inputs: from the test set where there is one, else the example inputs."""
    data = user.data()
    if data is not None and data.test is not None and len(network.inputs) == 1:
        test = data.for_network(network)
        batch = next(test.batches("test", batch_size=images, limit=images))[0]
        return _whole_batches((batch.numpy(),), network)
    return _whole_batches(tuple(t[:images].numpy() for t in network.example_inputs), network)


def _whole_batches(inputs: Arrays, network: Network) -> Arrays:
    """Cut inputs to whole batches where the batch is fixed."""
    if network.batch_is_symbolic:
        return inputs
    whole = len(inputs[0]) // network.batch * network.batch
    return tuple(array[:whole] for array in inputs) if whole else inputs
