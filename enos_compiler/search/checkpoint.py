# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a running training: one safetensors file, everything else as JSON in its header.

A file holds the module's state, the optimiser's, the random generators' and the history, so a
resumed run gives the same numbers as one that was never stopped. It is written beside its place
and renamed, and belongs to one run by a fingerprint of all that decides the numbers.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from enos_compiler.errors import FormatError
from enos_compiler.ir.network import Network
from enos_compiler.outputs import replaced_file

if TYPE_CHECKING:
    from enos_compiler.frontend.data import Data

SCHEMA = "enos-checkpoint/1"
SAMPLE = 64
"""Most items of a split that a fingerprint reads."""
_HEADER = "enos"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A moment between two epochs."""

    fingerprint: str
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able."""


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, replacing the one at `path` in a single step."""
    from safetensors.torch import save_file

    header = json.dumps(
        {"schema": SCHEMA, "fingerprint": checkpoint.fingerprint, "state": checkpoint.state}
    )
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    with replaced_file(path) as made:
        save_file(tensors, made, metadata={_HEADER: header})


def load(path: Path, fingerprint: str) -> Checkpoint | None:
    """Return the checkpoint at `path`; None where there is none or it is another run's.

    Raises:
        FormatError: the file is damaged or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_HEADER])
            if header["schema"] != SCHEMA:
                raise FormatError(
                    f"schema {header['schema']} is not {SCHEMA}",
                    place=str(path),
                    remedy="delete the file; the training starts again",
                )
            if header["fingerprint"] != fingerprint:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise FormatError(
            f"cannot be read: {error}",
            place=str(path),
            remedy="delete the file; the training starts again",
        ) from error
    return Checkpoint(fingerprint, tensors, header["state"])


def set_aside(path: Path) -> Path:
    """Rename another run's checkpoint so that nothing overwrites it; return its new place."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.other{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
    return aside


def forget(folder: Path) -> None:
    """Delete the checkpoints in a folder, and the folder if nothing else is in it."""
    if not folder.is_dir():
        return
    for path in folder.glob("*.safetensors"):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def fingerprint(network: Network, settings: Iterable[object], data: Data) -> str:
    """Return a hash of all that decides a training's numbers: see the arguments.

    Args:
        network: its parameters, ranges, choices and their prices.
        settings: of the training.
        data: the lengths of the splits that are read in training, a sample of their items spread
            over each, the batch size and the loss.
    """
    digest = hashlib.sha256(f"{SCHEMA} {version('enos-compiler')}".encode())
    for name, tensor in sorted(network.graph.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    for value in network.values.values():
        digest.update(repr((value.name, value.range)).encode())
    for layer in network.layers.values():
        costs = [sorted(cost.events.items()) for cost in layer.costs]
        digest.update(repr((layer.name, layer.choices, layer.choice, costs)).encode())
    digest.update(repr(list(settings)).encode())
    with _same_draws():
        for part in _marks(data):
            digest.update(part)
    return digest.hexdigest()


def _marks(data: Data) -> Iterator[bytes]:
    """Yield what tells one set of data from another."""
    yield repr((data.batch_size, _loss_marks(data.loss))).encode()
    for split in ("train", "validation"):
        dataset = data.dataset(split)
        count = 0 if dataset is None else len(dataset)
        yield f"{split} {count}".encode()
        indices = sorted({int(i) for i in np.linspace(0, count - 1, min(count, SAMPLE))})
        for tensors in data.batches(split, indices=indices, batch_size=SAMPLE):
            for tensor in tensors:
                yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
                yield _bytes(tensor)


def _loss_marks(loss: Any) -> list[object]:
    """Return the name of a loss, and its code or its settings."""
    if loss is None:
        return []
    loss = getattr(loss, "func", loss)
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    marks: list[object] = [named.__module__, named.__qualname__]
    code = getattr(loss, "__code__", None)
    if code is not None:
        constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
        marks += [code.co_code, constants, code.co_names]
    plain = (bool, int, float, str)
    own = getattr(loss, "__dict__", {})
    return [*marks, sorted((k, v) for k, v in own.items() if isinstance(v, plain))]


@contextmanager
def _same_draws() -> Iterator[None]:
    """Let a data set that draws at random draw the same; leave the generators as they were."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # the one that users seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _bytes(tensor: Tensor) -> bytes:
    whole: bytes = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return whole


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state as flat tensors."""
    return {
        f"optimiser/{index}/{name}": torch.as_tensor(tensor)
        for index, entries in optimiser.state_dict()["state"].items()
        for name, tensor in entries.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the state that `optimiser_tensors` returned back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
