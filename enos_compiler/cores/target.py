# SPDX-License-Identifier: Apache-2.0
"""A chip ready for use: its cores built from its file, and every price behind one door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enos_compiler import plugins
from enos_compiler.cores.base import Core, Maps
from enos_compiler.cores.edges import Between, link_action
from enos_compiler.cores.homes import homes
from enos_compiler.cores.host import Host
from enos_compiler.cores.map_cache import made_folder
from enos_compiler.cores.memory import Chip
from enos_compiler.cores.vector import VectorUnit
from enos_compiler.errors import SpecError, UsageError, nearest
from enos_compiler.ir.cost import Action, Cost
from enos_compiler.ir.network import Home, Network, Value, Vector
from enos_compiler.mapping.objective import Objective
from enos_compiler.spec import CoreForm, LinkSpec, TargetSpec, find_target, read_target


@dataclass(frozen=True, slots=True)
class Target:
    """One chip: layer cores in file order, vector unit, host, memories and links."""

    spec: TargetSpec
    chip: Chip
    cores: Mapping[str, Core]
    """Layer cores, in the file's order."""
    vector_unit: VectorUnit
    host: Host
    links: Mapping[str, LinkSpec]
    inferences_per_programming: int
    """Inferences that share one programming of resident weights."""
    between: Between
    _prices: dict[Action, tuple[float, str]] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """The target's name, as its file says it."""
        return self.spec.name

    @property
    def spec_sha256(self) -> str:
        """Hash of the file's content, comments and layout left out."""
        return self.spec.sha256

    @property
    def clock_ns(self) -> float:
        """Clock period of every core, in ns."""
        return self.chip.clock_ns

    @property
    def memories(self) -> Mapping[str, Any]:
        """Memories by name."""
        return self.chip.memories

    # Prices

    def energy_pj(self, action: Action) -> float:
        """Return the energy of one event in pJ.

        Raises:
            SpecError: no owner of the target knows the action; unknown is never zero.
        """
        return self._priced(action)[0]

    def source(self, action: Action) -> str:
        """Return where the price of an action comes from."""
        return self._priced(action)[1]

    def _priced(self, action: Action) -> tuple[float, str]:
        if action not in self._prices:
            self._prices[action] = self._look_up(action)
        return self._prices[action]

    def _look_up(self, action: Action) -> tuple[float, str]:
        owner = action.partition(".")[0]
        if owner in self.chip.memories:
            prices = self.chip.memories[owner].prices
            if action in prices:
                return prices[action]
        elif owner in self.links:
            link = self.links[owner]
            if action == link_action(link):
                return link.energy_pj_per_bit.value, str(link.energy_pj_per_bit.source)
        elif owner in self._units():
            unit = self._units()[owner]
            return unit.energy_pj(action), unit.source(action)
        raise SpecError(
            f"no energy is known for the event `{action}`",
            place=f"target {self.name}",
            remedy=nearest(owner, (*self._units(), *self.chip.memories, *self.links)),
        )

    def _units(self) -> dict[str, Any]:
        return {
            **self.cores,
            self.vector_unit.name: self.vector_unit,
            self.host.name: self.host,
        }

    # Values and what lies between layers

    def homes(self, network: Network) -> Mapping[str, Home]:
        """Return the home of every value: the shared buffer where it fits, else DRAM."""
        return homes(network, self.chip)

    def edge_cost(
        self,
        value: Value,
        stored_bits: int,
        producer_core: str,
        consumer_core: str,
        consumer_bits: int,
    ) -> Cost:
        """Return the cost of link transfer and narrowing between a value and one reader."""
        return self.between.edge_cost(
            value, stored_bits, producer_core, consumer_core, consumer_bits
        )

    def vector_cost(
        self,
        vector: Vector,
        network: Network,
        input_bits: int | Sequence[int],
        output_bits: int,
    ) -> Cost:
        """Return the cost of an operation that is no layer, at given widths."""
        return self.between.vector_cost(vector, network, input_bits, output_bits)

    # The chip as a whole

    def leakage_by_owner(self) -> dict[str, float]:
        """Return leakage power in mW by core, vector unit and on-chip memory."""
        leaking = {name: core.leakage_mw() for name, core in self.cores.items()}
        leaking[self.vector_unit.name] = self.vector_unit.leakage_mw()
        for name, memory in self.chip.memories.items():
            if name != self.chip.dram:
                leaking[name] = self.chip.leakage_mw(memory.spec.area_um2.value)
        return leaking

    def leakage_mw(self) -> float:
        """Return the leakage power of the chip in mW; DRAM and host lie outside it."""
        return sum(self.leakage_by_owner().values())

    def area_um2(self) -> float:
        """Return the area of the chip in um^2; DRAM and host lie outside it."""
        area = sum(core.area_um2() for core in self.cores.values())
        area += self.vector_unit.area_um2()
        return area + sum(
            float(m.spec.area_um2.value)
            for n, m in self.chip.memories.items()
            if n != self.chip.dram
        )


def load_target(
    name_or_path: str | Path,
    *,
    inferences: int | None = None,
    objective: Objective | None = None,
    mapping_cache: str | Path | None = None,
) -> Target:
    """Return a registered target by name, or the one that a YAML file describes.

    Args:
        name_or_path: an entry point of the group enos_compiler.targets, or a path.
        inferences: overrides inferences_per_programming of the file.
        objective: overrides what mappings minimise, on every core that searches for them.
        mapping_cache: folder of mappings found before; by default the user's cache.

    Raises:
        UsageError: no target of that name is registered; names the nearest. Or an objective for a
            chip none of whose cores has mappings to choose from, or a folder that is not writable.
        SpecError: the file is wrong: `file:line: dotted.path`, the value, what was expected.
    """
    target = build_target(read_target(find_target(str(name_or_path))), inferences=inferences)
    return configured(target, objective=objective, mapping_cache=mapping_cache)


def configured(
    target: Target, *, objective: Objective | None, mapping_cache: str | Path | None
) -> Target:
    """Return the target with its mapping cores set; see `load_target`."""
    mapped = [core for core in target.cores.values() if isinstance(core, Maps)]
    if objective is not None and not mapped:
        raise UsageError(
            f"no core of {target.name} chooses among mappings",
            place=f"--objective {objective}",
            remedy="leave it out, or a target with a loop-nest core",
        )
    folder = made_folder(mapping_cache) if mapping_cache is not None else None
    for core in mapped:
        core.objective = objective or core.objective
        core.mapping_cache = folder
    return target


def build_target(spec: TargetSpec, *, inferences: int | None = None) -> Target:
    """Return the chip of a checked target file."""
    if inferences is not None and inferences < 1:
        raise SpecError(
            f"inferences = {inferences} is below 1", remedy="give a whole number of at least 1"
        )
    leakage = spec.technology.leakage_pw_per_um2.value
    chip = Chip.of(spec.clock_ns, spec.arithmetic, leakage, spec.memories)
    cores: dict[str, Core] = {form.name: _build(form, chip) for form in spec.cores}
    vector_unit: VectorUnit = _build(spec.vector_unit, chip)
    host: Host = _build(spec.host, chip)
    by_ends = {frozenset(link.ends): link for link in spec.links}
    return Target(
        spec=spec,
        chip=chip,
        cores=cores,
        vector_unit=vector_unit,
        host=host,
        links={link.name: link for link in spec.links},
        inferences_per_programming=inferences or int(spec.inferences_per_programming.value),
        between=Between(chip, vector_unit, host, by_ends),
    )


def _build(form: CoreForm, chip: Chip) -> Any:
    """Return the core of a block; what contradicts the rest of the chip is an error of its line."""
    try:
        return plugins.load("cores", form.kind)(form.name, form.spec, chip)
    except SpecError as error:
        raise form.error(error) from error
