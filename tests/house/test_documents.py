# SPDX-License-Identifier: Apache-2.0
"""What the documents show runs, and what they name exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from enos_compiler.cores.target import load_target
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import load_user_model
from enos_compiler.options import Options
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pipeline

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]


def _snippets(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_readme_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of one's own, then its compilation from Python."""
    monkeypatch.chdir(tmp_path)
    network, compilation = _snippets("README.md")
    (tmp_path / "my_net.py").write_text(network)
    namespace: dict[str, Any] = {}
    exec(compile(network + compilation, "README.md", "exec"), namespace)
    assert namespace["outputs"][0].shape == (8, 10)
    assert (tmp_path / "build" / "mine" / "report.json").is_file()


def test_the_contributors_pass_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "contributed_pass.py").write_text(_snippets("CONTRIBUTING.md")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    contributed = importlib.import_module("contributed_pass")
    user = load_user_model(str(ROOT / "examples" / "digits.py"))
    passes = parse_passes(Options(search="none").pipeline(can_train=False).split(",quantize")[0])
    steps = [*passes, contributed.CountCores(least_macs=1000)]
    network = Pipeline(steps).run(trace(user), Context(target=load_target("hybrid"), user=user))
    counted = network.sections["count-cores"]["macs"]
    assert counted["mac"] == sum(
        layer.shape.macs for layer in network.layers.values() if layer.shape.macs >= 1000
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    missing = [t for t in links if not ((ROOT / document).parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(
        r"`((?:enos_compiler|tests|targets|examples|benchmarks|docs)/[\w./-]+)`", text
    )
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing
