# SPDX-License-Identifier: Apache-2.0
"""The search end to end on a few digits: budget, seeds, resuming, and what follows it."""

from __future__ import annotations

import random
from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest
import torch
from small_network import build, chip, offer
from torch.utils.data import TensorDataset

from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.errors import FormatError, FrontendError, InfeasibleError
from enos_compiler.frontend.data import Data
from enos_compiler.ir.network import Network
from enos_compiler.ir.verify import verify
from enos_compiler.search.architecture import Architecture
from enos_compiler.search.budget import BudgetObjective, Limit
from enos_compiler.search.checkpoint import Checkpoint, fingerprint, forget, load, save
from enos_compiler.search.energy import expected_energy
from enos_compiler.search.run import SearchSettings, search
from enos_compiler.search.train import Settings, Trainer
from enos_compiler.search.tune import TuneSettings, assigned_module, tune

OPERATORS = ("mac", "shift", "mf")


def settings(
    budget: str = "floor+0.5", epochs: int = 2, folder: Path | None = None
) -> SearchSettings:
    return SearchSettings(
        epochs=epochs,
        pretrain=0,
        budget=Budget.parse(budget),
        learning_rate=3e-3,
        architecture_rate=0.2,
        warm_up=0.2,
        seed=0,
        folder=folder,
        say=lambda _: None,
    )


def scores(network: Network) -> list[float]:
    return [s for layer in network.layers.values() for s in layer.scores or ()]


@pytest.fixture
def offered() -> Network:
    return offer(build(width=6), OPERATORS, (8, 4))


def test_scores_are_log_probabilities_of_the_arithmetic(offered: Network, data: Data) -> None:
    scored, section = search(offered, data, chip(), settings())
    scored = replace(scored, facts=scored.facts | {"scored"})
    verify(scored, "search")
    for layer in scored.layers.values():
        assert layer.scores is not None
        pairs = zip(layer.choices, layer.scores, strict=True)
        shares = {(c.operator, c.bits): exp(-s) for c, s in pairs}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    assert section["trained"]
    assert [record["epoch"] for record in section["epochs"]] == [1, 2]
    assert all(record["figures"]["expected_energy_pj"] > 0 for record in section["epochs"])


def test_scores_tell_the_all_but_impossible_apart(offered: Network) -> None:
    """exp(-300) and exp(-400) are both zero in float32."""
    architecture = Architecture(offered)
    rows = range(len(offered.layers["c2"].choices))
    distortions = {
        name: tuple(float(row) for row in range(len(layer.choices)))
        for name, layer in offered.layers.items()
    }
    architecture.expect(distortions, 100.0)
    wanted = [100.0 * row for row in rows]
    assert list(architecture.scores(offered.layers["c2"])) == pytest.approx(wanted, abs=1e-3)


def test_same_seed_same_numbers(offered: Network, data: Data) -> None:
    first, _ = search(offered, data, chip(), settings(epochs=1))
    torch.rand(7)
    second, _ = search(offered, data, chip(), settings(epochs=1))
    other, _ = search(offered, data, chip(), replace(settings(epochs=1), seed=1))
    assert scores(first) == scores(second)
    assert scores(first) != scores(other)
    assert torch.equal(first.tensor("c2_weight"), second.tensor("c2_weight"))


def test_smaller_budget_less_expected_energy(offered: Network, data: Data) -> None:
    energies = []
    for budget in ("floor+0.0", "unlimited"):
        _, section = search(offered, data, chip(), settings(budget, epochs=3))
        energies.append(section["epochs"][-1]["figures"]["expected_energy_pj"])
    assert energies[0] < 0.9 * energies[1]


def test_multiplier_rises_above_the_budget_and_falls_below(offered: Network) -> None:
    architecture = Architecture(offered)
    energy = expected_energy(offered, chip())
    now = float(energy(architecture.relaxed).detach())
    objective = BudgetObjective(architecture, Limit(energy, 0.9 * now, 0.2 * now), 0.0)
    for budget, multiplier in ((0.9 * now, 0.1), (1.05 * now, 0.05), (2 * now, 0.0)):
        objective.limit = replace(objective.limit, budget_pj=budget)
        objective.before_batch(0.5)
        objective.penalty()
        objective.after_batch()
        assert objective.state["lambda"] == pytest.approx(multiplier, abs=1e-4)


def test_budget_below_the_floor_is_refused_before_any_training(
    offered: Network, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "run", lambda _self: pytest.fail("it trained"))
    with pytest.raises(InfeasibleError, match="below the floor"):
        search(offered, data, chip(), settings("1pJ"))


def test_resumed_search_is_the_uninterrupted_one(
    offered: Network, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, section = search(offered, data, chip(), settings(epochs=3))
    epoch = Trainer._epoch
    seen = []

    def stop_in_the_third(self: Trainer, number: int, *rest: object) -> object:
        seen.append(number)
        if seen == [0, 1, 2]:
            raise KeyboardInterrupt
        return epoch(self, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_epoch", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        search(offered, data, chip(), settings(epochs=3, folder=tmp_path))
    resumed, again = search(offered, data, chip(), settings(epochs=3, folder=tmp_path))
    assert seen == [0, 1, 2, 2]
    assert scores(resumed) == scores(whole)
    assert again["epochs"] == section["epochs"]


def test_finished_phases_are_taken_up_and_said_so(
    offered: Network, data: Data, tmp_path: Path
) -> None:
    said: list[str] = []
    wanted = replace(settings(epochs=1, folder=tmp_path), say=said.append)
    first, section = search(offered, data, chip(), wanted)
    assert section["resumed"] is False
    again, section = search(offered, data, chip(), wanted)
    assert section["resumed"] is True
    assert scores(again) == scores(first)
    assert said[-1] == (
        f"search: nothing is left to train after {tmp_path / 'search.safetensors'}, which an "
        "interrupted run wrote; delete it to train again"
    )


def test_changed_labels_are_trained_afresh(offered: Network, data: Data, tmp_path: Path) -> None:
    search(offered, data, chip(), settings(epochs=1, folder=tmp_path))
    images, labels = data.train.tensors
    changed = replace(data, train=TensorDataset(images, 9 - labels), _opened={})
    afresh, section = search(offered, changed, chip(), settings(epochs=1, folder=tmp_path))
    assert section["resumed"] is False
    assert scores(afresh) == scores(search(offered, changed, chip(), settings(epochs=1))[0])


def _mean_square(y: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return y.square().mean()


def test_fingerprint_follows_the_data(offered: Network, data: Data) -> None:
    def mark(changed: Data) -> str:
        return fingerprint(offered, ["search"], changed)

    images, labels = data.train.tensors
    drawn = torch.get_rng_state()
    marks = [
        mark(data),
        mark(replace(data, train=TensorDataset(images, labels.flip(0)), _opened={})),
        mark(replace(data, train=TensorDataset(images * 2, labels), _opened={})),
        mark(replace(data, train=TensorDataset(images[:200], labels[:200]), _opened={})),
        mark(replace(data, validation=data.test, _opened={})),
        mark(replace(data, validation=None, _opened={})),
        mark(replace(data, batch_size=16)),
        mark(replace(data, loss=_mean_square)),
        mark(replace(data, loss=lambda y, _: y.mean())),
        mark(replace(data, loss=lambda y, _: y.sum())),
        mark(replace(data, loss=torch.nn.CrossEntropyLoss())),
        mark(replace(data, loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1))),
    ]
    assert len(set(marks)) == len(marks)
    copy = TensorDataset(images.clone(), labels.clone())
    assert mark(replace(data, train=copy, _opened={})) == marks[0]
    assert torch.equal(torch.get_rng_state(), drawn)


def test_fingerprint_of_augmented_data_is_the_same_each_time(offered: Network, data: Data) -> None:
    images, labels = data.train.tensors

    class Noisy:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            shift = random.random() + np.random.rand()  # noqa: NPY002
            return images[index] + torch.rand(()) + shift, labels[index]

    noisy = Data(train=Noisy())
    state = random.getstate()
    first = fingerprint(offered, [], noisy)
    assert random.getstate() == state
    random.random()
    torch.rand(3)
    assert fingerprint(offered, [], noisy) == first


def test_checkpoints_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / ".enos"
    forget(folder)
    save(folder / "search.safetensors", Checkpoint("mine", {"a": torch.ones(2)}))
    (folder / "notes.txt").write_text("mine")
    forget(folder)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    save(folder / "float.safetensors", Checkpoint("mine", {"a": torch.ones(2)}))
    forget(folder)
    assert not folder.exists()


def test_checkpoint_of_another_run_is_not_read(
    offered: Network, data: Data, tmp_path: Path
) -> None:
    path = tmp_path / "search.safetensors"
    save(path, Checkpoint("mine", {"a": torch.ones(2)}, {"history": []}))
    assert load(path, "other") is None
    found = load(path, "mine")
    assert found is not None
    assert found.tensors["a"].tolist() == [1.0, 1.0]
    changed = offered.with_layers(
        {"c2": replace(offered.layers["c2"], choices=offered.layers["c2"].choices[:3])}
    )
    assert fingerprint(offered, ["search"], data) != fingerprint(changed, ["search"], data)


def test_damaged_checkpoint_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "search.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(FormatError, match=r"search\.safetensors: cannot be read"):
        load(path, "any")


def test_untrained_network_is_trained_in_float_first(offered: Network, data: Data) -> None:
    said: list[str] = []
    wanted = replace(settings(epochs=1), pretrain=None, say=said.append)
    _, section = search(offered, data, chip(), wanted)
    assert "1 epochs in float come first" in said[0]
    assert len(section["float"]["epochs"]) == 1
    assert 0 <= section["float"]["test_accuracy"] <= 1


def test_fine_tuning_is_never_worse_than_its_start(offered: Network, data: Data) -> None:
    scored, _ = search(offered, data, chip(), settings(epochs=3))
    scored = replace(scored, facts=scored.facts | {"scored"})
    assigned = solve_assignment(scored, chip(), Budget.parse("floor+0.5"), 60.0).network
    tuned, section = tune(assigned, data, TuneSettings(2, 1e-3, 0, None, lambda _: None))
    assert section["validation_accuracy_after"] >= section["validation_accuracy_before"]
    assert len(section["epochs"]) == 2
    module = assigned_module(tuned).eval()
    x = tuned.example_inputs[0]
    assert not torch.equal(module(x), assigned_module(assigned).eval()(x))


def test_loss_that_is_not_finite_is_an_error(offered: Network, data: Data) -> None:
    broken = Data(train=data.train, loss=lambda y, _t: y.sum() * float("nan"), batch_size=32)
    with pytest.raises(FrontendError, match="the training loss became nan"):
        search(offered, broken, chip(), settings(epochs=1))


def test_last_batch_that_is_smaller_is_left_out(data: Data) -> None:
    trainer = Trainer(torch.nn.Identity(), data, Settings("t", 1, 0.1, 0, batch=100))
    batches = list(trainer._batches(torch.Generator().manual_seed(0)))
    assert [len(b) for b in batches] == [100, 100]
    assert len({i for b in batches for i in b}) == 200
