# SPDX-License-Identifier: Apache-2.0
"""Strict models of hardware constants: every number has a value, a unit and a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from enos_compiler.errors import SpecError, nearest
from enos_compiler.spec.document import Document, Path

T = TypeVar("T", int, float)
M = TypeVar("M", bound=BaseModel)

UNITS: Mapping[str, str] = {
    "pj": "pJ",
    "fj": "fJ",
    "ns": "ns",
    "um2": "um2",
    "um": "um",
    "nm": "nm",
    "v": "V",
    "bits": "bits",
    "pw": "pW",
}
"""What the last part of a field's name (`read_pj`) says of its unit."""


def _not_blank(source: str) -> str:
    if not source.strip():
        raise PydanticCustomError("blank_source", "blank source")
    return source


Source = Annotated[str, AfterValidator(_not_blank)]
"""Where a constant comes from; blank text says nothing and is refused."""


class Strict(BaseModel):
    """A block of a target file: unknown keys, wrong types and missing sources are errors.

    `source:` in a block stands for all its constants, and those of the blocks inside it, that
    bring none of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Source | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    known = sorted(set(cls.model_fields) - {"source"})
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key",
                        {"key": key, "remedy": nearest(str(key), known)},
                    )
        return data


class Quantity(BaseModel, Generic[T]):
    """One constant: its value, optionally its unit, and where it comes from.

    A bare number stands for `{value: number}` under the source of its block.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    value: T
    unit: str | None = None
    source: Source | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_number(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key",
                        {"key": key, "remedy": nearest(str(key), cls.model_fields)},
                    )
            return data
        return {"value": data}


Count = Quantity[Annotated[int, Field(ge=1)]]
"""A whole number of at least one."""
Positive = Quantity[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
"""A number above zero."""
NonNegative = Quantity[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
"""A number of at least zero."""


def validate(model: type[M], document: Document, path: Path = ()) -> M:
    """Return the model of one part of a document, every constant with its source.

    Raises:
        SpecError: `file:line: dotted.path = value` and what was expected.
    """
    data: Any = document.data
    for key in path:
        data = data[key]
    try:
        built = model.model_validate(data)
    except ValidationError as error:
        raise _spec_error(error, document, path) from error
    return with_sources(built, document, path, _inherited(document, path))


def _inherited(document: Document, path: Path) -> str | None:
    """Return the source that the blocks around `path` give, the nearest first."""
    found, data = None, document.data
    for key in path:
        if isinstance(data, dict) and isinstance(data.get("source"), str):
            found = data["source"]
        data = data[key]
    return found


def with_sources(model: M, document: Document, path: Path, inherited: str | None) -> M:
    """Return a copy in which every quantity carries its own source.

    Raises:
        SpecError: a quantity without a source, or in another unit than its name says.
    """
    source = getattr(model, "source", None) or inherited
    changed = {
        name: _sourced(getattr(model, name), name, document, (*path, name), source)
        for name in type(model).model_fields
        if name != "source"
    }
    return model.model_copy(update=changed)


def _sourced(item: Any, name: str, document: Document, path: Path, source: str | None) -> Any:
    if isinstance(item, Quantity):
        return _checked(item, name, document, path, source)
    if isinstance(item, BaseModel):
        return with_sources(item, document, path, source)
    if isinstance(item, dict):
        return {k: _sourced(v, name, document, (*path, k), source) for k, v in item.items()}
    if isinstance(item, (list, tuple)):
        return type(item)(
            _sourced(v, name, document, (*path, i), source) for i, v in enumerate(item)
        )
    return item


def _checked(
    item: Quantity[Any], name: str, document: Document, path: Path, source: str | None
) -> Quantity[Any]:
    expected = UNITS.get(name.rpartition("_")[2])
    if item.unit is not None and expected is not None and item.unit != expected:
        raise document.error(
            path,
            f"has unit = {item.unit!r}, but this constant is in {expected}",
            f"convert the value and write unit: {expected}",
        )
    own = item.source or source
    if not own:
        raise document.error(
            path,
            f"= {item.value:g} has no source",
            'write {value: ..., source: "paper, table"}, or a source: for the block',
        )
    return item.model_copy(update={"source": own, "unit": item.unit or expected})


def _spec_error(error: ValidationError, document: Document, path: Path) -> SpecError:
    first = error.errors()[0]
    where = (*path, *(k for k in first["loc"] if not _is_branch(k)))
    context: Mapping[str, Any] = first.get("ctx", {})
    if first["type"] == "unknown_key":
        return document.error((*where, context["key"]), "is an unknown key", context["remedy"])
    if first["type"] == "missing":
        return document.error(where, "is missing", f"add `{where[-1]}:` to this block")
    if first["type"] == "blank_source":
        return document.error(
            where,
            f"= {_short(first['input'])} is blank",
            'name the paper and table or the tool, or write "design choice"',
        )
    if first["type"] == "rule":
        return document.error(where, f"has {first['msg']}", context.get("remedy"))
    if where and where[-1] == "value":
        where = where[:-1]
    found = f"= {_short(first['input'])} is not accepted"
    return document.error(where, found, _expectation(first["msg"]))


def _is_branch(key: str | int) -> bool:
    """Tell the names that pydantic gives to alternatives of a union from keys of the file."""
    return isinstance(key, str) and ("[" in key or key.startswith("function-"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _expectation(message: str) -> str:
    """Turn pydantic's "Input should be a valid integer" into "a valid integer"."""
    if message.startswith("String should match pattern"):
        return "letters, digits, _ and -, a letter first"
    return message.removeprefix("Input should be ").rstrip(".")


def rule_error(message: str, remedy: str) -> PydanticCustomError:
    """Return the error a model's own rule between fields raises."""
    return PydanticCustomError("rule", message, {"remedy": remedy})
