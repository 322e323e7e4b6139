# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a running training: one safetensors file, everything else as JSON in its header.

A file holds the module's state, the optimiser's, the random generators' and the history, so a
resumed run gives the same numbers as one that was never stopped. It is written beside its place
and renamed, and belongs to one run by a fingerprint of all that decides the numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enos_compiler.errors import FormatError
from enos_compiler.ir.network import Network

SCHEMA = "enos-checkpoint/1"
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

    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(
        {"schema": SCHEMA, "fingerprint": checkpoint.fingerprint, "state": checkpoint.state}
    )
    beside = path.with_name(path.name + ".new")
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, beside, metadata={_HEADER: header})
    os.replace(beside, path)


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


def fingerprint(network: Network, settings: Iterable[object]) -> str:
    """Return a hash of all that decides a training's numbers but the data: see the arguments.

    Args:
        network: its parameters, ranges, choices and their prices.
        settings: of the training.
    """
    digest = hashlib.sha256(f"{SCHEMA} {version('enos-compiler')}".encode())
    for name, tensor in sorted(network.graph.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for value in network.values.values():
        digest.update(repr((value.name, value.range)).encode())
    for layer in network.layers.values():
        costs = [sorted(cost.events.items()) for cost in layer.costs]
        digest.update(repr((layer.name, layer.choices, layer.choice, costs)).encode())
    digest.update(repr(list(settings)).encode())
    return digest.hexdigest()


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
