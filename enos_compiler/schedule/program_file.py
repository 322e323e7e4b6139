# SPDX-License-Identifier: Apache-2.0
"""`program.json` and `program.safetensors`: a program on disk, and back.

The JSON holds what runs when; the tensors hold the integers that layers were programmed with,
named `layer/tensor`, in the narrowest integer type that holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import FormatError
from enos_compiler.ir import codec
from enos_compiler.ir.network import Network
from enos_compiler.ir.program import SCHEMA, Program

PROGRAM_JSON = "program.json"
PROGRAM_TENSORS = "program.safetensors"

IntTensor = NDArray[np.signedinteger[Any]]

_OWNERS = ("layer", "edge", "vector", "host", "programs")
_TYPES = (np.int8, np.int16, np.int32, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ProgramFile:
    """A program and the integers of its layers."""

    program: Program
    tensors: Mapping[str, IntTensor]


def layer_tensors(network: Network) -> dict[str, IntTensor]:
    """Return the integers of every quantised layer, named `layer/tensor`."""
    found: dict[str, IntTensor] = {}
    for layer in network.layers.values():
        if layer.quantized is None:
            continue
        parts = {
            **layer.quantized.tensors,
            "bias": layer.quantized.bias,
            "unit_exponent": layer.quantized.unit_exponent,
        }
        found |= {f"{layer.name}/{name}": _narrowest(array) for name, array in parts.items()}
    return found


def write_program(network: Network, folder: Path) -> tuple[Path, Path]:
    """Write the program of a scheduled network into `folder`, which must exist.

    Returns:
        The paths of the JSON and of the tensors.

    Raises:
        ValueError: the network is not scheduled.
    """
    from safetensors.numpy import save

    if network.program is None:
        raise ValueError(f"network {network.name} is not scheduled")
    blob = save(layer_tensors(network))
    document = {
        "schema": SCHEMA,
        **_to_json(network.program),
        "tensors_sha256": hashlib.sha256(blob).hexdigest(),
    }
    paths = folder / PROGRAM_JSON, folder / PROGRAM_TENSORS
    paths[0].write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    paths[1].write_bytes(blob)
    return paths


def read_program(folder: Path) -> ProgramFile:
    """Read a program and its tensors.

    Raises:
        FormatError: a file is missing or damaged, of another schema, or the two do not belong
            together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / PROGRAM_JSON
    document = _read_json(path)
    tensors = folder / PROGRAM_TENSORS
    if not tensors.is_file():
        raise FormatError("is missing", place=str(tensors), remedy="compile again")
    blob = tensors.read_bytes()
    if hashlib.sha256(blob).hexdigest() != document.pop("tensors_sha256", None):
        raise FormatError(
            f"does not belong to the {PROGRAM_JSON} beside it, or is damaged",
            place=str(tensors),
            remedy="compile again",
        )
    program = _from_json(document, str(path))
    try:
        return ProgramFile(program, load(blob))
    except SafetensorError as error:
        raise FormatError(f"cannot be read: {error}", place=str(tensors)) from error


def _to_json(program: Program) -> dict[str, Any]:
    """Return the program's JSON form; owners that an instruction lacks are left out."""
    body: dict[str, Any] = codec.encode(program, {})
    for kind in ("instructions", "setup"):
        body[kind] = [
            {k: v for k, v in row.items() if v is not None or k not in _OWNERS}
            for row in body[kind]
        ]
    return body


def _from_json(body: dict[str, Any], place: str) -> Program:
    for kind in ("instructions", "setup"):
        rows = body.get(kind)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FormatError(f"has no list of {kind}", place=place, remedy="compile again")
        body[kind] = [dict.fromkeys(_OWNERS) | row for row in rows]
    program: Program = codec.decode(body, Program, {}, place)
    known = {i.id for i in program.instructions}
    for instruction in program.instructions:
        unknown = set(instruction.after) - known
        if unknown:
            raise FormatError(
                f"{instruction.id} waits for {sorted(unknown)[0]}, which does not exist",
                place=place,
                remedy="compile again",
            )
    return program


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise FormatError("is missing", place=str(path), remedy="compile first") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"cannot be read: {error}", place=str(path)) from error
    schema = document.pop("schema", None) if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise FormatError(f"has schema {schema!r}; this version reads {SCHEMA}", place=str(path))
    return document  # type: ignore[no-any-return]  # a dict, or it would have no schema


def _narrowest(array: NDArray[np.int64]) -> IntTensor:
    """Return the array in the narrowest signed type that holds its values."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for kind in _TYPES:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(array, dtype=kind)
    raise OverflowError(f"{low}..{high} leaves 64 bits")
