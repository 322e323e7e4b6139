# SPDX-License-Identifier: Apache-2.0
"""Evaluations on other processes: deaths are repeated, results are those of a serial run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from explore_model import MODEL

from enos_compiler.cli.enos_explore import main as enos_explore
from enos_compiler.errors import EnosError, UsageError
from enos_compiler.explore.workers import ATTEMPTS, Workers, parse_workers


def square(number: int) -> int:
    return number * number


def dies_once(folder: Path, number: int) -> int:
    """Kill this worker the first time that 5 is asked."""
    marker = folder / "died"
    if number == 5 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def always_dies(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuses(number: int) -> int:
    raise UsageError(f"{number} is wrong", place="here", remedy="another")


def test_a_dead_process_is_replaced_and_its_work_repeated(tmp_path: Path) -> None:
    found = list(Workers("loky", 2).run(partial(dies_once, tmp_path), range(12)))
    assert sorted(found) == [(n, n * n) for n in range(12)]
    assert (tmp_path / "died").exists()


def test_workers_that_always_die_end_the_run() -> None:
    with pytest.raises(EnosError, match=f"died {ATTEMPTS} times without a result"):
        list(Workers("loky", 2).run(always_dies, range(3)))


def test_the_evaluations_own_error_arrives_whole() -> None:
    with pytest.raises(UsageError, match="is wrong") as caught:
        list(Workers("loky", 2).run(refuses, range(3)))
    assert (caught.value.place, caught.value.remedy) == ("here", "another")


def test_workers_are_parsed() -> None:
    assert parse_workers("serial") == (Workers(), None)
    assert parse_workers("loky:3") == (Workers("loky", 3), None)
    assert parse_workers("dask:tcp://host:8786") == (Workers("dask"), "tcp://host:8786")
    for text in ("loky:0", "loky:x", "ray", "serial:2"):
        with pytest.raises(UsageError, match="names no workers"):
            parse_workers(text)


def test_a_cluster_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("enos_compiler.explore.workers.CONNECT_S", 1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    assert enos_explore(["net.py", "--workers", "dask:tcp://127.0.0.1:9", "-o", "out"]) == 2
    assert "no cluster answers within 1 s" in capsys.readouterr().err


def test_a_cluster_that_loses_a_worker_finds_the_serial_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two worker processes, one of them killed once measurements have begun."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    words = ["net.py", "--bits", "2,4,8", "--generations", "3", "--float-epochs", "1", "-q"]
    words += ["--greedy", "4", "--population", "6", "--mapping-cache", "cache"]
    assert enos_explore([*words, "-o", "serial"]) == 0
    journal = tmp_path / "cluster" / "journal.jsonl"
    killed: list[int] = []

    with distributed.LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client:
            processes = list(client.run(os.getpid).values())

        def kill() -> None:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline:
                if journal.exists() and journal.read_text().count("accuracy") >= 2:
                    os.kill(processes[0], signal.SIGKILL)
                    killed.append(processes[0])
                    return
                time.sleep(0.005)

        assassin = threading.Thread(target=kill, daemon=True)
        assassin.start()
        address = cluster.scheduler_address
        assert enos_explore([*words, "-o", "cluster", "--workers", f"dask:{address}"]) == 0
        assassin.join()
    assert len(killed) == 1
    serial, found = (
        json.loads((tmp_path / name / "front.json").read_text()) for name in ("serial", "cluster")
    )
    assert found == serial
