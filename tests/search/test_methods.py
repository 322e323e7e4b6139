# SPDX-License-Identifier: Apache-2.0
"""Every method on a few digits: under its budget, better than chance, resumed bit for bit."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_network import build, chip, offer

from enos_compiler.assign.assignment import price, solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.errors import FrontendError
from enos_compiler.frontend.data import Data
from enos_compiler.ir.network import Network
from enos_compiler.search.architecture import Architecture, class_of
from enos_compiler.search.budget import Limit
from enos_compiler.search.energy import expected_energy
from enos_compiler.search.evaluate import evaluate, module_predictor
from enos_compiler.search.methods import (
    METHODS,
    Bilevel,
    MethodOptions,
    Sequential,
    Single,
    Variational,
)
from enos_compiler.search.run import SearchSettings, search
from enos_compiler.search.train import Trainer
from enos_compiler.search.tune import assigned_module, settle

BUDGET = "floor+0.4"


def settings(method: str, folder: Path | None = None, epochs: int = 3) -> SearchSettings:
    return SearchSettings(
        epochs=epochs,
        pretrain=2,
        budget=Budget.parse(BUDGET),
        learning_rate=3e-3,
        architecture_rate=0.2,
        warm_up=0.2,
        seed=0,
        folder=folder,
        say=lambda _: None,
        method=method,
        samples=2,
    )


@pytest.fixture
def offered() -> Network:
    return offer(build(width=8), ("mac", "shift", "mf", "ef"), (8, 4))


def scores(network: Network) -> list[float]:
    return [s for layer in network.layers.values() for s in layer.scores or ()]


def accuracy(network: Network, data: Data) -> float:
    module = assigned_module(network)
    settle(module, data, None)
    found = evaluate(module_predictor(module), data, "validation")
    assert found is not None
    return found.fraction


@pytest.mark.parametrize("method", METHODS)
def test_method_stays_under_its_budget_and_beats_random_assignment(
    offered: Network, data: Data, method: str
) -> None:
    """Before any fine-tuning, against the mean of random networks under the same budget."""
    scored, section = search(offered, data, chip(), settings(method, epochs=5))
    assert section["method"] == method
    ours = solve_assignment(scored, chip(), Budget.parse(BUDGET), 60.0)
    assert price(ours.network, chip()).energy_pj <= ours.summary["budget_pj"]
    rng = random.Random(1)
    rivals = []
    for _ in range(6):
        layers = {
            name: replace(layer, scores=tuple(rng.random() for _ in layer.choices))
            for name, layer in scored.layers.items()
        }
        rival = solve_assignment(
            scored.with_layers(layers), chip(), Budget.parse(BUDGET), 60.0
        ).network
        rivals.append(accuracy(rival, data))
    assert accuracy(ours.network, data) > sum(rivals) / len(rivals)


@pytest.mark.parametrize("method", [*METHODS, "second order", "random order", "tilted"])
def test_resumed_method_is_the_uninterrupted_one(
    offered: Network, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Stopped in its third epoch, in the middle of a sweep over the layers."""
    wanted = {
        "second order": replace(
            settings("bilevel"), method_options=MethodOptions(second_order=True)
        ),
        "random order": replace(
            settings("sequential"), method_options=MethodOptions(order="random")
        ),
        "tilted": replace(settings("single"), tilted=True, prior=20.0),
    }.get(method, settings(method))
    whole, section = search(offered, data, chip(), wanted)
    steps: list[int] = []
    backward = Trainer.backward

    def stop(self: Trainer, *chosen: object, **options: object) -> float:
        if self.settings.name == "search" and len(self.history) == 2 and not steps:
            steps.append(1)
            raise KeyboardInterrupt
        return backward(self, *chosen, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "backward", stop)
    with pytest.raises(KeyboardInterrupt):
        search(offered, data, chip(), replace(wanted, folder=tmp_path))
    torch.rand(5)
    resumed, again = search(offered, data, chip(), replace(wanted, folder=tmp_path))
    assert again["resumed"] is True
    assert scores(resumed) == scores(whole)
    assert again["epochs"] == section["epochs"]
    for name, tensor in whole.graph.state_dict().items():
        assert torch.equal(tensor, resumed.graph.state_dict()[name]), name


def test_other_options_keep_the_checkpoint_of_the_first_run(
    offered: Network, data: Data, tmp_path: Path
) -> None:
    said: list[str] = []
    first, _ = search(offered, data, chip(), settings("single", tmp_path, epochs=1))
    other = replace(settings("single", tmp_path, epochs=2), say=said.append)
    search(offered, data, chip(), other)
    assert (
        "search: search.safetensors is of a run with other options, data or network; it stays as "
        "search.other1.safetensors, and the training starts afresh"
    ) in said
    (tmp_path / "search.other1.safetensors").replace(tmp_path / "search.safetensors")
    again, section = search(offered, data, chip(), settings("single", tmp_path, epochs=1))
    assert section["resumed"] is True
    assert scores(again) == scores(first)


def _limit(network: Network, architecture: Architecture) -> Limit:
    energy = expected_energy(network, chip())
    now = float(energy(architecture.relaxed).detach())
    return Limit(energy, 0.9 * now, 0.2 * now)


def test_tilt_brings_the_expected_energy_to_the_budget_and_leaves_scores(offered: Network) -> None:
    architecture = Architecture(offered)
    limit = _limit(offered, architecture)
    before = [architecture.scores(layer) for layer in offered.layers.values()]
    method = Single(architecture, limit, 0.0)
    method.tilted = True
    method.before_batch(0.5)
    assert method.penalty() is None
    expected = float(limit.energy(architecture.relaxed).detach())
    assert expected == pytest.approx(limit.budget_pj, rel=1e-4)
    assert method.figures()["lambda"] > 0
    assert [architecture.scores(layer) for layer in offered.layers.values()] == before
    method.limit = replace(limit, budget_pj=10 * limit.budget_pj)
    method.before_batch(0.5)
    assert method.figures()["lambda"] == 0


@pytest.mark.parametrize("order", ["energy", "forward", "random"])
def test_sequential_relaxes_each_layer_once_a_sweep(offered: Network, order: str) -> None:
    architecture = Architecture(offered)
    options = MethodOptions(order=order)  # type: ignore[arg-type]
    method = Sequential(architecture, _limit(offered, architecture), 0.0, options)
    sweeps = []
    for _ in range(2):
        visited = []
        for _ in method.open:
            method.before_batch(0.5)
            shares = architecture.probabilities
            relaxed = [n for n in method.open if shares[n].requires_grad]
            assert len(relaxed) == 1
            assert all(float(shares[n].max()) == 1 for n in method.open if n not in relaxed)
            visited += relaxed
            method.after_batch()
        sweeps.append(visited)
    assert all(Counter(sweep) == Counter(method.open) for sweep in sweeps)
    if order == "forward":
        assert sweeps[0] == [n for n in offered.layers if n in method.open]
    if order == "energy":
        prices = {n: float(method.limit.energy.class_pj[n].mean()) for n in method.open}
        assert sweeps[0] == sorted(method.open, key=lambda n: -prices[n])


def test_likeliest_of_equals_is_the_most_precise_mac(offered: Network) -> None:
    architecture = Architecture(offered)
    for name, space in architecture.spaces.items():
        best = space.classes[int(architecture.likeliest(name).argmax())]
        assert best.operator == "mac"
        assert best.bits == (8, 8, 8)


def test_variational_samples_follow_the_posterior(offered: Network) -> None:
    """Frequencies of 400 drawings, training's and the posterior's, within four deviations."""
    architecture = Architecture(offered)
    with torch.no_grad():
        architecture.free[1].copy_(torch.linspace(-1.5, 1.5, len(architecture.free[1])))
    method = Variational(architecture, _limit(offered, architecture), 0.0, MethodOptions())
    counts = torch.zeros(2, len(architecture.free[1]))
    for number in range(400):
        method.before_batch(0.5)
        counts[0] += architecture.probabilities["c2"].detach()
        counts[1] += method.sample(number)["c2"]
        method.after_batch()
    shares = architecture.relaxed.probabilities["c2"].detach()
    deviation = (shares * (1 - shares) / 400).sqrt()
    assert ((counts / 400 - shares).abs() < 4 * deviation).all()


def test_a_choice_out_of_reach_leaves_the_gradients_finite(offered: Network) -> None:
    """A probability that is 0 in float32, as strong priors and tilts make them."""
    architecture = Architecture(offered)
    with torch.no_grad():
        architecture.free[1][0] = -1000.0
    architecture.draw()
    method = Variational(architecture, _limit(offered, architecture), 0.0, MethodOptions())
    method.before_batch(0.5)
    penalty = method.penalty()
    assert penalty is not None
    drawn = torch.stack([p.square().sum() for p in architecture.probabilities.values()]).sum()
    (penalty + drawn).backward()  # type: ignore[no-untyped-call]
    assert float(architecture.relaxed.probabilities["c2"][0].detach()) == 0.0
    for logits in architecture.free:
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all())


def test_variational_gradient_reaches_candidates_that_were_not_drawn(
    offered: Network, data: Data
) -> None:
    _, section = search(offered, data, chip(), settings("variational", epochs=1))
    assert len(section["posterior"]) == 2
    energies = [point["energy_pj"] for point in section["posterior"]]
    assert energies == sorted(energies)
    assert section["posterior"][0]["best"] is True
    assert 0 < section["epochs"][0]["figures"]["entropy"] < 1


def test_bilevel_never_shows_the_weights_what_the_architecture_sees(
    offered: Network, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, set[int]] = {True: set(), False: set()}
    backward = Trainer.backward

    def watch(self: Trainer, chosen: list[int], *, penalty: bool = True) -> float:
        if self.settings.name == "search":
            seen[penalty] |= set(chosen)
        return backward(self, chosen, penalty=penalty)

    monkeypatch.setattr(Trainer, "backward", watch)
    search(offered, data, chip(), settings("bilevel"))
    assert seen[True]
    assert seen[False]
    assert not seen[True] & seen[False]


def test_second_order_gradient_is_the_derivative_through_the_next_step() -> None:
    """On numbers whose answer is known: L_train = (w - a)^2 and L_valid = w^2."""

    class Toy:
        def __init__(self) -> None:
            self.module = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor([3.0]))])
            self.settings = type("S", (), {"learning_rate": 0.1})()

        def backward(self, chosen: list[int], **_: bool) -> float:
            w, a = self.module[0], next(iter(method.architecture.parameters()))
            w.grad = a.grad = None
            loss = (w - a).square() if chosen == [0] else w.square()
            (loss.sum() + 0 * a.sum()).backward()
            return float(loss.detach())

    a = torch.nn.Parameter(torch.tensor([1.0]))
    method = Bilevel.__new__(Bilevel)
    method.architecture = type("A", (), {"parameters": lambda _: [a], "draw": lambda _: None})()
    method._unrolled(Toy(), [0], [1])  # type: ignore[arg-type]
    stepped = 3.0 - 0.1 * 2 * (3.0 - 1.0)
    assert a.grad is not None
    assert float(a.grad) == pytest.approx(2 * stepped * 0.1 * 2, rel=1e-3)


def test_loss_that_is_not_finite_names_the_layer_and_keeps_the_checkpoint(
    offered: Network, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Trainer.backward

    def poison(self: Trainer, chosen: list[int], *, penalty: bool = True) -> float:
        if self.settings.name == "search" and len(self.history) == 1:
            with torch.no_grad():
                self.module.get_parameter("c2_weight").fill_(float("nan"))
        return backward(self, chosen, penalty=penalty)

    monkeypatch.setattr(Trainer, "backward", poison)
    with pytest.raises(FrontendError) as caught:
        search(offered, data, chip(), settings("single", tmp_path))
    assert str(caught.value) == (
        "phase search, epoch 2: the training loss became nan, first not finite at layer c2\n"
        "  try: check the training data and the loss; scale the inputs to about -1..1, or lower "
        f"the learning rate; the last good state is in {tmp_path / 'search.safetensors'}"
    )
    assert (tmp_path / "search.safetensors").is_file()


def test_front_is_drawn_from_one_search(offered: Network, data: Data) -> None:
    _, section = search(offered, data, chip(), replace(settings("single", epochs=1), front=3))
    energies = [point["energy_pj"] for point in section["front"]]
    assert [point["budget"] for point in section["front"]] == ["floor+0", "floor+0.5", "floor+1"]
    assert energies == sorted(energies)
    assert energies[0] < energies[-1]


def test_run_log_and_picture_show_every_epoch(offered: Network, data: Data, tmp_path: Path) -> None:
    import json
    from xml.etree import ElementTree as ET

    _, section = search(offered, data, chip(), settings("single", tmp_path))
    lines = (tmp_path / "search.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == section["epochs"]
    for shares in section["epochs"][-1]["shares"].values():
        assert sum(shares.values()) == pytest.approx(1, abs=0.05)
    root = ET.fromstring((tmp_path / "search.svg").read_text())
    names = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"c2", "c3"} <= names


def test_bfloat16_trains_too(offered: Network, data: Data) -> None:
    wanted = replace(settings("single", epochs=1), bf16=True)
    scored, section = search(offered, data, chip(), wanted)
    plain, _ = search(offered, data, chip(), replace(wanted, bf16=False))
    assert section["epochs"][0]["loss"] < 3
    assert scores(scored) != scores(plain)


def test_classes_of_a_choice_keep_core_operator_widths(offered: Network) -> None:
    choice = offered.layers["c2"].choices[0]
    assert tuple(class_of(choice)) == (choice.core, choice.operator, choice.bits, 0)
