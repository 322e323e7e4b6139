# SPDX-License-Identifier: Apache-2.0
"""What all tests share: reference data by environment variable, seeds, summary lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

pytest_plugins = ("browser_fixtures", "search_fixtures")

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: the commands do the same

# A change is judged by the same examples each time; away from CI hypothesis looks for new ones.
settings.register_profile("ci", derandomize=True)
if "CI" in os.environ:
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data; a clone without it skips what needs it."""
    folder = Path(os.environ.get("ENOS_SHARED", ROOT / ".." / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder}; set ENOS_SHARED")
    return folder


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a line at the end of the run, whatever the capture: `say("400 of 400 cases equal")`."""
    return lambda text: record_property("summary", text)


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker() -> None:
    """Parallel workers share the cores; more threads than cores only slow each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests said with `say`."""
    lines = [
        f"{report.nodeid.split('::')[-1]}: {text}"
        for report in terminalreporter.getreports("passed")
        for name, text in report.user_properties
        if name == "summary"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
