# SPDX-License-Identifier: Apache-2.0
"""The search for the best nests of one core: each distinct question asked once, and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from enos_compiler.cores.loopnest_spec import LoopNestSpec
from enos_compiler.cores.map_cache import recall
from enos_compiler.cores.memory import Chip
from enos_compiler.cores.nest_data import certificate_data, nest_actions, nest_detail, with_taps
from enos_compiler.cores.nest_homes import IN_DRAM, Hierarchy, HierarchyPlan, NestHomes, NestTask
from enos_compiler.mapping.count import EXACT, PLAIN, REFERENCE, CountingRule
from enos_compiler.mapping.engine import Engine
from enos_compiler.mapping.events import NestEvents
from enos_compiler.mapping.layer import count_layer
from enos_compiler.mapping.mapper import MapResult, map_layer
from enos_compiler.mapping.nest import Nest
from enos_compiler.mapping.objective import Objective
from enos_compiler.mapping.padding import map_padded
from enos_compiler.mapping.size import count_mappings

_RULES: Mapping[str, CountingRule] = {"reference": REFERENCE, "plain": PLAIN, "exact": EXACT}


class NestSearch:
    """Finds and counts nests on one core.

    `objective`, `padding_percent` and `mapping_cache` may be set from outside; see `base.Maps`.
    """

    def __init__(self, name: str, spec: LoopNestSpec, chip: Chip) -> None:
        self.name = name
        self.spec = spec
        self.chip = chip
        self.objective: Objective = spec.objective
        self.padding_percent = int(spec.padding_percent.value) if spec.padding_percent else 0
        self.mapping_cache: Path | None = None
        self._plan = HierarchyPlan(name, spec, chip)
        self._plan.check_bandwidth()
        self._hierarchies: dict[NestHomes, Hierarchy] = {}
        self._contents: dict[NestHomes, dict[str, Any]] = {}
        self.machine = self.hierarchy(IN_DRAM).machine
        self.space = self.hierarchy(IN_DRAM).space

    def hierarchy(self, homes: NestHomes) -> Hierarchy:
        """Return the machine and the mapspace of nests that end at the given homes."""
        if homes not in self._hierarchies:
            self._hierarchies[homes] = self._plan.build(homes)
        return self._hierarchies[homes]

    @property
    def rule(self) -> CountingRule:
        """The rule that nests are counted by."""
        return _RULES[self.spec.counting]

    def best(self, task: NestTask) -> Mapping[str, Any]:
        """Return events, cycles and detail of the best nest, as `nest_data` has them.

        Raises:
            InfeasibleError: no nest fits the levels and constraints; names the smallest level.
        """
        searched = self._searched(task)
        question = self._question(searched)
        found = recall(question, lambda: self._answer(searched), self.mapping_cache)
        return found if searched.tap_pj == task.tap_pj else with_taps(found, task.tap_pj)

    def map(
        self,
        task: NestTask,
        *,
        objective: Objective | None = None,
        engine: Engine | None = None,
        without: Nest | None = None,
    ) -> MapResult:
        """Find the best nest of a layer now, whatever is stored; see `mapping.mapper.map_layer`."""
        hierarchy = self.hierarchy(task.homes)
        return map_layer(
            task.shape,
            hierarchy.priced(task.tap_pj),
            objective=objective or self.objective,
            space=hierarchy.space,
            widths=task.widths,
            engine=engine,
            without=without,
        )

    def map_padded(self, task: NestTask) -> MapResult:
        """Find the best nest of a layer whose bounds may be padded; its shape is the padded one."""
        if not self.padding_percent:
            return self.map(task)
        hierarchy = self.hierarchy(task.homes)
        return map_padded(
            task.shape,
            hierarchy.priced(task.tap_pj),
            objective=self.objective,
            space=hierarchy.space,
            widths=task.widths,
            margin=self.padding_percent / 100,
        ).result

    def count(self, task: NestTask, nest: Nest) -> NestEvents:
        """Count a nest of a layer by the core's rule."""
        machine = self.hierarchy(task.homes).machine
        return count_layer(task.shape, machine, nest, task.widths, rule=self.rule)

    def count_nests(self, task: NestTask) -> int:
        """Return how many nests the mapspace of a layer holds; seconds to minutes."""
        hierarchy = self.hierarchy(task.homes)
        machine, space = hierarchy.machine, hierarchy.space
        return count_mappings(task.shape, machine, space=space, widths=task.widths)

    def _searched(self, task: NestTask) -> NestTask:
        """Return the task whose nest serves this one: widths that pack alike are one.

        The energy of a tap adds the same to every nest of a layer, so that it decides nothing
        unless it is multiplied by cycles, or paid for taps of padded bounds.
        """
        levels = self.hierarchy(task.homes).machine.levels
        words = sorted({level.word_bits for level in levels})
        alike = {field: _alike(bits, words) for field, bits in asdict(task.widths).items() if bits}
        decides = self.objective == "edp" or self.padding_percent
        return replace(
            task,
            widths=replace(task.widths, **alike),
            tap_pj=task.tap_pj if decides else 0.0,
        )

    def _question(self, task: NestTask) -> dict[str, Any]:
        """All that a nest and its counts depend on; padding is part of the input's box."""
        return {
            "bounds": task.shape.bounds,
            "stride": task.shape.stride,
            "dilation": task.shape.dilation,
            "widths": asdict(task.widths),
            "homes": asdict(task.homes),
            "objective": self.objective,
            "padding_percent": self.padding_percent,
            "counting": self.spec.counting,
            "tap_pj": task.tap_pj,
            "core": self._content(task.homes),
        }

    def _content(self, homes: NestHomes) -> dict[str, Any]:
        """Machine and mapspace as JSON-able data."""
        if homes not in self._contents:
            hierarchy = self.hierarchy(homes)
            self._contents[homes] = _plain(asdict(hierarchy))
        return self._contents[homes]

    def _answer(self, task: NestTask) -> dict[str, Any]:
        result = self.map_padded(task)
        task = replace(task, shape=result.shape)
        events = self.count(task, result.nest)
        machine = self.hierarchy(task.homes).machine
        return {
            "events": nest_actions(events, machine),
            "cycles": events.cycles,
            "detail": {
                **nest_detail(task, result.nest, events, machine),
                "mapper": {"energy_pj": result.energy_pj, "cycles": result.cycles},
                "certificate": certificate_data(result),
            },
        }


def _alike(bits: int, words: Iterable[int]) -> int:
    """Return the largest width of which every word holds as many codes as of `bits`."""
    return min((word // (word // bits) for word in words if word >= bits), default=bits)


def _plain(data: Any) -> Any:
    """Return data with sorted lists for sets and lists for tuples."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (set, frozenset)):
        return sorted(map(str, data))
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    return data
