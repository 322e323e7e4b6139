# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses to JSON and back, arrays apart; types decide, nothing is executed."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from enos_compiler.errors import FormatError

Arrays = dict[str, np.ndarray[Any, Any]]


def seal(document: Mapping[str, Any]) -> str:
    """Return the digest of a document's content: any change of it changes the seal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def encode(value: Any, arrays: Arrays, key: str = "") -> Any:
    """Return the JSON form of a value; arrays go to `arrays` under their path."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: encode(getattr(value, f.name), arrays, f"{key}/{f.name}") for f in fields(value)
        }
    if isinstance(value, np.ndarray):
        arrays[key] = value
        return {"array": key}
    if isinstance(value, Mapping):
        return {str(k): encode(v, arrays, f"{key}/{k}") for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(v, arrays, f"{key}/{i}") for i, v in enumerate(value)]
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def decode(data: Any, kind: Any, arrays: Arrays, place: str) -> Any:
    """Return the value of type `kind` that `data` encodes.

    Raises:
        FormatError: data of another type, a missing or unknown field, a missing array.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return _frozen(data)
    if origin is Literal:
        return data if data in inner else _wrong(data, kind, place)
    if origin in (Union, types.UnionType):
        return _decode_union(data, inner, arrays, place)
    if is_dataclass(kind):
        return _decode_dataclass(data, kind, arrays, place)
    if kind is np.ndarray or origin is np.ndarray:
        return _decode_array(data, arrays, place)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return kind(*_decode_items(data, tuple(get_type_hints(kind).values()), arrays, place))
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            _expect(data, list, kind, place)
            inner = (inner[0],) * len(data)
        return tuple(_decode_items(data, inner, arrays, place))
    if origin is frozenset:
        return frozenset(
            decode(v, inner[0], arrays, place) for v in _expect(data, list, kind, place)
        )
    if origin is not None and issubclass(origin, Mapping):
        _expect(data, dict, kind, place)
        return {k: decode(v, inner[1], arrays, f"{place}.{k}") for k, v in data.items()}
    if kind is float and type(data) is int:
        return float(data)
    return data if type(data) is kind else _wrong(data, kind, place)


def _decode_union(data: Any, kinds: tuple[Any, ...], arrays: Arrays, place: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    rest = [k for k in kinds if k is not type(None)]
    for kind in rest[:-1]:
        try:
            return decode(data, kind, arrays, place)
        except FormatError:
            continue
    return decode(data, rest[-1], arrays, place)


def _decode_dataclass(data: Any, kind: Any, arrays: Arrays, place: str) -> Any:
    _expect(data, dict, kind, place)
    hints = _hints(kind)
    unknown = set(data) - set(hints)
    absent = set(hints) - set(data)
    if unknown or absent:
        what = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(absent)}"
        raise FormatError(f"{kind.__name__} has {what}", place=place)
    values = {n: decode(data[n], hint, arrays, f"{place}.{n}") for n, hint in hints.items()}
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise FormatError(str(error), place=place) from error


@cache
def _hints(kind: Any) -> dict[str, Any]:
    resolved = get_type_hints(kind)
    return {f.name: resolved[f.name] for f in fields(kind)}


def _decode_items(data: Any, kinds: tuple[Any, ...], arrays: Arrays, place: str) -> list[Any]:
    _expect(data, list, tuple, place)
    if len(data) != len(kinds):
        raise FormatError(f"has {len(data)} items where {len(kinds)} belong", place=place)
    return [
        decode(v, kind, arrays, f"{place}[{i}]")
        for i, (v, kind) in enumerate(zip(data, kinds, strict=True))
    ]


def _decode_array(data: Any, arrays: Arrays, place: str) -> np.ndarray[Any, Any]:
    key = data.get("array") if isinstance(data, dict) else None
    if key not in arrays:
        raise FormatError(f"names the array {key!r}, which the file does not hold", place=place)
    return arrays[key]


def _expect(data: Any, container: type, kind: Any, place: str) -> Any:
    return data if isinstance(data, container) else _wrong(data, kind, place)


def _wrong(data: Any, kind: Any, place: str) -> Any:
    name = getattr(kind, "__name__", str(kind))
    raise FormatError(f"{data!r:.60} is not of type {name}", place=place)


def _frozen(data: Any) -> Any:
    """Turn lists of free-form data into tuples, as attributes of operations are."""
    if isinstance(data, list):
        return tuple(_frozen(v) for v in data)
    if isinstance(data, dict):
        return {k: _frozen(v) for k, v in data.items()}
    return data
