# SPDX-License-Identifier: Apache-2.0
"""The architecture, held by reading the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("plugins", "outputs", "compiled"),
    ("ir",),
    ("spec",),
    ("semantics", "sampling"),
    ("operators", "nn"),
    ("mapping", "crossbar"),
    ("evaluate",),
    ("cores",),
    ("frontend", "assign", "schedule", "simulate", "export", "report"),
    ("search",),
    ("pass_text",),
    ("pipeline",),
    ("explore",),
    ("options",),
    ("checks", "device_accuracy"),
    ("compiler",),
    ("cli",),
)
TIER = {room: i for i, tier in enumerate(TIERS) for room in tier}


def _imports(path: Path, *, top_level_only: bool = False) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of imports, those for type checkers left out."""
    tree = ast.parse(path.read_text())
    typing_only: set[int] = set()
    in_functions: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only |= {id(n) for n in ast.walk(node)}
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            in_functions |= {id(n) for n in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in typing_only or (top_level_only and id(node) in in_functions):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno


def _sources(*folders: str) -> list[Path]:
    return [p for f in folders for p in sorted((ROOT / f).rglob("*.py"))]


def _room(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def test_rooms_import_only_lower_tiers() -> None:
    wrong = []
    for path in _sources("enos_compiler"):
        relative = path.relative_to(ROOT / "enos_compiler")
        if relative.parts == ("__init__.py",):
            continue
        room = relative.parts[0].removesuffix(".py")
        assert room in TIER, f"{room} has no place in the order of the house"
        for module, line in _imports(path):
            if not module.startswith("enos_compiler."):
                continue
            other = _room(module)
            if other == room or other not in TIER:
                continue
            if TIER[other] >= TIER[room]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_a_pass() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in _sources("enos_compiler", "passes", "examples")
        for module, line in _imports(path)
        if module.startswith("enos_compiler.passes")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["ir", "spec", "cli"])
def test_light_rooms_import_torch_late(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in _sources(f"enos_compiler/{room}")
        for module, line in _imports(path, top_level_only=True)
        if module.split(".")[0] in ("torch", "onnx", "onnxruntime", "scipy")
    ]
    assert not wrong, "\n".join(wrong)


def test_passes_and_targets_load_without_torch() -> None:
    """Options, targets and budgets are checked before torch is imported."""
    code = (
        "import sys\n"
        "from enos_compiler import plugins, pass_text\n"
        "from enos_compiler.cores.target import load_target\n"
        "[pass_text.make_pass(n) for n in plugins.names('passes')]\n"
        "[load_target(n) for n in plugins.names('targets')]\n"
        "heavy = [m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules]\n"
        "sys.exit(f'imported early: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_package_is_listed_for_the_wheel() -> None:
    import tomllib

    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    present = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for p in (ROOT / "enos_compiler").rglob("__init__.py")
    }
    assert listed == present | {"enos_compiler.passes", "enos_compiler.targets"}


def test_test_files_have_names_of_their_own() -> None:
    """Test folders are no packages: pytest and mypy know a file by its name alone."""
    found = Counter(p.name for p in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in found.items() if count > 1]
