# SPDX-License-Identifier: Apache-2.0
"""Layers while they run in steps: what a core holds, what is summed so far, what has moved.

A core has two places for the operands of steps and two for their results. Sums are kept per layer
until every product is in them; only then may a store hand them out. Whether as many words moved as
there are operands and results is checked when the last step is loaded, and at every store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from enos_compiler.cores.steps import PLACES
from enos_compiler.errors import ReplayError
from enos_compiler.ir.cost import Action
from enos_compiler.ir.executable import Executable, LayerKernel
from enos_compiler.ir.formats import IntArray
from enos_compiler.ir.network import Layer
from enos_compiler.ir.packing import words
from enos_compiler.ir.program import Instruction, copy_name
from enos_compiler.semantics.reference import layer_total
from enos_compiler.simulate.kernels import as_layer, in_format, stored_sums, units
from enos_compiler.simulate.memory import Store
from enos_compiler.simulate.parts import Part, Shape

Level = Literal["full", "sampled"]
"""full: every step is computed on the operands that were loaded for it. sampled: so are the first
and the last step of a layer; the others come from the whole layer at once, and must agree."""


@dataclass(slots=True, eq=False)
class Held:
    """One step of a layer on its core."""

    part: Part
    name: str
    operands: tuple[IntArray, ...]
    loaded: int
    """Cycle at which its operands are there."""
    computed: int | None = None
    stored: int | None = None


@dataclass(slots=True, eq=False)
class LayerRun:
    """A layer while its instructions run."""

    kernel: LayerKernel
    layer: Layer
    steps: int
    """Steps that the program has for it."""
    level: Level
    shape: Shape
    """Of its output."""
    total: IntArray = field(init=False)
    taps: NDArray[np.int64] = field(init=False)
    """Products in each sum so far."""
    whole: IntArray | None = None
    """All sums, where they are computed at once."""
    held: dict[int, Held] = field(default_factory=dict)
    seen: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Elements of each buffer that were loaded."""
    claimed: Counter[Action] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.shape, np.int64)
        self.taps = np.zeros(self.shape, np.int64)

    @property
    def samples(self) -> frozenset[int]:
        """Steps that are computed on their own."""
        if self.level == "full":
            return frozenset(range(self.steps))
        return frozenset({0, self.steps - 1})


@dataclass(slots=True)
class Cores:
    """All layers of a program, and which of their steps each core holds."""

    executable: Executable
    store: Store
    level: Level
    read: Callable[..., IntArray]
    """Returns a value's codes by name, or those that an index picks from it in a form."""
    runs: dict[str, LayerRun] = field(init=False)
    places: dict[str, list[Held]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts: Counter[str] = Counter(
            one.layer
            for one in self.executable.program.instructions
            if one.layer is not None and one.op == "compute"
        )
        values = self.executable.values
        self.runs = {
            name: LayerRun(
                kernel, as_layer(kernel), counts[name], self.level, values[kernel.output].shape
            )
            for name, kernel in self.executable.layers.items()
        }

    def execute(self, one: Instruction, run: LayerRun, places: tuple[str, ...]) -> None:
        """Load, compute or store a step.

        Args:
            one: the instruction.
            run: its layer.
            places: where each operand lies; of a load.

        Raises:
            ReplayError: it breaks a rule.
        """
        run.claimed.update(one.events)
        if one.op == "load":
            self._load(one, run, places)
        elif one.op == "compute":
            self._compute(one, run)
        elif one.op == "store":
            self._store(one, run)
        else:
            raise ReplayError(f"{one.op} is nothing that a step does")

    # Loads

    def _load(self, one: Instruction, run: LayerRun, places: tuple[str, ...]) -> None:
        step = _step(one)
        if step in run.held:
            raise ReplayError(f"loads step {step} again")
        part = Part.of(run.kernel, one.ranges)
        held = self.places.setdefault(run.kernel.choice.core, [])
        waiting = [h for h in held if h.computed is None or h.computed > one.start_cycle]
        if len(waiting) >= PLACES:
            names = " and ".join(h.name for h in waiting)
            raise ReplayError(f"finds no place for its operands: those of {names} are there")
        operands = [self._operand(run, part, i, name) for i, name in enumerate(places)]
        end = one.start_cycle + one.cycles
        step_name = f"{run.kernel.name}/{step}"
        run.held[step] = Held(part, step_name, tuple(operands), end)
        leaving = [h for h in held if h.stored is None or h.stored > one.start_cycle]
        self.places[run.kernel.choice.core] = [*leaving, run.held[step]]
        self._see_weights(run, part)
        self._check_claims(run)

    def _operand(self, run: LayerRun, part: Part, which: int, name: str) -> IntArray:
        value = self.executable.values[name]
        form, index = part.operand(which, value.shape)
        codes = self.read(name, form, index)
        seen = run.seen.setdefault(name, np.zeros(self.store.buffers[name].elements, np.bool_))
        form, read = part.touched(which, value.shape)
        seen.reshape(form)[read] = True
        return in_format(codes, value.format, run.kernel.quantized.input_formats[which])

    def _see_weights(self, run: LayerRun, part: Part) -> None:
        name = run.kernel.weights
        if name is None:
            return
        form, index = part.weights()
        seen = run.seen.setdefault(name, np.zeros(self.store.buffers[name].elements, np.bool_))
        seen.reshape(form)[index] = True

    def _check_claims(self, run: LayerRun) -> None:
        """Refuse loads that, all together, moved fewer words than there were operands."""
        if len(run.held) < run.steps:
            return
        needed: Counter[Action] = Counter()
        for name, seen in run.seen.items():
            buffer = self.store.buffers[name]
            memory = self.executable.program.memories[buffer.memory]
            count = words(int(seen.sum()), buffer.bits, memory.word_bits)
            needed[memory.read] += count
        _refuse_less(run.claimed, needed)

    # Computes

    def _compute(self, one: Instruction, run: LayerRun) -> None:
        step, held = _step(one), run.held.get(_step(one))
        if held is None or held.loaded > one.start_cycle:
            raise ReplayError(f"computes step {step} before its operands are there")
        if held.computed is not None:
            raise ReplayError(f"computes step {step} again")
        if Part.of(run.kernel, one.ranges).ranges != held.part.ranges:
            raise ReplayError("covers something else than what was loaded for it")
        busy = [
            h
            for h in self.places[run.kernel.choice.core]
            if h.computed is not None and (h.stored is None or h.stored > one.start_cycle)
        ]
        if len(busy) >= PLACES:
            names = " and ".join(h.name for h in busy)
            raise ReplayError(f"finds no place for its results: those of {names} are there")
        held.computed = one.start_cycle + one.cycles
        if not held.part.empty:
            self._add(run, held, step)
        held.operands = ()

    def _add(self, run: LayerRun, held: Held, step: int) -> None:
        form, index = held.part.result(run.shape)
        taps = run.taps.reshape(form)
        taps[index] += held.part.taps
        if (taps[index] > run.kernel.shape.taps).any():
            raise ReplayError("adds products to sums that have them already")
        if run.level == "sampled" and run.whole is None:
            run.whole = self._whole(run)
        if step in run.samples:
            stored = self.executable.values[run.kernel.inputs[0]].shape
            sums = held.part.sums(held.operands, stored)
            run.total.reshape(form)[index] += sums.reshape(run.total.reshape(form)[index].shape)

    def _whole(self, run: LayerRun) -> IntArray:
        """Return all sums of a layer from its operands as they lie in the memories."""
        kernel, operands = run.kernel, []
        for i, name in enumerate(kernel.inputs):
            copy = copy_name(name, kernel.name)
            place = copy if copy in self.executable.values else name
            value = self.executable.values[place]
            operands.append(
                in_format(self.read(place), value.format, kernel.quantized.input_formats[i])
            )
        return layer_total(run.layer, tuple(operands))

    # Stores

    def _store(self, one: Instruction, run: LayerRun) -> None:
        step, held = _step(one), run.held.get(_step(one))
        if held is None or held.computed is None or held.computed > one.start_cycle:
            raise ReplayError(f"stores step {step} before it is computed")
        if held.stored is not None:
            raise ReplayError(f"stores step {step} again")
        held.stored = one.start_cycle + one.cycles
        form, index = held.part.result(run.shape)
        done = run.taps.reshape(form)[index] == run.kernel.shape.taps
        if held.part.empty or not done.all():
            return  # sums that are not whole yet move at their own width, within the core's words
        total = self._sums(run, step).reshape(form)[index]
        unit = np.broadcast_to(units(run.layer, len(run.shape)), run.shape).reshape(form)[index]
        output = self.executable.values[run.kernel.output]
        codes = stored_sums(total, unit, output)
        self.store.write(run.kernel.output, codes, index, shape=form)
        self._check_stores(run)

    def _sums(self, run: LayerRun, step: int) -> IntArray:
        """Return the layer's sums; what was computed apart must agree with the whole."""
        if run.whole is None:
            return run.total
        form, index = run.held[step].part.result(run.shape)
        apart, whole = run.total.reshape(form)[index], run.whole.reshape(form)[index]
        alone = run.held[step].part.taps == run.kernel.shape.taps
        if step in run.samples and alone and not np.array_equal(apart, whole):
            raise ReplayError("its sums differ from those of the whole layer")
        return run.whole

    def _check_stores(self, run: LayerRun) -> None:
        buffer = self.store.buffers[run.kernel.output]
        memory = self.executable.program.memories[buffer.memory]
        count = int(self.store.written(run.kernel.output).sum())
        needed = words(count, buffer.bits, memory.word_bits)
        _refuse_less(run.claimed, Counter({memory.write: needed}))


def _refuse_less(claimed: Counter[Action], needed: Counter[Action]) -> None:
    for action, count in needed.items():
        if claimed[action] < count:
            raise ReplayError(
                f"with those before it claims {claimed[action]} of {action}, "
                f"the operands that have moved need {count}"
            )


def _step(one: Instruction) -> int:
    if one.step is None or one.step < 0:
        raise ReplayError(f"{one.op} belongs to no step")
    return one.step
