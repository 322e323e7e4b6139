# SPDX-License-Identifier: Apache-2.0
"""Noise of crossbars while the supernet trains: its size, its gradient, where there is none."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from small_network import build, chip, offer

from enos_compiler.assign.array_noise import ArrayNoise
from enos_compiler.assign.assignment import solve_assignment
from enos_compiler.assign.budget import Budget
from enos_compiler.assign.sensitivity import noise_of_arrays, score_layers
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import Target, load_target
from enos_compiler.frontend.data import Data
from enos_compiler.ir.network import Network
from enos_compiler.search.architecture import Architecture, SearchedWidths, class_of
from enos_compiler.search.energy import expected_energy, unscored
from enos_compiler.search.methods import MethodOptions
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.noise import chosen_noise, disturbed, standing_noise
from enos_compiler.search.parallel import normal_rows
from enos_compiler.search.run import SearchSettings, search
from enos_compiler.search.train import Trainer
from enos_compiler.search.tune import TuneSettings, assigned_module, tune


def settings(folder: Path | None = None, method: str = "single") -> SearchSettings:
    return SearchSettings(
        epochs=2,
        pretrain=0,
        budget=Budget.parse("floor+0.5"),
        learning_rate=3e-3,
        architecture_rate=0.1,
        warm_up=0.2,
        seed=0,
        folder=folder,
        say=lambda _: None,
        method=method,
        prior=0.0,
        tilted=False,
    )


@pytest.fixture(scope="module")
def crossbars(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """ISAAC with cells ten times as far off, so that even short sums are changed."""
    text = (files("enos_compiler.targets") / "isaac.yaml").read_text()
    assert text.count("sigma: {value: 0.01,") == 1
    path = tmp_path_factory.mktemp("chip") / "noisy.yaml"
    path.write_text(text.replace("sigma: {value: 0.01,", "sigma: {value: 0.1,"))
    return load_target(str(path))


@pytest.fixture(scope="module")
def on_crossbars(crossbars: Target) -> Network:
    """The small network with choices on them."""
    return attach_choices(build(width=6), crossbars, Request(("mac", "bw"), (8,), (8,)))[0]


@pytest.fixture(scope="module")
def measured(on_crossbars: Network, crossbars: Target) -> dict[str, tuple[float, ...]]:
    return noise_of_arrays(on_crossbars, images=8, cores=crossbars.cores)


def summed(architecture: Architecture, layer: str, *, grad: bool) -> torch.Tensor:
    """Return a layer's sum on the example inputs under an architecture."""
    module = NetworkModule(
        architecture.network, architecture.forms(), SearchedWidths(architecture)
    ).train()
    found: list[torch.Tensor] = []
    form = module.forms[layer]

    def watched(call: object) -> torch.Tensor:
        found.append(form(call))  # type: ignore[arg-type]
        return found[0]

    module.forms[layer] = watched
    with torch.set_grad_enabled(grad):
        module(architecture.network.example_inputs[0])
    return found[0]


def test_variance_is_the_mixture_s_share_of_each_channel_s() -> None:
    torch.manual_seed(0)
    channels = torch.tensor([0.1, 1.0, 30.0]).view(1, 3, 1, 1)
    total = channels * (torch.randn(40, 3, 30, 30) + 5)
    shares, noise = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 0.1, 0.4])
    added = disturbed(total, shares @ noise, 1) - total
    wanted = 0.11 * total.var((0, 2, 3))
    assert torch.allclose(added.var((0, 2, 3)), wanted, rtol=0.03)
    assert bool((added.mean((0, 2, 3)).abs() < 5 * (wanted / 36000).sqrt()).all())


def test_channels_lie_last_in_rows_and_lone_entries_share_one_deviation() -> None:
    torch.manual_seed(0)
    total = torch.randn(3000, 2) * torch.tensor([1.0, 10.0])
    added = disturbed(total, torch.tensor(0.25), -1) - total
    assert torch.allclose(added.std(0), 0.5 * total.std(0), rtol=0.05)
    line = torch.randn(1, 4000)
    added = disturbed(line, torch.tensor(0.25), -1) - line
    assert float(added.std()) == pytest.approx(0.5 * float(line.std()), rel=0.05)


def test_a_layer_of_the_supernet_has_its_classes_noise_in_training_alone(
    on_crossbars: Network,
) -> None:
    architecture = Architecture(on_crossbars)
    shares = architecture.probabilities["c2"].detach()
    noise = torch.linspace(0.0, 0.2, len(shares))
    torch.manual_seed(3)
    plain = summed(architecture, "c2", grad=True).detach()
    architecture.noise = {"c2": noise}
    torch.manual_seed(3)
    added = summed(architecture, "c2", grad=True).detach() - plain
    wanted = float(shares @ noise) * plain.var((0, 2, 3))
    assert float((added.var((0, 2, 3)) / wanted).mean()) == pytest.approx(1.0, rel=0.1)
    once = summed(architecture, "c2", grad=False)
    assert torch.equal(once, summed(architecture, "c2", grad=False))


def test_no_noise_leaves_sums_and_random_numbers_alone() -> None:
    total = torch.randn(4, 3, 5, 5)
    state = torch.get_rng_state()
    assert disturbed(total, torch.tensor(0.0), 1) is total
    assert torch.equal(torch.get_rng_state(), state)
    rows = {"a": (0, 1), "b": (1,)}
    assert list(standing_noise({"a": (0.0, 0.0), "b": (0.5, 0.1)}, rows)) == ["b"]


def test_the_gradient_lowers_the_probability_of_a_noisy_class(on_crossbars: Network) -> None:
    """Against a goal that the noise-free sum meets, noise is all that there is to learn from."""
    architecture = Architecture(on_crossbars)
    logits = architecture.free[list(architecture.spaces).index("c2")]
    with torch.no_grad():
        goal = summed(architecture, "c2", grad=False)
    noise = torch.zeros(len(logits))
    noise[0] = 0.2
    architecture.noise = {"c2": noise}
    architecture.draw()
    torch.manual_seed(1)
    (summed(architecture, "c2", grad=True) - goal).square().mean().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(logits.grad[0]) > 0
    assert bool((logits.grad[1:] < 0).all())


def test_the_cheapest_choice_of_a_class_gives_it_its_noise(
    on_crossbars: Network, crossbars: Target, measured: dict[str, tuple[float, ...]]
) -> None:
    energy = expected_energy(on_crossbars, crossbars)
    noise = standing_noise(measured, energy.standing)
    layer, classes = on_crossbars.layers["c2"], Architecture(on_crossbars).spaces["c2"].classes
    assert 0 < float(noise["c2"].min()) < 1
    for key, row, price, found in zip(
        classes, energy.standing["c2"], energy.class_pj["c2"], noise["c2"], strict=True
    ):
        assert class_of(layer.choices[row]) == key
        assert float(found) == pytest.approx(measured["c2"][row])
        assert float(price) > 0
    sizes = {dict(c.options)["rows"]: r for c, r in zip(layer.choices, measured["c2"], strict=True)}
    assert len(set(sizes.values())) > 1


def test_scores_and_search_read_the_same_noise(
    on_crossbars: Network,
    crossbars: Target,
    measured: dict[str, tuple[float, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = crossbars.cores
    found = score_layers(on_crossbars, images=8, seed=0, cores=cores, training=True)
    assert found.arrays == measured
    monkeypatch.setattr(ArrayNoise, "of", lambda *_: 0.0)
    without = score_layers(on_crossbars, images=8, seed=0, cores=cores, training=True)
    rows = zip(
        found.layers["c2"].scores or (),
        without.layers["c2"].scores or (),
        measured["c2"],
        strict=True,
    )
    for whole, rest, noise in rows:
        assert whole - rest == pytest.approx(found.gains["c2"] * noise, rel=1e-4, abs=1e-9)


def test_a_digital_chip_is_searched_as_without_noise(data: Data) -> None:
    offered = offer(build(width=4), ("mac", "shift", "mf"), (8,))
    first, _ = search(offered, data, chip(), settings())
    second, _ = search(offered, data, chip(), replace(settings(), noise=False))
    for name, tensor in first.graph.state_dict().items():
        assert torch.equal(tensor, second.graph.state_dict()[name])
    assert [one.scores for one in first.layers.values()] == [
        one.scores for one in second.layers.values()
    ]


def test_fine_tuning_has_the_noise_of_the_chosen_arrays(
    on_crossbars: Network,
    crossbars: Target,
    data: Data,
    measured: dict[str, tuple[float, ...]],
    tmp_path: Path,
) -> None:
    scored = replace(unscored(on_crossbars), facts=on_crossbars.facts | {"choices", "scored"})
    chosen = solve_assignment(scored, crossbars, Budget.parse("floor+0.5"), 60.0).network
    noise = chosen_noise(chosen, crossbars.cores)
    for name, layer in chosen.layers.items():
        assert layer.choice is not None
        row = on_crossbars.layers[name].choices.index(layer.choice)
        assert noise.get(name, 0.0) == pytest.approx(measured[name][row], rel=0.5)
    assert noise["c2"] > 0
    plain, noisy = assigned_module(chosen).eval(), assigned_module(chosen, noise).eval()
    x = chosen.example_inputs[0]
    with torch.no_grad():
        assert torch.equal(plain(x), plain(x))
        assert not torch.equal(noisy(x), noisy(x))

    def tuned(folder: Path | None, how: dict[str, float]) -> Network:
        return tune(chosen, data, TuneSettings(2, 1e-3, 0, folder, lambda _: None, how))[0]

    whole = tuned(tmp_path, noise)
    assert torch.equal(tuned(None, noise).tensor("c2_weight"), whole.tensor("c2_weight"))
    assert not torch.equal(tuned(None, {}).tensor("c2_weight"), whole.tensor("c2_weight"))


def test_both_sides_of_a_second_order_difference_have_the_same_noise(
    on_crossbars: Network, crossbars: Target, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's passes: training batch, batch aside, above, below, the weights' own."""
    drawn: list[torch.Tensor] = []

    def record(like: torch.Tensor) -> torch.Tensor:
        drawn.append(normal_rows(like))
        return drawn[-1].clone()

    monkeypatch.setattr("enos_compiler.search.noise.normal_rows", record)
    options = MethodOptions(second_order=True)
    wanted = replace(settings(method="bilevel"), method_options=options, warm_up=0.0, epochs=1)
    search(on_crossbars, data, crossbars, wanted)
    steps = (round(0.7 * 256)) // 32
    each = len(drawn) // (5 * steps)
    assert len(drawn) == 5 * steps * each
    passes = [drawn[i * each : (i + 1) * each] for i in range(5)]
    assert all(torch.equal(*pair) for pair in zip(passes[2], passes[3], strict=True))
    assert not torch.equal(passes[1][0], passes[2][0])


@pytest.mark.parametrize("method", ["single", "second order", "variational"])
def test_a_resumed_noisy_search_is_the_uninterrupted_one(
    on_crossbars: Network,
    crossbars: Target,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    wanted = settings(method="bilevel" if method == "second order" else method)
    if method == "second order":
        wanted = replace(wanted, method_options=MethodOptions(second_order=True))
    whole, _ = search(on_crossbars, data, crossbars, wanted)
    epoch, seen = Trainer._epoch, []

    def stop_in_the_second(self: Trainer, number: int, *rest: object) -> object:
        seen.append(number)
        if seen == [0, 1]:
            raise KeyboardInterrupt
        return epoch(self, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_epoch", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        search(on_crossbars, data, crossbars, replace(wanted, folder=tmp_path))
    torch.rand(3)
    resumed, _ = search(on_crossbars, data, crossbars, replace(wanted, folder=tmp_path))
    assert seen == [0, 1, 1]
    for name, tensor in whole.graph.state_dict().items():
        assert torch.equal(tensor, resumed.graph.state_dict()[name]), name
    if method == "single":
        silent, _ = search(on_crossbars, data, crossbars, replace(wanted, noise=False))
        assert not torch.equal(silent.tensor("c2_weight"), whole.tensor("c2_weight"))
