# SPDX-License-Identifier: Apache-2.0
"""Runs an exported model in ONNX Runtime and compares it with the integer reference."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from enos_compiler.errors import EnosError
from enos_compiler.export.onnx import is_large, save_onnx
from enos_compiler.ir.network import Layer, Network
from enos_compiler.semantics import reference
from enos_compiler.semantics.operands import quantized

Array = NDArray[Any]
Mode = Literal["off", "on"]
MODES: tuple[Mode, ...] = ("off", "on")
"""Graph optimisation of ONNX Runtime: none, or all of it."""
_ARRAY_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
_CHUNK = 16
"""Images that are compared at a time."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Largest differences between ONNX Runtime and the reference, in output steps."""

    steps: Mapping[Mode, int]
    """Per optimisation mode. A step is one code, or one accumulator unit of a layer's total."""
    values: int
    """Output elements compared in each mode."""

    @property
    def max_steps(self) -> int:
        """The larger of the two modes; 0 means equal in every bit."""
        return max(self.steps.values())


def compare(model: ModelProto | Path, network: Network, inputs: tuple[Array, ...]) -> Comparison:
    """Compare every network output in both optimisation modes.

    Args:
        model: exported from `network`; a path for one with external data.
        network: quantised.
        inputs: real numbers in the order of `network.inputs`; any batch where that is symbolic.

    Raises:
        EnosError: ONNX Runtime refuses the model, or gives NaN or infinity.
    """
    sessions = {mode: OnnxSession(model, mode) for mode in MODES}
    steps: dict[Mode, int] = dict.fromkeys(MODES, 0)
    values = 0
    for part in chunks(network, inputs):
        expected = reference.run(network, part)
        values += sum(array.size for array in expected)
        for mode, session in sessions.items():
            found = session.run(part)
            for name, real, right in zip(network.outputs, found, expected, strict=True):
                difference = output_steps(network, name, real, right)
                steps[mode] = max(steps[mode], difference)
    return Comparison(steps, values)


class OnnxSession:
    """An ONNX Runtime session on the CPU.

    Args:
        model: the model or its file.
        mode: graph optimisation off or on.
        threads: threads inside an operation; 0 lets the runtime choose.
    """

    def __init__(self, model: ModelProto | Path, mode: Mode = "on", *, threads: int = 0) -> None:
        import onnxruntime as ort

        levels = ort.GraphOptimizationLevel
        options = ort.SessionOptions()
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if mode == "on" else levels.ORT_DISABLE_ALL
        )
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        try:
            with _loadable(model) as source:
                self._session = ort.InferenceSession(
                    source, options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:
            raise EnosError(
                f"ONNX Runtime refuses the exported model: {error}",
                remedy="report it with the network: an exported model must load",
            ) from error
        self._inputs = {
            entry.name: _ARRAY_TYPES[entry.type] for entry in self._session.get_inputs()
        }

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return the outputs for inputs in the model's order, cast to the types it takes."""
        feeds = {
            name: np.ascontiguousarray(array, dtype=dtype)
            for (name, dtype), array in zip(self._inputs.items(), inputs, strict=True)
        }
        return tuple(self._session.run(None, feeds))


@contextmanager
def _loadable(model: ModelProto | Path) -> Iterator[str | bytes]:
    """Yield a file's path or a model's bytes; one too large for its own file lies in two."""
    if isinstance(model, Path):
        yield str(model)
    elif is_large(model):
        with tempfile.TemporaryDirectory() as folder:
            yield str(save_onnx(model, Path(folder) / "model.onnx")[0])
    else:
        yield model.SerializeToString()


def chunks(network: Network, inputs: tuple[Array, ...]) -> Iterator[tuple[Array, ...]]:
    """Yield the inputs a few images at a time; as compiled where the batch is fixed."""
    if network.batch_is_symbolic:
        extents = [_CHUNK] * len(inputs)
    else:
        extents = [network.values[name].shape[0] for name in network.inputs]
    for part in range(max(1, -(-inputs[0].shape[0] // extents[0]))):
        yield tuple(
            array[part * extent : (part + 1) * extent]
            for array, extent in zip(inputs, extents, strict=True)
        )


def output_steps(network: Network, name: str, found: Array, expected: Array) -> int:
    """Return the largest difference of one output, rounded up to whole steps.

    Raises:
        EnosError: what was found is no number.
    """
    if not np.isfinite(found).all():
        raise EnosError("is NaN or infinite when run", place=f"output {name}")
    if not expected.size:
        return 0
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return int(np.ceil((difference / _step(network, name, expected.ndim)).max()))


def _step(network: Network, name: str, rank: int) -> Array | float:
    """Return the real size of one step of an output, per channel where it differs."""
    fmt = network.values[name].format
    if fmt is not None:
        return fmt.scale
    producer = network.producer(name)
    if not isinstance(producer, Layer):
        return 1.0
    unit = np.ldexp(1.0, quantized(producer).unit_exponent.astype(np.int32))
    return reference.channel_axis(producer, unit, rank)
