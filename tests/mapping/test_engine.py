# SPDX-License-Identifier: Apache-2.0
"""Plain and compiled kernel: the same results, and no compiling behind anyone's back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from small_machines import four_levels, random_shape, three_levels

from enos_compiler.errors import InfeasibleError, UsageError
from enos_compiler.mapping import engine
from enos_compiler.mapping.mapper import MapResult, map_layer
from enos_compiler.mapping.prices import Widths


def solve(seed: int, form: engine.Engine) -> MapResult | None:
    rng = random.Random(seed)
    machine = three_levels(rng, limited=True) if seed % 3 else four_levels(rng)
    shape = random_shape(rng, 200)
    widths = Widths(4, 4, 2, 8) if seed % 2 else None
    try:
        return map_layer(shape, machine, objective="edp", widths=widths, engine=form)
    except InfeasibleError:
        return None


@pytest.mark.slow
def test_compiled_and_plain_kernel_agree() -> None:
    """Same nest, same cost, same certificate; compiles the kernel where it is not cached."""
    pytest.importorskip("numba")
    found = 0
    for seed in range(40):
        plain, compiled = solve(seed, "numpy"), solve(seed, "numba")
        assert (plain is None) == (compiled is None)
        if plain is not None and compiled is not None:
            found += 1
            assert plain.nest == compiled.nest
            assert plain.certificate.value == pytest.approx(compiled.certificate.value, rel=1e-13)
            assert plain.certificate.opened == compiled.certificate.opened
    assert found > 30


def test_nothing_is_compiled_until_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ENOS_MAPPER_ENGINE", raising=False)
    assert engine.available() == "numpy"
    engine.cache_folder().mkdir(parents=True)
    assert engine.available() == "numpy"
    if engine.numba_version():
        (engine.cache_folder() / "complete").touch()
        assert engine.available() == "numba"


def test_engine_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENOS_MAPPER_ENGINE", "numpy")
    assert engine.available() == "numpy"
    monkeypatch.setenv("ENOS_MAPPER_ENGINE", "nunba")
    with pytest.raises(UsageError, match="`nunba` is no engine of the mapper\n  try: numba"):
        engine.available()


def test_advice_is_given_only_where_it_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where numba is installed, the kernel is not compiled, and nobody chose the plain form."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ENOS_MAPPER_ENGINE", raising=False)
    monkeypatch.setattr(engine, "numba_version", lambda: "0.60")
    line = engine.advice()
    assert line is not None
    assert "enos-map --compile" in line
    monkeypatch.setenv("ENOS_MAPPER_ENGINE", "numpy")
    assert engine.advice() is None
    monkeypatch.delenv("ENOS_MAPPER_ENGINE")
    engine.cache_folder().mkdir(parents=True)
    (engine.cache_folder() / "complete").touch()
    assert engine.advice() is None
    (engine.cache_folder() / "complete").unlink()
    monkeypatch.setattr(engine, "numba_version", lambda: "")
    assert engine.advice() is None
