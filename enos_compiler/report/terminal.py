# SPDX-License-Identifier: Apache-2.0
"""The report as a person reads it in a terminal of 80 columns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from enos_compiler.ir.units import energy_text, measure_text, time_text
from enos_compiler.report.crossbars import crossbar_lines
from enos_compiler.report.names import short_names
from enos_compiler.report.refusals import not_offered, particular

WIDTH = 80
_BAR = 8
"""Width of the bar of a layer's share."""
_NAME = 21
"""Longest layer name; of longer ones the middle is left out."""

Report = Mapping[str, Any]


def print_summary(report: Report, output: Path | None = None, file: IO[str] | None = None) -> None:
    """Print what was compiled, what it costs beside the baseline, notes and refusals.

    Args:
        report: the content of `report.json`.
        output: the folder that the files were written to.
        file: where to print; by default stdout. Colours only on a terminal, `NO_COLOR` is kept.
    """
    console = Console(file=file, width=WIDTH, highlight=False, emoji=False, markup=False)
    totals = report["totals"]
    head = Text.assemble(
        "compiled ",
        (report["model"], "bold"),
        f" for {report['target']}: ",
        (energy_text(totals["energy_pj"]), "bold green"),
        f", {time_text(totals['latency_ns'])} an inference",
        _batch_share(report),
    )
    with console.capture() as captured:
        console.print(head)
        if output is not None:
            console.print(f"  written to {output}/", soft_wrap=True)
        console.print()
        console.print(_layers(report, ascii_only=not _draws_blocks(console)))
        console.print()
        if "devices" in report["sections"]:
            console.print(_components(report))
            console.print()
        console.print(_facts(report))
        for title, lines in (("Notes", _notes(report)), ("Refused", particular(report))):
            shown = list(lines)
            if shown:
                console.print()
                console.print(Text(title, style="bold"))
                for line in shown:
                    console.print(Padding(line, (0, 0, 0, 2)))
    lines_out = (line.rstrip() for line in captured.get().splitlines())
    console.file.write("\n".join(lines_out) + "\n")


def _draws_blocks(console: Console) -> bool:
    try:
        "█…".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _batch_share(report: Report) -> str:
    """Return the batch of an inference and the energy of each entry; "" for a batch of one.

    Entries are images where they are independent of each other, so that the batch is free.
    """
    batch = report["batch"]
    if batch == 1:
        return ""
    each = energy_text(report["totals"]["energy_pj"] / batch)
    return f" of batch {batch}, {each} {'a row' if _batch_note(report) else 'an image'}"


def _batch_note(report: Report) -> str:
    """Return why the batch is fixed, without the words that say that it is; "" if it is free."""
    note = str(report["sections"].get("canonicalize", {}).get("note", ""))
    return note.removeprefix(f"the batch is fixed at {report['batch']}: ")


def _layers(report: Report, *, ascii_only: bool) -> Table:
    """Return a row a layer, then a row for each other part of the energy."""
    total_pj = report["totals"]["energy_pj"] or 1.0
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("layer", no_wrap=True)
    table.add_column("operator", no_wrap=True, max_width=8)
    table.add_column("core", no_wrap=True, max_width=8)
    table.add_column("bits", no_wrap=True)
    for name in ("energy", "latency", "share"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("", no_wrap=True)
    mark = "#" if ascii_only else "█"
    labels = short_names(
        [layer["name"] for layer in report["layers"]], _NAME, ".." if ascii_only else "…"
    )
    for layer in report["layers"]:
        bits = layer["bits"]
        share = layer["energy_pj"] / total_pj
        table.add_row(
            labels[layer["name"]],
            layer["operator"],
            layer["core"],
            f"{bits['input']}/{bits['weight']}/{bits['output']}",
            energy_text(layer["energy_pj"]),
            time_text(layer["latency_ns"]),
            f"{share:.1%}",
            mark * round(_BAR * share),
        )
    for name, key in (
        ("edges", "edges_pj"),
        ("vector operations", "vector_pj"),
        ("host operations", "host_pj"),
        ("programming weights", "programming_pj"),
        ("leakage", "leakage_pj"),
    ):
        spent = report["totals"][key]
        if spent:
            share = spent / total_pj
            cells = (energy_text(spent), "", f"{share:.1%}", mark * round(_BAR * share))
            table.add_row(name, "", "", "", *cells, style="dim")
    return table


def _facts(report: Report) -> Table:
    """Return totals against the baseline, accuracy, budget, pricing and checks."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _fact_lines(report):
        table.add_row(name, value)
    return table


def _fact_lines(report: Report) -> Iterator[tuple[str, str]]:
    totals, baseline = report["totals"], report["baseline"]
    for name, key, text in (
        ("energy", "energy_pj", energy_text),
        ("latency", "latency_ns", time_text),
    ):
        here, there = totals[key], baseline[key]
        change = f", {here / there - 1:+.1%}" if there else ""
        yield name, f"{text(here)} against {text(there)} of {baseline['name']}{change}"
    if stream := report["sections"].get("schedule", {}).get("frames"):
        yield "stream", _stream(stream)
    yield "accuracy", _accuracy(report)
    if "devices" in report["sections"]:
        yield "on devices", _on_devices(report["sections"]["devices"])
    if untrained := _untrained(report):
        yield "untrained", untrained
    if (budget := report["budget"]) is not None:
        allowed = budget["energy_pj"]
        yield (
            "budget",
            f"{budget['spec']} = {energy_text(allowed)}; floor "
            f"{energy_text(budget['floor_pj'])}, slack {energy_text(budget['slack_pj'])}",
        )
    if held := report["sections"].get("assign", {}).get("measure"):
        yield "budget", _held(report["sections"]["assign"]["budget"], held)
    yield from _pricing_lines(report)
    yield from crossbar_lines(report)
    if note := _batch_note(report):
        yield "batch", f"fixed at {report['batch']}: {note}"
    if lacking := not_offered(report):
        yield "not offered", f"{lacking}  (why: refusals in report.json)"
    yield from _sampling(report)
    yield "checks", _checks(report["checks"])


def _held(spec: str, held: Mapping[str, Any]) -> str:
    """Return how a measure other than energy stands to its bound."""
    text = partial(measure_text, held["name"])
    bound = "no bound" if held["allowed"] is None else text(held["allowed"])
    return (
        f"{spec} = {bound}; {held['name']} {text(held['value'])}, least {text(held['floor'])}, "
        f"all-MAC {text(held['baseline'])}"
    )


def _stream(frames: Mapping[str, Any]) -> str:
    """Return the rate of frames one behind the other, and what sets it."""
    return (
        f"{frames['frames']:,} frames, one every {time_text(frames['interval_ns'])} "
        f"({frames['per_second']:,.0f} a second, {frames['limit']} allows no more); "
        f"{time_text(frames['total_ns'])} in all, {energy_text(frames['energy_pj'])} each"
    )


def _accuracy(report: Report) -> str:
    """Return the accuracy; where it was not measured, how far the outputs lie from float."""
    if (accuracy := report["accuracy"]) is not None:
        return (
            f"{accuracy['reference']:.2%} before, {accuracy['compiled']:.2%} compiled, "
            f"on {accuracy['images']:,} images"
        )
    text = "not measured: the model file has no test data"
    if (noise := report["sections"].get("output-noise")) is None:
        return text
    inputs = f"{noise['inputs']:,} example input{'' if noise['inputs'] == 1 else 's'}"
    return (
        f"{text}; outputs have a signal-to-noise ratio of {noise['snr_db']:.1f} dB against the "
        f"float network on {inputs}"
    )


def _sampling(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what each sampler gives: effective samples, their energy, uncertainty on a device."""
    for name, found in report["sections"].get("sample", {}).items():
        spread = found["uncertainty"]
        real = spread["real device"]
        quality = f"{found['samples']:,} of chains too short to judge"
        if found["effective_samples"] and found["r_hat"]:
            energy = energy_text(found["energy_per_effective_sample_pj"])
            quality = (
                f"{found['effective_samples']:.0f} effective of {found['samples']:,}, "
                f"{energy} each, R-hat {found['r_hat']:.3f}"
            )
        yield (
            "samples",
            f"{name}: {quality}, acceptance {found['acceptance']:.0%}; "
            f"predictive deviation {spread['exact']['sd']:.3f} exact, "
            f"{spread['ideal device']['sd']:.3f} on an ideal device, {real['sd']:.3f} on a real "
            f"one (means off by {real['mean_error_sd']:.2f} deviations)",
        )
        for warning in found["warnings"]:
            yield "warning", f"{name}: {warning}"


def _on_devices(found: Mapping[str, Any]) -> str:
    """Return the accuracy on samples of the chip, its interval, and what it rests on."""
    count, images = len(found["devices"]), found["images"]
    names = sorted({name for wrong in found["nonidealities"].values() for name in wrong})
    text = (
        f"{found['accuracy']:.2%}, {found['confidence']:.0%} interval {found['low']:.2%} to "
        f"{found['high']:.2%}, on {images:,} images"
    )
    layers = found["saturation"]["layers"].values()
    conversions = sum(layer["conversions"] for layer in layers)
    clipped = sum(layer["clipped"] for layer in layers)
    if not found["nonidealities"]:
        return f"{text}; no layer lies on a crossbar"
    if count:
        text += f" and {count} devices; {found['ideal']:.2%} with nothing wrong"
    else:
        text += "; the chip names nothing that is wrong with its devices"
    if conversions:
        text += f"; {clipped / conversions:.2%} of conversions clip"
    return f"{text} ({', '.join(names)})" if names else text


def _components(report: Report) -> Table:
    """Return what each component of the chip spends on the layers."""
    total_pj = report["totals"]["energy_pj"] or 1.0
    spent: Counter[str] = Counter()
    for layer in report["layers"]:
        for name, energy in layer["components"].items():
            spent[name] += energy
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("component", no_wrap=True)
    table.add_column("energy", no_wrap=True, justify="right")
    table.add_column("share", no_wrap=True, justify="right")
    for name, energy in spent.most_common():
        table.add_row(name, energy_text(energy), f"{energy / total_pj:.1%}")
    return table


def _untrained(report: Report) -> str:
    """Return which layers run operators that need training though nothing trained them."""
    sections = report["sections"]
    if sections.get("search", {}).get("trained") or "finetune" in sections:
        return ""
    concerned = set(sections.get("sensitivity", {}).get("needs_training", ()))
    counts = Counter(row["operator"] for row in report["layers"] if row["name"] in concerned)
    if not counts:
        return ""
    listing = ", ".join(
        f"{operator} for {count} layer{'' if count == 1 else 's'}"
        for operator, count in counts.items()
    )
    remedy = (
        "give the file a data() function"
        if report["accuracy"] is None
        else "let --search single or --finetune train them"
    )
    return f"{listing}: these operators need training ({remedy})"


def _pricing_lines(report: Report) -> Iterator[tuple[str, str]]:
    pricing = report["sections"]["pricing"]
    if pricing["set_up"]["energy_pj"]:
        yield (
            "set-up",
            f"{energy_text(pricing['set_up']['energy_pj'])} in "
            f"{time_text(pricing['set_up']['latency_ns'])} to program weights, once per "
            f"{pricing['inferences_per_programming']:,} inferences",
        )


def _checks(checks: Mapping[str, Any]) -> str:
    steps = checks["onnx_max_steps"]
    if steps is None:
        return "not run"
    if steps:
        return f"ONNX Runtime differs by up to {steps} steps from the reference ({checks['level']})"
    equal = "ONNX Runtime equals"
    if checks.get("simulator_max_steps") == 0:
        equal = "ONNX Runtime and the replayed program equal"
    return f"{equal} the integer reference ({checks['level']})"


def _notes(report: Report) -> Iterator[str]:
    """Yield what runs elsewhere than one might expect, and notes of the passes."""
    if report["host"]:
        by_op: dict[str, int] = defaultdict(int)
        for row in report["host"]:
            by_op[row["op"]] += 1
        listing = ", ".join(f"{count} x {op}" for op, count in by_op.items())
        yield f"host executes {listing}"
    for name, section in report["sections"].items():
        for note in section.get("notes") or ():
            yield f"{name}: {note}"
