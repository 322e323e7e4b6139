# SPDX-License-Identifier: Apache-2.0
"""Networks that draw: compiled beside other cores, refused where no core samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnxruntime import GraphOptimizationLevel
from torch import Tensor, nn

import enos_compiler
from enos_compiler.errors import EnosError, InfeasibleError, RefusalError
from enos_compiler.nn import GaussianMixtureSampler, MixtureDensitySampler
from enos_compiler.semantics.reference import run

WEIGHTS = torch.tensor([0.6, 0.4])
MEANS = torch.tensor([[1.0, 0.0], [-1.5, 1.0]])
COVARIANCES = torch.tensor([[[1.0, 0.5], [0.5, 1.0]], [[0.5, -0.2], [-0.2, 0.8]]])


class Constant(nn.Module):
    """A sampler alone."""

    def __init__(self, count: int = 60, components: int = 2) -> None:
        super().__init__()
        self.count = count
        repeats = components // 2
        self.mixture = GaussianMixtureSampler(
            WEIGHTS.repeat(repeats) / repeats,
            MEANS.repeat(repeats, 1),
            COVARIANCES.repeat(repeats, 1, 1),
        )

    def forward(self, start: Tensor) -> Tensor:
        drawn: Tensor = self.mixture(self.count, start)
        return drawn


class Head(nn.Module):
    """A mixture density head behind a layer; the draws' mean is a second result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.logits, self.means = nn.Linear(16, 2), nn.Linear(16, 4)
        self.deviations = nn.Linear(16, 4)
        self.draw = MixtureDensitySampler(2, 2, 40)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        spread = self.deviations(h).clamp(-1.0, 0.5)
        drawn: Tensor = self.draw(self.logits(h), self.means(h), spread)
        return drawn


def test_torch_samples_exactly_and_afresh() -> None:
    torch.manual_seed(0)
    sampler = Constant().mixture
    drawn = sampler(20_000)
    assert drawn.shape == (20_000, 2)
    mean = WEIGHTS @ MEANS
    assert (drawn.mean(0) - mean).abs().max() < 0.05
    assert not torch.equal(sampler(5), sampler(5))
    assert Head()(torch.randn(3, 8)).shape == (3, 40, 2)


def test_a_sampler_alone_compiles_for_mc2ram(tmp_path: Path) -> None:
    compiled = enos_compiler.compile(Constant(), (torch.ones(1, 1),), target="mc2ram")
    report = compiled.report
    assert [(row["operator"], row["core"]) for row in report["layers"]] == [("sample", "sampler")]
    assert report["checks"]["onnx_max_steps"] == 0
    assert report["checks"]["simulator_max_steps"] == 0
    assert report["checks"]["events_equal"]
    (figures,) = report["sections"]["sample"].values()
    assert 0.2 < figures["acceptance"] < 0.5
    assert 0 < figures["effective_samples"] <= 60
    energy = report["layers"][0]["energy_pj"]
    assert figures["energy_per_effective_sample_pj"] == pytest.approx(
        energy / figures["effective_samples"]
    )
    compiled.save(tmp_path)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    (drawn,) = session.run(None, {"start": np.ones((2, 1), np.float32)})
    assert drawn.shape == (2, 60, 2)
    assert np.abs(drawn.mean((0, 1)) - (WEIGHTS @ MEANS).numpy()).max() < 1.0


def test_whoever_runs_the_file_may_feed_fresh_random_numbers() -> None:
    """The file then gives what the integers give with them, optimised or not."""
    compiled = enos_compiler.compile(Constant(), (torch.ones(1, 1),), target="mc2ram", check="none")
    (layer,) = compiled.network.layers.values()
    integers = layer.quantized
    assert integers is not None
    fresh = {
        name: np.random.default_rng(5).permutation(integers.tensors[name])
        for name in ("steps", "uniforms")
    }
    changed = replace(integers, tensors={**integers.tensors, **fresh})
    network = compiled.network.with_layers({layer.name: replace(layer, quantized=changed)})
    start = np.ones((2, 1), np.float32)
    fed = {f"{layer.name}/{name}": array.astype(np.int32) for name, array in fresh.items()}
    (right,), (old,) = run(network, (start,)), run(compiled.network, (start,))
    assert not np.array_equal(right, old)
    for level in (GraphOptimizationLevel.ORT_DISABLE_ALL, GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        session = ort.InferenceSession(compiled.onnx.SerializeToString(), options)
        assert [i.name for i in session.get_inputs()] == ["start"]
        assert {i.name for i in session.get_overridable_initializers()} == set(fed)
        (found,) = session.run(None, {"start": start, **fed})
        assert np.array_equal(found, right)


def test_a_head_compiles_beside_other_cores() -> None:
    torch.manual_seed(0)
    compiled = enos_compiler.compile(Head(), (torch.randn(16, 8),), target="hybrid")
    report = compiled.report
    cores = {row["core"] for row in report["layers"]}
    assert "sampler" in cores
    assert len(cores) >= 2
    assert report["checks"]["onnx_max_steps"] == 0
    assert report["checks"]["simulator_max_steps"] == 0
    (figures,) = report["sections"]["sample"].values()
    spread = figures["uncertainty"]
    assert spread["ideal device"]["sd"] == pytest.approx(spread["exact"]["sd"], rel=0.35)


def test_without_a_sampling_core_the_layer_is_refused_with_every_reason() -> None:
    with pytest.raises(RefusalError) as caught:
        enos_compiler.compile(Constant(), (torch.ones(1, 1),), target="eyeriss")
    assert "only a sampling core draws from mixtures" in str(caught.value)
    assert "mc2ram" in str(caught.value)


def test_more_components_than_the_array_holds_are_refused_with_the_sizes() -> None:
    with pytest.raises(RefusalError, match="need 2 rows and 768 columns, an array has 16 x 512"):
        enos_compiler.compile(Constant(components=64), (torch.ones(1, 1),), target="mc2ram")


def test_a_head_that_reaches_too_far_names_the_layer() -> None:
    head = Head()
    with torch.no_grad():
        head.means.weight *= 2000
    with pytest.raises(InfeasibleError, match=r"layer draw\w*: state_bits: means from"):
        enos_compiler.compile(head, (torch.randn(16, 8),), target="hybrid")


def test_what_is_no_mixture_is_refused_where_it_is_made() -> None:
    with pytest.raises(EnosError, match=r"weights: .*sum 1\.2"):
        GaussianMixtureSampler(torch.tensor([0.6, 0.6]), MEANS, COVARIANCES)
    bad = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
    with pytest.raises(EnosError, match=r"covariances\[1\]: .*eigenvalue -1"):
        GaussianMixtureSampler(WEIGHTS, MEANS, bad)
    with pytest.raises(EnosError, match="0 components"):
        MixtureDensitySampler(0, 2, 5)
