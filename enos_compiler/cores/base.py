# SPDX-License-Identifier: Apache-2.0
"""The contract of a core: a piece of hardware that executes layers or vector operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from enos_compiler.crossbar.nonideal import NonIdealities
from enos_compiler.crossbar.spec import CrossbarSpec
from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Home, Layer
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.objective import Objective
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.sampling.run import Hardware

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Homes:
    """Where a layer's operands rest: its inputs and its output."""

    inputs: tuple[Home, ...]
    output: Home
    output_bits: int | None = None
    """Stored width of the output where it is not the choice's own: a network output that comes
    straight from a layer leaves as 32-bit sums."""

    @property
    def memories(self) -> tuple[tuple[str, ...], str, int | None]:
        """What costs depend on: the memories, not the addresses."""
        return (tuple(h.memory for h in self.inputs), self.output.memory, self.output_bits)


@dataclass(frozen=True, slots=True)
class CoreCost:
    """What a layer costs on a core."""

    inference: Cost
    """Per inference: compute, operand traffic, weight reloads."""
    programming: Cost = field(default_factory=Cost)
    """Writing weights that stay: once per N inferences; empty where weights are reloaded."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """The mapping or the placement, for map-digital and map-cim and for the report."""


class Core(Protocol):
    """One kind of core; a target's YAML holds its constants in the form of `Spec`."""

    kind: ClassVar[str]
    Spec: ClassVar[type[BaseModel]]
    name: str

    def choices(
        self, layer: Layer, operators: Iterable[str], widths: Iterable[Bits], *, signed_input: bool
    ) -> Iterable[Choice | Refusal]:
        """Yield what this core takes of a layer, and why not the rest."""

    def cost(self, layer: Layer, choice: Choice, homes: Homes) -> CoreCost:
        """Return integer events, cycles and the mapping or placement behind them."""

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event of this core in pJ; an unknown action is an error."""

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""

    def capacity(self, choice: Choice, layer: Layer) -> Mapping[str, float]:
        """Return what the choice holds for good of the core's scarce resources, e.g. crossbars."""

    def capacities(self) -> Mapping[str, int]:
        """Return how much of each scarce resource the core has."""

    def leakage_mw(self) -> float:
        """Return the leakage power of the whole core in mW."""

    def area_um2(self) -> float:
        """Return the area of the whole core in um^2."""


@runtime_checkable
class Maps(Protocol):
    """A core that searches for the best mapping of each layer."""

    objective: Objective
    """What its mappings minimise."""
    mapping_cache: Path | None
    """Folder of mappings found before; None: the user's own."""


@runtime_checkable
class Samples(Protocol):
    """A core that draws from mixtures."""

    def form(self, choice: Choice) -> SamplerForm:
        """Return how a sampling program is run under a choice."""

    def hardware(self) -> Hardware:
        """Return what a device does beside its ideal."""


@runtime_checkable
class Explains(Protocol):
    """A core that can draw how it executes a layer."""

    def explain(self, layer: Layer, choice: Choice, detail: Mapping[str, Any]) -> str:
        """Return a picture in 80 columns of the mapping or placement that `cost` found."""


@runtime_checkable
class Rated(Protocol):
    """A core that states how fast it could be."""

    def peak_macs_per_ns(self, choice: Choice) -> float:
        """Return the multiply-accumulates per ns with every element busy, as such a choice runs."""


@runtime_checkable
class HasArrays(Protocol):
    """A core whose layers lie on crossbars; their converters may change a layer's sums."""

    def array(self, shape: LayerShape, choice: Choice) -> CrossbarSpec:
        """Return the array that a choice runs on, with the resolution of its converters."""

    def arrays_held(self, layer: Layer, choice: Choice) -> Mapping[str, int]:
        """Return the arrays by size that the weights fill for good if they share none."""

    def held_um2(self, layer: Layer, choice: Choice) -> float:
        """Return the area of the arrays that a layer holds, with what stands around them."""

    @property
    def errors(self) -> NonIdealities:
        """What is wrong with the core's devices; it enters where devices are sampled."""

    def is_exact(self, shape: LayerShape, choice: Choice) -> bool:
        """Whether neither converters nor devices change any sum of a choice."""

    def noise_to_signal(
        self, layer: Layer, choice: Choice, codes: Tensor, clip: tuple[float, float]
    ) -> float:
        """Return what arrays add to a quantised layer's output, relative to its power."""
