# SPDX-License-Identifier: Apache-2.0
"""`program.json` and `program.safetensors`: a program on disk, and back.

The JSON holds what runs when, where values lie and what every kernel computes; the tensors hold
integers under the path of the field that names them, in the narrowest type that holds their
values. Two hashes seal them: of the tensors, and of the rest of the JSON. Loading runs nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import FormatError
from enos_compiler.ir import codec
from enos_compiler.ir.executable import Executable
from enos_compiler.ir.program import SCHEMA, Program

PROGRAM_JSON = "program.json"
PROGRAM_TENSORS = "program.safetensors"

_OPTIONAL: dict[str, Any] = {
    **dict.fromkeys(("layer", "edge", "vector", "host", "programs", "step")),
    "ranges": {},
}
"""What an instruction may lack, and what that stands for."""
_TYPES = (np.int8, np.int16, np.int32, np.int64)
_AGAIN = "compile again"


@dataclass(frozen=True, slots=True, eq=False)
class ProgramFile:
    """What a program file holds."""

    executable: Executable
    sealed: bool
    """Whether the JSON is as the compiler wrote it."""
    place: str

    def require_seal(self) -> None:
        """Refuse a JSON that was changed after it was written.

        Raises:
            FormatError: it was edited or damaged.
        """
        if not self.sealed:
            raise FormatError(
                "does not match its seal: it was edited or damaged after the compiler wrote it",
                place=self.place,
                remedy=_AGAIN,
            )


def write_program(executable: Executable, folder: Path) -> tuple[Path, Path]:
    """Write a program into `folder`, which must exist.

    Returns:
        The paths of the JSON and of the tensors.
    """
    from safetensors.numpy import save

    arrays: codec.Arrays = {}
    body = {
        f.name: codec.encode(getattr(executable, f.name), arrays, f.name)
        for f in fields(executable)
        if f.name != "program"
    }
    blob = save({name: _narrowest(array) for name, array in arrays.items()})
    document = {
        **_program_to_json(executable.program),
        **body,
        "tensors_sha256": hashlib.sha256(blob).hexdigest(),
    }
    sealed = {"schema": SCHEMA, "seal_sha256": codec.seal(document), **document}
    paths = folder / PROGRAM_JSON, folder / PROGRAM_TENSORS
    paths[0].write_text(json.dumps(sealed, indent=1, allow_nan=False) + "\n")
    paths[1].write_bytes(blob)
    return paths


def read_program(path: Path) -> ProgramFile:
    """Read a program and its tensors.

    Args:
        path: of the JSON, or of the folder that holds it; the tensors lie beside it.

    Raises:
        FormatError: a file is missing or damaged, of another schema, or the two do not belong
            together. A changed seal alone is left to `ProgramFile.require_seal`.
    """
    path = path / PROGRAM_JSON if path.is_dir() else path
    document = _read_json(path)
    sealed = document.pop("seal_sha256", None) == codec.seal(document)
    arrays = _read_tensors(path, document.pop("tensors_sha256", None))
    executable = _from_json(document, arrays, str(path))
    return ProgramFile(executable, sealed, str(path))


def _program_to_json(program: Program) -> dict[str, Any]:
    """Return the program's JSON form; what an instruction may lack is left out."""
    body: dict[str, Any] = codec.encode(program, {})
    for kind in ("instructions", "setup"):
        body[kind] = [
            {k: v for k, v in row.items() if k not in _OPTIONAL or v != _OPTIONAL[k]}
            for row in body[kind]
        ]
    return body


def _from_json(body: dict[str, Any], arrays: codec.Arrays, place: str) -> Executable:
    for kind in ("instructions", "setup"):
        rows = body.get(kind)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FormatError(f"has no list of {kind}", place=place, remedy=_AGAIN)
        body[kind] = [_OPTIONAL | row for row in rows]
    names = {f.name for f in fields(Program)}
    program = {name: body.pop(name) for name in names & set(body)}
    found: Executable = codec.decode({**body, "program": program}, Executable, arrays, place)
    return found


def _read_tensors(path: Path, expected: Any) -> codec.Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    tensors = path.with_suffix(".safetensors")
    try:
        blob = tensors.read_bytes()
    except OSError as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise FormatError(what, place=str(tensors), remedy=_AGAIN) from None
    if hashlib.sha256(blob).hexdigest() != expected:
        raise FormatError(
            f"does not belong to the {path.name} beside it, or is damaged",
            place=str(tensors),
            remedy=_AGAIN,
        )
    try:
        return {name: _widest(array) for name, array in load(blob).items()}
    except SafetensorError as error:
        raise FormatError(f"cannot be read: {error}", place=str(tensors)) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise FormatError("is missing", place=str(path), remedy="compile first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"cannot be read: {error}", place=str(path)) from error
    schema = document.pop("schema", None) if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise FormatError(f"has schema {schema!r}; this version reads {SCHEMA}", place=str(path))
    return document  # type: ignore[no-any-return]  # a dict, or it would have no schema


def _widest(array: NDArray[Any]) -> NDArray[Any]:
    """Return integers with 64 bits again, as kernels compute with."""
    return array if array.dtype.kind == "f" else array.astype(np.int64)


def _narrowest(array: NDArray[Any]) -> NDArray[Any]:
    """Return integers in the narrowest signed type that holds them; real numbers as they are."""
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for kind in _TYPES:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(array, dtype=kind)
    raise OverflowError(f"{low}..{high} leaves 64 bits")
