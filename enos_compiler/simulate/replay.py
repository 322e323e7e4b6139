# SPDX-License-Identifier: Apache-2.0
"""Replays a program, instruction by instruction, on memories of the stated sizes.

Values lie as packed codes at their addresses; an instruction reads what lies there when it runs.
Words that operations and edges move are counted from what is read and written and must be the words
that the instruction claims; a layer's loads and stores claim at least what they move for the first
time. What happens inside a core comes from its count vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.errors import EnosError, ReplayError
from enos_compiler.ir.cost import Action
from enos_compiler.ir.executable import Executable, LayerKernel, VectorKernel
from enos_compiler.ir.formats import IntArray
from enos_compiler.ir.network import Layer
from enos_compiler.ir.packing import words
from enos_compiler.ir.program import OWNERS, Instruction, copy_name
from enos_compiler.semantics.movement import SELECTING
from enos_compiler.semantics.quantizer import dequantize
from enos_compiler.semantics.reference import layer_total
from enos_compiler.simulate.kernels import (
    as_layer,
    in_format,
    input_codes,
    real_sums,
    stored_total,
    vector_codes,
)
from enos_compiler.simulate.layers import Cores, Level
from enos_compiler.simulate.memory import Store
from enos_compiler.simulate.rules import check_program, describe, refuse

Array = NDArray[Any]
Item = tuple[str, str]
"""An owner of events and its name, e.g. ("layer", "conv2d_0")."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What one inference did."""

    outputs: tuple[Array, ...]
    """Real-valued."""
    events: Mapping[Item, Mapping[Action, int]]
    """Integer events of one inference by owner."""
    setup_events: Mapping[Item, Mapping[Action, int]]
    """Of the set-up, which runs once per many inferences."""
    busy_cycles: Mapping[str, int]
    """Cycles in which each resource works."""
    cycles: int
    """From the start to the end of the last instruction."""
    clock_ns: float

    def totals(self) -> dict[Action, int]:
        """Return the events of one inference, summed over owners."""
        total: Counter[Action] = Counter()
        for events in self.events.values():
            total.update(events)
        return dict(sorted(total.items()))


def replay(executable: Executable, inputs: tuple[Array, ...], *, level: Level = "full") -> Replay:
    """Run a program on one input batch of the compiled size, or on several of them in turn.

    Args:
        executable: the program.
        inputs: real numbers (or indices) in the order of the program's inputs.
        level: which steps of a layer are computed on their own; all rules are checked in any case.

    Raises:
        ReplayError: the program breaks a rule; names the instruction.
        EnosError: inputs that do not fit, or that hold NaN or infinity.
    """
    check_program(executable)
    parts = _batches(executable, inputs)
    runs = [_Run(executable, level) for _ in parts]
    outputs = [run.run(part) for run, part in zip(runs, parts, strict=True)]
    joined = tuple(np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
    count = len(inputs[0]) if executable.batch_is_symbolic else None
    program = executable.program
    busy = dict.fromkeys(program.resources, 0)
    for one in program.instructions:
        busy[one.resource] += one.cycles
    return Replay(
        outputs=tuple(array[:count] for array in joined),
        events=runs[0].events,
        setup_events=runs[0].setup_events,
        busy_cycles=busy,
        cycles=max((i.start_cycle + i.cycles for i in program.instructions), default=0),
        clock_ns=program.clock_ns,
    )


def _batches(executable: Executable, inputs: tuple[Array, ...]) -> list[tuple[Array, ...]]:
    """Cut inputs into batches of the compiled size; the last one is filled up with its last row.

    Raises:
        EnosError: a wrong number of inputs, a shape that does not fit, NaN or infinity.
    """
    if len(inputs) != len(executable.inputs):
        raise EnosError(
            f"got {len(inputs)} inputs, the program takes {len(executable.inputs)}",
            place=executable.name,
            remedy=f"give {', '.join(executable.inputs)}",
        )
    free = 1 if executable.batch_is_symbolic else 0
    counts = set()
    for name, array in zip(executable.inputs, inputs, strict=True):
        expected = executable.values[name].shape
        if array.ndim != len(expected) or array.shape[free:] != expected[free:]:
            raise EnosError(
                f"has shape {array.shape}, the program was compiled for {expected}",
                place=f"input {name}",
                remedy="give another batch only" if free else "give exactly this shape",
            )
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise EnosError(
                "holds something that is no finite number",
                place=f"input {name}",
                remedy="clean the input",
            )
        counts.add(len(array))
    if not free:
        return [inputs]
    if len(counts) != 1 or not min(counts):
        raise EnosError(f"inputs have {sorted(counts)} rows", place=executable.name)
    size = executable.batch
    rows = range(0, counts.pop(), size)
    return [tuple(_filled(array[row : row + size], size) for array in inputs) for row in rows]


def _filled(array: Array, size: int) -> Array:
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


@dataclass(slots=True)
class _Run:
    """One inference."""

    executable: Executable
    level: Level
    store: Store = field(init=False)
    cores: Cores = field(init=False)
    views: Mapping[str, VectorKernel] = field(init=False)
    producers: Mapping[str, Layer] = field(init=False)
    events: dict[Item, Counter[Action]] = field(default_factory=dict)
    setup_events: dict[Item, Counter[Action]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.executable.program)
        self.cores = Cores(self.executable, self.store, self.level, self._read)
        self.views = {k.output: k for k in self.executable.vectors.values() if k.is_view}
        self.producers = {k.output: as_layer(k) for k in self.executable.layers.values()}

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return the real outputs of one inference."""
        values = self.executable.values
        for name, codes in self.executable.constants.items():
            self.store.write(name, codes.astype(np.int64))
        for name, real in zip(self.executable.inputs, inputs, strict=True):
            self.store.write(name, input_codes(real, values[name]))
        for name in {k.weights for k in self.executable.layers.values() if k.weights is not None}:
            self.store.place(name)
        program = self.executable.program
        for one in program.setup:
            _book(self.setup_events, one)
        for one in program.instructions:
            try:
                moved = self._execute(one)
            except EnosError as error:
                raise ReplayError(
                    error.message, place=describe(one), remedy=error.remedy or "compile again"
                ) from error
            self._compare(one, moved)
            _book(self.events, one)
        return tuple(self._output(name) for name in self.executable.outputs)

    # Instructions

    def _execute(self, one: Instruction) -> Counter[Action] | None:
        """Run one instruction; return the words that it moved, None where they are not known."""
        if one.layer is not None:
            self._layer(one, self.executable.layers[one.layer])
            return None
        name = one.vector if one.vector is not None else one.host
        if name is not None:
            return self._vector(one, self.executable.vectors[name])
        return self._edge(one)

    def _layer(self, one: Instruction, kernel: LayerKernel) -> None:
        """Run a whole layer, or what an instruction of one of its steps does."""
        run = self.cores.runs[kernel.name]
        expected = {"load": (), "compute": (), "store": (kernel.output,)}
        writes = expected.get(one.op, ()) if one.step is not None else (kernel.output,)
        if one.writes != writes:
            what = ", ".join(one.writes) or "nothing"
            raise refuse(one, f"writes {what}, its result is {', '.join(writes) or 'nothing'}")
        loads = one.step is None or one.op == "load"
        if not loads and one.reads:
            raise refuse(one, "reads what its load has read")
        weights = (kernel.weights,) if kernel.weights and one.step is not None else ()
        places = _places(one, kernel.inputs, kernel.name, weights) if loads else ()
        if one.step is not None:
            self.cores.execute(one, run, places)
            return
        operands = tuple(
            in_format(self._read(place), self.executable.values[place].format, read)
            for place, read in zip(places, kernel.quantized.input_formats, strict=True)
        )
        output = self.executable.values[kernel.output]
        total = layer_total(run.layer, operands)
        self.store.write(kernel.output, stored_total(run.layer, total, output))

    def _vector(self, one: Instruction, kernel: VectorKernel) -> Counter[Action]:
        places = _places(one, kernel.inputs, kernel.name)
        stored = [self.executable.values[place].format for place in places]
        operands = [self._read(place) for place in places]
        moved: Counter[Action] = Counter()
        output = self.executable.values[kernel.output]
        codes = vector_codes(kernel, tuple(map(in_format, operands, stored, kernel.reads))).reshape(
            output.shape
        )
        for place, operand, fmt in zip(places, operands, stored, strict=True):
            count = min(operand.size, codes.size) if kernel.op in SELECTING else operand.size
            bits = self.store.buffers[place].bits if fmt is None else kernel.fetch_bits
            moved += self._words(place, count, bits, write=False)
        self._written_by(one, kernel.output)
        self.store.write(kernel.output, codes)
        bits = self.store.buffers[kernel.output].bits
        return moved + self._words(kernel.output, codes.size, bits, write=True)

    def _edge(self, one: Instruction) -> Counter[Action]:
        """Hand a value over; a copy in a narrower format is written where the edge has one."""
        (source,) = one.reads
        codes, old = self._read(source), self.executable.values[source].format
        moved: Counter[Action] = Counter()
        for copy in one.writes:
            new = self.executable.values[copy].format
            if old is None or new is None or not copy.startswith(f"{source}@"):
                raise refuse(one, f"makes {copy} of {source}, which is no narrower copy of it")
            self.store.write(copy, in_format(codes, old, new))
            moved += self._words(source, codes.size, old.bits, write=False)
            moved += self._words(copy, codes.size, new.bits, write=True)
        return moved

    # What lies where

    def _read(self, name: str, form: tuple[int, ...] | None = None, where: Any = ...) -> IntArray:
        """Return the codes of a value, or those that `where` indexes in `form`.

        Those of a view come from where what it views lies.
        """
        value = self.executable.values[name]
        form = value.shape if form is None else form
        view = self.views.get(name)
        if view is not None:
            codes = vector_codes(view, (self._read(view.inputs[0]),))
            found: IntArray = codes.reshape(form)[where]
            return found
        return self.store.read(name, form, where, signed=value.signed)

    def _written_by(self, one: Instruction, output: str) -> None:
        if one.writes != (output,):
            raise refuse(
                one, f"writes {', '.join(one.writes) or 'nothing'}, its result is {output}"
            )

    def _words(self, name: str, count: int, bits: int, *, write: bool) -> Counter[Action]:
        memory = self.executable.program.memories[self.store.buffers[name].memory]
        action = memory.write if write else memory.read
        return Counter({action: words(count, bits, memory.word_bits)})

    def _compare(self, one: Instruction, moved: Counter[Action] | None) -> None:
        """Refuse an instruction whose claimed words are not those that it moved."""
        if moved is None:
            return
        for memory in self.executable.program.memories.values():
            for action in (memory.read, memory.write):
                claimed = one.events.get(action, 0)
                if claimed != moved[action]:
                    raise refuse(
                        one, f"claims {claimed} of {action}, its accesses make {moved[action]}"
                    )

    def _output(self, name: str) -> Array:
        codes, fmt = self._read(name), self.executable.values[name].format
        if fmt is not None:
            return dequantize(codes, fmt).astype(np.float32)
        producer = self.producers.get(name)
        return codes if producer is None else real_sums(producer, codes)


def _places(
    one: Instruction, inputs: tuple[str, ...], reader: str, beside: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return where each operand of a node lies: the copy made for it, else the value.

    `beside` is what it reads besides its operands.

    Raises:
        ReplayError: the instruction does not read what its node does.
    """
    places = tuple(
        copy if (copy := copy_name(name, reader)) in one.reads else name for name in inputs
    )
    if {*places, *beside} != set(one.reads):
        raise refuse(one, f"its operands are {', '.join(inputs)}")
    return places


def _book(events: dict[Item, Counter[Action]], one: Instruction) -> None:
    if not one.events:
        return
    owner = next(o for o in OWNERS if getattr(one, o) is not None)
    events.setdefault((owner, getattr(one, owner)), Counter()).update(one.events)
