# SPDX-License-Identifier: Apache-2.0
"""`trace.json`: the program as a timeline for Perfetto (ui.perfetto.dev) and chrome://tracing.

Source: "Trace Event Format" (Google, seen): a JSON object with `traceEvents`; complete events (`X`)
have `ts` and `dur` in microseconds, metadata events (`M`) name processes and threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from enos_compiler.ir.program import Instruction, Program
from enos_compiler.report.timeline import owner_of

_INFERENCE, _SET_UP = 1, 2
"""Process ids: two clocks that start at zero each."""
_WHOLE = 0
"""Thread id of the slice that spans a process."""
_NS_PER_US = 1000.0
_DIGITS = 6
"""Of a microsecond: times are exact to the femtosecond of the fastest clock."""

Event = dict[str, Any]


def trace(report: Mapping[str, Any], program: Program) -> dict[str, Any]:
    """Return the trace of a program.

    One process for the inference and one for the set-up that many inferences share; in each, one
    thread per resource with a slice for every stretch of work of one layer, edge or operation, and
    in it a slice per instruction with its cycles, energy and events.

    Args:
        report: the content of `report.json`: names, prices, totals.
        program: what it reports on.
    """
    prices = report["sections"]["pricing"]["prices"]
    shared = report["sections"]["pricing"]["inferences_per_programming"]
    name = f"{report['model']} on {report['target']}"
    events = list(_process(_INFERENCE, name, program.instructions, prices))
    if program.setup:
        title = f"set-up, once per {shared:,} inferences"
        events += _process(_SET_UP, title, program.setup, prices)
    return {
        "displayTimeUnit": "ns",
        "otherData": {
            "model": report["model"],
            "target": report["target"],
            "energy_pj": report["totals"]["energy_pj"],
            "latency_ns": report["totals"]["latency_ns"],
            "versions": dict(report["versions"]),
        },
        "traceEvents": events,
    }


def write_trace(report: Mapping[str, Any], program: Program, path: Path) -> None:
    """Write the trace of a program as one event per line."""
    document = trace(report, program)
    events = document.pop("traceEvents")
    head = json.dumps(document, allow_nan=False)[:-1]
    rows = ",\n".join(json.dumps(event, allow_nan=False) for event in events)
    path.write_text(f'{head}, "traceEvents": [\n{rows}\n]}}\n', encoding="utf-8")


def _process(
    pid: int, name: str, instructions: Sequence[Instruction], prices: Mapping[str, Any]
) -> Iterator[Event]:
    resources = list(dict.fromkeys(i.resource for i in instructions))
    yield _naming("process_name", pid, _WHOLE, name=name)
    yield _naming("process_sort_index", pid, _WHOLE, sort_index=pid)
    end_ns = max((i.end_ns for i in instructions), default=0.0)
    threads = ("whole", *resources)
    for tid, thread in enumerate(threads):
        yield _naming("thread_name", pid, tid, name=thread)
        yield _naming("thread_sort_index", pid, tid, sort_index=tid)
    energy = sum(_energy_pj(i, prices) for i in instructions)
    whole = {"instructions": len(instructions), "energy_pj": energy}
    yield _slice(name, "whole", pid, _WHOLE, (0.0, end_ns), whole)
    for tid, resource in enumerate(resources, start=_WHOLE + 1):
        own = sorted(
            (i for i in instructions if i.resource == resource), key=lambda i: (i.start_ns, i.id)
        )
        yield from _thread(own, pid, tid, prices)


def _thread(
    instructions: Iterable[Instruction], pid: int, tid: int, prices: Mapping[str, Any]
) -> Iterator[Event]:
    """Yield the slices of one resource: a stretch per owner, its instructions within."""
    for (kind, name), group in groupby(instructions, key=owner_of):
        stretch = list(group)
        span = stretch[0].start_ns, max(i.end_ns for i in stretch)
        energies = [_energy_pj(i, prices) for i in stretch]
        whole = {"instructions": len(stretch), "energy_pj": sum(energies)}
        yield _slice(name, kind, pid, tid, span, whole)
        for instruction, energy in zip(stretch, energies, strict=True):
            details = {
                "id": instruction.id,
                "cycles": instruction.cycles,
                "energy_pj": energy,
                "reads": list(instruction.reads),
                "writes": list(instruction.writes),
                "after": list(instruction.after),
                "events": dict(instruction.events),
            }
            span = instruction.start_ns, instruction.end_ns
            yield _slice(instruction.op, kind, pid, tid, span, details)


def _energy_pj(instruction: Instruction, prices: Mapping[str, Any]) -> float:
    return float(sum(n * prices[action]["energy_pj"] for action, n in instruction.events.items()))


def _naming(what: str, pid: int, tid: int, **content: Any) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": content}


def _slice(
    name: str, kind: str, pid: int, tid: int, span_ns: tuple[float, float], args: Event
) -> Event:
    """Return a complete event; ends are rounded alike, so that slices stay nested."""
    start, end = (round(ns / _NS_PER_US, _DIGITS) for ns in span_ns)
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": pid,
        "tid": tid,
        "ts": start,
        "dur": round(end - start, _DIGITS),
        "args": args,
    }
