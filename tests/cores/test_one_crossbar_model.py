# SPDX-License-Identifier: Apache-2.0
"""Every shipped chip with arrays is priced by the one crossbar model; there is no simpler one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

import pytest
from core_layers import IN_BUFFER, layer

from enos_compiler import cores, plugins
from enos_compiler.cores import crossbar
from enos_compiler.cores.base import HasArrays
from enos_compiler.cores.crossbar import CrossbarCore
from enos_compiler.cores.target import Target, load_target
from enos_compiler.crossbar.events import CrossbarCost, layer_cost
from enos_compiler.ir import Bits, Choice, LayerShape

DIGITAL = {"loop-nest", "vector", "host"}
"""Kinds of core that convert nothing and hold no weights in cells."""
WITH_ARRAYS = {"cim": 1, "diana": 1, "hybrid": 1, "isaac": 1, "mfnet": 1, "puma": 1}
"""Cores of arrays by shipped target."""

shipped = cache(load_target)


def arrays_of(target: Target) -> list[CrossbarCore]:
    """The target's cores that are none of the other kinds, each of the one class."""
    found: list[object] = [c for c in target.cores.values() if c.kind not in DIGITAL | {"sampler"}]
    assert all(type(core) is CrossbarCore for core in found), target.name
    return [core for core in found if isinstance(core, CrossbarCore)]


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_every_shipped_core_of_arrays_is_of_the_one_class(name: str) -> None:
    target = shipped(name)
    assert len(arrays_of(target)) == WITH_ARRAYS.get(name, 0)
    every: list[object] = list(target.cores.values())
    assert all(isinstance(core, HasArrays) == (type(core) is CrossbarCore) for core in every)


def test_no_other_class_of_the_tree_is_a_kind_of_core() -> None:
    """All classes of the cores' room that state a kind are registered; one of them has arrays."""
    classes = set()
    for module in pkgutil.iter_modules(cores.__path__, f"{cores.__name__}."):
        for _, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if isinstance(vars(one).get("kind"), str) and hasattr(one, "Spec"):
                classes.add(one)
    registered = {plugins.load("cores", kind) for kind in plugins.names("cores")}
    assert classes == registered
    assert [one for one in classes if hasattr(one, "array")] == [CrossbarCore]


@pytest.mark.parametrize("name", WITH_ARRAYS)
def test_costs_are_the_models_events(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accesses, drives and conversions of a layer are those that the model counts for its place."""
    (core,) = arrays_of(shipped(name))
    counted: list[CrossbarCost] = []

    def seen(*arguments: object, **options: object) -> CrossbarCost:
        counted.append(layer_cost(*arguments, **options))  # type: ignore[arg-type]
        return counted[-1]

    monkeypatch.setattr(crossbar, "layer_cost", seen)
    subject = layer(LayerShape(m=24, c=16, p=5, q=5, r=3, s=3))
    widths = [Bits(core.spec.input_bits.value, core.spec.weight_bits.value, 8)]
    for operator in core.spec.operators:
        offered = core.choices(subject, [operator], widths, signed_input=False)
        for choice in (one for one in offered if isinstance(one, Choice)):
            counted.clear()
            events = core.cost(subject, choice, IN_BUFFER).inference.events
            (model,) = counted
            own = {a: n for a, n in events.items() if a.startswith(f"{core.name}.")}
            for part in ("adc/convert", "row_driver/drive"):
                told = sum(n for a, n in own.items() if a.startswith(f"{core.name}.{part}"))
                assert told == model.events[part] > 0
            assert all(core.source(action) for action in own)
