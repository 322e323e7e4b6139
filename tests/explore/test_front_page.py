# SPDX-License-Identifier: Apache-2.0
"""front.html in a real browser: silent, offline, and with the numbers of front.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from browser import Browser

from enos_compiler.explore.front import Point, save_front

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;{{data}}"
LAYERS = ("first", *(f"block_{i}_depthwise" for i in range(18)), HOSTILE)


def point(bits: int, accuracy: float, energy: float, origin: str) -> Point:
    parts = {"dram.device": 0.75 * energy, "array.element": 0.25 * energy}
    known = {"accuracy": accuracy, "energy": energy, "latency": 1234.5, "memory": 8192.0 * bits}
    widths = {name: (bits, max(2, bits - i % 3)) for i, name in enumerate(LAYERS)}
    return Point(widths, known, "qat", 2, origin, None, "eyeriss", parts)


def written(folder: Path) -> dict[str, Any]:
    """Write a front of three points beside two uniform networks; return what its JSON says."""
    points = [
        point(8, 0.915, 2.5e6, "nsga2"),
        point(5, 0.91, 1.5e6, "greedy"),
        point(2, 0.4, 0.7512345e6, "gradient"),
    ]
    uniform = [point(2, 0.3, 0.9e6, "uniform"), point(8, 0.91, 3e6, "uniform")]
    about = {
        "model": HOSTILE,
        "target": "eyeriss",
        "versions": {"enos-compiler": "0"},
        "bits": [2, 5, 8],
        "evaluations": 1234,
        "hypervolumes": [0.5, 0.6, 0.625],
        "uniform": [asdict(p) for p in uniform],
    }
    save_front(folder, points, ("accuracy", "energy"), about)
    content: dict[str, Any] = json.loads((folder / "front.json").read_text())
    return content


@pytest.mark.parametrize(("width", "scheme"), [(1400, "dark"), (390, "light")])
def test_silent_and_offline_at_any_size(
    page: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    written(tmp_path)
    page.open(tmp_path / "front.html", width=width, scheme=scheme)
    assert page.errors == []
    assert page.requests == [(tmp_path / "front.html").resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ids = page.evaluate("[...document.querySelectorAll('main section')].map(s => s.id)")
    assert ids == ["front", "bits", "parts", "progress", "points"]
    assert page.evaluate("document.querySelector('h1').textContent") == f"{HOSTILE} on eyeriss"


def test_numbers_are_those_of_the_front(page: Browser, tmp_path: Path) -> None:
    found = written(tmp_path)
    page.open(tmp_path / "front.html")
    rows = page.evaluate(
        "[...document.querySelectorAll('#points tbody tr')].map(r => Object.fromEntries("
        "[...r.querySelectorAll('data')].map(d => [d.dataset.objective, Number(d.value)])))"
    )
    assert rows == [p["objectives"] for p in found["points"]]
    volumes = "[...document.querySelectorAll('[data-generation]')].map(d => +d.dataset.value)"
    assert page.evaluate(volumes) == found["hypervolumes"]
    cells = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-cell]')]"
        ".map(c => [c.dataset.cell, Number(c.textContent)]))"
    )
    assert cells == {
        f"{i} {j}": p["bits"][name][1]
        for i, p in enumerate(found["points"])
        for j, name in enumerate(LAYERS)
    }
    tile = page.evaluate("document.querySelector('.tile:last-child data').value")
    assert float(tile) == 1.5e6  # the least that keeps 91 %, that of 8 bits everywhere


def test_a_chosen_point_shows_its_energies_and_bits(page: Browser, tmp_path: Path) -> None:
    found = written(tmp_path)
    page.open(tmp_path / "front.html")
    page.evaluate("document.querySelector('[data-point=\"2\"]').dispatchEvent(new Event('click'))")
    page.settle()
    parts = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('data[data-part]')]"
        ".map(d => [d.dataset.part, [Number(d.dataset.before), Number(d.value)]]))"
    )
    del parts["all"]
    before, after = found["uniform"][-1]["parts_pj"], found["points"][2]["parts_pj"]
    assert parts == {name: [before[name], after[name]] for name in before}
    assert "front.json#2" in page.evaluate("document.querySelector('.command').textContent")
    move = "new PointerEvent('pointermove', {bubbles: true, clientX: 300, clientY: 300})"
    page.evaluate(f"document.querySelector('[data-point=\"2\"]').dispatchEvent({move})")
    listed = page.evaluate(
        "[...document.querySelectorAll('#tip .bitlist span')].map(s => s.textContent)"
    )
    widths = [text.rsplit(" ", 1)[1] for text in listed]
    assert widths == [f"{a}/{w}" for a, w in found["points"][2]["bits"].values()]
