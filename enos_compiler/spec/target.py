# SPDX-License-Identifier: Apache-2.0
"""The form of a target file: one chip, its cores, memories, links, vector unit and host."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from enos_compiler import plugins
from enos_compiler.errors import SpecError, nearest
from enos_compiler.spec.document import Document, Path, read_document
from enos_compiler.spec.model import (
    Count,
    NonNegative,
    Positive,
    Quantity,
    Strict,
    rule_error,
    validate,
)
from enos_compiler.spec.scaling import scaling_advice

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]*$"
"""Owners of events have no dots and slashes: those part an action from its owner."""
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


Exponent = Quantity[Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)]]
"""How energy or area grows with width: linear is 1, and no circuit grows faster than 4."""


class BufferSpec(Strict):
    """A memory array inside a core."""

    capacity_bits: Count
    word_bits: Count
    read_pj: Positive
    """Energy of one word read."""
    write_pj: Positive
    area_um2: NonNegative

    @model_validator(mode="after")
    def _holds_a_word(self) -> BufferSpec:
        if self.capacity_bits.value < self.word_bits.value:
            raise rule_error(
                f"capacity_bits = {self.capacity_bits.value}, below one word of "
                f"{self.word_bits.value} bits",
                f"capacity_bits: {self.word_bits.value} or more",
            )
        return self


class MemorySpec(BufferSpec):
    """A memory of the chip that values rest in: the shared buffer or DRAM."""

    name: Name
    role: Literal["shared", "dram"]
    bits_per_cycle: Count
    """Bandwidth, reads and writes together."""


class LinkSpec(Strict):
    """A path between two cores for values that one produces and the other consumes."""

    name: Name
    ends: Annotated[tuple[Name, Name], Field(strict=False)]
    bits_per_cycle: Count
    energy_pj_per_bit: NonNegative


class TechnologySpec(Strict):
    """The process that the constants of the file belong to."""

    node_nm: Positive
    vdd_v: Positive
    leakage_pw_per_um2: NonNegative
    """Leakage power of a square micrometre of any block of the chip."""


class PartSpec(Strict):
    """A component with the process that its figures belong to: the chip's, or it is refused."""

    node_nm: Positive
    vdd_v: Positive


class ArithmeticSpec(Strict):
    """Energies and areas of elementary operations, as functions of operand widths.

    add(b) = add_base_pj + add_per_bit_pj * b; multiply(a, w) = multiply_8x8_pj *
    (a w / 64) ** multiply_exponent; shift(b) = shift_8_pj * (b / 8) ** shift_exponent; xor,
    register and compare are per bit.
    """

    add_base_pj: Positive
    add_per_bit_pj: Positive
    multiply_8x8_pj: Positive
    multiply_exponent: Exponent
    shift_8_pj: Positive
    shift_exponent: Exponent
    xor_per_bit_pj: Positive
    register_per_bit_pj: Positive
    compare_per_bit_pj: Positive
    full_adder_pj: Positive
    add_per_bit_um2: Positive
    multiply_8x8_um2: Positive
    multiply_area_exponent: Exponent
    register_per_bit_um2: Positive


class _TargetForm(Strict):
    """The whole file; cores stay raw here and are read by the models of their kinds."""

    schema_: Literal["enos-target/1"] = Field(alias="schema")
    name: Name
    description: str = ""
    clock_ns: Positive
    technology: TechnologySpec
    arithmetic: ArithmeticSpec
    inferences_per_programming: Count
    memories: list[MemorySpec]
    cores: Annotated[list[dict[str, Any]], Field(min_length=1)]
    links: list[LinkSpec] = Field(default_factory=list)
    vector_unit: dict[str, Any]
    host: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        return data


_KEYS = ("schema", *(k for k in _TargetForm.model_fields if k != "schema_"))


@dataclass(frozen=True, slots=True)
class CoreForm:
    """One core of the file: its name, its kind and the constants in the form of its kind."""

    name: str
    kind: str
    spec: BaseModel
    document: Document
    path: Path

    def error(self, found: SpecError) -> SpecError:
        """Return what building the core found, with its line in the file.

        Args:
            found: its place is a dotted path within the core's block, or names a part of the core.
        """
        keys = tuple(found.place.split(".")) if found.place else ()
        part = self.document.has((*self.path, *keys))
        problem = found.message if part or not keys else f"({found.place}) {found.message}"
        path = (*self.path, *keys) if part else self.path
        return self.document.error(path, problem, found.remedy)


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """A chip as its file says it, checked."""

    name: str
    description: str
    file: str
    sha256: str
    clock_ns: float
    technology: TechnologySpec
    arithmetic: ArithmeticSpec
    inferences_per_programming: Quantity[Any]
    memories: tuple[MemorySpec, ...]
    cores: tuple[CoreForm, ...]
    links: tuple[LinkSpec, ...]
    vector_unit: CoreForm
    host: CoreForm


def find_target(name_or_path: str) -> FilePath:
    """Return the file of a registered target, or the path itself where it names a YAML file.

    Raises:
        UsageError: no target of that name is registered; names the nearest.
    """
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        return FilePath(name_or_path)
    from importlib.resources import files

    point = plugins.entry("targets", name_or_path)
    return FilePath(str(files(point.module) / point.attr))


def read_target(file: FilePath) -> TargetSpec:
    """Read and check a target file.

    Raises:
        SpecError: the place as `file:line: dotted.path`, the value and what was expected.
    """
    return check_target(read_document(file))


def check_target(document: Document) -> TargetSpec:
    """Check a parsed target file; see `read_target`."""
    _top_level(document)
    form = validate(_TargetForm, document)
    cores = tuple(_core(document, "cores", i) for i in range(len(form.cores)))
    vector_unit = _core(document, "vector_unit", None, default_kind="vector")
    host = _core(document, "host", None, default_kind="host")
    _memories(document, form.memories)
    _owners(document, form, [*cores, vector_unit, host])
    _one_process(document, form.technology, cores)
    content = json.dumps(document.data, sort_keys=True, separators=(",", ":"))
    return TargetSpec(
        name=form.name,
        description=form.description,
        file=document.file,
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        clock_ns=form.clock_ns.value,
        technology=form.technology,
        arithmetic=form.arithmetic,
        inferences_per_programming=form.inferences_per_programming,
        memories=tuple(form.memories),
        cores=cores,
        links=tuple(form.links),
        vector_unit=vector_unit,
        host=host,
    )


_NEEDED = {
    "vector_unit": "layers leave pooling, additions and tables to it: add a `vector_unit:` block",
    "host": "what no core executes falls to it: add a `host:` block",
    "cores": "add at least one core under `cores:`",
}


def _top_level(document: Document) -> None:
    if not isinstance(document.data, dict):
        raise SpecError(
            "is no block of keys", place=document.file, remedy="write `schema: enos-target/1` first"
        )
    for key in document.data:
        if key not in _KEYS:
            raise document.error((key,), "is an unknown key", nearest(str(key), _KEYS))
    for key, why in _NEEDED.items():
        if not document.data.get(key):
            raise SpecError(
                f"the target has no {key.replace('_', ' ')}", place=document.file, remedy=why
            )


def _core(
    document: Document, key: str, index: int | None, default_kind: str | None = None
) -> CoreForm:
    """Read one core by the model of its kind; `name` and `kind` are taken off first."""
    path: tuple[str | int, ...] = (key,) if index is None else (key, index)
    data = document.data[key] if index is None else document.data[key][index]
    kinds = plugins.names("cores")
    kind = data.get("kind", default_kind)
    if kind not in kinds:
        raise document.error(
            (*path, "kind"),
            "is missing" if kind is None else f"= {kind!r} is no kind of core",
            nearest(str(kind), kinds),
        )
    name = validate(_Named, _only(document, path, ("name",)), path).name
    constants = _without(document, path, ("name", "kind"))
    spec = validate(plugins.load("cores", kind).Spec, constants, path)
    return CoreForm(name, kind, spec, document, path)


class _Named(BaseModel):
    name: Name


def _only(document: Document, path: tuple[str | int, ...], keys: tuple[str, ...]) -> Document:
    return _filtered(document, path, lambda k: k in keys)


def _without(document: Document, path: tuple[str | int, ...], keys: tuple[str, ...]) -> Document:
    return _filtered(document, path, lambda k: k not in keys)


def _filtered(document: Document, path: tuple[str | int, ...], keep: Any) -> Document:
    """Return the document with only some keys of one block; places in messages stay right."""

    def rebuild(data: Any, rest: tuple[str | int, ...]) -> Any:
        if not rest:
            return {k: v for k, v in data.items() if keep(k)}
        if isinstance(data, dict):
            return {**data, rest[0]: rebuild(data[rest[0]], rest[1:])}
        return [rebuild(v, rest[1:]) if i == rest[0] else v for i, v in enumerate(data)]

    return _Renamed(document.file, rebuild(document.data, path), document.lines, document)


@dataclass(frozen=True, slots=True)
class _Renamed(Document):
    """A part of a document that still names its places as the whole does."""

    whole: Document | None = None

    def dotted(self, path: tuple[str | int, ...]) -> str:
        return self.whole.dotted(path) if self.whole else Document.dotted(self, path)


def _memories(document: Document, memories: list[MemorySpec]) -> None:
    roles = [m.role for m in memories]
    if roles.count("dram") != 1:
        raise document.error(
            ("memories",),
            f"has {roles.count('dram')} entries of role dram; exactly one is needed",
            "network inputs, outputs and weights rest in one memory of role: dram",
        )
    if roles.count("shared") > 1:
        raise document.error(
            ("memories",),
            f"has {roles.count('shared')} entries of role shared; at most one is possible",
            "join them into one shared buffer",
        )


def _one_process(
    document: Document, technology: TechnologySpec, cores: tuple[CoreForm, ...]
) -> None:
    """Refuse parts of cores whose figures belong to another process than the chip's."""
    chip = (technology.node_nm.value, technology.vdd_v.value)
    for i, core in enumerate(cores):
        for name in type(core.spec).model_fields:
            part = getattr(core.spec, name)
            if not isinstance(part, PartSpec):
                continue
            own = (part.node_nm.value, part.vdd_v.value)
            if own != chip:
                raise document.error(
                    ("cores", i, name),
                    f"has figures of {own[0]:g} nm, {own[1]:g} V on a chip of {chip[0]:g} nm, "
                    f"{chip[1]:g} V",
                    scaling_advice(*own, *chip),
                )


def _named(form: _TargetForm, cores: list[CoreForm]) -> Iterator[tuple[str, Any]]:
    places: list[tuple[str | int, ...]] = [("cores", i) for i in range(len(cores) - 2)]
    places += [("vector_unit",), ("host",)]
    for core, place in zip(cores, places, strict=True):
        yield core.name, place
    for i, memory in enumerate(form.memories):
        yield memory.name, ("memories", i)
    for i, link in enumerate(form.links):
        yield link.name, ("links", i)


def _owners(document: Document, form: _TargetForm, cores: list[CoreForm]) -> None:
    """Refuse two owners of one name, and links to nowhere or in parallel."""
    seen: dict[str, Any] = {}
    for name, place in _named(form, cores):
        if name in seen:
            line = document.line((*seen[name], "name"))
            raise document.error(
                (*place, "name"),
                f"= {name!r} is taken by {'.'.join(map(str, seen[name]))} in line {line}",
                "give every core, memory and link its own name: events are booked by it",
            )
        seen[name] = place
    known = [core.name for core in cores]
    pairs: set[frozenset[str]] = set()
    for i, link in enumerate(form.links):
        for end in link.ends:
            if end not in known:
                raise document.error(
                    ("links", i, "ends"),
                    f"= {end!r} is no core",
                    nearest(end, known),
                )
        if len(set(link.ends)) == 1 or frozenset(link.ends) in pairs:
            raise document.error(
                ("links", i, "ends"),
                f"= {list(link.ends)} joins a core to itself or a pair that is joined already",
                "one link for each pair of different cores",
            )
        pairs.add(frozenset(link.ends))
