# SPDX-License-Identifier: Apache-2.0
"""How many mappings narrow operands open: exact counts per layer and bit setting.

Narrower operands leave more room in every memory, so that nests which did not fit begin to. The
count is exact (see `mapping.size`), where the paper samples.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from xml.sax.saxutils import escape

from enos_compiler.cores.loopnest import LoopNestCore
from enos_compiler.errors import UsageError
from enos_compiler.explore.hardware import place
from enos_compiler.explore.vary import ChipRecipe
from enos_compiler.explore.workers import Workers
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Layer, Network
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.prices import Widths

_WIDTH, _HEIGHT, _LEFT, _ROW = 760, 18, 250, 22


@dataclass(frozen=True, slots=True)
class Counted:
    """The valid mappings of one layer at one bit setting, every value in DRAM."""

    layer: str
    shape: str
    bits: Bits
    mappings: int


@dataclass(frozen=True, slots=True)
class _Question:
    layer: Layer
    choice: Choice


def parse_triples(text: str) -> tuple[Bits, ...]:
    """Parse `8/8/8,8/4/8`, input/weight/output bits.

    Raises:
        UsageError: another form, or widths outside 2..8.
    """
    found = []
    for word in text.split(","):
        parts = word.strip().split("/")
        if len(parts) != 3 or not all(p.isdecimal() and 2 <= int(p) <= 8 for p in parts):
            raise UsageError(
                f"`{word.strip()}` is not input/weight/output bits of 2..8",
                place="--count",
                remedy="--count 8/8/8,8/4/8,4/4/4",
            )
        found.append(Bits(*map(int, parts)))
    return tuple(dict.fromkeys(found))


def count(
    network: Network,
    chip: ChipRecipe,
    triples: Sequence[Bits],
    workers: Workers,
    say: Callable[[str], None],
) -> list[Counted]:
    """Return the counts of every layer, in the order of layers and settings.

    Settings that pack alike are counted once.

    Raises:
        UsageError: a layer runs on a core that has no mappings to count.
    """
    target = chip.build()
    placed = place(network, target, sorted({bits for triple in triples for bits in triple}))
    asked: dict[tuple[str, Bits], _Question] = {}
    keys: dict[tuple[LayerShape, Widths], _Question] = {}
    for name, layer in placed.network.layers.items():
        core = _core(target.cores[placed.choices[name].core], name)
        for bits in triples:
            choice = placed.at(name, bits)
            question = _Question(layer, choice)
            key = (layer.shape, core.widths(layer.shape, choice))
            asked[name, bits] = keys.setdefault(key, question)
    say(f"counting {len(keys)} distinct settings of {len(placed.network.layers)} layers")
    distinct = list(keys.values())
    numbers = dict(workers.run(partial(_counted, chip, tuple(distinct)), range(len(distinct))))
    known = {id(q): numbers[i] for i, q in enumerate(distinct)}
    return [
        Counted(name, str(placed.network.layers[name].shape), bits, known[id(question)])
        for (name, bits), question in asked.items()
    ]


def _core(core: object, layer: str) -> LoopNestCore:
    if not isinstance(core, LoopNestCore):
        raise UsageError(
            f"layer {layer} runs on a core that has no mappings to count",
            place="--count",
            remedy="--target eyeriss or --target simba",
        )
    return core


def _counted(chip: ChipRecipe, questions: tuple[_Question, ...], number: int) -> int:
    question = questions[number]
    core = _core(chip.build().cores[question.choice.core], question.layer.name)
    return core.count_nests(core.task(question.layer, question.choice))


def as_csv(rows: Iterable[Counted]) -> str:
    """Return the counts as a table: layer, shape, bits, mappings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "shape", "input_bits", "weight_bits", "output_bits", "mappings"])
    for row in rows:
        writer.writerow([row.layer, row.shape, *row.bits, row.mappings])
    return text.getvalue()


def as_svg(rows: Sequence[Counted]) -> str:
    """Return a picture: mappings of each layer and setting against the layer's first setting."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(row.layer, row.mappings)
    shares = [row.mappings / max(1, first[row.layer]) for row in rows]
    scale = (_WIDTH - _LEFT - 90) / max([1.0, *shares])
    height = _ROW * (len(rows) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>Mappings that fit, against the first setting of the layer</title>",
    ]
    for number, (row, share) in enumerate(zip(rows, shares, strict=True)):
        y = _ROW * number + 6
        text = escape(f"{row.layer} {row.bits}")
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{text}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{share * scale:.1f}" height="{_HEIGHT}" '
            f'fill="#4477aa"><title>{row.mappings:,} mappings</title></rect>',
            f'<text x="{_LEFT + share * scale + 6:.1f}" y="{y + 13}">x {share:.3f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
