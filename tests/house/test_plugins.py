# SPDX-License-Identifier: Apache-2.0
"""A stranger's package, installed beside this one, adds a pass and a chip."""

from __future__ import annotations

import json
import site
import subprocess
import sys
import sysconfig
import venv
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from enos_compiler import plugins
from enos_compiler.errors import EnosError, UsageError

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "stranger"
version = "1"
[project.entry-points."enos_compiler.passes"]
count-layers = "stranger:CountLayers"
[project.entry-points."enos_compiler.targets"]
strange-chip = "stranger:strange_chip.yaml"
[tool.setuptools]
packages = ["stranger"]
[tool.setuptools.package-data]
stranger = ["*.yaml"]
"""

PASS = '''
from dataclasses import dataclass
from typing import ClassVar

from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class CountLayers(Pass):
    """Count the layers of the network."""

    name: ClassVar[str] = "count-layers"
    requires: ClassVar = frozenset({"shaped"})

    times: int = 1
    """How often to count each."""

    def run(self, network, context: Context):
        return network.with_section(self.name, {"layers": self.times * len(network.layers)})
'''

MODEL = """
import torch


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.Flatten(),
        torch.nn.Linear(8 * 4 * 4, 5),
    )


def example_inputs():
    return (torch.rand(4, 3, 8, 8),)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that sees this one's packages and has the stranger's installed."""
    root = tmp_path_factory.mktemp("stranger")
    package = root / "source" / "stranger"
    package.mkdir(parents=True)
    (root / "source" / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").write_text(PASS)
    chip = yaml.safe_load(files("enos_compiler.targets").joinpath("hybrid.yaml").read_text())
    chip["name"] = "strange-chip"
    (package / "strange_chip.yaml").write_text(yaml.safe_dump(chip, sort_keys=False))
    venv.create(root / "venv", with_pip=False)
    scripts = root / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = {"base": str(root / "venv"), "platbase": str(root / "venv")}
    inner = Path(sysconfig.get_path("purelib", vars=paths))
    assert version in str(inner) or sys.platform == "win32"
    outer = [sysconfig.get_path("purelib"), *site.getsitepackages()]
    lines = [f"import site; site.addsitedir({folder!r})" for folder in dict.fromkeys(outer)]
    (inner / "outer.pth").write_text("\n".join(lines) + "\n")
    build = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    build += ["--no-build-isolation", "--target", str(inner), str(root / "source")]
    subprocess.run(build, check=True, capture_output=True)
    return scripts / "python"


def _enosc(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from enos_compiler.cli.enosc import main; sys.exit(main())"
    return subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, cwd=folder, check=False
    )


def test_a_strangers_pass_and_chip_are_found_run_and_priced(python: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    passes = (
        "canonicalize,count-layers{times=2},attach-choices{operators=mac},sensitivity,assign,"
        "quantize,map-digital,map-cim,schedule"
    )
    done = _enosc(
        python, tmp_path, "net.py", "--target", "strange-chip", "--passes", passes, "-o", "out"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["target"] == "strange-chip"
    assert report["sections"]["count-layers"] == {"layers": 6}
    assert report["totals"]["energy_pj"] > 0


def test_a_strangers_pass_is_documented(python: Path, tmp_path: Path) -> None:
    done = _enosc(python, tmp_path, "--help-pass", "count-layers")
    assert "Count the layers of the network." in done.stdout
    assert "How often to count each." in done.stdout


def test_unknown_names_tell_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        plugins.entry("targets", "hybird")
    assert str(caught.value).startswith("unknown target `hybird`\n  try: hybrid (known: ")


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("bad", "enos_compiler_no_such_module:Thing", "enos_compiler.passes")
    monkeypatch.setattr(plugins, "_points", lambda _group: {"bad": broken})
    with pytest.raises(EnosError, match=r"`bad` of package .* cannot be imported: ModuleNotFound"):
        plugins.load("passes", "bad")
