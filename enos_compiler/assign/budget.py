# SPDX-License-Identifier: Apache-2.0
"""How much energy an assignment may use, as a person writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from enos_compiler.assign.measures import MEASURES, Measure
from enos_compiler.errors import UsageError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

Kind = Literal["fraction", "floor", "absolute", "unlimited", "baseline"]

FORMS = "0.6 (of the baseline), floor+0.5, 12.5uJ, unlimited, baseline, edp:0.6, edap:floor+0.5"
"""What `Budget.parse` reads, for messages and help."""

_PJ = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "µJ": 1e6, "\u03bcJ": 1e6, "mJ": 1e9, "J": 1e12}
_LARGEST_SHARE = 10.0
"""A larger share of the baseline is an energy whose unit was forgotten."""
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d+))?"
_FRACTION = re.compile(_NUMBER)
_FLOOR = re.compile(rf"floor(?:\s*\+\s*(?P<share>{_NUMBER}))?")
_ABSOLUTE = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>{'|'.join(_PJ)})")


@dataclass(frozen=True, slots=True)
class Budget:
    """Energy per inference that an assignment may use.

    `fraction`: share of the baseline's energy. `floor`: that share of the way from the cheapest
    network to the baseline. `absolute`: pJ. `unlimited`: the best score, whatever it costs.
    `baseline`: no choice at all, every layer as in the baseline.

    A measure before it, as in `edp:0.6`, binds another figure than the energy: `latency`, `area` of
    the arrays that layers hold, `memory` of the weights, `edp`, or `edap`.
    """

    kind: Kind
    value: float = 0.0
    """Share for `fraction` and `floor`, pJ for `absolute`."""
    text: str = ""
    """As it was written."""
    measure: Measure = "energy"
    """What is bound."""

    @staticmethod
    def parse(text: str) -> Budget:
        """Read `0.6`, `floor+0.5`, `12.5uJ`, `unlimited` or `baseline`.

        Raises:
            UsageError: another form, a number that is not finite, or no energy at all.
        """
        try:
            return _read(text)
        except ValueError as error:
            raise UsageError(str(error), place="budget") from None

    def allowed(self, floor: float, baseline: float) -> float:
        """Return what is allowed of the measure, given the cheapest network's and the baseline's.

        Where the floor is not below the baseline, `floor+t` is the floor.
        """
        if self.kind == "fraction":
            return self.value * baseline
        if self.kind == "floor":
            return floor + self.value * max(0.0, baseline - floor)
        return self.value if self.kind == "absolute" else float("inf")

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Let options of this type be parsed from text."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            lambda given: given if isinstance(given, Budget) else _read(str(given))
        )


def _read(text: str) -> Budget:
    """Return the budget that `text` says; ValueError in words where it says none."""
    bare = text.strip()
    measure, colon, rest = bare.partition(":")
    if colon and measure in MEASURES:
        return _of_measure(measure, rest.strip(), text)
    if bare in ("unlimited", "baseline"):
        return Budget("unlimited" if bare == "unlimited" else "baseline", text=bare)
    if found := _FLOOR.fullmatch(bare):
        return Budget("floor", _finite(found["share"] or "0", bare), text=bare)
    if found := _ABSOLUTE.fullmatch(bare):
        energy_pj = _finite(found["number"], bare) * _PJ[found["unit"]]
        return Budget("absolute", _positive(energy_pj, bare), text=bare)
    if _FRACTION.fullmatch(bare):
        return Budget("fraction", _share(_positive(_finite(bare, bare), bare), bare), text=bare)
    raise ValueError(f"`{text}` is not a budget; known forms: {FORMS}")


def _of_measure(measure: str, rest: str, text: str) -> Budget:
    """Return a budget of a measure by name; only an energy can be stated in joules."""
    found = _read(rest)
    if measure != "energy" and found.kind not in ("fraction", "floor", "unlimited"):
        raise ValueError(f"`{text}` is not a budget; {measure} takes 0.6, floor+0.5 or unlimited")
    return replace(found, text=text.strip(), measure=measure)  # type: ignore[arg-type]  # checked


def _finite(number: str, text: str) -> float:
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"budget `{text}` is not a finite number")
    return value


def _share(value: float, text: str) -> float:
    if value > _LARGEST_SHARE:
        raise ValueError(
            f"budget `{text}` would be {value:g} times the baseline; for an energy give its unit: "
            f"{text}uJ"
        )
    return value


def _positive(value: float, text: str) -> float:
    if value <= 0:
        raise ValueError(f"budget `{text}` allows no energy at all")
    return value
